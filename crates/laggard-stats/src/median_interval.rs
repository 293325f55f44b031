//! An interval for a median that supposes no distribution.

use crate::bootstrap::Interval;

/// The innermost of ascending values, counted from both ends, between which the median lies with at
/// least this confidence, whatever the law of the values, if they do not depend on each other;
/// `None` where they are too few. It is the interval of the sign test: Conover, "Practical
/// Nonparametric Statistics", section on confidence intervals for a quantile.
#[must_use]
pub fn sorted_median_interval(sorted: &[f64], confidence: f64) -> Option<Interval> {
    let outside = outside(sorted.len(), (1.0 - confidence) / 2.0)?;
    Some(Interval {
        low: sorted[outside - 1],
        high: sorted[sorted.len() - outside],
    })
}

/// The largest number for which fewer of so many tosses of a coin come out heads with at most this
/// probability; `None` where that is not even so for 1.
fn outside(tosses: usize, probability: f64) -> Option<usize> {
    let mut log_of_one = -(tosses as f64) * std::f64::consts::LN_2;
    let mut fewer = log_of_one.exp();
    let mut heads = 0;
    while fewer <= probability && heads < tosses / 2 {
        heads += 1;
        log_of_one += ((tosses - heads + 1) as f64 / heads as f64).ln();
        fewer += log_of_one.exp();
    }
    (heads > 0).then_some(heads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_lie_outside_by_chance() {
        // Tables of the binomial distribution: of 20 tosses, 5 heads or fewer with 0.0207, 6 or
        // fewer with 0.0577.
        assert_eq!(outside(20, 0.025), Some(6));
        assert_eq!(outside(20, 0.02), Some(5));
        assert_eq!(outside(5, 0.025), None);
        assert_eq!(outside(6, 0.025), Some(1));
        assert_eq!(outside(0, 0.025), None);
        // By the normal distribution: 5000 - 1.96 x 50.
        assert!(outside(10_000, 0.025).is_some_and(|it| it.abs_diff(4902) <= 2));
    }

    #[test]
    fn intervals_are_those_of_the_sign_test() {
        let ranks = |count: u32| {
            let values: Vec<f64> = (1..=count).map(f64::from).collect();
            sorted_median_interval(&values, 0.95).map(|it| (it.low, it.high))
        };
        assert_eq!(ranks(0), None);
        assert_eq!(ranks(5), None);
        // 1 + 9 of 512 ways to have at most one below, 1 + 9 + 36 at most two: 2.0 % and 9.0 %.
        assert_eq!(ranks(9), Some((2.0, 8.0)));
        // 2.07 % for at most five of 20, 5.8 % for at most six.
        assert_eq!(ranks(20), Some((6.0, 15.0)));
    }
}
