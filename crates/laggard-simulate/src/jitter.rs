//! What synchronisation makes of the differences between ranks: the expected longest of n times,
//! in one group and in groups of groups. Ranks vary independently; times are relative to a mean
//! of 1. Persistent differences between ranks are no jitter and do not belong here.

mod correlation;

use laggard_stats::{Interval, normal_cdf, normal_quantile};
use serde::Serialize;

use crate::error::{SimulateError, in_range, positive};
use correlation::Lags;

/// Range and step of integrals over a standard normal variable: the trapezoid rule is exact to
/// rounding there.
const REACH: f64 = 8.25;
const NODES_PER_DEVIATION: f64 = 32.0;
/// The interval of one maximum leaves out this much on each side.
const TAIL: f64 = 0.05;

/// How the time of a rank varies.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StepNoise {
    /// Lognormal.
    Lognormal {
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// Measured times of independent steps, in any unit and order; they are divided by their mean.
    Sample(Vec<f64>),
}

/// The longest of a number of relative times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Maximum {
    /// Its expectation; the penalty of waiting for it is this less 1.
    pub mean: f64,
    /// Its standard deviation from step to step.
    pub deviation: f64,
    /// Its skewness.
    pub skewness: f64,
    /// One step in twenty is below.
    pub low: f64,
    /// One step in twenty is above.
    pub high: f64,
}

/// One level of groups that wait for each other, as tensor, pipeline or data parallelism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyncLevel {
    /// Members of a group: ranks, or groups of the level within.
    pub members: u32,
    /// How often in a step they wait for each other.
    pub syncs_per_step: u32,
}

/// What waiting costs at nested levels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NestedPenalties {
    /// What each level adds to the time of a step, as a share of the time without jitter; from
    /// the inner to the outer level. Sums to `step.mean - 1`.
    pub by_level: Vec<f64>,
    /// The time of a step.
    pub step: Maximum,
}

/// The longest of the times of `ranks` ranks.
///
/// Lognormal: by integration, with an error near rounding. A sample: the exact
/// U-statistic over all subsets of that many values.
///
/// # Errors
/// A noise that is not one (negative or not finite), no ranks, or a sample with fewer values than
/// ranks, from which nothing follows without a model of the tail.
pub(crate) fn expected_maximum(noise: &StepNoise, ranks: u64) -> Result<Maximum, SimulateError> {
    positive("number of ranks", ranks as f64)?;
    match noise {
        StepNoise::Lognormal { sigma } => {
            in_range("sigma", *sigma, (0.0..=2.0).contains(sigma), "from 0 to 2")?;
            Ok(integrate(ranks, |z| {
                (sigma * z - 0.5 * sigma * sigma).exp()
            }))
        }
        StepNoise::Sample(values) => of_sample(values, ranks),
    }
}

/// What waiting costs where groups wait for groups: levels from the inner to the outer.
///
/// `noise` is that of one rank between two waits of the inner level, and `autocorrelation` that
/// of a rank's consecutive such times within a step, as in an autoregression of first order.
/// Levels that wait equally often are exact. Where an outer level waits less often, the times of
/// the inner one are summed first: the sum is taken as a shifted lognormal variable with its mean,
/// its variance and, as if independent values were summed, its skewness.
///
/// # Errors
/// As [`expected_maximum`]; a level without members or waits, one whose waits do not divide those
/// of the level within, or an autocorrelation outside [0, 1).
pub(crate) fn nested_penalties(
    noise: &StepNoise,
    autocorrelation: f64,
    levels: &[SyncLevel],
) -> Result<NestedPenalties, SimulateError> {
    check_autocorrelation(autocorrelation)?;
    let mut inner = expected_maximum(noise, 1)?;
    let mut base = None;
    let mut count = 1_u64;
    let mut syncs = levels.first().map_or(1, |level| level.syncs_per_step);
    let mut lags = Lags::first_order(autocorrelation, syncs);
    let mut by_level = Vec::with_capacity(levels.len());
    let mut before = inner.mean;
    for level in levels {
        positive("members of a level", f64::from(level.members))?;
        let often = f64::from(level.syncs_per_step);
        positive("waits of a level in a step", often)?;
        let divides = syncs.is_multiple_of(level.syncs_per_step);
        in_range(
            "waits of a level in a step",
            often,
            divides,
            "a divisor of those within",
        )?;
        if level.syncs_per_step < syncs {
            let summed = (syncs / level.syncs_per_step) as usize;
            let (means, shrink) = lags.of_maxima(count).of_means(summed);
            lags = means;
            base = Some(inner.shrunk(shrink));
            count = 1;
        }
        syncs = level.syncs_per_step;
        count *= u64::from(level.members);
        inner = match &base {
            None => expected_maximum(noise, count)?,
            Some(sum) => integrate(count, |z| sum.at(z)),
        };
        by_level.push(inner.mean - before);
        before = inner.mean;
    }
    if syncs > 1 {
        let (_, shrink) = lags.of_maxima(count).of_means(syncs as usize);
        let sum = inner.shrunk(shrink);
        inner = integrate(1, |z| sum.at(z));
    }
    Ok(NestedPenalties {
        by_level,
        step: inner,
    })
}

