//! How fast accelerator classes train, relative to each other: measured, or by their peaks.

use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;
use crate::error::SpecsError;

/// What a ratio between classes rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RateBasis {
    /// Measured throughput of one workload.
    Measured,
    /// Dense bf16 peaks of the datasheets.
    Peak,
}

/// Throughput of several accelerators under one workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateSet {
    /// Short unique name.
    pub id: String,
    /// What was run.
    pub workload: String,
    /// When it was published, ISO 8601, as far as known.
    pub date: Option<String>,
    /// Where.
    pub source: String,
    /// What a user of the numbers must know.
    pub note: Option<String>,
    /// The measurements.
    #[serde(rename = "rate")]
    pub rates: Vec<TrainingRate>,
}

/// The throughput of one system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRate {
    /// Id of the accelerator.
    pub accelerator: String,
    /// How many of them.
    pub accelerators: u32,
    /// Samples per second of all of them together.
    pub samples_per_s: f64,
    /// The system that was measured.
    pub system: String,
}

impl TrainingRate {
    /// Samples per second of one accelerator.
    #[must_use]
    pub fn samples_per_s_per_accelerator(&self) -> f64 {
        self.samples_per_s / f64::from(self.accelerators)
    }
}

/// The training rate of a class relative to others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassRate {
    /// Id of the accelerator.
    pub accelerator: String,
    /// Its rate over the fastest class's: in (0, 1], and 1 for the fastest.
    pub relative: f64,
    /// What the ratio rests on.
    pub basis: RateBasis,
    /// Source of the number.
    pub source: String,
}

/// Rates from the first set that holds all the classes.
pub(crate) fn measured(
    sets: &[RateSet],
    classes: &[&Accelerator],
) -> Result<Vec<ClassRate>, SpecsError> {
    let in_set = |set: &RateSet| -> Option<Vec<(f64, String)>> {
        let rate_of = |class: &&Accelerator| {
            let rate = set.rates.iter().find(|rate| rate.accelerator == class.id)?;
            let source = format!("{}; {} ({})", set.workload, set.source, rate.system);
            Some((rate.samples_per_s_per_accelerator(), source))
        };
        classes.iter().map(rate_of).collect()
    };
    let rates = sets
        .iter()
        .find_map(in_set)
        .ok_or_else(|| SpecsError::NoMeasuredRates {
            ids: classes.iter().map(|class| class.id.clone()).collect(),
        })?;
    relative(classes, rates, RateBasis::Measured)
}

/// Rates from the dense bf16 peaks.
pub(crate) fn by_peak(classes: &[&Accelerator]) -> Result<Vec<ClassRate>, SpecsError> {
    let peak_of = |class: &&Accelerator| {
        let peak = class
            .dense_bf16_flop_per_s
            .ok_or_else(|| SpecsError::NoPeak {
                id: class.id.clone(),
            })?;
        Ok((
            peak.0,
            format!("dense bf16 peak; {}", class.sources.join(", ")),
        ))
    };
    let rates: Vec<_> = classes.iter().map(peak_of).collect::<Result<_, _>>()?;
    relative(classes, rates, RateBasis::Peak)
}

fn relative(
    classes: &[&Accelerator],
    rates: Vec<(f64, String)>,
    basis: RateBasis,
) -> Result<Vec<ClassRate>, SpecsError> {
    let fastest = rates
        .iter()
        .map(|(rate, _)| *rate)
        .max_by(f64::total_cmp)
        .ok_or(SpecsError::NoClasses)?;
    let classes = classes
        .iter()
        .zip(rates)
        .map(|(class, (rate, source))| ClassRate {
            accelerator: class.id.clone(),
            relative: rate / fastest,
            basis,
            source,
        });
    Ok(classes.collect())
}

impl RateSet {
    /// Refuses rates that are not positive and finite.
    pub(crate) fn check(&self) -> Result<(), SpecsError> {
        for rate in &self.rates {
            let numbers = [
                ("samples_per_s", rate.samples_per_s),
                ("accelerators", f64::from(rate.accelerators)),
            ];
            for (field, number) in numbers {
                if !(number > 0.0 && number.is_finite()) {
                    return Err(SpecsError::Invalid {
                        table: "training_rates",
                        id: self.id.clone(),
                        field,
                        problem: format!("of {} is {number}", rate.accelerator),
                    });
                }
            }
        }
        Ok(())
    }
}
