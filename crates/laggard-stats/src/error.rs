//! Why a statistic could not be computed. Written out by hand: this crate has no dependencies.

use std::error::Error;
use std::fmt;

/// Input that a statistic refuses.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum StatsError {
    /// A value is NaN or infinite.
    NotFinite {
        /// Its position in the slice.
        index: usize,
    },
    /// Fewer values than the statistic needs.
    TooShort {
        /// How many it needs.
        needed: usize,
        /// How many it was given.
        got: usize,
    },
    /// Two slices that belong together differ in length.
    LengthMismatch {
        /// Length of the first.
        left: usize,
        /// Length of the second.
        right: usize,
    },
    /// A parameter outside its range.
    OutOfRange {
        /// Name of the parameter.
        name: &'static str,
        /// The refused value.
        value: f64,
        /// The range that is accepted.
        allowed: &'static str,
    },
}

impl fmt::Display for StatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotFinite { index } => write!(f, "value {index} is not a finite number"),
            Self::TooShort { needed, got } => {
                write!(f, "{got} values are too few, at least {needed} are needed")
            }
            Self::LengthMismatch { left, right } => {
                write!(
                    f,
                    "series of {left} and {right} values must have the same length"
                )
            }
            Self::OutOfRange {
                name,
                value,
                allowed,
            } => {
                write!(f, "{name} is {value}, but must be {allowed}")
            }
        }
    }
}

impl Error for StatsError {}

/// Refuses a slice with fewer than `needed` values or with one that is not finite.
pub(crate) fn check(values: &[f64], needed: usize) -> Result<(), StatsError> {
    if values.len() < needed {
        return Err(StatsError::TooShort {
            needed,
            got: values.len(),
        });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(StatsError::NotFinite { index }),
        None => Ok(()),
    }
}

/// Refuses a probability outside [0, 1].
pub(crate) fn check_probability(name: &'static str, value: f64) -> Result<(), StatsError> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(StatsError::OutOfRange {
        name,
        value,
        allowed: "between 0 and 1",
    })
}

/// Refuses a confidence level outside (0, 1).
pub(crate) fn check_confidence(value: f64) -> Result<(), StatsError> {
    if value > 0.0 && value < 1.0 {
        return Ok(());
    }
    Err(StatsError::OutOfRange {
        name: "confidence",
        value,
        allowed: "above 0 and below 1, such as 0.95",
    })
}
