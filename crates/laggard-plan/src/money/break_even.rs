//! The lease price at which training elsewhere is as good as training here.

use serde::{Deserialize, Serialize};

use super::{MoneyError, Span};
use crate::number::{above_zero, at_least_zero, refuse_unless};

/// Where else the same job could train.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Rent of a device there, dollars per hour.
    pub dollars_per_device_hour: Span,
    /// Tokens per second that a device there adds to the job.
    pub tokens_per_second: f64,
}

/// The lease price of a device, dollars per hour, above which its owner trains more by leasing it
/// out and renting elsewhere for the money than by training on it.
///
/// L = P t / T + c. Here t are the tokens per second that the device adds to the job here, T those
/// that a device elsewhere adds, and P its rent, so that P t / T buys the same tokens; c is what
/// leasing costs the owner more than training does (power, mostly), below zero if it costs less.
/// What the device costs either way, its price among it, makes no difference.
///
/// # Errors
/// Impossible numbers.
pub fn break_even_lease(
    tokens_per_second: f64,
    elsewhere: &Elsewhere,
    extra_cost_of_leasing: f64,
) -> Result<Span, MoneyError> {
    at_least_zero("tokens per second of a device", tokens_per_second)?;
    above_zero(
        "tokens per second of a device elsewhere",
        elsewhere.tokens_per_second,
    )?;
    at_least_zero("the rent elsewhere", elsewhere.dollars_per_device_hour.low)?;
    at_least_zero("the rent elsewhere", elsewhere.dollars_per_device_hour.high)?;
    let is_finite = extra_cost_of_leasing.is_finite();
    refuse_unless(
        is_finite,
        "the extra cost of leasing",
        extra_cost_of_leasing,
        "finite",
    )?;
    let share = tokens_per_second / elsewhere.tokens_per_second;
    let price = elsewhere.dollars_per_device_hour.times(share);
    Ok(price.plus(Span::exactly(extra_cost_of_leasing)))
}
