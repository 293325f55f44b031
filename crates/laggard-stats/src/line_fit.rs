//! Straight lines through points: least squares, and Theil-Sen where outliers are expected.

use crate::bootstrap::Interval;
use crate::error::{StatsError, check, check_confidence};
use crate::normal::normal_quantile;
use crate::quantile::{median_in_place, quantile_in_place};

/// A fitted line y = intercept + slope x.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LineFit {
    /// Change of y per unit of x.
    pub slope: f64,
    /// Value at x = 0.
    pub intercept: f64,
    /// Share of the variation of y that the line explains: 1 - residual / total sum of squares.
    /// Absent if y does not vary; below 0 if a robust line does worse than the mean.
    pub r_squared: Option<f64>,
    /// Interval of the slope at the confidence asked for.
    pub slope_interval: Interval,
}

/// Ordinary least squares, with Student's interval of the slope (independent residuals).
///
/// # Errors
/// Fewer than three points, lengths that differ, numbers that are not finite, all x equal, or a
/// confidence outside (0, 1).
pub fn least_squares(x: &[f64], y: &[f64], confidence: f64) -> Result<LineFit, StatsError> {
    check_points(x, y)?;
    check_confidence(confidence)?;
    let n = x.len() as f64;
    let (mean_x, mean_y) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let sxx: f64 = x.iter().map(|x| (x - mean_x).powi(2)).sum();
    let sxy: f64 = x
        .iter()
        .zip(y)
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    let slope = sxy / sxx;
    let intercept = mean_y - slope * mean_x;
    let residual = residual_squares(x, y, slope, intercept);
    let degrees = x.len() - 2;
    let error = (residual / degrees as f64 / sxx).sqrt();
    let half = student_quantile((1.0 + confidence) / 2.0, degrees) * error;
    Ok(LineFit {
        slope,
        intercept,
        r_squared: r_squared(y, residual),
        slope_interval: Interval {
            low: slope - half,
            high: slope + half,
        },
    })
}

/// The median of the slopes through all pairs of points (Theil 1950), with Sen's rank-based
/// interval ("Estimates of the regression coefficient based on Kendall's tau", JASA 63(324),
/// 1968, without its correction for ties). Withstands 29 % of wild points. Takes time and memory
/// quadratic in the number of points.
///
/// # Errors
/// As [`least_squares`].
pub fn theil_sen(x: &[f64], y: &[f64], confidence: f64) -> Result<LineFit, StatsError> {
    check_points(x, y)?;
    check_confidence(confidence)?;
    let mut slopes = Vec::with_capacity(x.len() * (x.len() - 1) / 2);
    for i in 0..x.len() {
        for j in i + 1..x.len() {
            let slope = (y[j] - y[i]) / (x[j] - x[i]);
            if slope.is_finite() {
                slopes.push(slope);
            }
        }
    }
    let slope = median_in_place(&mut slopes)?;
    let mut offsets: Vec<f64> = x.iter().zip(y).map(|(x, y)| y - slope * x).collect();
    let intercept = median_in_place(&mut offsets)?;
    let n = x.len() as f64;
    let z = normal_quantile((1.0 + confidence) / 2.0).unwrap_or(0.0);
    let spread = z * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let half = spread / 2.0 / slopes.len() as f64;
    let slope_interval = Interval {
        low: quantile_in_place(&mut slopes, (0.5 - half).max(0.0))?,
        high: quantile_in_place(&mut slopes, (0.5 + half).min(1.0))?,
    };
    let residual = residual_squares(x, y, slope, intercept);
    Ok(LineFit {
        slope,
        intercept,
        r_squared: r_squared(y, residual),
        slope_interval,
    })
}

fn check_points(x: &[f64], y: &[f64]) -> Result<(), StatsError> {
    if x.len() != y.len() {
        return Err(StatsError::LengthMismatch {
            left: x.len(),
            right: y.len(),
        });
    }
    check(x, 3)?;
    check(y, 3)?;
    if x.iter().all(|&other| other.total_cmp(&x[0]).is_eq()) {
        return Err(StatsError::OutOfRange {
            name: "x",
            value: x[0],
            allowed: "different at some point",
        });
    }
    Ok(())
}

fn residual_squares(x: &[f64], y: &[f64], slope: f64, intercept: f64) -> f64 {
    x.iter()
        .zip(y)
        .map(|(x, y)| (y - intercept - slope * x).powi(2))
        .sum()
}

fn r_squared(y: &[f64], residual: f64) -> Option<f64> {
    let mean = y.iter().sum::<f64>() / y.len() as f64;
    let total: f64 = y.iter().map(|y| (y - mean).powi(2)).sum();
    (total > 0.0).then(|| 1.0 - residual / total)
}

