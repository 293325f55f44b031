//! Plain text for a terminal: the answer first, then its figures, then what they rest on.

mod bench;
mod columns;
mod layout;
mod tables;
mod waterfall;

use crate::{figure, subject};
use laggard_analyze::{Analysis, Bench, Comparison, Finding};
use layout::{Page, Tone};

/// Characters for bars and marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Glyphs {
    /// Unicode block elements.
    #[default]
    Unicode,
    /// ASCII alone; other characters of names print as `?`.
    Ascii,
}

/// How text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether to colour with ANSI escape sequences.
    pub color: bool,
    /// The longest line, in characters; less than [`Style::MIN_WIDTH`] counts as that.
    pub width: usize,
    /// Characters to draw with.
    pub glyphs: Glyphs,
}

impl Style {
    /// The narrowest page that can be laid out.
    pub const MIN_WIDTH: usize = 40;

    /// Without colour, in Unicode.
    pub const fn plain(width: usize) -> Self {
        Self {
            color: false,
            width,
            glyphs: Glyphs::Unicode,
        }
    }
}

/// Evidence printed per finding; the rest is in the other formats.
const EVIDENCE_LINES: usize = 3;

/// The analysis as an engineer reads it in ten seconds.
pub fn analysis(analysis: &Analysis, style: Style) -> String {
    let mut page = Page::new(style);
    page.paragraph(&analysis.verdict, Tone::Strong);
    key_figures(&mut page, analysis);
    for (at, finding) in analysis.findings.iter().enumerate() {
        if at == 0 {
            page.heading("findings", "");
        }
        print_finding(&mut page, at + 1, finding);
    }
    waterfall::print(&mut page, analysis);
    tables::what_if(&mut page, analysis);
    tables::ranks(&mut page, analysis);
    tables::classes(&mut page, analysis);
    caveats(&mut page, &subject::caveats(&analysis.caveats));
    page.finish()
}

/// The comparison: the verdict, a row per figure, the caveats.
pub fn comparison(comparison: &Comparison, style: Style) -> String {
    let mut page = Page::new(style);
    page.paragraph(&comparison.verdict, Tone::Strong);
    tables::comparison(&mut page, comparison);
    caveats(&mut page, &subject::caveats(&comparison.caveats));
    page.finish()
}

/// The benchmark: the answer, a table for each collective, kernels, pairs.
pub fn bench(bench: &Bench, style: Style) -> String {
    bench::print(bench, style)
}

fn key_figures(page: &mut Page, analysis: &Analysis) {
    page.blank();
    let (subject, steps) = (&analysis.subject, &analysis.step_time);
    let qualifier = subject::time_qualifier(subject);
    let suffix = if qualifier.is_empty() {
        qualifier
    } else {
        format!(" ({qualifier})")
    };
    let (median, p5, p95) = (
        figure::seconds(steps.median),
        figure::seconds(steps.p5),
        figure::seconds(steps.p95),
    );
    let n = figure::plural(steps.n as usize, "step");
    let median = format!("{median} median, p5 {p5}, p95 {p95} over {n}{suffix}");
    page.field("step time", &median);
    for quoted in subject::utilisations(analysis) {
        let text = format!("{} {} ({})", quoted.value, quoted.interval, quoted.note);
        page.field(quoted.name, &text);
    }
    let penalty = figure::percent_estimate(&analysis.penalty);
    page.field("straggler penalty", &format!("{penalty} of the time"));
    let slowdown = figure::ratio_estimate(&analysis.slowdown);
    page.field(
        "slowdown",
        &format!("{slowdown} against {}", analysis.penalty_reference),
    );
    let rate = figure::quantity(subject.tokens_per_s);
    page.field("throughput", &format!("{rate} tokens/s{suffix}"));
    page.field("job", &subject::job(subject));
    page.field("steps", &subject::basis(subject));
}

fn print_finding(page: &mut Page, number: usize, finding: &Finding) {
    let doubt = subject::doubt(finding).map_or_else(String::new, |word| format!("[{word}] "));
    page.item(
        &format!("{number}."),
        &format!("{doubt}{}", finding.summary),
        Tone::Warning,
    );
    let loss = figure::percent_estimate(&finding.loss);
    page.subfield("cost", &format!("{loss} of the time"));
    if let Some(excess) = &finding.excess {
        let excess = figure::percent_estimate(excess);
        page.subfield("slower by", &format!("{excess} than its peers"));
    }
    if let Some(onset) = &finding.onset {
        page.subfield("since", &subject::onset(onset));
    }
    for (at, line) in finding.evidence.iter().take(EVIDENCE_LINES).enumerate() {
        page.subfield(if at == 0 { "evidence" } else { "" }, line);
    }
    if finding.evidence.len() > EVIDENCE_LINES {
        let more = finding.evidence.len() - EVIDENCE_LINES;
        page.subfield("", &format!("and {more} more in the JSON and HTML reports"));
    }
    page.subfield("what to do", &finding.advice);
}

fn caveats(page: &mut Page, caveats: &[&laggard_types::Caveat]) {
    if caveats.is_empty() {
        return;
    }
    page.heading("caveats", "");
    for caveat in caveats {
        page.item("-", &caveat.message, Tone::Plain);
    }
}

#[cfg(test)]
mod tests;
