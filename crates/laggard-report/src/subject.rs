//! Phrases about what was analysed that all formats share, so that no format forgets to say that
//! a time is virtual or a class emulated.

use crate::figure;
use laggard_analyze::{Analysis, Charged, ClassFigures, Confidence, Finding, Onset, Subject};
use laggard_types::Caveat;

/// What the reader must know beside every time: empty for measured wall time.
pub(crate) fn time_qualifier(subject: &Subject) -> String {
    let basis = (subject.time_basis != "wall").then(|| format!("{} time", subject.time_basis));
    let origin = (subject.origin != "measured").then(|| subject.origin.clone());
    [origin, basis]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
}

/// `llama-8b, dp8, 8 ranks on 2 hosts`.
pub(crate) fn job(subject: &Subject) -> String {
    format!(
        "{}, {}, {} on {}",
        subject.model,
        subject.layout,
        figure::plural(subject.ranks as usize, "rank"),
        figure::plural(subject.hosts as usize, "host"),
    )
}

/// `940 of 1,000 steps (60 warm-up left out), wall time, measured`.
pub(crate) fn basis(subject: &Subject) -> String {
    let used = figure::count(subject.steps_used.into());
    let recorded = figure::plural(subject.steps_recorded as usize, "step");
    let warm_up = match subject.steps_warm_up {
        0 => String::new(),
        n => format!(" ({} left out as warm-up)", figure::count(n.into())),
    };
    format!(
        "{used} of {recorded}{warm_up}, {} time, {}",
        subject.time_basis, subject.origin
    )
}

/// A utilisation as it may be quoted: its name, its figure, and what both mean.
pub(crate) struct QuotedUtilisation {
    /// `MFU`, `synthetic-step MFU` or `share of measured peak`.
    pub(crate) name: &'static str,
    /// `38.2 %`.
    pub(crate) value: String,
    /// `[37.9, 38.5]`.
    pub(crate) interval: String,
    /// Convention, peak and warnings.
    pub(crate) note: String,
}

/// The utilisations that the analysis has, the datasheet one first.
pub(crate) fn utilisations(analysis: &Analysis) -> Vec<QuotedUtilisation> {
    let synthetic = analysis.subject.synthetic;
    let mfu_name = if synthetic {
        "synthetic-step MFU"
    } else {
        "MFU"
    };
    let both = [
        (mfu_name, &analysis.mfu),
        ("share of measured peak", &analysis.share_of_measured_peak),
    ];
    both.into_iter()
        .filter_map(|(name, found)| found.as_ref().map(|utilisation| (name, utilisation)))
        .map(|(name, utilisation)| {
            let mut parts = Vec::new();
            if synthetic {
                parts.push("synthetic step, not your job's".to_owned());
            }
            parts.push(utilisation.convention.clone());
            let peak = figure::flop_rate(utilisation.peak_flop_per_s);
            parts.push(format!("peak {peak}: {}", utilisation.peak_source));
            let differs = |other: f64| (other - utilisation.value.value).abs() >= 0.0005;
            if differs(utilisation.full_attention) {
                let full = figure::percent(utilisation.full_attention);
                parts.push(format!("{full} with full attention counted"));
            }
            if differs(utilisation.hfu) {
                parts.push(format!("HFU {}", figure::percent(utilisation.hfu)));
            }
            QuotedUtilisation {
                name,
                value: figure::percent(utilisation.value.value),
                interval: figure::percent_interval(&utilisation.value),
                note: parts.join("; "),
            }
        })
        .collect()
}

/// `GB200 (emulated)`.
pub(crate) fn class_name(class: &ClassFigures) -> String {
    if class.emulated {
        format!("{} (emulated)", class.name)
    } else {
        class.name.clone()
    }
}

/// The class of a rank by name, labelled like [`class_name`].
pub(crate) fn class_label(analysis: &Analysis, name: &str) -> String {
    analysis
        .classes
        .iter()
        .find(|c| c.name == name)
        .map_or_else(|| name.to_owned(), class_name)
}

/// `step 420 (between 412 and 431): 18.0 % longer from there on`.
pub(crate) fn onset(onset: &Onset) -> String {
    let change = match onset.ratio - 1.0 {
        change if change < 0.0 => format!("{} shorter", figure::percent(-change)),
        change => format!("{} longer", figure::percent(change)),
    };
    let between = if onset.earliest == onset.latest {
        String::new()
    } else {
        format!(" (between {} and {})", onset.earliest, onset.latest)
    };
    format!("step {}{between}: {change} from there on", onset.step)
}

/// `inconclusive` where the finding is.
pub(crate) const fn doubt(finding: &Finding) -> Option<&'static str> {
    match finding.confidence {
        Confidence::Shown => None,
        Confidence::Inconclusive => Some("inconclusive"),
    }
}

/// Who is charged, where it is not a rank.
pub(crate) fn charged(charged: &Charged) -> String {
    match charged {
        Charged::Rank(_) => "rank".to_owned(),
        Charged::ClassMix => "class mix".to_owned(),
        Charged::StageSplit => "stage split".to_owned(),
        Charged::EveryRank => "every rank together".to_owned(),
        Charged::OtherRanks(ranks) => other_ranks(*ranks as usize),
    }
}

/// `48 other ranks`.
pub(crate) fn other_ranks(ranks: usize) -> String {
    figure::plural(ranks, "other rank")
}

/// The caveats, each once, in order.
pub(crate) fn caveats(all: &[Caveat]) -> Vec<&Caveat> {
    let mut once: Vec<&Caveat> = Vec::new();
    for caveat in all {
        if !once.contains(&caveat) {
            once.push(caveat);
        }
    }
    once
}