/// Quantile of Student's t: exact for one and two degrees of freedom, else Hill, "Algorithm 396:
/// Student's t-quantiles", CACM 13(10), 1970.
fn student_quantile(p: f64, degrees: usize) -> f64 {
    let two_tails = 2.0 * (1.0 - p);
    if degrees == 1 {
        return 1.0 / (two_tails * std::f64::consts::FRAC_PI_2).tan();
    }
    if degrees == 2 {
        return (2.0 / (two_tails * (2.0 - two_tails)) - 2.0).sqrt();
    }
    let n = degrees as f64;
    let a = 1.0 / (n - 0.5);
    let b = (48.0 / a) / a;
    let mut c = ((20_700.0 * a / b - 98.0) * a - 16.0) * a + 96.36;
    let d = ((94.5 / (b + c) - 3.0) / b + 1.0) * (a * std::f64::consts::FRAC_PI_2).sqrt() * n;
    let mut y = (d * two_tails).powf(2.0 / n);
    if y > 0.05 + a {
        let x = normal_quantile(two_tails / 2.0).unwrap_or(0.0);
        y = x * x;
        if degrees < 5 {
            c += 0.3 * (n - 4.5) * (x + 0.6);
        }
        c += (((0.05 * d * x - 5.0) * x - 7.0) * x - 2.0) * x + b;
        y = (((((0.4 * y + 6.3) * y + 36.0) * y + 94.5) / c - y - 3.0) / b + 1.0) * x;
        y = (a * y * y).exp_m1();
    } else {
        let first = 1.0 / (((n + 6.0) / (n * y) - 0.089 * d - 0.822) * (n + 2.0) * 3.0);
        y = ((first + 0.5 / (n + 4.0)) * y - 1.0) * (n + 1.0) / (n + 2.0) + 1.0 / y;
    }
    (n * y).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// R: qt(p, df).
    #[test]
    fn student_agrees_with_r() {
        let cases = [
            (0.975, 1, 12.7062047),
            (0.975, 2, 4.3026527),
            (0.975, 3, 3.1824463),
            (0.975, 4, 2.7764451),
            (0.975, 10, 2.2281389),
            (0.995, 5, 4.0321430),
            (0.95, 30, 1.6972609),
            (0.6, 8, 0.2619211),
        ];
        for (p, degrees, expect) in cases {
            let got = student_quantile(p, degrees);
            assert!(
                (got / expect - 1.0).abs() < 1e-3,
                "t({p}, {degrees}) = {got}, not {expect}"
            );
        }
    }

    #[test]
    fn least_squares_by_hand() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0];
        let y = [2.0, 4.0, 5.0, 4.0, 5.0];
        let fit = least_squares(&x, &y, 0.95).unwrap();
        // Sxx = 10, Sxy = 6, Syy = 6, residual = 2.4, error = sqrt(2.4 / 3 / 10).
        assert!((fit.slope - 0.6).abs() < 1e-12 && (fit.intercept - 2.2).abs() < 1e-12);
        assert!((fit.r_squared.unwrap() - 0.6).abs() < 1e-12);
        let half = 3.1824463 * 0.08_f64.sqrt();
        assert!((fit.slope_interval.high - 0.6 - half).abs() < 1e-3 * half);
    }

    #[test]
    fn theil_sen_withstands_a_quarter_of_outliers() {
        let mut rng = Rng::new(4);
        let x: Vec<f64> = (0..40).map(f64::from).collect();
        let line = |(i, x): (usize, &f64)| {
            2.0 + 0.5 * x + 0.01 * rng.normal() + if i % 4 == 3 { 50.0 + *x } else { 0.0 }
        };
        let y: Vec<f64> = x.iter().enumerate().map(line).collect();
        let fit = theil_sen(&x, &y, 0.95).unwrap();
        assert!((fit.slope - 0.5).abs() < 0.01, "{fit:?}");
        assert!(fit.slope_interval.contains(0.5), "{fit:?}");
        assert!((fit.intercept - 2.0).abs() < 0.3, "{fit:?}");
    }

    /// Both intervals hold the true slope in about 95 % of 300 seeded samples (3.3 deviations).
    #[test]
    fn slope_intervals_cover() {
        let x: Vec<f64> = (0..25).map(f64::from).collect();
        for fit in [least_squares, theil_sen] {
            let hits = (0..300)
                .filter(|&seed| {
                    let mut rng = Rng::new(seed);
                    let y: Vec<f64> = x.iter().map(|x| 1.0 - 0.2 * x + rng.normal()).collect();
                    fit(&x, &y, 0.95).unwrap().slope_interval.contains(-0.2)
                })
                .count();
            assert!((273..=297).contains(&hits), "{hits} of 300");
        }
    }

    #[test]
    fn refuses() {
        for fit in [least_squares, theil_sen] {
            assert!(fit(&[1.0, 2.0], &[1.0, 2.0], 0.95).is_err());
            assert!(fit(&[1.0, 2.0, 3.0], &[1.0, 2.0], 0.95).is_err());
            assert!(fit(&[1.0; 3], &[1.0, 2.0, 3.0], 0.95).is_err());
            assert!(fit(&[1.0, 2.0, f64::NAN], &[1.0, 2.0, 3.0], 0.95).is_err());
            assert!(fit(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0], 0.0).is_err());
        }
        assert_eq!(
            least_squares(&[1.0, 2.0, 3.0], &[4.0; 3], 0.9)
                .unwrap()
                .r_squared,
            None
        );
    }
}
