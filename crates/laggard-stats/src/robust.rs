//! Location and spread that a few wild values cannot move.

use crate::error::{StatsError, check};
use crate::quantile::{median, median_in_place};

/// Factor that makes the median absolute deviation estimate the standard deviation of a normal
/// sample: 1 / (the normal quantile at 3/4). Rousseeuw and Croux, "Alternatives to the median
/// absolute deviation", JASA 88(424), 1993.
pub const MAD_TO_SIGMA: f64 = 1.482_602_218_505_602;

/// Median absolute deviation about the median, times [`MAD_TO_SIGMA`].
///
/// # Errors
/// An empty slice or a value that is not finite.
pub fn mad(values: &[f64]) -> Result<f64, StatsError> {
    mad_about(values, median(values)?)
}

/// Median absolute deviation about a given centre, times [`MAD_TO_SIGMA`].
///
/// # Errors
/// An empty slice, or a value or a centre that is not finite.
pub fn mad_about(values: &[f64], center: f64) -> Result<f64, StatsError> {
    check(values, 1)?;
    if !center.is_finite() {
        return Err(StatsError::OutOfRange {
            name: "center",
            value: center,
            allowed: "finite",
        });
    }
    let mut deviations: Vec<f64> = values.iter().map(|value| (value - center).abs()).collect();
    Ok(MAD_TO_SIGMA * median_in_place(&mut deviations)?)
}

/// Mean after dropping the fraction `trim` of the values, rounded down, at each end.
///
/// # Errors
/// An empty slice, a value that is not finite, or `trim` outside [0, 0.5).
pub fn trimmed_mean(values: &[f64], trim: f64) -> Result<f64, StatsError> {
    check(values, 1)?;
    if !(0.0..0.5).contains(&trim) {
        let allowed = "at least 0 and below 0.5";
        return Err(StatsError::OutOfRange {
            name: "trim",
            value: trim,
            allowed,
        });
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let drop = (values.len() as f64 * trim) as usize;
    let kept = &sorted[drop..values.len() - drop];
    Ok(kept.iter().sum::<f64>() / kept.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R: mad(c(1,2,3,4,100)) and mean(c(1,2,3,4,100), trim = 0.2).
    #[test]
    fn agrees_with_r() {
        let values = [3.0, 100.0, 1.0, 4.0, 2.0];
        assert!((mad(&values).unwrap() - 1.4826).abs() < 1e-4);
        assert!((trimmed_mean(&values, 0.2).unwrap() - 3.0).abs() < 1e-12);
        assert!((trimmed_mean(&values, 0.0).unwrap() - 22.0).abs() < 1e-12);
    }

    #[test]
    fn refuses() {
        assert!(mad(&[]).is_err());
        assert!(mad(&[f64::INFINITY]).is_err());
        assert!(mad_about(&[1.0], f64::NAN).is_err());
        assert!(trimmed_mean(&[1.0], 0.5).is_err());
    }
}
