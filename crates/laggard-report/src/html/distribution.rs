//! Own times per class, as strips on a common axis.

use super::shape::{self, PLANE, Tick};
use crate::figure::TimeUnit;
use crate::{figure, subject};
use laggard_analyze::{Analysis, ClassFigures};
use maud::{Markup, html};
use std::fmt::Write;

const HEIGHT: f64 = 60.0;
/// Room above the highest bar.
const HEADROOM: f64 = 6.0;
/// Empty share of the axis on either side.
const MARGIN: f64 = 0.04;

/// The part of the time axis that is drawn.
struct Range {
    low: f64,
    high: f64,
}

impl Range {
    fn place(&self, seconds: f64) -> f64 {
        ((seconds - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// The section; nothing if there are no classes.
pub(super) fn section(analysis: &Analysis) -> Markup {
    let classes = &analysis.classes;
    let unit = TimeUnit::for_all(classes.iter().map(|class| class.own_time_median));
    let range = range(classes);
    let qualifier = subject::time_qualifier(&analysis.subject);
    let heading = match qualifier.as_str() {
        "" => format!("own time [{}]", unit.name()),
        words => format!("own time [{}, {}]", unit.name(), shape::clean(words)),
    };
    html! {
        @if !classes.is_empty() {
            section {
                h2 { "Own time per class" }
                p class="faint" {
                    "Work without waiting, over ranks and steps. Line: median; shaded: p5 to p95. \
                     Heights are scaled to each class."
                }
                table class="chart" {
                    thead {
                        tr {
                            th { "class" } th class="n" { "ranks" } th class="n" { "median" }
                            th class="n" { "p5 to p95" } th class="n" { "waits" }
                            th { (heading) }
                        }
                    }
                    tbody {
                        @for class in classes { (row(class, unit, range.as_ref())) }
                        @if let Some(range) = &range {
                            tr {
                                @for _ in 0..5 { td class="empty" {} }
                                td class="bar" { (shape::axis(&ticks(range, unit))) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn row(class: &ClassFigures, unit: TimeUnit, range: Option<&Range>) -> Markup {
    let name = shape::clean(&subject::class_name(class));
    let (p5, p95) = (
        unit.number(class.own_time_p5),
        unit.number(class.own_time_p95),
    );
    let median = format!("{} {}", unit.number(class.own_time_median), unit.name());
    html! {
        tr {
            td { (name) }
            td class="n wide" { (figure::count(class.ranks.into())) }
            td class="n" { (median) }
            td class="n faint" { (p5) " to " (p95) }
            td class="n wide" { (figure::percent(class.wait_share)) }
            td class="bar strip" {
                @if let Some(range) = range { (strip(class, range, &name, &median)) }
            }
        }
    }
}

fn strip(class: &ClassFigures, range: &Range, name: &str, median: &str) -> Markup {
    let place = |seconds: f64| range.place(seconds) * PLANE;
    let middle = shape::at(place(class.own_time_median));
    let (from, to) = (place(class.own_time_p5), place(class.own_time_p95));
    html! {
        svg viewBox="0 0 1000 60" preserveAspectRatio="none" role="img"
            aria-label={ "own times of " (name) ", median " (median) } {
            title { (name) ": median " (median) }
            rect class="band" x=(shape::at(from)) y="0" width=(shape::at((to - from).max(0.0)))
                height=(HEIGHT) {}
            path class="hist" d=(outline(class, range)) {}
            line class="mark" x1=(middle) x2=(middle) y1="0" y2=(HEIGHT) {}
            line class="base" x1="0" x2=(PLANE) y1=(HEIGHT) y2=(HEIGHT) {}
        }
    }
}

/// Bins with counts, as `(from, to, count)`; none if edges and counts do not fit together.
fn bins(class: &ClassFigures) -> impl Iterator<Item = (f64, f64, u32)> {
    let fits = class.histogram_edges.len() == class.histogram.len() + 1;
    let edges = class.histogram_edges.windows(2).filter(move |_| fits);
    edges
        .zip(&class.histogram)
        .map(|(edge, count)| (edge[0], edge[1], *count))
        .filter(|(from, to, count)| *count > 0 && from.is_finite() && to.is_finite() && to > from)
}

/// What all bins with counts span, with a margin; `None` if there are none.
fn range(classes: &[ClassFigures]) -> Option<Range> {
    let bins = || classes.iter().flat_map(bins);
    let low = bins()
        .map(|(from, _, _)| from)
        .fold(f64::INFINITY, f64::min);
    let high = bins()
        .map(|(_, to, _)| to)
        .fold(f64::NEG_INFINITY, f64::max);
    let margin = (high - low) * MARGIN;
    (high > low).then(|| Range {
        low: (low - margin).max(0.0),
        high: high + margin,
    })
}

/// The histogram as one shape; counts are divided by the width of their bin.
fn outline(class: &ClassFigures, range: &Range) -> String {
    let density = |(from, to, count): (f64, f64, u32)| f64::from(count) / (to - from);
    let highest = bins(class).map(density).fold(0.0, f64::max);
    let mut path = String::new();
    for bin in bins(class) {
        let (from, to) = (range.place(bin.0) * PLANE, range.place(bin.1) * PLANE);
        let top = HEIGHT - density(bin) / highest * (HEIGHT - HEADROOM);
        let (from, to, top) = (shape::at(from), shape::at(to), shape::at(top));
        write!(path, "M{from} {HEIGHT}V{top}H{to}V{HEIGHT}z").expect("a string takes all");
    }
    path
}

fn ticks(range: &Range, unit: TimeUnit) -> Vec<Tick> {
    let (low, high) = (unit.scale(range.low), unit.scale(range.high));
    let tick = |value: f64| Tick {
        place: (value - low) / (high - low),
        label: format!("{} {}", short(value), unit.name()),
    };
    shape::round_values(low, high, 5)
        .into_iter()
        .map(tick)
        .collect()
}

/// A round number without needless zeros.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
