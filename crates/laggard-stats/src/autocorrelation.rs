//! How strongly neighbours of a series depend on each other, and what that leaves of its length.

use crate::error::{StatsError, check};

/// Window rule of [`integrated_time`]: the sum stops at the first lag of at least this many times
/// the time found so far (Sokal, "Monte Carlo methods in statistical mechanics", 1996, section 3).
const SOKAL_WINDOW: f64 = 5.0;

/// Autocorrelations at the lags 0 to `max_lag`, as the usual estimator with divisor n at each lag.
/// A constant series has 1 at lag 0 and 0 elsewhere.
///
/// # Errors
/// Fewer than two values, a value that is not finite, or a lag not below the length.
pub fn autocorrelations(values: &[f64], max_lag: usize) -> Result<Vec<f64>, StatsError> {
    check(values, 2)?;
    if max_lag >= values.len() {
        let allowed = "below the length of the series";
        return Err(StatsError::OutOfRange {
            name: "max_lag",
            value: max_lag as f64,
            allowed,
        });
    }
    let centered = centered(values);
    let variance = lagged_product(&centered, 0);
    let mut rho: Vec<f64> = (0..=max_lag)
        .map(|lag| {
            if variance > 0.0 {
                lagged_product(&centered, lag) / variance
            } else {
                0.0
            }
        })
        .collect();
    rho[0] = 1.0;
    Ok(rho)
}

/// An integrated autocorrelation time and the window that it was summed over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IntegratedTime {
    /// 1/2 + the sum of the autocorrelations from lag 1, in steps; at least 1/2, so that an
    /// alternating series never counts for more than its length.
    pub tau: f64,
    /// The last lag in the sum.
    pub window: usize,
}

/// Integrated autocorrelation time, with Sokal's self-consistent window of five times itself.
///
/// # Errors
/// Fewer than two values, or a value that is not finite.
pub fn integrated_time(values: &[f64]) -> Result<IntegratedTime, StatsError> {
    check(values, 2)?;
    let centered = centered(values);
    let variance = lagged_product(&centered, 0);
    if variance <= 0.0 {
        return Ok(IntegratedTime {
            tau: 0.5,
            window: 0,
        });
    }
    let mut tau = 0.5;
    let mut window = 0;
    for lag in 1..values.len() {
        tau += lagged_product(&centered, lag) / variance;
        window = lag;
        if lag as f64 >= SOKAL_WINDOW * tau {
            break;
        }
    }
    Ok(IntegratedTime {
        tau: tau.max(0.5),
        window,
    })
}

/// How many independent values the series is worth: n / (2 tau) = n / (1 + 2 sum of rho).
///
/// # Errors
/// As [`integrated_time`].
pub fn effective_sample_size(values: &[f64]) -> Result<f64, StatsError> {
    Ok(values.len() as f64 / (2.0 * integrated_time(values)?.tau))
}

/// Block length for a circular block bootstrap of the mean or a similar statistic.
///
/// The automatic choice of Politis and White, "Automatic block-length selection for the dependent
/// bootstrap", Econometric Reviews 23(1), 2004, in the form corrected by Patton, Politis and
/// White, Econometric Reviews 28(4), 2009. At least 1; at most a third of the series.
///
/// # Errors
/// Fewer than two values, or a value that is not finite.
pub fn block_length(values: &[f64]) -> Result<usize, StatsError> {
    check(values, 2)?;
    let n = values.len();
    let centered = centered(values);
    let variance = lagged_product(&centered, 0);
    if variance <= 0.0 {
        return Ok(1);
    }
    let root = (n as f64).sqrt();
    let run = (n as f64).log10().sqrt().ceil().max(5.0) as usize;
    let last_lag = (root.ceil() as usize + run).min(n - 1);
    let longest = (3.0 * root).min(n as f64 / 3.0).ceil().max(1.0);
    let covariance: Vec<f64> = (0..=last_lag)
        .map(|lag| lagged_product(&centered, lag) / n as f64)
        .collect();

    let insignificant = 2.0 * ((n as f64).log10() / n as f64).sqrt() * covariance[0];
    let is_quiet = |lag: &usize| {
        covariance[lag + 1..]
            .iter()
            .take(run)
            .all(|value| value.abs() < insignificant)
    };
    let quiet_after = (0..last_lag).find(is_quiet).unwrap_or(last_lag);
    let bandwidth = (2 * quiet_after.max(1)).min(last_lag);

    let mut spectrum = covariance[0];
    let mut slope = 0.0;
    for (lag, &value) in covariance.iter().enumerate().take(bandwidth + 1).skip(1) {
        let weight = flat_top(lag as f64 / bandwidth as f64);
        spectrum += 2.0 * weight * value;
        slope += 2.0 * weight * lag as f64 * value;
    }
    // 2 G^2 / D with D = 4/3 g(0)^2; g(0) can come out as nearly nothing on alternating series.
    let ratio = 1.5 * (slope / spectrum).powi(2);
    let best = (ratio * n as f64).cbrt().ceil();
    Ok(if best.is_finite() {
        best.clamp(1.0, longest) as usize
    } else {
        longest as usize
    })
}

