//! A figure and the interval that resampled steps give it.

use crate::Estimate;
use laggard_stats::percentile_interval;

/// The 95 % interval of the draws, widened to hold the figure itself; none where there are no
/// draws.
pub(crate) fn estimate(value: f64, draws: &[f64]) -> Estimate {
    let interval = percentile_interval(draws, 0.95);
    let (low, high) = interval.map_or((value, value), |interval| (interval.low, interval.high));
    Estimate {
        value,
        low: low.min(value),
        high: high.max(value),
    }
}
