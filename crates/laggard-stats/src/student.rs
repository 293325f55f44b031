//! The upper tail of Student's t distribution.

use std::f64::consts::PI;

/// Probability that a t variable with some degrees of freedom lies above `t`; `None` unless `t` is
/// finite and there is at least one degree of freedom. Exact but for rounding, which leaves
/// nothing of probabilities below 1e-14. Source: Abramowitz and Stegun, 26.7.3 and 26.7.4.
#[must_use]
pub fn student_upper_tail(t: f64, freedom: u32) -> Option<f64> {
    if !t.is_finite() || freedom == 0 {
        return None;
    }
    let angle = (t.abs() / f64::from(freedom).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let is_odd = freedom % 2 == 1;
    let mut term = if is_odd { cosine } else { 1.0 };
    let mut sum = if freedom == 1 { 0.0 } else { term };
    let mut power = if is_odd { 1 } else { 0 };
    while power + 2 < freedom {
        let at = f64::from(power);
        term *= (at + 1.0) / (at + 2.0) * cosine * cosine;
        sum += term;
        power += 2;
    }
    let within = match is_odd {
        true => 2.0 / PI * (angle + sine * sum),
        false => sine * sum,
    };
    let tail = (0.5 * (1.0 - within)).max(0.0);
    Some(if t < 0.0 { 1.0 - tail } else { tail })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables of the distribution: the t with a given upper tail.
    #[test]
    fn agrees_with_tables() {
        let cases = [
            (6.313_752, 1, 0.05),
            (2.919_986, 2, 0.05),
            (2.353_363, 3, 0.05),
            (2.131_847, 4, 0.05),
            (4.604_095, 4, 0.005),
            (13.033_672, 4, 1e-4),
            (1.812_461, 10, 0.05),
            (3.169_273, 10, 0.005),
            (5.693_820, 10, 1e-4),
            (1.697_261, 30, 0.05),
            (0.0, 7, 0.5),
        ];
        for (t, freedom, expect) in cases {
            let found = student_upper_tail(t, freedom).expect("a probability");
            assert!(
                (found / expect - 1.0).abs() < 1e-4,
                "{t} {freedom}: {found}"
            );
            let other = student_upper_tail(-t, freedom).expect("a probability");
            assert!((found + other - 1.0).abs() < 1e-12);
        }
        // Many degrees of freedom are a normal variable.
        let found = student_upper_tail(1.959_964, 200_000).expect("a probability");
        assert!((found - 0.025).abs() < 1e-5, "{found}");
        assert_eq!(student_upper_tail(f64::NAN, 3), None);
        assert_eq!(student_upper_tail(1.0, 0), None);
    }
}