/// The flat-top lag window of Politis and Romano (1995).
fn flat_top(t: f64) -> f64 {
    if t <= 0.5 {
        1.0
    } else {
        (2.0 * (1.0 - t)).max(0.0)
    }
}

fn centered(values: &[f64]) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let centered: Vec<f64> = values.iter().map(|value| value - mean).collect();
    // What remains of a constant series after rounding is not variation.
    let noise = mean.abs() * f64::EPSILON * 4.0;
    if centered.iter().all(|value| value.abs() <= noise) {
        return vec![0.0; values.len()];
    }
    centered
}

fn lagged_product(centered: &[f64], lag: usize) -> f64 {
    centered
        .iter()
        .zip(&centered[lag..])
        .map(|(a, b)| a * b)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn ar1(phi: f64, n: usize, seed: u64) -> Vec<f64> {
        let mut rng = Rng::new(seed);
        let mut x = rng.normal() / (1.0 - phi * phi).sqrt();
        (0..n)
            .map(|_| {
                x = phi * x + rng.normal();
                x
            })
            .collect()
    }

    /// AR(1) has rho(k) = phi^k and tau = 1/2 + phi / (1 - phi).
    #[test]
    fn ar1_is_known_in_closed_form() {
        for phi in [0.0_f64, 0.3, 0.6, 0.9] {
            let values = ar1(phi, 100_000, 11);
            let rho = autocorrelations(&values, 3).unwrap();
            for (lag, got) in (0..).zip(rho) {
                assert!(
                    (got - phi.powi(lag)).abs() < 0.02,
                    "phi {phi}, lag {lag}: {got}"
                );
            }
            let tau = integrated_time(&values).unwrap().tau;
            let expect = 0.5 + phi / (1.0 - phi);
            assert!(
                (tau / expect - 1.0).abs() < 0.1,
                "phi {phi}: tau {tau}, expected {expect}"
            );
            let effective = effective_sample_size(&values).unwrap();
            assert!((effective * 2.0 * tau / 100_000.0 - 1.0).abs() < 1e-12);
        }
    }

    /// The theoretical optimum of Politis and White for AR(1), circular blocks:
    /// (1.5 * (2 phi / (1 - phi^2))^2 * n)^(1/3).
    #[test]
    fn block_length_nears_the_optimum() {
        let n = 20_000;
        for phi in [0.3_f64, 0.6, 0.8] {
            let got = block_length(&ar1(phi, n, 5)).unwrap() as f64;
            let expect = (1.5 * (2.0 * phi / (1.0 - phi * phi)).powi(2) * n as f64).cbrt();
            assert!(
                (got / expect - 1.0).abs() < 0.35,
                "phi {phi}: {got}, optimum {expect}"
            );
        }
        assert!(block_length(&ar1(0.0, n, 5)).unwrap() <= 8);
    }

    #[test]
    fn edges() {
        assert_eq!(
            integrated_time(&[0.1; 9]).unwrap().tau.to_bits(),
            0.5_f64.to_bits()
        );
        assert_eq!(block_length(&[0.1; 9]), Ok(1));
        assert_eq!(autocorrelations(&[2.0, 2.0], 1), Ok(vec![1.0, 0.0]));
        assert!(block_length(&[1.0, 2.0]).unwrap() >= 1);
        let alternating: Vec<f64> = (0..100).map(|i| f64::from(i % 2)).collect();
        assert!((1..=34).contains(&block_length(&alternating).unwrap()));
        assert!(effective_sample_size(&alternating).unwrap() <= 100.0);
        assert!(integrated_time(&[1.0]).is_err());
        assert!(autocorrelations(&[1.0, 2.0], 2).is_err());
        assert!(block_length(&[1.0, f64::NAN]).is_err());
    }
}