/// Standard deviation of the mean of `count` consecutive times over that of one, when neighbours
/// correlate as in an autoregression of first order.
fn deviation_of_mean(count: f64, autocorrelation: f64) -> f64 {
    let rho = autocorrelation;
    let left = 1.0 - rho;
    let sum = count * (1.0 + rho) / left - 2.0 * rho * (1.0 - rho.powf(count)) / (left * left);
    sum.max(0.0).sqrt() / count
}

impl Maximum {
    /// Where the mean over a number of steps lies with a probability of 90 %: normal, and wide
    /// enough for maxima as correlated as the times themselves.
    ///
    /// # Errors
    /// No steps, or an autocorrelation outside [0, 1).
    pub fn interval_of_mean(
        &self,
        steps: u32,
        autocorrelation: f64,
    ) -> Result<Interval, SimulateError> {
        check_autocorrelation(autocorrelation)?;
        let steps = positive("number of steps", f64::from(steps))?;
        let reach = -normal_quantile(TAIL).unwrap_or(f64::NEG_INFINITY);
        let margin = reach * self.deviation * deviation_of_mean(steps, autocorrelation);
        Ok(Interval {
            low: self.mean - margin,
            high: self.mean + margin,
        })
    }

    /// A mean of such times whose deviation is `factor` of theirs.
    fn shrunk(&self, factor: f64) -> ShiftedLognormal {
        ShiftedLognormal::new(self.mean, factor * self.deviation, factor * self.skewness)
    }
}

/// A variable with a given mean, deviation and skewness.
#[derive(Debug, Clone, Copy)]
struct ShiftedLognormal {
    mean: f64,
    deviation: f64,
    /// Deviation of the logarithm; 0 is a normal variable.
    sigma: f64,
}

impl ShiftedLognormal {
    /// Skewness `(w + 2) sqrt(w - 1)` with `w = exp(sigma^2)`, solved for w: with
    /// `w = 1 + 4 sinh^2(u)`, it is `2 sinh(3 u)`. Negative skewness is taken as none.
    fn new(mean: f64, deviation: f64, skewness: f64) -> Self {
        let u = (0.5 * skewness.max(0.0)).asinh() / 3.0;
        let excess = 4.0 * u.sinh().powi(2);
        Self {
            mean,
            deviation,
            sigma: excess.ln_1p().sqrt(),
        }
    }

    /// The value at a deviate of the underlying normal variable.
    fn at(&self, z: f64) -> f64 {
        let sigma = self.sigma;
        let relative = if sigma > 1e-6 {
            (sigma * z - 0.5 * sigma * sigma).exp_m1() / (sigma * sigma).exp_m1().sqrt()
        } else {
            z
        };
        self.mean + self.deviation * relative
    }
}

fn check_autocorrelation(value: f64) -> Result<f64, SimulateError> {
    let fits = (0.0..1.0).contains(&value);
    in_range("autocorrelation", value, fits, "at least 0 and below 1")
}

