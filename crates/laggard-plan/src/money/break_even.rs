//! Prices at which one use of a device is as good as another: lease against training elsewhere,
//! serving against lease, and which class to let first.

use serde::{Deserialize, Serialize};

use super::{MoneyError, Span};
use crate::number::{above_zero, at_least_zero, refuse_unless};

const SECONDS_PER_HOUR: f64 = 3600.0;

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

/// The price of a million tokens, dollars, at which serving on a device earns its owner what a
/// lease does: L 1e6 / (3600 s u), with s tokens per second, of which the share u is sold over a
/// day.
///
/// # Errors
/// Impossible numbers.
pub fn break_even_token_price(
    lease_dollars_per_device_hour: Span,
    tokens_per_second: f64,
    share_sold: f64,
) -> Result<Span, MoneyError> {
    at_least_zero("the lease of a device", lease_dollars_per_device_hour.low)?;
    at_least_zero("the lease of a device", lease_dollars_per_device_hour.high)?;
    above_zero("tokens per second of a device", tokens_per_second)?;
    let is_share = share_sold > 0.0 && share_sold <= 1.0;
    let allowed = "above zero and at most 1";
    refuse_unless(is_share, "the share of tokens sold", share_sold, allowed)?;
    let millions_per_hour = tokens_per_second * share_sold * SECONDS_PER_HOUR / 1e6;
    Ok(lease_dollars_per_device_hour.times(1.0 / millions_per_hour))
}

/// What a device of a class does in either use.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassRates {
    /// Tokens per second that it adds to a job.
    pub training_tokens_per_second: f64,
    /// Tokens per second that it serves.
    pub serving_tokens_per_second: f64,
    /// What a lease of it brings.
    pub lease_dollars_per_device_hour: f64,
}

/// In which order to let classes, as indices: first the class whose lease costs least training for
/// what it brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseOrder {
    /// If a lease is paid by the tokens that are served.
    pub paid_per_token: Vec<usize>,
    /// If a lease is paid by the hour.
    pub paid_per_hour: Vec<usize>,
}

impl LeaseOrder {
    /// Whether how a lease is paid decides which class to let first.
    #[must_use]
    pub fn depends_on_payment(&self) -> bool {
        self.paid_per_token.first() != self.paid_per_hour.first()
    }
}

/// In which order to let classes under either kind of payment. Equal classes keep their order.
///
/// # Errors
/// Impossible numbers.
pub fn lease_order(classes: &[ClassRates]) -> Result<LeaseOrder, MoneyError> {
    for class in classes {
        above_zero(
            "tokens trained per second",
            class.training_tokens_per_second,
        )?;
        at_least_zero("tokens served per second", class.serving_tokens_per_second)?;
        at_least_zero("the lease of a device", class.lease_dollars_per_device_hour)?;
    }
    let by = |brings: fn(&ClassRates) -> f64| {
        let worth = |class: &usize| {
            let class = &classes[*class];
            brings(class) / class.training_tokens_per_second
        };
        let mut order: Vec<usize> = (0..classes.len()).collect();
        order.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
        order
    };
    Ok(LeaseOrder {
        paid_per_token: by(|class| class.serving_tokens_per_second),
        paid_per_hour: by(|class| class.lease_dollars_per_device_hour),
    })
}
