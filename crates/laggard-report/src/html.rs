//! One self-contained HTML page: no script, no network, no font of its own. Text is HTML and shapes
//! are stretched SVG without text, so that nothing overlaps and all is readable on a narrow screen.

mod blame;
mod distribution;
mod heat_map;
mod shape;
mod tables;
mod waterfall;

use crate::{figure, subject};
use laggard_analyze::{Analysis, Confidence, Finding};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The analysis as a page.
pub fn analysis(analysis: &Analysis) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "laggard: " (shape::clean(&analysis.subject.model)) }
                style { (PreEscaped(include_str!("html/style.css"))) }
            }
            body {
                main {
                    (verdict(analysis))
                    (tiles(analysis))
                    (findings(analysis))
                    (waterfall::section(analysis))
                    (tables::what_if(analysis))
                    (heat_map::section(analysis))
                    (distribution::section(analysis))
                    (blame::section(analysis))
                    (tables::ranks(analysis))
                    (tables::null_tests(analysis))
                    (caveats(analysis))
                    (provenance(analysis))
                }
            }
        }
    };
    page.into_string()
}

fn verdict(analysis: &Analysis) -> Markup {
    let shown = analysis
        .findings
        .iter()
        .any(|f| f.confidence == Confidence::Shown);
    let n = figure::plural(analysis.findings.len(), "finding");
    let (class, state) = match (analysis.findings.is_empty(), shown) {
        (true, _) => ("verdict", "\u{2713} nothing found".to_owned()),
        (false, true) => ("verdict bad", format!("\u{25b2} {n}")),
        (false, false) => ("verdict doubt", format!("? {n}, inconclusive")),
    };
    html! {
        section class=(class) {
            p class="eyebrow" { "laggard \u{b7} " (text(&subject::job(&analysis.subject))) }
            h1 { (text(&analysis.verdict)) }
            p class="state" { (state) }
        }
    }
}

fn tiles(analysis: &Analysis) -> Markup {
    let (subject, steps) = (&analysis.subject, &analysis.step_time);
    let qualifier = subject::time_qualifier(subject);
    let qualified = |note: String| match qualifier.as_str() {
        "" => note,
        words => format!("{note}; {words}"),
    };
    let (p5, p95) = (figure::seconds(steps.p5), figure::seconds(steps.p95));
    let n = figure::plural(steps.n as usize, "step");
    let step_note = qualified(format!("p5 {p5}, p95 {p95}, over {n}"));
    let per_step = figure::quantity(subject.tokens_per_step);
    let warm_up = match subject.steps_warm_up {
        0 => String::new(),
        n => format!(", {} left out as warm-up", figure::count(n.into())),
    };
    let size = format!(
        "on {}; {} of {}{warm_up}",
        figure::plural(subject.hosts as usize, "host"),
        figure::count(subject.steps_used.into()),
        figure::plural(subject.steps_recorded as usize, "step"),
    );
    let penalty = figure::percent_interval(&analysis.penalty);
    let slowdown = figure::ratio_interval(&analysis.slowdown);
    html! {
        div class="tiles" {
            (tile("step time, median", &figure::seconds(steps.median), &step_note))
            @for quoted in subject::utilisations(analysis) {
                (tile(quoted.name, &quoted.value, &format!("{}; {}", quoted.interval, quoted.note)))
            }
            (tile("straggler penalty", &figure::percent(analysis.penalty.value),
                &format!("{penalty} of the time")))
            (tile("slowdown", &figure::decimal(analysis.slowdown.value, 3),
                &format!("{slowdown} against {}", analysis.penalty_reference)))
            (tile("tokens per second", &figure::quantity(subject.tokens_per_s),
                &qualified(format!("{per_step} tokens per step"))))
            (tile("ranks", &figure::count(subject.ranks.into()), &size))
        }
    }
}

fn tile(name: &str, value: &str, note: &str) -> Markup {
    html! {
        div class="tile" {
            div class="name" { (name) }
            div class="value" { (value) }
            div class="note" { (text(note)) }
        }
    }
}

fn findings(analysis: &Analysis) -> Markup {
    html! {
        @if !analysis.findings.is_empty() {
            section {
                h2 { "Findings" }
                p class="faint" { "Most costly first." }
                @for finding in &analysis.findings { (finding_card(finding)) }
            }
        }
    }
}

fn finding_card(finding: &Finding) -> Markup {
    html! {
        div class="finding" {
            h3 {
                @if let Some(doubt) = subject::doubt(finding) { span class="pill" { (doubt) } }
                (text(&finding.summary))
            }
            dl {
                dt { "cost" }
                dd { (figure::percent_estimate(&finding.loss)) " of the time" }
                @if let Some(excess) = &finding.excess {
                    dt { "slower by" }
                    dd { (figure::percent_estimate(excess)) " than its peers" }
                }
                @if let Some(onset) = &finding.onset {
                    dt { "since" }
                    dd { (subject::onset(onset)) }
                }
                @if !finding.evidence.is_empty() {
                    dt { "evidence" }
                    dd { ul { @for line in &finding.evidence { li { (text(line)) } } } }
                }
                dt { "what to do" }
                dd { (text(&finding.advice)) }
            }
        }
    }
}

fn caveats(analysis: &Analysis) -> Markup {
    let caveats = subject::caveats(&analysis.caveats);
    html! {
        @if !caveats.is_empty() {
            section {
                h2 { "Caveats" }
                ul class="caveats" {
                    @for caveat in caveats { li { (text(&caveat.message)) } }
                }
            }
        }
    }
}

fn provenance(analysis: &Analysis) -> Markup {
    let subject = &analysis.subject;
    let whose = if subject.synthetic {
        "laggard's synthetic job"
    } else {
        "the user's job"
    };
    let model = format!("{} ({whose})", subject.model);
    let mean = &analysis.step_time.mean;
    let steps = format!(
        "mean {} [{}, {}], p99 {}, longest {}",
        figure::seconds(mean.value),
        figure::seconds(mean.low),
        figure::seconds(mean.high),
        figure::seconds(analysis.step_time.p99),
        figure::seconds(analysis.step_time.max),
    );
    let facts = [
        ("model", model),
        ("layout", subject.layout.clone()),
        ("steps", subject::basis(subject)),
        ("step time", steps),
        ("time basis", subject.time_basis.clone()),
        ("origin", subject.origin.clone()),
        ("penalty reference", analysis.penalty_reference.clone()),
        ("intervals", "95 %, block bootstrap over steps".to_owned()),
        ("format version", analysis.schema_version.to_string()),
    ];
    html! {
        section {
            h2 { "Provenance" }
            dl class="facts" {
                @for (name, value) in facts { dt { (name) } dd { (text(&value)) } }
            }
        }
    }
}

/// Foreign text: maud escapes it, this removes what HTML may not contain at all.
fn text(foreign: &str) -> String {
    shape::clean(foreign)
}

#[cfg(test)]
mod tests;