/// Moments of a rising function of the largest of `count` standard normal variables.
///
/// With y such that the maximum's probability is that of one standard normal variable below y,
/// the integral over the maximum is one over y with a normal weight.
fn integrate(count: u64, time: impl Fn(f64) -> f64) -> Maximum {
    let steps = (2.0 * REACH * NODES_PER_DEVIATION) as u32;
    let (mut weights, mut sum, mut squares, mut cubes) = (0.0, 0.0, 0.0, 0.0);
    let middle = time(largest(0.0, count));
    for i in 0..=steps {
        let y = f64::from(i) / NODES_PER_DEVIATION - REACH;
        let weight = (-0.5 * y * y).exp();
        let value = time(largest(y, count)) - middle;
        weights += weight;
        sum += weight * value;
        squares += weight * value * value;
        cubes += weight * value * value * value;
    }
    let moments = [sum, squares, cubes].map(|sum| sum / weights);
    let end = normal_quantile(TAIL).unwrap_or(0.0);
    let (deviation, skewness) = deviation_and_skewness(moments);
    Maximum {
        mean: middle + moments[0],
        deviation,
        skewness,
        low: time(largest(end, count)),
        high: time(largest(-end, count)),
    }
}

/// The z with P(z)^count = P(y) for the standard normal distribution P.
fn largest(y: f64, count: u64) -> f64 {
    if count == 1 {
        return y;
    }
    let log_probability = if y > 0.0 {
        (-normal_cdf(-y)).ln_1p()
    } else {
        normal_cdf(y).ln()
    };
    let each = log_probability / count as f64;
    let above = -each.exp_m1();
    let z = if above < 0.5 {
        normal_quantile(above).map(|z| -z)
    } else {
        normal_quantile(each.exp())
    };
    z.unwrap_or(y)
}

/// Moments of the largest of `ranks` values drawn without replacement: the k-th smallest of m
/// values is it with probability C(k - 1, ranks - 1) / C(m, ranks).
fn of_sample(values: &[f64], ranks: u64) -> Result<Maximum, SimulateError> {
    for &value in values {
        positive("time of a sample", value)?;
    }
    let needed = usize::try_from(ranks).unwrap_or(usize::MAX);
    if values.len() < needed {
        return Err(SimulateError::TooFewSamples {
            samples: values.len(),
            ranks,
        });
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let scale = count / sorted.iter().sum::<f64>();
    let mut moments = [0.0; 3];
    let (mut low, mut high) = (None, None);
    // From the largest down: probability that it is the maximum, and what is left for the rest.
    let mut weight = ranks as f64 / count;
    let mut below = 1.0;
    for (k, value) in sorted.iter().enumerate().rev() {
        let value = scale * value;
        for (power, moment) in (1..).zip(&mut moments) {
            *moment += weight * (value - 1.0).powi(power);
        }
        below -= weight;
        if high.is_none() && below <= 1.0 - TAIL {
            high = Some(value);
        }
        if low.is_none() && below <= TAIL {
            low = Some(value);
        }
        // C(k - 1, n - 1) over C(k, n - 1).
        let k = k as f64;
        weight *= ((k - ranks as f64 + 1.0) / k.max(1.0)).max(0.0);
    }
    let (deviation, skewness) = deviation_and_skewness(moments);
    let mean = 1.0 + moments[0];
    Ok(Maximum {
        mean,
        deviation,
        skewness,
        low: low.unwrap_or(mean),
        high: high.unwrap_or(mean),
    })
}

/// From the first three moments about any point near the mean.
fn deviation_and_skewness([first, second, third]: [f64; 3]) -> (f64, f64) {
    let variance = (second - first * first).max(0.0);
    let deviation = variance.sqrt();
    let cubes = third - 3.0 * first * second + 2.0 * first.powi(3);
    let skewness = if deviation > 1e-9 {
        cubes / deviation.powi(3)
    } else {
        0.0
    };
    (deviation, skewness)
}

#[cfg(test)]
mod tests;
