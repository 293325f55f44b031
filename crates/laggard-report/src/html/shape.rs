//! Pieces of charts: coordinates, axes, ticks.

use maud::{Markup, html};

/// Width of the drawing plane of a stretched chart.
pub(super) const PLANE: f64 = 1000.0;

/// A coordinate with one decimal; what is not finite lies at 0.
pub(super) fn at(coordinate: f64) -> String {
    let text = if coordinate.is_finite() {
        format!("{coordinate:.1}")
    } else {
        "0".to_owned()
    };
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// A share of 0..=1 on the plane.
pub(super) fn x(share: f64) -> String {
    at(share * PLANE)
}

/// Text without the control characters that HTML forbids, where percent signs stay beside their
/// number.
pub(super) fn clean(foreign: &str) -> String {
    let safe = |c: char| match c {
        '\n' | '\t' => c,
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    foreign.replace(" %", "\u{a0}%").chars().map(safe).collect()
}

/// A mark on an axis: its place as share of the width, and its label.
pub(super) struct Tick {
    pub(super) place: f64,
    pub(super) label: String,
}

/// Labels below a chart at their places.
pub(super) fn axis(ticks: &[Tick]) -> Markup {
    let class = |place: f64| match place {
        place if place < 0.03 => Some("first"),
        place if place > 0.97 => Some("last"),
        _ => None,
    };
    html! {
        div class="axis" aria-hidden="true" {
            @for tick in ticks {
                span class=[class(tick.place)] style={ "left:" (at(tick.place * 100.0)) "%" } {
                    (tick.label)
                }
            }
        }
    }
}

/// Round values within the range, about `count` of them.
pub(super) fn round_values(low: f64, high: f64, count: usize) -> Vec<f64> {
    let span = high - low;
    if !span.is_finite() || span <= 0.0 || count == 0 {
        return Vec::new();
    }
    let rough = span / count as f64;
    let magnitude = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * magnitude);
    let step = step
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(magnitude * 10.0);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last.min(first + 100))
        .map(|n| n as f64 * step)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_marks() {
        assert_eq!(
            round_values(0.0, 100.0, 5),
            [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
        );
        assert_eq!(round_values(13.0, 31.0, 4), [15.0, 20.0, 25.0, 30.0]);
        assert!(round_values(1.0, 1.0, 4).is_empty());
        assert!(round_values(f64::NAN, 1.0, 4).is_empty());
    }

    #[test]
    fn coordinates_are_short_and_finite() {
        assert_eq!(at(12.0), "12");
        assert_eq!(at(12.34), "12.3");
        assert_eq!(at(f64::NAN), "0");
    }
}
