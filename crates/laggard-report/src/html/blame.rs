//! Who the loss is charged to, as bars.

use super::shape::{self, x};
use crate::{figure, subject};
use laggard_analyze::{Analysis, BlameEntry, Charged};
use maud::{Markup, html};

/// Ranks with a bar of their own.
const RANKS: usize = 20;
/// Charges below this share of wall time have no bar of their own.
const NEGLIGIBLE: f64 = 0.0005;

/// A bar that fills its column stands for at least this share, so that small losses look small.
const FULL_AT_LEAST: f64 = 0.02;

/// One bar.
struct Line {
    name: String,
    share: f64,
    last_in_steps: Option<f64>,
    leave_one_out: Option<f64>,
    fill: &'static str,
}

/// What all bars have in common.
struct Chart {
    /// The share that a bar which fills its column stands for.
    largest: f64,
    /// Whether there is a column for what a rank alone would win.
    alone: bool,
}

/// The section; nothing if nothing is charged.
pub(super) fn section(analysis: &Analysis) -> Markup {
    let lines = lines(analysis);
    let largest = lines
        .iter()
        .map(|line| line.share.abs())
        .fold(FULL_AT_LEAST, f64::max);
    let chart = Chart {
        largest,
        alone: lines.iter().any(|line| line.leave_one_out.is_some()),
    };
    html! {
        @if !lines.is_empty() {
            section {
                h2 { "Who the loss is charged to" }
                p class="faint" {
                    "Shares of the time; they sum to " (figure::percent(analysis.loss)) ". A delay \
                     is shared by all ranks that were not there yet."
                    @if chart.alone {
                        " Alone: what would be won if this rank alone were as its class."
                    }
                }
                table class="chart" {
                    thead {
                        tr {
                            th { "charged" } th class="n" { "share" } th class="n" { "last in" }
                            @if chart.alone { th class="n" { "alone" } }
                            th { "" }
                        }
                    }
                    tbody { @for line in &lines { (row(line, &chart)) } }
                }
                div class="legend" {
                    span { i class="key-straggler" {} "ranks" }
                    span { i class="key-loss" {} "no rank's fault, and the other ranks" }
                }
            }
        }
    }
}

fn row(line: &Line, chart: &Chart) -> Markup {
    let share = figure::percent(line.share);
    let optional = |share: Option<f64>| share.map(figure::percent).unwrap_or_default();
    html! {
        tr {
            td { (line.name) }
            td class="n" { (share) }
            td class="n faint wide" { (optional(line.last_in_steps)) }
            @if chart.alone { td class="n faint wide" { (optional(line.leave_one_out)) } }
            td class="bar" {
                svg viewBox="0 0 1000 28" preserveAspectRatio="none" role="img"
                    aria-label={ (line.name) ": " (share) } {
                    title { (line.name) ": " (share) }
                    line class="base" x1="0" x2="0" y1="0" y2="28" {}
                    rect class=(line.fill) x="0" y="7" height="14"
                        width=(x((line.share / chart.largest).clamp(0.0, 1.0))) {}
                }
            }
        }
    }
}

/// The worst ranks, what is no rank's fault, and the sum of the others; the largest first, the
/// others last.
fn lines(analysis: &Analysis) -> Vec<Line> {
    let is_rank = |entry: &&BlameEntry| matches!(entry.charged, Charged::Rank(_));
    let (mut ranks, rest): (Vec<_>, Vec<_>) = analysis.blame.iter().partition(is_rank);
    let unlisted = |entry: &&BlameEntry| matches!(entry.charged, Charged::OtherRanks(_));
    let (unlisted, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(unlisted);
    ranks.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.charged.cmp(&b.charged)));
    let worth = |entry: &&BlameEntry| entry.share.abs() >= NEGLIGIBLE;
    let shown = ranks
        .iter()
        .take(RANKS)
        .take_while(|entry| worth(entry))
        .count();
    let listed = ranks.split_off(shown);
    let count = listed.len() + unlisted.iter().map(|entry| ranks_of(entry)).sum::<usize>();
    let others = || listed.iter().chain(&unlisted);
    let mut lines: Vec<Line> = ranks
        .into_iter()
        .chain(rest.into_iter().filter(worth))
        .map(|entry| Line {
            name: name(analysis, &entry.charged),
            share: entry.share,
            last_in_steps: entry.last_in_steps,
            leave_one_out: entry.leave_one_out,
            fill: if is_rank(&entry) {
                "fill-straggler"
            } else {
                "fill-loss"
            },
        })
        .collect();
    lines.sort_by(|a, b| b.share.total_cmp(&a.share));
    if count > 0 {
        lines.push(Line {
            name: subject::other_ranks(count),
            share: others().map(|entry| entry.share).sum(),
            last_in_steps: None,
            leave_one_out: None,
            fill: "fill-loss",
        });
    }
    lines
}

/// How many ranks an entry stands for that is not a rank's own.
const fn ranks_of(entry: &BlameEntry) -> usize {
    match entry.charged {
        Charged::OtherRanks(ranks) => ranks as usize,
        _ => 0,
    }
}

fn name(analysis: &Analysis, charged: &Charged) -> String {
    let Charged::Rank(rank) = charged else {
        return subject::charged(charged);
    };
    let host = analysis
        .ranks
        .iter()
        .find(|figures| figures.rank == *rank)
        .map(|f| &f.host);
    host.map_or_else(
        || format!("rank {rank}"),
        |host| format!("rank {rank}, {}", shape::clean(host)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn all_that_is_charged_is_in_the_bars() {
        for analysis in examples::all() {
            let sum: f64 = lines(&analysis).iter().map(|line| line.share).sum();
            assert!(
                (sum - analysis.loss).abs() < 1e-9,
                "{sum} of {}",
                analysis.loss
            );
        }
        assert!(lines(&examples::large()).len() <= RANKS + 4);
    }
}
