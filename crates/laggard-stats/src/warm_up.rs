//! Where a series has left its initial transient.
//!
//! The truncation point is the one of the marginal standard error rule (MSER; White, "An effective
//! truncation heuristic for bias reduction in simulation output", Simulation 69(6), 1997). That
//! rule alone truncates a little of almost any noise; here the cut part must also differ from the
//! steady part, in its median, by more than autocorrelated noise explains.

use std::f64::consts::FRAC_PI_2;

use crate::autocorrelation::{autocorrelations, integrated_time};
use crate::error::{StatsError, check};
use crate::quantile::median;
use crate::robust::mad_about;

/// Shortest series that is judged.
const MIN_STEPS: usize = 20;
/// A transient longer than this share of the series leaves too little to call steady.
const LONGEST_SHARE: f64 = 1.0 / 3.0;
/// How far, in deviations, one step may pull on the truncation point and the autocorrelation: a
/// pause just after a transient must not look like part of it.
const CLIP_DEVIATIONS: f64 = 3.0;
/// How many standard errors the median of the transient must lie off. The tests of stationary
/// noise hold this to account.
const MIN_ERRORS: f64 = 4.0;
/// How many deviations the median of its last steps must lie off: a few very slow steps must not
/// carry ordinary ones along.
const MIN_END: f64 = 1.0;
/// How many last steps that are, or half of the transient if that is less.
const LONGEST_END: usize = 15;

/// Where the initial transient ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarmUp {
    /// The steps before `at` differ from the steady rest.
    Ends {
        /// First steady step.
        at: usize,
    },
    /// The series starts steady.
    None,
    /// Too short to tell, or not steady by a third of its length.
    Unclear,
}

/// Finds the end of the initial transient: a decay to, or a few odd steps before, a steady level.
///
/// # Errors
/// A value that is not finite.
pub fn warm_up_end(values: &[f64]) -> Result<WarmUp, StatsError> {
    check(values, 0)?;
    let n = values.len();
    if n < MIN_STEPS {
        return Ok(WarmUp::Unclear);
    }
    let steady = &values[n / 2..];
    let level = median(steady)?;
    let spread = mad_about(steady, level)?.max(level.abs() * 1e-9);
    if spread <= 0.0 {
        // A steady half of exact zeros: any other value is off by any measure.
        let last_odd = values[..n / 2].iter().rposition(|value| value.abs() > 0.0);
        return Ok(verdict(last_odd.map_or(0, |at| at + 1), n));
    }
    let scores: Vec<f64> = values
        .iter()
        .map(|value| (value - level) / spread)
        .collect();
    Ok(verdict(truncation(&scores)?, n))
}

fn verdict(at: usize, n: usize) -> WarmUp {
    match at {
        0 => WarmUp::None,
        at if at as f64 > LONGEST_SHARE * n as f64 => WarmUp::Unclear,
        at => WarmUp::Ends { at },
    }
}

/// The cut in the first half with the smallest marginal standard error among those whose cut part
/// really differs; 0 if there is none better than not to cut.
fn truncation(scores: &[f64]) -> Result<usize, StatsError> {
    let n = scores.len();
    let clipped: Vec<f64> = scores
        .iter()
        .map(|score| score.clamp(-CLIP_DEVIATIONS, CLIP_DEVIATIONS))
        .collect();
    let noise = PrefixNoise::of(&clipped[n / 2..])?;
    let marginal = marginal_errors(&clipped);
    let mut best = 0;
    let mut cut = Vec::with_capacity(n / 2);
    for at in 1..=n / 2 {
        let score = scores[at - 1];
        insert_sorted(&mut cut, score);
        if marginal[at] >= marginal[best] || typical(&cut) < MIN_ERRORS * noise.of_median(at) {
            continue;
        }
        let last = at.div_ceil(2).min(LONGEST_END);
        let mut end = Vec::with_capacity(last);
        scores[at - last..at]
            .iter()
            .for_each(|&score| insert_sorted(&mut end, score));
        if typical(&end) >= MIN_END {
            best = at;
        }
    }
    Ok(best)
}

fn insert_sorted(sorted: &mut Vec<f64>, score: f64) {
    sorted.insert(sorted.partition_point(|&other| other < score), score);
}

/// Distance of the median from 0, or of the nearer of the two middle scores, so that half of the
/// steps alone never decide.
fn typical(sorted: &[f64]) -> f64 {
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    low.max(-high).max(0.0)
}

