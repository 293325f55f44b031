//! How far predictions are from what was measured.

use std::fmt;

/// Relative errors.
#[derive(Debug, Clone, Default)]
pub struct Errors(Vec<f64>);

impl Errors {
    /// Adds a prediction.
    pub fn add(&mut self, predicted: f64, measured: f64) {
        self.0.push(predicted / measured - 1.0);
    }

    /// Mean of their sizes.
    #[must_use]
    pub fn mean_size(&self) -> f64 {
        self.0.iter().map(|it| it.abs()).sum::<f64>() / self.0.len() as f64
    }

    /// Mean: above zero where predictions are too long.
    #[must_use]
    pub fn bias(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// The largest.
    #[must_use]
    pub fn largest(&self) -> f64 {
        self.0.iter().map(|it| it.abs()).fold(0.0, f64::max)
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [mean, bias, largest] =
            [self.mean_size(), self.bias(), self.largest()].map(|it| 100.0 * it);
        let count = self.0.len();
        write!(
            f,
            "{mean:.1} % mean error, bias {bias:+.1} %, largest {largest:.1} %, n = {count}"
        )
    }
}

/// What somebody loses who takes what is predicted to be the best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pick {
    /// Seconds of the pick over those of the best, less one.
    pub regret: f64,
    /// Spearman's rank correlation of predicted and measured seconds.
    pub rank_correlation: f64,
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (regret, correlation) = (100.0 * self.regret, self.rank_correlation);
        write!(
            f,
            "regret of the pick {regret:.1} %, rank correlation {correlation:.2}"
        )
    }
}

/// Judges a choice by predictions: pairs of predicted and measured seconds. The first of equals is
/// picked.
#[must_use]
pub fn pick(pairs: &[(f64, f64)]) -> Pick {
    let picked = pairs.iter().min_by(|a, b| a.0.total_cmp(&b.0));
    let best = pairs.iter().min_by(|a, b| a.1.total_cmp(&b.1));
    let regret = picked
        .zip(best)
        .map_or(0.0, |(picked, best)| picked.1 / best.1 - 1.0);
    let of = |value: fn(&(f64, f64)) -> f64| ranks(&pairs.iter().map(value).collect::<Vec<_>>());
    Pick {
        regret,
        rank_correlation: correlation(&of(|it| it.0), &of(|it| it.1)),
    }
}

/// Ranks of values; equals share theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|it| *it < value).count();
        let upto = values.iter().filter(|it| *it <= value).count();
        (below + upto) as f64 / 2.0
    };
    values.iter().map(rank).collect()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let product = |a: &[f64], b: &[f64], means: (f64, f64)| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| (a - means.0) * (b - means.1)).sum()
    };
    let variances = product(a, a, (mean_a, mean_a)) * product(b, b, (mean_b, mean_b));
    product(a, b, (mean_a, mean_b)) / variances.sqrt()
}
