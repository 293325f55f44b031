//! A short Markdown summary to paste into a ticket.

use crate::{figure, subject, waterfall, what_if};
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
    what_if_table(&mut out, analysis);
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
    let from = match waterfall::is_of_time(analysis) {
        true => "step's length",
        false => "peak",
    };
    line(
        out,
        format_args!("\n| from 100 % of the {from} down | share |\n|:--|--:|"),
    );
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

fn what_if_table(out: &mut String, analysis: &Analysis) {
    if let Some(parts) = what_if::exposed(analysis) {
        line(
            out,
            format_args!("\nExposed communication is {}.", escape(&parts)),
        );
    }
    let rows = what_if::rows(analysis);
    if rows.is_empty() {
        return;
    }
    line(
        out,
        format_args!("\n**What if** ({})\n", what_if::remark(analysis)),
    );
    out.push_str("| unit | saves | of the loss | step then |\n|:--|--:|--:|--:|\n");
    for row in rows {
        line(
            out,
            format_args!(
                "| {} | {} | {} | {} |",
                escape(&row.name),
                figure::percent_estimate(&row.saved),
                what_if::of_loss(row),
                figure::seconds(row.step_time)
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
        insta::assert_snapshot!("ticket", text);
    }

    #[test]
    fn hostile_names_stay_text() {
        let text = analysis(&examples::hostile());
        assert!(!text.contains("<script>") && !text.contains("\n# not"));
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
        let cells = |line: &&str| line.starts_with('|');
        for row in text.lines().filter(cells) {
            let bars = row.replace("\\|", "").matches('|').count();
            assert!(bars == 3 || bars == 5, "{row}");
        }
    }

    #[test]
    fn nan_is_never_printed() {
        let text = analysis(&examples::not_finite());
        assert!(text.contains("n/a") && !text.contains("NaN") && !text.contains("inf"));
    }
}
