//! Where the level of a series shifts for good: offline, for many shifts, with autocorrelated and
//! heavy-tailed noise.
//!
//! Outliers are first clipped to a running median. Candidates come from seeded binary segmentation
//! (Kovács, Bühlmann, Li and Munk, "Seeded binary segmentation", Biometrika 110(1), 2023) with a
//! CUSUM threshold that grows with the autocorrelation of the residuals; then the weakest is
//! dropped until all that remain are large enough to matter. The range of each index follows from
//! the law of the argmax (Yao 1987; Bai, "Estimation of a change point in multiple regression
//! models", Review of Economics and Statistics 79(4), 1997).

use std::collections::BTreeSet;
use std::f64::consts::PI;
use std::ops::RangeInclusive;

use crate::autocorrelation::integrated_time;
use crate::error::{StatsError, check, check_confidence};
use crate::normal::normal_cdf;
use crate::quantile::{median, median_in_place};
use crate::robust::mad;

/// Values further than this from a running median are clipped, in deviations.
const CLIP_DEVIATIONS: f64 = 4.0;

/// Factor on sqrt(2 log n), the size of the largest of n contrasts of pure noise: seeded intervals
/// hold more than n contrasts. The tests of stationary noise hold it to account.
const THRESHOLD_MARGIN: f64 = 1.3;

/// What counts as a change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChangeOptions {
    /// Fewest steps between two changes, and at each end.
    pub min_segment: usize,
    /// Smallest change, relative to the level before it.
    pub min_relative_change: f64,
    /// Smallest change, in (normal-consistent) median absolute deviations about the levels.
    pub min_change_in_mads: f64,
    /// Confidence of the range of each index.
    pub confidence: f64,
}

impl Default for ChangeOptions {
    /// Segments of 10 steps, 5 %, 3 deviations, 95 %.
    fn default() -> Self {
        Self {
            min_segment: 10,
            min_relative_change: 0.05,
            min_change_in_mads: 3.0,
            confidence: 0.95,
        }
    }
}

/// One shift of the level.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// First step at the new level.
    pub at: usize,
    /// Steps that hold the true index at the confidence asked for.
    pub range: RangeInclusive<usize>,
    /// Median from the change before, or the start, up to this one.
    pub before: f64,
    /// Median from this change up to the next, or the end.
    pub after: f64,
}

/// Finds the shifts of the level, in order. A series shorter than two segments has none.
///
/// # Errors
/// A value that is not finite, a segment of fewer than 2 steps, a threshold that is negative or
/// not finite, or a confidence outside (0, 1).
pub fn find_changes(values: &[f64], options: &ChangeOptions) -> Result<Vec<Change>, StatsError> {
    check(values, 0)?;
    check_options(options)?;
    if values.len() < 2 * options.min_segment {
        return Ok(Vec::new());
    }
    let clipped = clip_outliers(values, options.min_segment)?;
    // The first pass takes the noise for white and finds too much under autocorrelation. What the
    // size rule leaves of it gives residuals, whose correlation sets the bar of the second pass.
    let first = segment(&clipped, Noise::of_differences(&clipped)?, options)?;
    let cuts = segment(&clipped, Noise::about(&clipped, &first)?, options)?;
    let noise = Noise::about(&clipped, &cuts)?;
    describe(values, &cuts, noise, options)
}

fn check_options(options: &ChangeOptions) -> Result<(), StatsError> {
    check_confidence(options.confidence)?;
    if options.min_segment < 2 {
        let value = options.min_segment as f64;
        return Err(StatsError::OutOfRange {
            name: "min_segment",
            value,
            allowed: "at least 2",
        });
    }
    let thresholds = [
        ("min_relative_change", options.min_relative_change),
        ("min_change_in_mads", options.min_change_in_mads),
    ];
    for (name, value) in thresholds {
        if !(value >= 0.0 && value.is_finite()) {
            let allowed = "finite and not negative";
            return Err(StatsError::OutOfRange {
                name,
                value,
                allowed,
            });
        }
    }
    Ok(())
}

/// Noise about the levels of a segmentation.
#[derive(Debug, Clone, Copy)]
struct Noise {
    /// Standard deviation of one step.
    sigma: f64,
    /// Integrated autocorrelation time.
    tau: f64,
}

impl Noise {
    /// As if white, from the differences of neighbours, which shifts hardly touch.
    fn of_differences(values: &[f64]) -> Result<Self, StatsError> {
        let differences: Vec<f64> = values.windows(2).map(|pair| pair[1] - pair[0]).collect();
        Ok(Self {
            sigma: mad(&differences)? / 2.0_f64.sqrt(),
            tau: 0.5,
        })
    }

