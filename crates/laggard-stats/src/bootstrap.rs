//! The circular block bootstrap (Politis and Romano, 1992): resampling whole blocks of a series
//! keeps what neighbours have in common, and intervals stay honest under autocorrelation.
//!
//! A resample is a count per step, so that a caller recomputes any statistic, of several series
//! together too, without copying values.

use crate::error::{StatsError, check, check_confidence};
use crate::normal::{normal_cdf, normal_quantile};
use crate::quantile::sorted_quantile;
use crate::rng::Rng;

/// A closed interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether the value lies in the interval, ends included.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// How to resample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resampling {
    /// Steps per block, from [`crate::block_length`]; 1 is the ordinary bootstrap.
    pub block_length: usize,
    /// How many resamples; 1000 or more for an interval.
    pub replicates: usize,
    /// Seed: equal seeds give equal resamples.
    pub seed: u64,
}

/// A value with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The statistic of the series itself.
    pub value: f64,
    /// Its interval at the confidence asked for.
    pub interval: Interval,
}

/// A circular block bootstrap over a number of steps.
#[derive(Debug, Clone, Copy)]
pub struct BlockBootstrap {
    steps: usize,
    resampling: Resampling,
}

impl BlockBootstrap {
    /// Plans the resamples of a series of `steps` values.
    ///
    /// # Errors
    /// No steps, no replicates, or a block length that is not between 1 and the number of steps.
    pub fn new(steps: usize, resampling: Resampling) -> Result<Self, StatsError> {
        if steps == 0 {
            return Err(StatsError::TooShort { needed: 1, got: 0 });
        }
        if !(1..=steps).contains(&resampling.block_length) {
            return Err(StatsError::OutOfRange {
                name: "block_length",
                value: resampling.block_length as f64,
                allowed: "between 1 and the number of steps",
            });
        }
        if resampling.replicates == 0 {
            let allowed = "at least 1";
            return Err(StatsError::OutOfRange {
                name: "replicates",
                value: 0.0,
                allowed,
            });
        }
        Ok(Self { steps, resampling })
    }

    /// How many resamples there are.
    #[must_use]
    pub fn replicates(&self) -> usize {
        self.resampling.replicates
    }

    /// Writes how often each step occurs in one resample; the counts sum to the number of steps.
    /// The last block is cut so that they do. A replicate has its own random stream: any order,
    /// and any thread, gives the same counts.
    pub fn fill_counts(&self, replicate: usize, counts: &mut Vec<u32>) {
        counts.clear();
        counts.resize(self.steps, 0);
        let mut rng = Rng::for_stream(self.resampling.seed, replicate as u64);
        let mut left = self.steps;
        while left > 0 {
            let start = rng.below(self.steps);
            let length = self.resampling.block_length.min(left);
            left -= length;
            let before_wrap = length.min(self.steps - start);
            for count in &mut counts[start..start + before_wrap] {
                *count += 1;
            }
            for count in &mut counts[..length - before_wrap] {
                *count += 1;
            }
        }
    }

    /// The statistic of every resample, in order. The statistic gets the count of each step.
    pub fn statistics(&self, mut statistic: impl FnMut(&[u32]) -> f64) -> Vec<f64> {
        let mut counts = Vec::new();
        (0..self.resampling.replicates)
            .map(|replicate| {
                self.fill_counts(replicate, &mut counts);
                statistic(&counts)
            })
            .collect()
    }

    /// The statistic with each block left out in turn: disjoint blocks from the first step on, the
    /// last one possibly shorter. Empty if one block holds the whole series.
    pub fn jackknife(&self, mut statistic: impl FnMut(&[u32]) -> f64) -> Vec<f64> {
        let block = self.resampling.block_length;
        if block >= self.steps {
            return Vec::new();
        }
        let mut counts = vec![1; self.steps];
        (0..self.steps)
            .step_by(block)
            .map(|start| {
                let end = (start + block).min(self.steps);
                counts[start..end].fill(0);
                let value = statistic(&counts);
                counts[start..end].fill(1);
                value
            })
            .collect()
    }

