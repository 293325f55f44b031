//! The normal distribution function and its inverse.

use std::f64::consts::{PI, SQRT_2};

/// Probability that a standard normal variable lies below `x`.
#[must_use]
pub fn normal_cdf(x: f64) -> f64 {
    if x < 0.0 {
        0.5 * erfc(-x / SQRT_2)
    } else {
        1.0 - 0.5 * erfc(x / SQRT_2)
    }
}

/// The standard normal quantile at probability `p`; `None` unless 0 < p < 1.
///
/// Acklam's rational approximation (relative error 1.15e-9), then one step of Halley's method
/// against [`normal_cdf`].
#[must_use]
pub fn normal_quantile(p: f64) -> Option<f64> {
    if !(p > 0.0 && p < 1.0) {
        return None;
    }
    if p > 0.5 {
        // The lower tail has the better relative precision.
        return Some(-lower_quantile(1.0 - p));
    }
    Some(lower_quantile(p))
}

fn lower_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 6] = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 5] = [
        7.784695709041462e-3,
        3.224671290700398e-1,
        2.445134137142996,
        3.754408661907416,
        1.0,
    ];
    let x = if p < 0.02425 {
        let q = (-2.0 * p.ln()).sqrt();
        horner(&C, q) / horner(&D, q)
    } else {
        let q = p - 0.5;
        horner(&A, q * q) * q / horner(&B, q * q)
    };
    let error = normal_cdf(x) - p;
    let u = error * (2.0 * PI).sqrt() * (x * x / 2.0).exp();
    x - u / (1.0 + x * u / 2.0)
}

fn horner(coefficients: &[f64], x: f64) -> f64 {
    coefficients
        .iter()
        .fold(0.0, |sum, coefficient| sum * x + coefficient)
}

/// Complementary error function for x >= 0: the series 7.1.6 of Abramowitz and Stegun for small x,
/// the continued fraction 7.1.14 beyond.
fn erfc(x: f64) -> f64 {
    if x < 2.5 {
        let mut term = x;
        let mut sum = x;
        let mut k = 1.0;
        while term > sum * 1e-17 {
            term *= 2.0 * x * x / (2.0 * k + 1.0);
            sum += term;
            k += 1.0;
        }
        return 1.0 - 2.0 / PI.sqrt() * (-x * x).exp() * sum;
    }
    let mut tail = x;
    for k in (1..=60).rev() {
        tail = x + 0.5 * f64::from(k) / tail;
    }
    (-x * x).exp() / (PI.sqrt() * tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of R's pnorm and qnorm.
    #[test]
    fn agrees_with_r() {
        let cases = [
            (-6.0, 9.865876450377e-10),
            (-4.0, 3.167124183312e-5),
            (-1.0, 0.158655253931457),
            (0.0, 0.5),
            (0.5, 0.691462461274013),
            (1.959963984540054, 0.975),
            (3.0, 0.998650101968370),
        ];
        for (x, p) in cases {
            assert!(
                (normal_cdf(x) - p).abs() < 1e-11 * p,
                "cdf({x}) = {}",
                normal_cdf(x)
            );
            let quantile = normal_quantile(p).unwrap();
            assert!((quantile - x).abs() < 1e-9, "quantile({p}) = {quantile}");
        }
        for p in [0.0, 1.0, -0.1, f64::NAN] {
            assert_eq!(normal_quantile(p), None);
        }
    }
}
