//! What changed from one record to another.

use crate::analysis::analyze_with_series;
use crate::answer::Analyzed;
use crate::{AnalyzeError, Comparison, ComparisonRow, Estimate, Options, Utilisation};
use laggard_record::Record;
use laggard_stats::{Resampling, block_length, ratio_of_medians};
use laggard_types::{Caveat, CaveatCode};

/// Version of the published format of a comparison.
pub const COMPARISON_VERSION: u32 = 1;

/// Compares record `b` with record `a`. A difference of step times counts as a regression if its
/// interval excludes 1 and it exceeds `smallest` (0.02 = 2 %): two runs of the same job differ by
/// more than the steps within one run say.
///
/// # Errors
/// If one of the records cannot be analysed.
pub fn compare(
    a: &Record,
    b: &Record,
    options: &Options,
    smallest: f64,
) -> Result<Comparison, AnalyzeError> {
    let (a, b) = (
        analyze_with_series(a, options)?,
        analyze_with_series(b, options)?,
    );
    let mut rows = vec![step_row(&a, &b, options.seed)];
    let mut add = |name: &str, a: Option<Estimate>, b: Option<Estimate>| {
        if let (Some(a), Some(b)) = (a, b) {
            rows.push(row(name, a, b));
        }
    };
    let share = |u: &Option<Utilisation>| u.as_ref().map(|u| u.value);
    add("MFU", share(&a.analysis.mfu), share(&b.analysis.mfu));
    let measured = |x: &Analyzed| share(&x.analysis.share_of_measured_peak);
    add("share of measured peak", measured(&a), measured(&b));
    add(
        "straggler penalty",
        Some(a.analysis.penalty),
        Some(b.analysis.penalty),
    );
    add(
        "slowdown",
        Some(a.analysis.slowdown),
        Some(b.analysis.slowdown),
    );
    let step = &rows[0];
    let regression = step.significant && step.ratio.value > 1.0 + smallest;
    let verdict = verdict(step, smallest);
    Ok(Comparison {
        schema_version: COMPARISON_VERSION,
        regression,
        verdict,
        caveats: caveats(&a, &b),
        rows,
    })
}

fn step_row(a: &Analyzed, b: &Analyzed, seed: u64) -> ComparisonRow {
    let block = |series: &[f64]| block_length(series).unwrap_or(1);
    let block_length = block(&a.step_times).max(block(&b.step_times));
    let shorter = a.step_times.len().min(b.step_times.len());
    let resampling = Resampling {
        block_length: block_length.clamp(1, shorter),
        replicates: 1000,
        seed,
    };
    let (in_a, in_b) = (a.analysis.step_time.median, b.analysis.step_time.median);
    let value = in_b / in_a;
    let ratio = match ratio_of_medians(&a.step_times, &b.step_times, resampling, 0.95) {
        Ok(ratio) => Estimate {
            value,
            low: ratio.interval.low,
            high: ratio.interval.high,
        },
        Err(_) => Estimate {
            value,
            low: value,
            high: value,
        },
    };
    ComparisonRow {
        name: "step time, median [s]".to_owned(),
        a: in_a,
        b: in_b,
        significant: ratio.low > 1.0 || ratio.high < 1.0,
        ratio,
    }
}

/// Both figures have intervals of their own; the ratio's is the widest that they allow.
fn row(name: &str, a: Estimate, b: Estimate) -> ComparisonRow {
    let over = |top: f64, bottom: f64| if bottom > 0.0 { top / bottom } else { 0.0 };
    let ratio = Estimate {
        value: over(b.value, a.value),
        low: over(b.low, a.high),
        high: over(b.high, a.low).max(over(b.value, a.value)),
    };
    let significant = a.high < b.low || b.high < a.low;
    ComparisonRow {
        name: name.to_owned(),
        a: a.value,
        b: b.value,
        ratio,
        significant,
    }
}

fn verdict(step: &ComparisonRow, smallest: f64) -> String {
    let Estimate { value, low, high } = step.ratio;
    let change = 100.0 * (value - 1.0);
    let interval = format!(
        "[{:+.1}, {:+.1}] %",
        100.0 * (low - 1.0),
        100.0 * (high - 1.0)
    );
    if !step.significant {
        format!("no significant change of step time: {change:+.1} % {interval}")
    } else if change.abs() <= 100.0 * smallest {
        format!(
            "step time changed by {change:+.1} % {interval}, less than two runs of one job may \
             differ ({:.0} %)",
            100.0 * smallest
        )
    } else if change > 0.0 {
        format!("B is slower: step time {change:+.1} % {interval}")
    } else {
        format!("B is faster: step time {change:+.1} % {interval}")
    }
}

fn caveats(a: &Analyzed, b: &Analyzed) -> Vec<Caveat> {
    let (first, second) = (&a.analysis.subject, &b.analysis.subject);
    let mut list = Vec::new();
    let mut differ = |what: &str, a: &str, b: &str| {
        if a != b {
            let text = format!("the records differ in {what}: {a} against {b}");
            list.push(Caveat::new(CaveatCode::IncompleteTrace, text));
        }
    };
    differ("model", &first.model, &second.model);
    differ("layout", &first.layout, &second.layout);
    differ("time basis", &first.time_basis, &second.time_basis);
    differ(
        "number of ranks",
        &first.ranks.to_string(),
        &second.ranks.to_string(),
    );
    let same = |analyzed: &Analyzed| analyzed.analysis.caveats.clone();
    list.extend(same(a).into_iter().chain(same(b)).filter(|caveat| {
        matches!(
            caveat.code,
            CaveatCode::NotClosed | CaveatCode::OutsideContention
        )
    }));
    list
}
