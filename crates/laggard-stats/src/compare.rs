//! Two series of steps, before and after: by what factor did the typical step change?

use std::cmp::Ordering;

use crate::autocorrelation::block_length;
use crate::bootstrap::{BlockBootstrap, Interval, Resampling, bca_interval};
use crate::error::{StatsError, check, check_confidence};
use crate::quantile::Ranked;

/// The ratio of two medians.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RatioEstimate {
    /// Median of the second series over the median of the first.
    pub ratio: f64,
    /// Its BCa interval by a block bootstrap of both series.
    pub interval: Interval,
    /// Block lengths that the two series were resampled with.
    pub block_lengths: [usize; 2],
}

/// The ratio of the medians of two independent series of positive values, after over before.
///
/// `resampling.block_length` is a lower bound: each series uses its own automatic choice if that
/// is longer.
///
/// # Errors
/// Fewer than two values in a series, a value that is not finite or not positive, or resampling
/// parameters outside their ranges.
pub fn ratio_of_medians(
    before: &[f64],
    after: &[f64],
    resampling: Resampling,
    confidence: f64,
) -> Result<RatioEstimate, StatsError> {
    check_confidence(confidence)?;
    let first = Side::new(before, resampling)?;
    // Another seed, or equal series would be resampled in step with each other.
    let seed = resampling.seed.wrapping_add(1);
    let second = Side::new(after, Resampling { seed, ..resampling })?;
    let ratio = second.median / first.median;
    let replicates: Vec<f64> = second
        .replicates()?
        .iter()
        .zip(first.replicates()?)
        .map(|(a, b)| a / b)
        .collect();
    let mut jackknife: Vec<f64> = Vec::new();
    jackknife.extend(
        first
            .jackknife()?
            .iter()
            .map(|median| second.median / median),
    );
    jackknife.extend(
        second
            .jackknife()?
            .iter()
            .map(|median| median / first.median),
    );
    let interval = bca_interval(ratio, &replicates, &jackknife, confidence)?;
    Ok(RatioEstimate {
        ratio,
        interval,
        block_lengths: [first.block_length, second.block_length],
    })
}

struct Side {
    ranked: Ranked,
    median: f64,
    block_length: usize,
    bootstrap: BlockBootstrap,
}

impl Side {
    fn new(values: &[f64], resampling: Resampling) -> Result<Self, StatsError> {
        check(values, 2)?;
        if let Some(&value) = values.iter().find(|&&value| value <= 0.0) {
            return Err(StatsError::OutOfRange {
                name: "value",
                value,
                allowed: "positive",
            });
        }
        let ranked = Ranked::new(values)?;
        let median = ranked.resampled_quantile(&vec![1; values.len()], 0.5)?;
        // A median feels only on which side of it each value lies; in the values themselves a few
        // wild ones would hide how strongly neighbours depend on each other.
        let sides: Vec<f64> = values
            .iter()
            .map(|value| match value.total_cmp(&median) {
                Ordering::Less => -1.0,
                Ordering::Equal => 0.0,
                Ordering::Greater => 1.0,
            })
            .collect();
        let block_length = block_length(&sides)?.max(resampling.block_length);
        let plan = Resampling {
            block_length,
            ..resampling
        };
        let bootstrap = BlockBootstrap::new(values.len(), plan)?;
        Ok(Self {
            ranked,
            median,
            block_length,
            bootstrap,
        })
    }

    fn replicates(&self) -> Result<Vec<f64>, StatsError> {
        let medians = self.bootstrap.statistics(|counts| self.resampled(counts));
        check(&medians, 1)?;
        Ok(medians)
    }

    fn jackknife(&self) -> Result<Vec<f64>, StatsError> {
        let medians = self.bootstrap.jackknife(|counts| self.resampled(counts));
        check(&medians, 0)?;
        Ok(medians)
    }

    fn resampled(&self, counts: &[u32]) -> f64 {
        self.ranked
            .resampled_quantile(counts, 0.5)
            .unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const PLAN: Resampling = Resampling {
        block_length: 1,
        replicates: 400,
        seed: 42,
    };

    /// Step times around `level` with AR(1) noise of two percent and rare checkpoints of 3x.
    fn steps(level: f64, seed: u64) -> Vec<f64> {
        let mut rng = Rng::new(seed);
        let mut noise = 0.0;
        (0..200)
            .map(|_| {
                noise = 0.4 * noise + 0.02 * rng.normal();
                let pause = if rng.below(50) == 0 { 3.0 } else { 1.0 };
                level * (1.0 + noise) * pause
            })
            .collect()
    }

    #[test]
    fn interval_covers_the_true_ratio() {
        let trials = 200;
        let hits = (0..trials)
            .filter(|&seed| {
                let (before, after) = (steps(1.0, seed), steps(1.07, seed + 10_000));
                let got = ratio_of_medians(&before, &after, PLAN, 0.95).unwrap();
                got.interval.contains(1.07)
            })
            .count();
        // Nominal 190; 3.3 binomial deviations below are 179. A little undercoverage is known.
        assert!(hits >= 179, "{hits} of {trials}");
    }

    #[test]
    fn interval_is_narrow_enough_to_see_a_change() {
        let got = ratio_of_medians(&steps(1.0, 1), &steps(1.07, 2), PLAN, 0.95).unwrap();
        assert!(
            got.interval.low > 1.04 && got.interval.high < 1.10,
            "{got:?}"
        );
        let same = ratio_of_medians(&steps(1.0, 3), &steps(1.0, 4), PLAN, 0.95).unwrap();
        assert!(same.interval.contains(1.0), "{same:?}");
    }

    #[test]
    fn refuses() {
        assert!(ratio_of_medians(&[1.0], &[1.0, 2.0], PLAN, 0.95).is_err());
        assert!(ratio_of_medians(&[1.0, 0.0], &[1.0, 2.0], PLAN, 0.95).is_err());
        assert!(ratio_of_medians(&[1.0, 1.0], &[1.0, f64::NAN], PLAN, 0.95).is_err());
        assert!(ratio_of_medians(&[1.0, 1.0], &[1.0, 2.0], PLAN, 1.5).is_err());
    }
}
