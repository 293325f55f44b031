//! Published failure rates.

use laggard_specs::Confidence;
use laggard_types::Seconds;
use serde::{Deserialize, Serialize};

use super::SECONDS_PER_YEAR;
use crate::error::SimulateError;

const TABLE: &str = include_str!("../../data/failure_rates.toml");
const SECONDS_PER_DAY: f64 = 86_400.0;

/// Failures of a number of accelerators over a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureRate {
    /// Short unique name.
    pub id: String,
    /// Id of the accelerator.
    pub accelerator: String,
    /// How many of them were observed.
    pub accelerators: u32,
    /// For how long.
    pub days: f64,
    /// Failures in that time.
    pub failures: f64,
    /// What was counted.
    pub counts: String,
    /// How far the entry is to be trusted.
    pub confidence: Confidence,
    /// Where it is published.
    pub source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(rename = "rate")]
    rates: Vec<FailureRate>,
}

/// The published rates that laggard knows.
///
/// # Errors
/// None in a released laggard: its tests load them.
pub(super) fn failure_rates() -> Result<Vec<FailureRate>, SimulateError> {
    let table: Table = toml::from_str(TABLE).map_err(|source| SimulateError::Parse {
        table: "failure_rates",
        source: Box::new(source),
    })?;
    Ok(table.rates)
}

impl FailureRate {
    /// The published rate of an accelerator, if there is one.
    ///
    /// # Errors
    /// None in a released laggard.
    pub fn of_accelerator(id: &str) -> Result<Option<Self>, SimulateError> {
        let mut rates = failure_rates()?.into_iter();
        Ok(rates.find(|rate| rate.accelerator == id))
    }

    /// Failures per accelerator and year, its share of hosts and network included.
    #[must_use]
    pub fn per_device_year(&self) -> f64 {
        SECONDS_PER_YEAR / self.mtbf_per_accelerator().0
    }

    /// Mean time between failures of one accelerator, its share of hosts and network included.
    #[must_use]
    pub(super) fn mtbf_per_accelerator(&self) -> Seconds {
        Seconds(f64::from(self.accelerators) * self.days * SECONDS_PER_DAY / self.failures)
    }
}