    fn about(values: &[f64], cuts: &[usize]) -> Result<Self, StatsError> {
        let residuals = residuals(values, cuts)?;
        Ok(Self {
            sigma: mad(&residuals)?,
            tau: integrated_time(&residuals)?.tau,
        })
    }

    /// Standard deviation of a sum of many steps, per square root of a step.
    fn long_run(self) -> f64 {
        self.sigma * (2.0 * self.tau).sqrt()
    }
}

/// Clips each value to four deviations about a running median, which follows a shift at once.
fn clip_outliers(values: &[f64], min_segment: usize) -> Result<Vec<f64>, StatsError> {
    // The window is shorter than the shortest segment, or it would clip such a segment away.
    let reach = (min_segment / 2).max(1);
    let mut window = Vec::with_capacity(2 * reach + 1);
    let mut smooth = Vec::with_capacity(values.len());
    for at in 0..values.len() {
        window.clear();
        window
            .extend_from_slice(&values[at.saturating_sub(reach)..values.len().min(at + reach + 1)]);
        smooth.push(median_in_place(&mut window)?);
    }
    let rough: Vec<f64> = values
        .iter()
        .zip(&smooth)
        .map(|(value, level)| value - level)
        .collect();
    let limit = CLIP_DEVIATIONS * mad(&rough)?;
    let clip = |(value, level): (&f64, &f64)| value.clamp(level - limit, level + limit);
    Ok(values.iter().zip(&smooth).map(clip).collect())
}

/// Cuts of the series, ascending, each large enough to matter.
fn segment(
    values: &[f64],
    noise: Noise,
    options: &ChangeOptions,
) -> Result<Vec<usize>, StatsError> {
    let sums = Sums::new(values)?;
    let bar = THRESHOLD_MARGIN * (2.0 * (values.len() as f64).ln()).sqrt() * noise.long_run();
    let mut found: Vec<(usize, usize, usize)> = seeded_intervals(values.len(), options.min_segment)
        .into_iter()
        .filter_map(|(start, end)| {
            let (at, size) = sums.largest_contrast(start, end, options.min_segment)?;
            (size > bar).then_some((start, end, at))
        })
        .collect();
    // The narrowest interval over the bar holds a single shift most surely.
    found.sort_by_key(|&(start, end, _)| (end - start, start));
    let mut cuts = BTreeSet::new();
    for (start, end, at) in found {
        if cuts.range(start + 1..end).next().is_none() {
            cuts.insert(at);
        }
    }
    let cuts = keep_large(values, cuts.into_iter().collect(), options)?;
    let cuts = refine(&sums, &cuts, options.min_segment);
    keep_large(values, cuts, options)
}

/// The intervals of seeded binary segmentation with decay 1 / sqrt(2), down to two segments.
fn seeded_intervals(n: usize, min_segment: usize) -> Vec<(usize, usize)> {
    let mut intervals = Vec::new();
    let mut shrink = 1.0_f64;
    loop {
        let length = (n as f64 / shrink).ceil() as usize;
        if length < 2 * min_segment {
            return intervals;
        }
        let count = 2 * shrink.ceil() as usize - 1;
        for index in 0..count {
            let share = if count > 1 {
                index as f64 / (count - 1) as f64
            } else {
                0.0
            };
            let start = ((n - length) as f64 * share).floor() as usize;
            intervals.push((start, start + length));
        }
        shrink *= std::f64::consts::SQRT_2;
    }
}

/// Prefix sums of a series about its median.
struct Sums(Vec<f64>);

impl Sums {
    fn new(values: &[f64]) -> Result<Self, StatsError> {
        let center = median(values)?;
        let mut sum = 0.0;
        let tail = values.iter().map(|value| {
            sum += value - center;
            sum
        });
        Ok(Self(std::iter::once(0.0).chain(tail).collect()))
    }