    /// The statistic of the series itself and its BCa interval.
    ///
    /// # Errors
    /// A statistic that is not finite on the series or a resample, or a confidence outside (0, 1).
    pub fn estimate(
        &self,
        confidence: f64,
        mut statistic: impl FnMut(&[u32]) -> f64,
    ) -> Result<Estimate, StatsError> {
        let value = statistic(&vec![1; self.steps]);
        let replicates = self.statistics(&mut statistic);
        let jackknife = self.jackknife(&mut statistic);
        let interval = bca_interval(value, &replicates, &jackknife, confidence)?;
        Ok(Estimate { value, interval })
    }
}

/// The interval between the quantiles of the replicates that leave out equal tails.
///
/// # Errors
/// No replicates, one that is not finite, or a confidence outside (0, 1).
pub fn percentile_interval(replicates: &[f64], confidence: f64) -> Result<Interval, StatsError> {
    check(replicates, 1)?;
    check_confidence(confidence)?;
    let tail = (1.0 - confidence) / 2.0;
    between(replicates, tail, 1.0 - tail)
}

/// The bias-corrected and accelerated interval (Efron, "Better bootstrap confidence intervals",
/// JASA 82(397), 1987), with the acceleration from a jackknife of the same statistic. With fewer
/// than three jackknife values the acceleration is 0.
///
/// # Errors
/// No replicates, a number that is not finite, or a confidence outside (0, 1).
pub fn bca_interval(
    value: f64,
    replicates: &[f64],
    jackknife: &[f64],
    confidence: f64,
) -> Result<Interval, StatsError> {
    check(replicates, 1)?;
    check(jackknife, 0)?;
    check_confidence(confidence)?;
    if !value.is_finite() {
        return Err(StatsError::OutOfRange {
            name: "statistic",
            value,
            allowed: "finite",
        });
    }
    // Ties count half, so that a statistic on a grid is not taken for biased; half a replicate at
    // each end keeps the correction finite.
    let n = replicates.len() as f64;
    let below = replicates.iter().filter(|&&other| other < value).count() as f64;
    let above = replicates.iter().filter(|&&other| other > value).count() as f64;
    let share = ((below + n - above) / (2.0 * n)).clamp(0.5 / n, 1.0 - 0.5 / n);
    let bias = normal_quantile(share).unwrap_or(0.0);
    let acceleration = acceleration(jackknife);
    let adjusted = |p: f64| {
        let z = bias + normal_quantile(p).unwrap_or(0.0);
        let stretch = 1.0 - acceleration * z;
        if stretch <= 0.0 {
            p.round()
        } else {
            normal_cdf(bias + z / stretch)
        }
    };
    let tail = (1.0 - confidence) / 2.0;
    between(replicates, adjusted(tail), adjusted(1.0 - tail))
}

fn acceleration(jackknife: &[f64]) -> f64 {
    if jackknife.len() < 3 {
        return 0.0;
    }
    let mean = jackknife.iter().sum::<f64>() / jackknife.len() as f64;
    let squares: f64 = jackknife.iter().map(|value| (mean - value).powi(2)).sum();
    let cubes: f64 = jackknife.iter().map(|value| (mean - value).powi(3)).sum();
    let scale = 6.0 * squares.powf(1.5);
    if scale > 0.0 { cubes / scale } else { 0.0 }
}