/// MSER(d) = (sum of squares about the mean of the steps from d on) / (n - d)^2, for each d.
fn marginal_errors(scores: &[f64]) -> Vec<f64> {
    let n = scores.len();
    let (mut sum, mut squares) = (0.0, 0.0);
    let mut marginal = vec![f64::INFINITY; n];
    for (at, score) in scores.iter().enumerate().rev() {
        sum += score;
        squares += score * score;
        let left = (n - at) as f64;
        marginal[at] = (squares - sum * sum / left).max(0.0) / (left * left);
    }
    marginal
}

/// Standard errors of medians of neighbouring scores, from the autocorrelation of the steady half.
struct PrefixNoise {
    /// Autocorrelations up to the window of the integrated time.
    rho: Vec<f64>,
}

impl PrefixNoise {
    fn of(steady: &[f64]) -> Result<Self, StatsError> {
        let window = integrated_time(steady)?.window;
        Ok(Self {
            rho: autocorrelations(steady, window)?,
        })
    }

    /// Of the median of `terms` scores of unit deviation: that of their mean, never less than if
    /// they were independent, times sqrt(pi / 2), the ratio of the two for many normal values.
    fn of_median(&self, terms: usize) -> f64 {
        let n = terms as f64;
        let inflation: f64 = (1..self.rho.len().min(terms))
            .map(|lag| 2.0 * (1.0 - lag as f64 / n) * self.rho[lag])
            .sum();
        (FRAC_PI_2 * (1.0 + inflation.max(0.0)) / n).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Level 1 with AR(1) noise of deviation 0.02, and a pause of 3x in one step of 50.
    fn steady(n: usize, phi: f64, seed: u64) -> Vec<f64> {
        let mut rng = Rng::new(seed);
        let mut noise = rng.normal();
        (0..n)
            .map(|_| {
                noise = phi * noise + (1.0 - phi * phi).sqrt() * rng.normal();
                let pause = if rng.below(50) == 0 { 2.0 } else { 0.0 };
                1.0 + 0.02 * noise + pause
            })
            .collect()
    }

    #[test]
    fn stationary_noise_has_none() {
        for (n, phi) in [(60, 0.0), (200, 0.0), (200, 0.3), (200, 0.6), (2000, 0.3)] {
            let wrong: Vec<u64> = (0..200)
                .filter(|&seed| {
                    // A pause on the very first step is a transient as far as anyone can tell.
                    let mut values = steady(n, phi, seed);
                    values[0] = values[0].min(1.06);
                    warm_up_end(&values).unwrap() != WarmUp::None
                })
                .collect();
            assert!(
                wrong.len() <= 6,
                "n {n}, phi {phi}: {} of 200: {wrong:?}",
                wrong.len()
            );
        }
    }

    /// 1 + 0.5 exp(-i / 8) is within one deviation of the level from step 26 on.
    #[test]
    fn decay_is_found() {
        for seed in 0..200 {
            let mut values = steady(300, 0.3, seed);
            for (step, value) in (0..).zip(&mut values) {
                *value += 0.5 * (-f64::from(step) / 8.0).exp();
            }
            let found = warm_up_end(&values).unwrap();
            let WarmUp::Ends { at } = found else {
                panic!("seed {seed}: {found:?}")
            };
            assert!((14..=45).contains(&at), "seed {seed}: {at}");
        }
    }

    #[test]
    fn one_slow_first_step_is_found_exactly() {
        let exact = (0..200).filter(|&seed| {
            let mut values = steady(100, 0.0, seed);
            // A pause right behind the slow step would rightly lengthen the transient.
            values[1..10]
                .iter_mut()
                .for_each(|value| *value = value.min(1.06));
            values[0] = 10.0;
            warm_up_end(&values) == Ok(WarmUp::Ends { at: 1 })
        });
        let exact = exact.count();
        assert!(exact >= 190, "{exact} of 200");
    }

    #[test]
    fn unclear_and_edges() {
        assert_eq!(warm_up_end(&[]), Ok(WarmUp::Unclear));
        assert_eq!(warm_up_end(&[1.0; 19]), Ok(WarmUp::Unclear));
        assert_eq!(warm_up_end(&[1.0; 20]), Ok(WarmUp::None));
        assert_eq!(warm_up_end(&[0.0; 20]), Ok(WarmUp::None));
        let mut fast_start = vec![5.0, 4.0];
        fast_start.resize(30, 0.0);
        assert_eq!(warm_up_end(&fast_start), Ok(WarmUp::Ends { at: 2 }));
        let mut late = vec![3.0; 45];
        late.resize(100, 1.0);
        assert_eq!(warm_up_end(&late), Ok(WarmUp::Unclear));
        assert_eq!(
            warm_up_end(&[f64::NAN]),
            Err(StatsError::NotFinite { index: 0 })
        );
    }
}
