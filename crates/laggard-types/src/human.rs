//! Sizes and times as people write them: `8M` is 8 MiB, as in nccl-tests.

use thiserror::Error;

/// A size that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "cannot read `{text}` as a size: expected a whole number with an optional K, M or G \
     (powers of 1024)"
)]
pub struct ParseSizeError {
    /// What was given.
    pub text: String,
}

/// Reads `4096`, `64K`, `8M`, `8MiB`, `1G` (powers of 1024).
///
/// # Errors
/// If the text is not a whole number with one of these suffixes, or overflows.
pub fn parse_bytes(text: &str) -> Result<u64, ParseSizeError> {
    let fail = || ParseSizeError {
        text: text.to_owned(),
    };
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = trimmed.split_at(digits);
    let shift = match suffix.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(fail()),
    };
    let number: u64 = number.parse().map_err(|_| fail())?;
    number.checked_mul(1 << shift).ok_or_else(fail)
}

/// `13.6 MiB` and the like.
pub fn format_bytes(bytes: u64) -> String {
    let value = bytes as f64;
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let scale = f64::from(1u32 << shift);
        if value >= scale {
            return format!("{:.1} {unit}", value / scale);
        }
    }
    format!("{bytes} B")
}

/// `1.23 s`, `4.56 ms`, `7.8 us`: three significant digits or so.
pub fn format_seconds(seconds: f64) -> String {
    let size = seconds.abs();
    if size >= 1.0 {
        format!("{seconds:.2} s")
    } else if size >= 1e-3 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{:.1} us", seconds * 1e6)
    }
}

/// A time of seconds to days: `88 s`, `16.1 min`, `2.5 h`, `2.3 d`.
#[must_use]
pub fn format_span(seconds: f64) -> String {
    match seconds {
        seconds if seconds >= 2.0 * 86_400.0 => format!("{:.1} d", seconds / 86_400.0),
        seconds if seconds >= 2.0 * 3600.0 => format!("{:.1} h", seconds / 3600.0),
        seconds if seconds >= 120.0 => format!("{:.1} min", seconds / 60.0),
        seconds => format!("{seconds:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        assert_eq!(parse_bytes("64K"), Ok(65_536));
        assert_eq!(parse_bytes(" 8MiB "), Ok(8 << 20));
        assert_eq!(parse_bytes("17"), Ok(17));
        assert!(parse_bytes("4T").is_err());
        assert!(parse_bytes("-4").is_err());
        assert!(parse_bytes("99999999999G").is_err());
        assert_eq!(format_bytes(13_631_488), "13.0 MiB");
        assert_eq!(format_bytes(12), "12 B");
        assert_eq!(format_seconds(0.0123), "12.30 ms");
        assert_eq!(format_span(88.4), "88 s");
        assert_eq!(format_span(202_682.08), "2.3 d");
    }
}
