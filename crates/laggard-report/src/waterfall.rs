//! The waterfall as bars that hang from one another, for every format that draws it.

use laggard_analyze::{Analysis, Estimate, Level};

/// Terms below this share of the peak capacity are named in a line, not drawn...
const FOLD_BELOW: f64 = 0.0005;
/// ... unless their interval reaches this far.
const FOLD_INTERVAL_BELOW: f64 = 0.005;

/// What a bar stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Part of the straggler penalty.
    Straggler,
    /// Another loss.
    Loss,
    /// What is left.
    Result,
}

/// One bar between two heights, in shares of the peak capacity.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    pub(crate) label: &'static str,
    pub(crate) kind: Kind,
    pub(crate) share: Estimate,
    /// Lower end, within 0..=1.
    pub(crate) from: f64,
    /// Upper end, within 0..=1.
    pub(crate) to: f64,
    /// The ends of the interval where the bar has its free end, within 0..=1.
    pub(crate) whisker: (f64, f64),
}

/// The bars from the top down, and the names of the terms too small to draw.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Waterfall {
    pub(crate) bars: Vec<Bar>,
    pub(crate) folded: Vec<&'static str>,
}

/// What shares are of, in words.
pub(crate) fn whole(analysis: &Analysis) -> &'static str {
    match is_of_time(analysis) {
        true => "share of step time",
        false => "share of step time x sum of peaks",
    }
}

/// Whether what is left is not a utilisation but the step that equal ranks would take.
pub(crate) fn is_of_time(analysis: &Analysis) -> bool {
    let mut levels = analysis.waterfall.iter().map(|term| term.level);
    levels.any(|level| level == Level::EvenStep)
}

/// Hangs every loss from the end of the one before; the result stands on zero.
pub(crate) fn waterfall(analysis: &Analysis) -> Waterfall {
    let mut waterfall = Waterfall::default();
    let mut height = 1.0;
    for term in &analysis.waterfall {
        let share = term.share;
        let kind = match term.level {
            Level::Utilisation | Level::Computing | Level::EvenStep => Kind::Result,
            level if level.is_straggler() => Kind::Straggler,
            _ => Kind::Loss,
        };
        if kind != Kind::Result && is_negligible(&share) {
            waterfall.folded.push(term.level.name());
            height -= share.value;
            continue;
        }
        let (base, sign) = if kind == Kind::Result {
            (0.0, 1.0)
        } else {
            (height, -1.0)
        };
        let end = base + sign * share.value;
        let ends = (base + sign * share.low, base + sign * share.high);
        waterfall.bars.push(Bar {
            label: label(analysis, term.level),
            kind,
            share,
            from: within(base.min(end)),
            to: within(base.max(end)),
            whisker: (within(ends.0.min(ends.1)), within(ends.0.max(ends.1))),
        });
        height = end;
    }
    waterfall
}

fn is_negligible(share: &Estimate) -> bool {
    share.value.abs() < FOLD_BELOW
        && share.low.abs() < FOLD_INTERVAL_BELOW
        && share.high.abs() < FOLD_INTERVAL_BELOW
}

fn label(analysis: &Analysis, level: Level) -> &'static str {
    match level {
        Level::Utilisation if analysis.mfu.is_some() => "utilisation (MFU)",
        Level::Utilisation if analysis.share_of_measured_peak.is_some() => "share of measured peak",
        other => other.name(),
    }
}

fn within(share: f64) -> f64 {
    if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn bars_hang_from_one_another_down_to_the_result() {
        for analysis in examples::all() {
            let waterfall = waterfall(&analysis);
            let (result, losses) = waterfall.bars.split_last().unwrap();
            assert_eq!(result.kind, Kind::Result);
            assert!((losses.first().unwrap().to - 1.0).abs() < FOLD_BELOW * 4.0);
            for pair in losses.windows(2) {
                assert!(
                    (pair[0].from - pair[1].to).abs() < FOLD_BELOW * 14.0,
                    "{pair:?}"
                );
            }
            let lowest = losses.last().unwrap().from;
            assert!(
                (lowest - result.to).abs() < FOLD_BELOW * 14.0,
                "{lowest} {result:?}"
            );
            assert_eq!(
                waterfall.bars.len() + waterfall.folded.len(),
                analysis.waterfall.len()
            );
        }
    }

    #[test]
    fn a_small_term_with_a_wide_interval_is_drawn() {
        let narrow = Estimate {
            value: 0.0002,
            low: 0.0,
            high: 0.001,
        };
        assert!(is_negligible(&narrow));
        assert!(!is_negligible(&Estimate {
            high: 0.03,
            ..narrow
        }));
        assert!(!is_negligible(&Estimate {
            value: 0.0006,
            ..narrow
        }));
    }
}
