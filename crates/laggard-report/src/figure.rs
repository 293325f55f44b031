//! Numbers as all formats print them. What is not finite prints as `n/a`: a figure that does not
//! exist must not look like one.

use laggard_analyze::Estimate;
use laggard_types::format_seconds;

const ABSENT: &str = "n/a";

/// A number with so many decimals; never `-0.0`.
pub(crate) fn decimal(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return ABSENT.to_owned();
    }
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|b| matches!(b, b'0' | b'.')) => rest.to_owned(),
        _ => text,
    }
}

/// `38.2 %`.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() {
        format!("{} %", decimal(share * 100.0, 1))
    } else {
        ABSENT.to_owned()
    }
}

/// `+18.0 %`: a difference, with its sign.
pub(crate) fn excess(share: f64) -> String {
    let text = percent(share);
    if share >= 0.0005 && share.is_finite() {
        format!("+{text}")
    } else {
        text
    }
}

/// `[37.9, 38.5]`, in percent.
pub(crate) fn percent_interval(estimate: &Estimate) -> String {
    format!(
        "[{}, {}]",
        decimal(estimate.low * 100.0, 1),
        decimal(estimate.high * 100.0, 1)
    )
}

/// `38.2 % [37.9, 38.5]`.
pub(crate) fn percent_estimate(estimate: &Estimate) -> String {
    format!("{} {}", percent(estimate.value), percent_interval(estimate))
}

/// `[1.088, 1.106]`.
pub(crate) fn ratio_interval(estimate: &Estimate) -> String {
    format!(
        "[{}, {}]",
        decimal(estimate.low, 3),
        decimal(estimate.high, 3)
    )
}

/// `1.098 [1.088, 1.106]`.
pub(crate) fn ratio_estimate(estimate: &Estimate) -> String {
    format!(
        "{} {}",
        decimal(estimate.value, 3),
        ratio_interval(estimate)
    )
}

/// A time in the unit that fits it.
pub(crate) fn seconds(value: f64) -> String {
    if value.is_finite() {
        format_seconds(value)
    } else {
        ABSENT.to_owned()
    }
}

/// `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate or a mean count: `12.3`, `4,567`, `12.3 M`.
pub(crate) fn quantity(value: f64) -> String {
    if !value.is_finite() {
        ABSENT.to_owned()
    } else if value.abs() < 1e3 {
        decimal(value, 1)
    } else if value.abs() < 1e7 {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", count(value.abs().round() as u64))
    } else if value.abs() < 1e9 {
        format!("{:.1} M", value / 1e6)
    } else {
        format!("{:.2} G", value / 1e9)
    }
}

/// `989.0 TFLOP/s`.
pub(crate) fn flop_rate(flop_per_s: f64) -> String {
    if !flop_per_s.is_finite() {
        return ABSENT.to_owned();
    }
    let scales = [(1e18, "EFLOP/s"), (1e15, "PFLOP/s"), (1e12, "TFLOP/s")];
    let (scale, unit) = scales
        .into_iter()
        .find(|(s, _)| flop_per_s.abs() >= *s)
        .unwrap_or((1e9, "GFLOP/s"));
    format!("{:.1} {unit}", flop_per_s / scale)
}

/// Four significant digits, for figures whose unit is in their name.
pub(crate) fn significant(value: f64) -> String {
    let size = value.abs();
    if size >= 1e7 || (size > 0.0 && size < 1e-4) {
        if value.is_finite() {
            format!("{value:.3e}")
        } else {
            ABSENT.to_owned()
        }
    } else if size >= 1e3 {
        quantity(value)
    } else {
        decimal(
            value,
            if size >= 100.0 {
                1
            } else if size >= 10.0 {
                2
            } else if size >= 1.0 {
                3
            } else {
                4
            },
        )
    }
}

/// A probability: `0.020`, `< 0.001`.
pub(crate) fn probability(value: f64) -> String {
    if (0.0..0.001).contains(&value) {
        "< 0.001".to_owned()
    } else {
        decimal(value, 3)
    }
}

/// One unit of time for all numbers of a table or an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeUnit {
    Seconds,
    Milliseconds,
    Microseconds,
}

impl TimeUnit {
    /// The unit in which the largest of the values reads well.
    pub(crate) fn for_all(values: impl IntoIterator<Item = f64>) -> Self {
        let largest = values
            .into_iter()
            .filter(|v| v.is_finite())
            .fold(0.0_f64, |a, b| a.max(b));
        if largest >= 5.0 {
            Self::Seconds
        } else if largest >= 5e-3 {
            Self::Milliseconds
        } else {
            Self::Microseconds
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
        }
    }

    /// The number alone, with the decimals that make about four digits.
    pub(crate) fn number(self, seconds: f64) -> String {
        let value = self.scale(seconds);
        let decimals = if value.abs() >= 1000.0 {
            0
        } else if value.abs() >= 100.0 {
            1
        } else {
            2
        };
        decimal(value, decimals)
    }

    /// The number in this unit.
    pub(crate) fn scale(self, seconds: f64) -> f64 {
        match self {
            Self::Seconds => seconds,
            Self::Milliseconds => seconds * 1e3,
            Self::Microseconds => seconds * 1e6,
        }
    }
}

/// `1 rank`, `8 ranks`.
pub(crate) fn plural(n: usize, noun: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{} {noun}{s}", count(n as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_people_write_them() {
        assert_eq!(percent(0.3818), "38.2 %");
        assert_eq!(percent(-0.0001), "0.0 %");
        assert_eq!(excess(0.18), "+18.0 %");
        assert_eq!(excess(-0.02), "-2.0 %");
        assert_eq!(excess(0.0001), "0.0 %");
        assert_eq!(count(0), "0");
        assert_eq!(count(123), "123");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(quantity(-4567.2), "-4,567");
        assert_eq!(quantity(12_345_678.0), "12.3 M");
        assert_eq!(flop_rate(989e12), "989.0 TFLOP/s");
        assert_eq!(flop_rate(7.9e15), "7.9 PFLOP/s");
        assert_eq!(significant(0.102_34), "0.1023");
        assert_eq!(significant(0.000_012), "1.200e-5");
        assert_eq!(probability(0.0), "< 0.001");
        assert_eq!(probability(0.02), "0.020");
    }

    #[test]
    fn what_is_not_finite_is_said_to_be_absent() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let all = [
                percent,
                excess,
                seconds,
                quantity,
                flop_rate,
                significant,
                probability,
            ];
            for format in all {
                assert_eq!(format(value), "n/a");
            }
            assert_eq!(TimeUnit::for_all([value, 0.02]).number(value), "n/a");
        }
    }

    #[test]
    fn a_table_has_one_unit() {
        let unit = TimeUnit::for_all([0.000_2, 0.12]);
        assert_eq!(
            (unit.name(), unit.number(0.12), unit.number(0.000_2)),
            ("ms", "120.0".to_owned(), "0.20".to_owned())
        );
    }
}
