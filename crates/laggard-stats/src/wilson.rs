//! The Wilson score interval of a proportion.

use crate::bootstrap::Interval;
use crate::error::StatsError;

/// Interval for the probability behind `successes` of `trials`, at `z` standard normal deviations
/// (1.96 for 95 %). Wilson, "Probable inference, the law of succession, and statistical
/// inference", JASA 22(158), 1927.
///
/// # Errors
/// No trials, more successes than trials, or a `z` that is negative or not finite.
pub fn wilson_interval(successes: u64, trials: u64, z: f64) -> Result<Interval, StatsError> {
    if trials == 0 {
        return Err(StatsError::TooShort { needed: 1, got: 0 });
    }
    if successes > trials {
        let allowed = "at most the number of trials";
        let value = successes as f64;
        return Err(StatsError::OutOfRange {
            name: "successes",
            value,
            allowed,
        });
    }
    if !(z >= 0.0 && z.is_finite()) {
        let allowed = "finite and not negative";
        return Err(StatsError::OutOfRange {
            name: "z",
            value: z,
            allowed,
        });
    }
    let (n, p) = (trials as f64, successes as f64 / trials as f64);
    let scale = 1.0 + z * z / n;
    let center = (p + z * z / (2.0 * n)) / scale;
    let half = z / scale * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // At the ends the formula gives exactly 0 and 1; the comparison only removes rounding.
    let low = if successes == 0 {
        0.0
    } else {
        (center - half).max(0.0)
    };
    let high = if successes == trials {
        1.0
    } else {
        (center + half).min(1.0)
    };
    Ok(Interval { low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R: prop.test(k, n, correct = FALSE)$conf.int.
    #[test]
    fn agrees_with_r() {
        let z = 1.959963984540054;
        for (k, n, low, high) in [
            (0, 10, 0.0, 0.2775328),
            (5, 10, 0.2365931, 0.7634069),
            (81, 263, 0.2552831, 0.3662090),
        ] {
            let got = wilson_interval(k, n, z).unwrap();
            assert!((got.low - low).abs() < 1e-4, "{k}/{n}: {got:?}");
            assert!((got.high - high).abs() < 1e-4, "{k}/{n}: {got:?}");
        }
    }

    #[test]
    fn refuses() {
        assert!(wilson_interval(0, 0, 1.96).is_err());
        assert!(wilson_interval(2, 1, 1.96).is_err());
        assert!(wilson_interval(1, 2, f64::NAN).is_err());
    }
}
