//! Quantiles of type 7: linear interpolation between order statistics at (n - 1) p, the default of
//! R and NumPy (Hyndman and Fan, "Sample quantiles in statistical packages", The American
//! Statistician 50(4), 1996).

use crate::error::{StatsError, check, check_probability};

/// The quantile at probability `p` in [0, 1].
///
/// # Errors
/// An empty slice, a value that is not finite, or `p` outside [0, 1].
pub fn quantile(values: &[f64], p: f64) -> Result<f64, StatsError> {
    quantile_in_place(&mut values.to_vec(), p)
}

/// The median.
///
/// # Errors
/// An empty slice or a value that is not finite.
pub fn median(values: &[f64]) -> Result<f64, StatsError> {
    quantile(values, 0.5)
}

/// As [`quantile`], in linear time and without allocation; reorders the values.
///
/// # Errors
/// As [`quantile`].
pub fn quantile_in_place(values: &mut [f64], p: f64) -> Result<f64, StatsError> {
    check(values, 1)?;
    check_probability("quantile", p)?;
    let (below, fraction) = position(values.len(), p);
    let (_, &mut low, upper) = values.select_nth_unstable_by(below, f64::total_cmp);
    if fraction <= 0.0 {
        return Ok(low);
    }
    let high = upper.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    Ok(interpolate(low, high, fraction))
}

/// As [`median`], in linear time and without allocation; reorders the values.
///
/// # Errors
/// As [`median`].
pub fn median_in_place(values: &mut [f64]) -> Result<f64, StatsError> {
    quantile_in_place(values, 0.5)
}

/// As [`quantile`], for values that already ascend. Constant time: the order is not checked, and
/// only the values that are read are tested for being finite.
///
/// # Errors
/// As [`quantile`].
pub fn sorted_quantile(sorted: &[f64], p: f64) -> Result<f64, StatsError> {
    if sorted.is_empty() {
        return Err(StatsError::TooShort { needed: 1, got: 0 });
    }
    check_probability("quantile", p)?;
    let (below, fraction) = position(sorted.len(), p);
    let above = if fraction > 0.0 { below + 1 } else { below };
    for index in [below, above] {
        if !sorted[index].is_finite() {
            return Err(StatsError::NotFinite { index });
        }
    }
    Ok(interpolate(sorted[below], sorted[above], fraction))
}

/// A series that was sorted once, so that quantiles of many resamples of it cost linear time each.
#[derive(Debug, Clone)]
pub struct Ranked {
    /// Pairs of value and original index, ascending by value.
    pairs: Vec<(f64, usize)>,
}

impl Ranked {
    /// Sorts the series.
    ///
    /// # Errors
    /// An empty slice or a value that is not finite.
    pub fn new(values: &[f64]) -> Result<Self, StatsError> {
        check(values, 1)?;
        let mut pairs: Vec<_> = values.iter().copied().zip(0..).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Self { pairs })
    }

    /// The quantile of the resample that holds value `i` `counts[i]` times.
    ///
    /// # Errors
    /// Counts of another length than the series, counts that are all zero, or `p` outside [0, 1].
    pub fn resampled_quantile(&self, counts: &[u32], p: f64) -> Result<f64, StatsError> {
        check_probability("quantile", p)?;
        if counts.len() != self.pairs.len() {
            let (left, right) = (self.pairs.len(), counts.len());
            return Err(StatsError::LengthMismatch { left, right });
        }
        let total: usize = counts.iter().map(|&count| count as usize).sum();
        if total == 0 {
            return Err(StatsError::TooShort { needed: 1, got: 0 });
        }
        let (below, fraction) = position(total, p);
        let mut seen = 0;
        let mut low = None;
        for &(value, index) in &self.pairs {
            seen += counts[index] as usize;
            if low.is_none() && seen > below {
                low = Some(value);
            }
            if let Some(low) = low
                && (fraction <= 0.0 || seen > below + 1)
            {
                return Ok(interpolate(low, value, fraction));
            }
        }
        // Reached only if `fraction` is a rounding crumb past the last value.
        Ok(self.pairs[self.pairs.len() - 1].0)
    }
}

/// Index of the order statistic at or below the quantile, and how far the quantile lies beyond it.
fn position(n: usize, p: f64) -> (usize, f64) {
    let at = (n - 1) as f64 * p;
    let below = (at.floor() as usize).min(n - 1);
    if below == n - 1 {
        (below, 0.0)
    } else {
        (below, at - below as f64)
    }
}

/// Interpolates without overflow and never outside [low, high].
fn interpolate(low: f64, high: f64, fraction: f64) -> f64 {
    (low * (1.0 - fraction) + high * fraction).clamp(low, high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_quantile(values: &[f64], p: f64, expect: f64) {
        let got = quantile(values, p).unwrap();
        assert!(
            (got - expect).abs() < 1e-12,
            "quantile {p} of {values:?}: {got}, not {expect}"
        );
    }

    /// R: quantile(c(1, 3, 2, 10), c(0, .1, .25, .5, .9, 1)), type 7.
    #[test]
    fn agrees_with_r() {
        let values = [1.0, 3.0, 2.0, 10.0];
        for (p, expect) in [
            (0.0, 1.0),
            (0.1, 1.3),
            (0.25, 1.75),
            (0.5, 2.5),
            (0.9, 7.9),
            (1.0, 10.0),
        ] {
            check_quantile(&values, p, expect);
        }
        check_quantile(&[5.0], 0.3, 5.0);
    }

    #[test]
    fn refuses() {
        assert_eq!(median(&[]), Err(StatsError::TooShort { needed: 1, got: 0 }));
        assert_eq!(
            median(&[1.0, f64::NAN]),
            Err(StatsError::NotFinite { index: 1 })
        );
        assert!(quantile(&[1.0], 1.1).is_err());
        assert!(quantile(&[1.0], f64::NAN).is_err());
        let ranked = Ranked::new(&[1.0, 2.0]).unwrap();
        assert!(ranked.resampled_quantile(&[0, 0], 0.5).is_err());
        assert!(ranked.resampled_quantile(&[1], 0.5).is_err());
    }

    proptest! {
        #[test]
        fn variants_agree(
            values in prop::collection::vec(-1e6..1e6_f64, 1..60),
            counts in prop::collection::vec(0_u32..4, 60),
            p in 0.0..=1.0_f64,
        ) {
            let expect = quantile(&values, p).unwrap();
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            prop_assert!((sorted_quantile(&sorted, p).unwrap() - expect).abs() < 1e-9);
            let ranked = Ranked::new(&values).unwrap();
            let counts = &counts[..values.len()];
            let repeated: Vec<f64> = values
                .iter()
                .zip(counts)
                .flat_map(|(&value, &count)| std::iter::repeat_n(value, count as usize))
                .collect();
            if !repeated.is_empty() {
                let got = ranked.resampled_quantile(counts, p).unwrap();
                prop_assert!((got - quantile(&repeated, p).unwrap()).abs() < 1e-9);
            }
        }
    }
}
