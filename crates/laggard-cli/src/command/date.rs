//! Days of the calendar.

const NS_PER_DAY: i64 = 86_400 * 1_000_000_000;
/// Days from the first of March of year 0 to 1970-01-01.
const EPOCH: i64 = 719_468;

/// The day of a time in nanoseconds of Unix time, UTC, as `2026-11-21`. Source: Hinnant,
/// "chrono-compatible low-level date algorithms", `civil_from_days` and `days_from_civil`.
pub(super) fn day(unix_ns: i64) -> String {
    of_number(unix_ns.div_euclid(NS_PER_DAY))
}

/// The number of a day, counted from 1970-01-01; `None` for what is no day such as `2026-11-21`.
pub(super) fn number(text: &str) -> Option<i64> {
    let mut parts = text.split('-').map(|part| part.parse::<u32>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let (year, month, day) = (i64::from(year), i64::from(month), i64::from(day));
    let of_march = (month + 9) % 12;
    let years = year - i64::from(month <= 2);
    let of_era = years.rem_euclid(400);
    let of_year = (153 * of_march + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let number = years.div_euclid(400) * 146_097 + of_era - EPOCH;
    // What no calendar has comes out as another day.
    (of_number(number) == text).then_some(number)
}

/// The day of a number. Source: as [`day`].
pub(super) fn of_number(number: i64) -> String {
    let days = number + EPOCH;
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
        for number in (-700_000..900_000).step_by(37) {
            assert_eq!(super::number(&of_number(number)), Some(number));
        }
        for text in [
            "",
            "2026",
            "2026-13-01",
            "2026-02-29",
            "2026-1-1",
            "26-11-21",
            "2026-11-21-1",
        ] {
            assert_eq!(super::number(text), None, "{text}");
        }
    }
}
