//! From tokens per second to sessions, days and mixes of classes.

use serde::{Deserialize, Serialize};

use super::ServingError;
use super::constants::DispatchLoss;
use crate::number::{above_zero, at_least_zero, refuse_unless};

const HOURS: usize = 24;

/// How much the sessions of a service ask for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// Tokens per second that a session is allowed.
    pub limit_tokens_per_second: f64,
    /// Share of its limit that a session uses on average over a day, above 0 and at most 1.
    pub share_used: f64,
    /// Demand at the peak over its mean, at least 1.
    pub peak_factor: f64,
}

impl Sessions {
    /// Tokens per second to hold ready for a session: its limit as far as it is used, at the peak.
    ///
    /// # Errors
    /// Impossible numbers.
    pub fn tokens_per_second_each(&self) -> Result<f64, ServingError> {
        above_zero("the limit of a session", self.limit_tokens_per_second)?;
        let (used, peak) = (self.share_used, self.peak_factor);
        let is_share = used > 0.0 && used <= 1.0;
        let what = "the share of its limit that a session uses";
        refuse_unless(is_share, what, used, "above zero and at most 1")?;
        let is_factor = peak >= 1.0 && peak.is_finite();
        refuse_unless(is_factor, "the peak factor", peak, "at least 1 and finite")?;
        Ok(self.limit_tokens_per_second * self.share_used * self.peak_factor)
    }

    /// Sessions that so many tokens per second carry.
    ///
    /// # Errors
    /// Impossible numbers.
    pub fn carried_by(&self, tokens_per_second: f64) -> Result<f64, ServingError> {
        above_zero("tokens per second", tokens_per_second)?;
        Ok(tokens_per_second / self.tokens_per_second_each()?)
    }

    /// Tokens per second that so many sessions need.
    ///
    /// # Errors
    /// Impossible numbers.
    pub fn needed_for(&self, sessions: f64) -> Result<f64, ServingError> {
        above_zero("sessions", sessions)?;
        Ok(sessions * self.tokens_per_second_each()?)
    }
}

/// Tokens per second that are asked for in each hour of a day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct DailyDemand {
    hours: [f64; HOURS],
}

impl DailyDemand {
    /// A day of 24 hours.
    ///
    /// # Errors
    /// Another number of hours, numbers below zero, or no demand at all.
    pub fn new(hours: &[f64]) -> Result<Self, ServingError> {
        let count = hours.len();
        refuse_unless(count == HOURS, "the number of hours", count as f64, "24")?;
        for &hour in hours {
            at_least_zero("the demand of an hour", hour)?;
        }
        above_zero("the demand of a day", hours.iter().sum())?;
        let hours = std::array::from_fn(|hour| hours[hour]);
        Ok(Self { hours })
    }

    /// Demand of the busiest hour.
    #[must_use]
    pub fn peak(&self) -> f64 {
        self.hours.iter().copied().fold(0.0, f64::max)
    }

    /// Demand of the busiest hour over the mean.
    #[must_use]
    pub fn peak_factor(&self) -> f64 {
        self.peak() / (self.hours.iter().sum::<f64>() / HOURS as f64)
    }
}

impl TryFrom<Vec<f64>> for DailyDemand {
    type Error = ServingError;

    fn try_from(hours: Vec<f64>) -> Result<Self, ServingError> {
        Self::new(&hours)
    }
}

impl From<DailyDemand> for Vec<f64> {
    fn from(demand: DailyDemand) -> Self {
        demand.hours.to_vec()
    }
}

/// Tokens per second of several classes that serve one queue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// If handing requests to the classes costs as much as has been measured.
    pub low: f64,
    /// If it costs nothing: the sum of the classes.
    pub high: f64,
}

/// Tokens per second of classes together, from those of each: replicas do not wait for each other,
/// so they add up, less what handing out requests costs. One class alone loses nothing.
#[must_use]
pub fn mixed_tokens_per_second(of_classes: &[f64], loss: &DispatchLoss) -> Mix {
    let sum: f64 = of_classes.iter().sum();
    let classes = of_classes.iter().filter(|rate| **rate > 0.0).count();
    let (least, most) = match classes {
        0 | 1 => (0.0, 0.0),
        _ => (loss.low, loss.high),
    };
    Mix {
        low: sum * (1.0 - most),
        high: sum * (1.0 - least),
    }
}
