//! The waterfall: a table whose last column draws each term at its height.

use super::shape::{self, Tick, x};
use crate::figure;
use crate::waterfall::{self, Bar, Kind};
use crate::what_if;
use laggard_analyze::Analysis;
use maud::{Markup, html};

const HEIGHT: f64 = 28.0;

/// The section; nothing if there is no waterfall.
pub(super) fn section(analysis: &Analysis) -> Markup {
    let waterfall = waterfall::waterfall(analysis);
    let (title, range, result) = match waterfall::is_of_time(analysis) {
        true => (
            "Where the time goes",
            "From a step's length down to what it would take with equal ranks and nothing random.",
            "what equal ranks would take",
        ),
        false => (
            "Where the capacity goes",
            "From 100 % of the capacity (step time x sum of the ranks' own peaks) down to what is \
             used.",
            "what is used",
        ),
    };
    html! {
        @if !waterfall.bars.is_empty() {
            section {
                h2 { (title) }
                p class="faint" {
                    (range) " Each bar begins where the one above ends; the thin line is the 95 % \
                     interval of its end."
                }
                table class="chart" {
                    thead {
                        tr {
                            th { "term" } th class="n" { "share" } th class="n" { "95 % interval" }
                            th { "" }
                        }
                    }
                    tbody {
                        @for bar in &waterfall.bars { (row(bar)) }
                        tr {
                            td class="empty" {} td class="empty" {} td class="empty" {}
                            td class="bar" { (shape::axis(&ticks())) }
                        }
                    }
                }
                @if let Some(parts) = what_if::exposed(analysis) {
                    p class="faint" { "Exposed communication is " (shape::clean(&parts)) "." }
                }
                div class="legend" {
                    span { i class="key-straggler" {} "straggler penalty" }
                    span { i class="key-loss" {} "other losses" }
                    span { i class="key-result" {} (result) }
                    @if !waterfall.folded.is_empty() {
                        span { "below 0.05 % each: " (waterfall.folded.join(", ")) }
                    }
                }
            }
        }
    }
}

fn ticks() -> Vec<Tick> {
    [0.0, 0.25, 0.5, 0.75, 1.0]
        .map(|place| Tick {
            place,
            label: format!("{:.0} %", place * 100.0),
        })
        .into()
}

fn row(bar: &Bar) -> Markup {
    let share = figure::percent(bar.share.value);
    let interval = figure::percent_interval(&bar.share);
    let fill = match bar.kind {
        Kind::Straggler => "fill-straggler",
        Kind::Loss => "fill-loss",
        Kind::Result => "fill-result",
    };
    html! {
        tr class=[(bar.kind == Kind::Result).then_some("result")] {
            td { (bar.label) }
            td class="n" { (share) }
            td class="n faint" { (interval) }
            td class="bar" {
                svg viewBox="0 0 1000 28" preserveAspectRatio="none" role="img"
                    aria-label={ (bar.label) ": " (share) } {
                    title { (bar.label) ": " (share) " " (interval) }
                    @for place in [0.0, 0.25, 0.5, 0.75, 1.0] {
                        line class="grid" x1=(x(place)) x2=(x(place)) y1="0" y2=(HEIGHT) {}
                    }
                    rect class=(fill) x=(x(bar.from)) y="7" height="14"
                        width=(x(bar.to - bar.from)) {}
                    (whisker(bar.whisker))
                }
            }
        }
    }
}

/// An interval as a line with ends, with a halo so that it shows on every bar.
fn whisker((low, high): (f64, f64)) -> Markup {
    html! {
        line class="halo" x1=(x(low)) x2=(x(high)) y1="14" y2="14" {}
        line class="mark" x1=(x(low)) x2=(x(high)) y1="14" y2="14" {}
        line class="mark" x1=(x(low)) x2=(x(low)) y1="10" y2="18" {}
        line class="mark" x1=(x(high)) x2=(x(high)) y1="10" y2="18" {}
    }
}
