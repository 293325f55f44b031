//! Numbers that cannot be.

use thiserror::Error;

/// A number outside of what it may be.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{what} is {value}, but must be {allowed}")]
pub struct NumberError {
    /// Which number.
    pub what: String,
    /// The number.
    pub value: f64,
    /// What it may be.
    pub allowed: &'static str,
}

/// Refuses a number unless `holds`.
pub(crate) fn refuse_unless(
    holds: bool,
    what: &str,
    value: f64,
    allowed: &'static str,
) -> Result<f64, NumberError> {
    match holds {
        true => Ok(value),
        false => Err(NumberError {
            what: what.to_owned(),
            value,
            allowed,
        }),
    }
}

/// Refuses a number that is not above zero and finite.
pub(crate) fn above_zero(what: &str, value: f64) -> Result<f64, NumberError> {
    let holds = value > 0.0 && value.is_finite();
    refuse_unless(holds, what, value, "above zero and finite")
}

/// Refuses a number that is below zero or not finite.
pub(crate) fn at_least_zero(what: &str, value: f64) -> Result<f64, NumberError> {
    let holds = value >= 0.0 && value.is_finite();
    refuse_unless(holds, what, value, "at least zero and finite")
}
