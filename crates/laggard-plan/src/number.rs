//! Numbers that cannot be.

use serde::{Deserialize, Deserializer, de::Error};
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

/// Reads a number of a file that must be above zero and finite.
pub(crate) fn read_above_zero<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    above_zero("the number", f64::deserialize(from)?).map_err(D::Error::custom)
}

/// Reads a number of a file that must be at least zero and finite.
pub(crate) fn read_at_least_zero<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    at_least_zero("the number", f64::deserialize(from)?).map_err(D::Error::custom)
}

/// Reads a share of a file that is above 0 and at most 1.
pub(crate) fn read_share<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let value = f64::deserialize(from)?;
    let holds = value > 0.0 && value <= 1.0;
    let share = refuse_unless(holds, "the share", value, "above zero and at most 1");
    share.map(Some).map_err(D::Error::custom)
}

/// Reads a number that may be absent, and else must be at least zero and finite.
pub(crate) fn read_maybe<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    read_at_least_zero(from).map(Some)
}
