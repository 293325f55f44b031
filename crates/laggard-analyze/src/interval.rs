//! A figure and the interval that resampled steps give it, and which steps are resampled together.

use crate::Estimate;
use laggard_stats::{ChangeOptions, block_length, find_changes, median, percentile_interval};

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

/// Steps that hang together: the block length of what is left when lasting changes of the level are
/// taken out. A change is no noise, and would make the blocks as long as the run.
pub(crate) fn noise_block(lengths: &[f64]) -> usize {
    let changes = find_changes(lengths, &ChangeOptions::default()).unwrap_or_default();
    let mut cuts: Vec<usize> = changes.iter().map(|change| change.at).collect();
    cuts.push(lengths.len());
    let (mut residuals, mut first) = (Vec::with_capacity(lengths.len()), 0);
    for cut in cuts {
        let segment = &lengths[first..cut];
        let level = median(segment).unwrap_or(0.0);
        residuals.extend(segment.iter().map(|length| length - level));
        first = cut;
    }
    block_length(&residuals).unwrap_or(1)
}
