//! What every way of analysing is asked for and gives.

use crate::causes::Thresholds;
use crate::{Analysis, Confidence, Estimate, Finding};

/// How to analyse.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Options {
    /// From where on something is named.
    pub thresholds: Thresholds,
    /// Seed of resampling and shuffling.
    pub seed: u64,
}

/// Version of the published format of an analysis.
pub const ANALYSIS_VERSION: u32 = 1;

/// An analysis with the series that comparisons need.
pub(crate) struct Analyzed {
    pub(crate) analysis: Analysis,
    /// Length of every step used, seconds, on the record's basis.
    pub(crate) step_times: Vec<f64>,
}

/// The answer in one or two sentences.
pub(crate) fn verdict(penalty: &Estimate, found: &[Finding]) -> String {
    let cost = format!(
        "stragglers cost {:.1} % [{:.1}, {:.1}] of wall time",
        100.0 * penalty.value,
        100.0 * penalty.low,
        100.0 * penalty.high
    );
    match found.first() {
        None => format!("{cost}; no rank, host or cause stands out"),
        Some(first) if first.confidence == Confidence::Inconclusive => {
            format!("{cost}; inconclusive: {}", first.summary)
        }
        Some(first) => {
            let more = match found.len() {
                1 => String::new(),
                2 => " (and one more finding)".to_owned(),
                count => format!(" (and {} more findings)", count - 1),
            };
            format!("{cost}; {}{more}", first.summary)
        }
    }
}
