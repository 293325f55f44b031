//! A short Markdown summary to paste into a ticket.

use crate::{figure, subject, waterfall};
use laggard_analyze::{Analysis, Finding};
use std::fmt::Write;

/// The verdict, the key figures, the findings, the waterfall and the caveats.
pub fn analysis(analysis: &Analysis) -> String {
    let mut out = format!("### {}\n\n", escape(&analysis.verdict));
    key_figures(&mut out, analysis);
    if !analysis.findings.is_empty() {
        out.push_str("\n**Findings**\n\n");
        for (at, finding) in analysis.findings.iter().enumerate() {
            finding_item(&mut out, at + 1, finding);
        }
    }
    losses(&mut out, analysis);
    let caveats = subject::caveats(&analysis.caveats);
    if !caveats.is_empty() {
        out.push_str("\n**Caveats**\n\n");
        for caveat in caveats {
            line(&mut out, format_args!("- {}", escape(&caveat.message)));
        }
    }
    out
}

fn key_figures(out: &mut String, analysis: &Analysis) {
    let (subject, steps) = (&analysis.subject, &analysis.step_time);
    let qualifier = subject::time_qualifier(subject);
    let qualifier = if qualifier.is_empty() {
        qualifier
    } else {
        format!(" ({})", escape(&qualifier))
    };
    out.push_str("| figure | value |\n|:--|:--|\n");
    let mut row = |name: &str, value: &str| {
        line(out, format_args!("| {name} | {value} |"));
    };
    let (median, p5, p95) = (
        figure::seconds(steps.median),
        figure::seconds(steps.p5),
        figure::seconds(steps.p95),
    );
    row(
        "step time",
        &format!("{median} median, p5 {p5}, p95 {p95}{qualifier}"),
    );
    for quoted in subject::utilisations(analysis) {
        row(
            quoted.name,
            &format!(
                "{} {} ({})",
                quoted.value,
                quoted.interval,
                escape(&quoted.note)
            ),
        );
    }
    let penalty = figure::percent_estimate(&analysis.penalty);
    row("straggler penalty", &format!("{penalty} of the time"));
    row("slowdown", &figure::ratio_estimate(&analysis.slowdown));
    let rate = figure::quantity(subject.tokens_per_s);
    row("throughput", &format!("{rate} tokens/s{qualifier}"));
    row("job", &escape(&subject::job(subject)));
    row("steps", &escape(&subject::basis(subject)));
}

fn finding_item(out: &mut String, number: usize, finding: &Finding) {
    let doubt = subject::doubt(finding).map_or_else(String::new, |word| format!("({word}) "));
    let loss = figure::percent_estimate(&finding.loss);
    line(
        out,
        format_args!(
            "{number}. **{doubt}{}** Costs {loss} of the time.",
            escape(&finding.summary)
        ),
    );
    if let Some(onset) = &finding.onset {
        line(out, format_args!("   Since {}.", subject::onset(onset)));
    }
    line(
        out,
        format_args!("   *What to do:* {}", escape(&finding.advice)),
    );
}

fn losses(out: &mut String, analysis: &Analysis) {
    let bars = waterfall::waterfall(analysis).bars;
    if bars.is_empty() {
        return;
    }
    out.push_str("\n| from 100 % of the peak down | share |\n|:--|--:|\n");
    for bar in bars {
        line(
            out,
            format_args!(
                "| {} | {} |",
                bar.label,
                figure::percent_estimate(&bar.share)
            ),
        );
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string does not fail");
}

/// Text that Markdown shows as it is, on one line, in a table cell too.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '|' | '#' | '[' | ']' => out.extend(['\\', c]),
            '\n' | '\t' => out.push(' '),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn a_ticket_has_the_verdict_the_figures_and_what_to_do() {
        let text = analysis(&examples::mixed());
        insta::assert_snapshot!(text, @r#"
    ### Stragglers cost 24.8 % of the time: equal shares for unequal classes (15.2 %), and rank 5 on host-1, slow since step 420 (7.4 %).

    | figure | value |
    |:--|:--|
    | step time | 54.70 ms median, p5 53.66 ms, p95 58.09 ms (virtual time) |
    | share of measured peak | 43.1 % [42.7, 43.5] (synthetic step, not your job's; causal, dense fp32; peak 412.0 GFLOP/s: measured by gemm on this machine; 44.4 % with full attention counted) |
    | straggler penalty | 24.8 % [23.9, 25.7] of the time |
    | slowdown | 1.330 [1.314, 1.346] |
    | throughput | 599,049 tokens/s (virtual time) |
    | job | tiny-gpt, dp8, 8 ranks on 2 hosts |
    | steps | 950 of 1,000 steps (50 left out as warm-up), virtual time, measured |

    **Findings**

    1. **Classes of different speed have equal shares: GB200-like waits 61 % of the step.** Costs 15.2 % [14.8, 15.6] of the time.
       *What to do:* Give GB200-like 2.2 times the micro-batches of H100-like.
    2. **Rank 5 on host-1 takes 18.1 % longer than its class for the same work.** Costs 7.4 % [6.8, 8.0] of the time.
       Since step 420 (between 412 and 431): 18.1 % longer from there on.
       *What to do:* Check the clocks and the temperature of that device, or take it out; without it the step would take 7.4 % less.
    3. **(inconclusive) Compute times vary from step to step.** Costs 1.8 % [0.6, 3.0] of the time.
       *What to do:* Record with the machine otherwise idle to tell jitter from contention.

    | from 100 % of the peak down | share |
    |:--|--:|
    | unexplained rest | 1.1 % [1.0, 1.2] |
    | host pauses | 0.4 % [0.4, 0.4] |
    | transient differences | 1.8 % [1.6, 2.0] |
    | slow ranks | 7.4 % [6.7, 8.1] |
    | mixed generations at equal shares | 15.2 % [14.2, 16.2] |
    | exposed communication | 4.3 % [3.9, 4.7] |
    | input and launch | 0.6 % [0.5, 0.7] |
    | optimizer | 2.1 % [1.9, 2.3] |
    | kernels below peak | 24.0 % [23.0, 25.0] |
    | share of measured peak | 43.1 % [42.1, 44.1] |

    **Caveats**

    - 8 ranks shared 2 cores: times are on a virtual clock driven by CPU time, so memory bandwidth and caches are shared in ways that a cluster does not share them
    - classes are emulated by scaled work
    - the step is laggard's own, not your job's
    "#);
    }

    #[test]
    fn hostile_names_stay_text() {
        let text = analysis(&examples::hostile());
        assert!(!text.contains("<script>") && !text.contains("\n# not"));
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
        let cells = |line: &&str| line.starts_with('|');
        for row in text.lines().filter(cells) {
            assert_eq!(row.replace("\\|", "").matches('|').count(), 3, "{row}");
        }
    }

    #[test]
    fn nan_is_never_printed() {
        let text = analysis(&examples::not_finite());
        assert!(text.contains("n/a") && !text.contains("NaN") && !text.contains("inf"));
    }
}