    /// The cut of [start, end) with the largest CUSUM contrast, and the contrast.
    fn largest_contrast(&self, start: usize, end: usize, margin: usize) -> Option<(usize, f64)> {
        let contrast = |at: usize| {
            let (left, right) = ((at - start) as f64, (end - at) as f64);
            let of_left = (self.0[at] - self.0[start]) / left;
            let of_right = (self.0[end] - self.0[at]) / right;
            (left * right / (left + right)).sqrt() * (of_right - of_left).abs()
        };
        let cuts = start + margin..(end + 1).saturating_sub(margin);
        cuts.map(|at| (at, contrast(at)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// Places each cut best between its neighbours.
fn refine(sums: &Sums, cuts: &[usize], min_segment: usize) -> Vec<usize> {
    let n = sums.0.len() - 1;
    let mut refined: Vec<usize> = Vec::with_capacity(cuts.len());
    for (index, &cut) in cuts.iter().enumerate() {
        let start = refined.last().copied().unwrap_or(0);
        let end = cuts.get(index + 1).copied().unwrap_or(n);
        refined.push(
            sums.largest_contrast(start, end, min_segment)
                .map_or(cut, |(at, _)| at),
        );
    }
    refined
}

/// Drops cuts that are too small to matter, the weakest of any neighbours first.
fn keep_large(
    values: &[f64],
    mut cuts: Vec<usize>,
    options: &ChangeOptions,
) -> Result<Vec<usize>, StatsError> {
    loop {
        let levels = levels(values, &cuts)?;
        let spread = mad(&residuals(values, &cuts)?)?;
        let rounding = values
            .iter()
            .fold(0.0_f64, |max, value| max.max(value.abs()))
            * 1e-12;
        let strength: Vec<f64> = levels
            .windows(2)
            .map(|pair| {
                let needed = (options.min_relative_change * pair[0].abs())
                    .max(options.min_change_in_mads * spread)
                    .max(rounding);
                if needed > 0.0 {
                    (pair[1] - pair[0]).abs() / needed
                } else {
                    0.0
                }
            })
            .collect();
        let is_weak = |index: usize| {
            let own = strength[index];
            let left = index
                .checked_sub(1)
                .map_or(f64::INFINITY, |left| strength[left]);
            let right = strength.get(index + 1).copied().unwrap_or(f64::INFINITY);
            own < 1.0 && own < left && own <= right
        };
        let kept: Vec<usize> = (0..cuts.len())
            .filter(|&index| !is_weak(index))
            .map(|index| cuts[index])
            .collect();
        if kept.len() == cuts.len() {
            return Ok(kept);
        }
        cuts = kept;
    }
}

fn describe(
    values: &[f64],
    cuts: &[usize],
    noise: Noise,
    options: &ChangeOptions,
) -> Result<Vec<Change>, StatsError> {
    let levels = levels(values, cuts)?;
    let reach = argmax_quantile(options.confidence);
    let changes = cuts.iter().enumerate().map(|(index, &at)| {
        let (before, after) = (levels[index], levels[index + 1]);
        let steps = (reach * (noise.long_run() / (after - before)).powi(2)).floor() as usize + 1;
        let first = index.checked_sub(1).map_or(0, |left| cuts[left]) + 1;
        let last = cuts.get(index + 1).map_or(values.len(), |&right| right) - 1;
        let range = at.saturating_sub(steps).max(first)..=(at + steps).min(last);
        Change {
            at,
            range,
            before,
            after,
        }
    });
    Ok(changes.collect())
}

fn segments(cuts: &[usize], n: usize) -> impl Iterator<Item = (usize, usize)> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    starts.zip(cuts.iter().copied().chain([n]))
}

fn levels(values: &[f64], cuts: &[usize]) -> Result<Vec<f64>, StatsError> {
    segments(cuts, values.len())
        .map(|(start, end)| median(&values[start..end]))
        .collect()
}

fn residuals(values: &[f64], cuts: &[usize]) -> Result<Vec<f64>, StatsError> {
    let mut residuals = values.to_vec();
    for ((start, end), level) in segments(cuts, values.len()).zip(levels(values, cuts)?) {
        for value in &mut residuals[start..end] {
            *value -= level;
        }
    }
    Ok(residuals)
}

/// The distance, in units of variance over squared shift, within which the estimated index lies of
/// the true one: quantile of |argmax of a two-sided Brownian motion with drift -|t| / 2|.
fn argmax_quantile(confidence: f64) -> f64 {
    let (mut low, mut high) = (0.0_f64, 200.0_f64);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if 2.0 * argmax_cdf(middle) - 1.0 < confidence {
            low = middle
        } else {
            high = middle
        }
    }
    high
}

/// Its distribution function for x >= 0 (Yao, "Approximating the distribution of the maximum
/// likelihood estimate of the change-point", Annals of Statistics 15(3), 1987).
fn argmax_cdf(x: f64) -> f64 {
    let root = x.sqrt();
    1.0 + (x / (2.0 * PI)).sqrt() * (-x / 8.0).exp() - 0.5 * (x + 5.0) * normal_cdf(-root / 2.0)
        + 1.5 * x.exp() * normal_cdf(-1.5 * root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// AR(1) noise with deviation `sigma` about 1, with 2 % outliers of up to +5, on a level that
    /// is multiplied by `factor` from each listed step on.
    fn series(n: usize, (phi, sigma): (f64, f64), shifts: &[(usize, f64)], seed: u64) -> Vec<f64> {
        let mut rng = Rng::new(seed);
        let mut noise = rng.normal();
        (0..n)
            .map(|step| {
                noise = phi * noise + (1.0 - phi * phi).sqrt() * rng.normal();
                let outlier = if rng.below(50) == 0 {
                    5.0 * rng.uniform()
                } else {
                    0.0
                };
                let at_or_before = shifts.iter().filter(|(at, _)| *at <= step);
                let level: f64 = at_or_before.map(|(_, factor)| factor).product();
                level * (1.0 + sigma * noise) + outlier
            })
            .collect()
    }

    fn changes(values: &[f64]) -> Vec<Change> {
        find_changes(values, &ChangeOptions::default()).unwrap()
    }

    #[test]
    fn stationary_noise_has_no_change() {
        for phi in [0.0, 0.5, 0.8] {
            let false_alarms = (0..100)
                .filter(|&seed| !changes(&series(400, (phi, 0.05), &[], seed)).is_empty())
                .count();
            assert!(false_alarms <= 2, "phi {phi}: {false_alarms} of 100");
        }
    }

    #[test]
    fn finds_onset_and_end_with_levels_and_ranges() {
        let shifts = [(120, 1.3), (180, 1.0 / 1.3)];
        let mut held = 0;
        for seed in 0..100 {
            let found = changes(&series(400, (0.4, 0.03), &shifts, seed));
            assert_eq!(found.len(), 2, "seed {seed}: {found:?}");
            for (change, (at, _)) in found.iter().zip(shifts) {
                assert!(change.at.abs_diff(at) <= 3, "seed {seed}: {change:?}");
                held += u32::from(change.range.contains(&at));
            }
            assert!((found[0].before - 1.0).abs() < 0.02, "{found:?}");
            assert!((found[0].after - 1.3).abs() < 0.04, "{found:?}");
            assert!((found[1].after - 1.0).abs() < 0.02, "{found:?}");
        }
        assert!(held >= 184, "true index in the range: {held} of 200");
    }

    #[test]
    fn ranges_widen_with_noise_and_still_hold() {
        let options = ChangeOptions {
            min_change_in_mads: 1.0,
            ..ChangeOptions::default()
        };
        let (mut found_one, mut held, mut widest) = (0, 0, 0);
        for seed in 0..100 {
            let values = series(300, (0.0, 0.1), &[(150, 1.15)], seed);
            let found = find_changes(&values, &options).unwrap();
            let [change] = &found[..] else { continue };
            found_one += 1;
            held += u32::from(change.range.contains(&150));
            widest = widest.max(change.range.end() - change.range.start());
        }
        assert!(found_one >= 90, "{found_one} of 100");
        assert!(held * 10 >= found_one * 9, "{held} of {found_one}");
        assert!((10..=40).contains(&widest), "{widest}");
    }

    #[test]
    fn small_and_short_changes_are_not_reported() {
        assert!(changes(&series(400, (0.0, 0.005), &[(200, 1.03)], 1)).is_empty());
        assert_eq!(
            changes(&series(400, (0.0, 0.005), &[(200, 1.08)], 1)).len(),
            1
        );
        assert!(changes(&series(400, (0.0, 0.02), &[(200, 2.0), (204, 0.5)], 1)).is_empty());
    }

    /// Tables of Yao and Bai: the 90 % and 95 % points are 7 and 11, the 99 % point near 22.
    #[test]
    fn argmax_law_agrees_with_the_published_points() {
        for (confidence, expect) in [(0.90, 7.0), (0.95, 11.0)] {
            let got = argmax_quantile(confidence);
            assert!((got - expect).abs() < 0.8, "{confidence}: {got}");
        }
    }

    #[test]
    fn edges() {
        assert_eq!(changes(&[]), []);
        assert_eq!(changes(&[1.0; 500]), []);
        assert_eq!(changes(&[0.0; 500]), []);
        let mut steps = vec![1.0; 40];
        steps.resize(90, 2.0);
        let found = changes(&steps);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].at, found[0].before, found[0].after),
            (40, 1.0, 2.0)
        );
        let options = ChangeOptions {
            min_segment: 1,
            ..ChangeOptions::default()
        };
        assert!(find_changes(&[1.0; 9], &options).is_err());
        let options = ChangeOptions {
            min_relative_change: f64::NAN,
            ..ChangeOptions::default()
        };
        assert!(find_changes(&[1.0; 9], &options).is_err());
        assert!(find_changes(&[1.0, f64::NAN], &ChangeOptions::default()).is_err());
    }
}
