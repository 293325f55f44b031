//! Days of the calendar.

const NS_PER_DAY: i64 = 86_400 * 1_000_000_000;

/// The day of a time in nanoseconds of Unix time, UTC, as `2026-11-21`. Source: Hinnant,
/// "chrono-compatible low-level date algorithms", `civil_from_days`.
pub(super) fn day(unix_ns: i64) -> String {
    let days = unix_ns.div_euclid(NS_PER_DAY) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // Months from March on, so that leap days come last.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_the_calendar() {
        let check = |seconds: i64, expect: &str| assert_eq!(day(seconds * 1_000_000_000), expect);
        check(0, "1970-01-01");
        check(-1, "1969-12-31");
        check(951_782_400, "2000-02-29");
        check(951_868_800, "2000-03-01");
        check(1_795_267_961, "2026-11-21");
    }
}
