//! Numbers in the columns of a page.

use laggard_types::format_span;

/// So many characters of a name at most.
pub(in crate::command::plan) fn clipped(name: &str, most: usize) -> String {
    match name.chars().count() > most {
        true => name.chars().take(most - 1).chain(['~']).collect(),
        false => name.to_owned(),
    }
}

pub(in crate::command::plan) fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

/// A number of days; less than a tenth of one in hours or minutes.
pub(in crate::command::plan) fn days(count: f64) -> String {
    match count {
        count if count > 0.0 && count < 0.1 => format_span(count * 86_400.0),
        count if count >= 1e5 => format!("{count:.1e} d"),
        count if count >= 100.0 => format!("{count:.0} d"),
        count => format!("{count:.1} d"),
    }
}

/// Three significant digits or so.
pub(in crate::command::plan) fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        size if size > 0.0 => format!("{value:.3}"),
        _ => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_are_not_none() {
        let check = |count: f64, expect: &str| assert_eq!(days(count), expect);
        check(0.0, "0.0 d");
        check(0.01, "14.4 min");
        check(0.09, "2.2 h");
        check(0.1, "0.1 d");
        check(34.83, "34.8 d");
        check(189.2, "189 d");
    }
}