fn between(replicates: &[f64], low: f64, high: f64) -> Result<Interval, StatsError> {
    let mut sorted = replicates.to_vec();
    sorted.sort_by(f64::total_cmp);
    Ok(Interval {
        low: sorted_quantile(&sorted, low)?,
        high: sorted_quantile(&sorted, high)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::autocorrelation::block_length;
    use crate::rng::Rng;
    use crate::wilson::wilson_interval;

    fn counted_mean<'a>(values: &'a [f64]) -> impl FnMut(&[u32]) -> f64 + 'a {
        |counts| {
            let total: u32 = counts.iter().sum();
            let sum: f64 = values
                .iter()
                .zip(counts)
                .map(|(v, &c)| v * f64::from(c))
                .sum();
            sum / f64::from(total)
        }
    }

    /// Share of 95 % intervals that hold the true mean 3, over seeded series x = mu + AR(1) noise.
    fn coverage(phi: f64, blocks: bool) -> (u64, u64) {
        let trials = 400;
        let mut hits = 0;
        for seed in 0..trials {
            let mut rng = Rng::new(1000 + seed);
            let mut noise = rng.normal() / (1.0 - phi * phi).sqrt();
            let values: Vec<f64> = (0..400)
                .map(|_| {
                    noise = phi * noise + rng.normal();
                    3.0 + noise
                })
                .collect();
            let block_length = if blocks {
                block_length(&values).unwrap()
            } else {
                1
            };
            let plan = Resampling {
                block_length,
                replicates: 400,
                seed,
            };
            let bootstrap = BlockBootstrap::new(values.len(), plan).unwrap();
            let estimate = bootstrap.estimate(0.95, counted_mean(&values)).unwrap();
            hits += u64::from(estimate.interval.contains(3.0));
        }
        (hits, trials)
    }

    /// Nominal coverage must be within 3.3 binomial deviations of the hits.
    #[test]
    fn blocks_keep_coverage_under_autocorrelation() {
        for phi in [0.0, 0.3, 0.5] {
            let (hits, trials) = coverage(phi, true);
            let share = wilson_interval(hits, trials, 3.3).unwrap();
            assert!(share.contains(0.95), "phi {phi}: {hits} of {trials}");
        }
    }

    /// The ordinary bootstrap must fail the same test, or the test above shows nothing.
    #[test]
    fn single_steps_lose_coverage_under_autocorrelation() {
        let (hits, trials) = coverage(0.5, false);
        assert!(
            wilson_interval(hits, trials, 3.3).unwrap().high < 0.90,
            "{hits} of {trials}"
        );
    }

    /// Replicates 0 to 1000: their quantiles are known, and so are the corrected probabilities.
    #[test]
    fn intervals_of_known_replicates() {
        let replicates: Vec<f64> = (0..=1000).map(f64::from).collect();
        let percentile = percentile_interval(&replicates, 0.90).unwrap();
        assert!((percentile.low - 50.0).abs() < 1e-9 && (percentile.high - 950.0).abs() < 1e-9);
        let unbiased = bca_interval(500.0, &replicates, &[], 0.90).unwrap();
        assert!((unbiased.low - 50.0).abs() < 1e-6 && (unbiased.high - 950.0).abs() < 1e-6);
        // Bias only: the ends are at Phi(2 z0 -+ 1.645) with z0 = Phi^-1(600.5 / 1001).
        let biased = bca_interval(600.0, &replicates, &[], 0.90).unwrap();
        assert!((biased.low - 127.6).abs() < 1.0, "{biased:?}");
        assert!((biased.high - 984.2).abs() < 1.0, "{biased:?}");
    }

    #[test]
    fn refuses() {
        let plan = |block_length, replicates| Resampling {
            block_length,
            replicates,
            seed: 0,
        };
        assert!(BlockBootstrap::new(0, plan(1, 1)).is_err());
        assert!(BlockBootstrap::new(5, plan(0, 1)).is_err());
        assert!(BlockBootstrap::new(5, plan(6, 1)).is_err());
        assert!(BlockBootstrap::new(5, plan(1, 0)).is_err());
        assert!(percentile_interval(&[], 0.95).is_err());
        assert!(percentile_interval(&[f64::NAN], 0.95).is_err());
        assert!(percentile_interval(&[1.0], 1.0).is_err());
        assert!(bca_interval(f64::NAN, &[1.0], &[], 0.95).is_err());
        let one = BlockBootstrap::new(3, plan(1, 5)).unwrap();
        assert!(one.estimate(0.95, |_| f64::NAN).is_err());
    }

    proptest! {
        #[test]
        fn counts_are_whole_blocks(
            steps in 1_usize..80,
            block in 1_usize..80,
            seed in any::<u64>(),
            replicate in 0_usize..50,
        ) {
            let block_length = block.min(steps);
            let plan = Resampling { block_length, replicates: 50, seed };
            let bootstrap = BlockBootstrap::new(steps, plan).unwrap();
            let mut counts = Vec::new();
            bootstrap.fill_counts(replicate, &mut counts);
            prop_assert_eq!(counts.len(), steps);
            prop_assert_eq!(counts.iter().sum::<u32>() as usize, steps);
            // On the circle, the count rises at most once per block.
            let rises: u32 = (0..steps)
                .map(|i| counts[i].saturating_sub(counts[(i + steps - 1) % steps]))
                .sum();
            prop_assert!(rises as usize <= steps.div_ceil(block_length));
            let mut again = vec![9; 3];
            bootstrap.fill_counts(replicate, &mut again);
            prop_assert_eq!(counts, again);
        }
    }
}
