//! The tables of the page: ranks, tests against chance.

use super::shape;
use crate::figure::{self, TimeUnit};
use crate::ranks::{self, Limit};
use crate::{subject, what_if};
use laggard_analyze::Analysis;
use maud::{Markup, html};

const RANK_LIMIT: Limit = Limit {
    rows: 200,
    typical: 20,
};
/// An excess from which on a row stands out.
const MARKED_EXCESS: f64 = 0.05;

/// One row per rank, up to the limit.
pub(super) fn ranks(analysis: &Analysis) -> Markup {
    let selection = ranks::select(analysis, RANK_LIMIT);
    let blame = ranks::blame_by_rank(analysis);
    let unit = TimeUnit::for_all(selection.rows.iter().map(|rank| rank.own_time));
    let stages = analysis.ranks.iter().any(|rank| rank.stage > 0);
    let off_cpu = analysis
        .ranks
        .iter()
        .any(|rank| rank.descheduled_share.is_some());
    let optional = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), figure::percent);
    let qualifier = subject::time_qualifier(&analysis.subject);
    html! {
        @if !selection.rows.is_empty() {
            section class="long" {
                h2 { "Ranks" }
                p class="faint" {
                    "Own time is the mean time of a step's work without waiting"
                    @if !qualifier.is_empty() { " (" (shape::clean(&qualifier)) ")" }
                    "; excess is over the rank's class."
                    @if let Some(note) = selection.note() { " Shown: " (note) "." }
                }
                div class="scroll" {
                    table class="table" {
                        thead {
                            tr {
                                th class="n" { "rank" } th { "host" } th { "class" }
                                @if stages { th class="n" { "stage" } }
                                th class="n" { "own time [" (unit.name()) "]" }
                                th class="n" { "excess" } th class="n" { "waits" }
                                th class="n" { "charged" } th class="n" { "last in" }
                                @if off_cpu { th class="n" { "off CPU" } }
                            }
                        }
                        tbody {
                            @for rank in &selection.rows {
                                @let entry = blame.get(&rank.rank);
                                tr class=[(rank.excess >= MARKED_EXCESS).then_some("marked")] {
                                    td class="n" { (rank.rank) }
                                    td class="name" { (shape::clean(&rank.host)) }
                                    td class="name" {
                                        (shape::clean(&subject::class_label(analysis, &rank.class)))
                                    }
                                    @if stages { td class="n" { (rank.stage) } }
                                    td class="n" { (unit.number(rank.own_time)) }
                                    td class="n" { (figure::excess(rank.excess)) }
                                    td class="n" { (figure::percent(rank.wait_share)) }
                                    td class="n" { (optional(entry.map(|e| e.share))) }
                                    td class="n" {
                                        (optional(entry.and_then(|e| e.last_in_steps)))
                                    }
                                    @if off_cpu {
                                        td class="n" { (optional(rank.descheduled_share)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What one unit at its ideal would save.
pub(super) fn what_if(analysis: &Analysis) -> Markup {
    let rows = what_if::rows(analysis);
    html! {
        @if !rows.is_empty() {
            section {
                h2 { "What if" }
                p class="faint" {
                    "Step time with " (what_if::remark(analysis)) "."
                }
                div class="scroll" {
                    table class="table" {
                        thead {
                            tr {
                                th { "unit" } th class="n" { "saves" }
                                th class="n" { "of the loss" } th class="n" { "step then" }
                            }
                        }
                        tbody {
                            @for row in &rows {
                                tr {
                                    td class="name" { (shape::clean(&row.name)) }
                                    td class="n" { (figure::percent_estimate(&row.saved)) }
                                    td class="n" { (what_if::of_loss(row)) }
                                    td class="n" { (figure::seconds(row.step_time)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The tests of persistent terms.
pub(super) fn null_tests(analysis: &Analysis) -> Markup {
    html! {
        @if !analysis.null_tests.is_empty() {
            section {
                h2 { "Tests against chance" }
                p class="faint" {
                    "Largest persistent excess of a unit over its class, and what shuffling the \
                     units within blocks of steps gives on average."
                }
                div class="scroll" {
                    table class="table" {
                        thead {
                            tr {
                                th { "level" } th class="n" { "observed" }
                                th class="n" { "by chance" } th class="n" { "p" }
                            }
                        }
                        tbody {
                            @for test in &analysis.null_tests {
                                tr {
                                    td { (test.level.name()) }
                                    td class="n" { (figure::percent(test.observed)) }
                                    td class="n" { (figure::percent(test.null_mean)) }
                                    td class="n" { (figure::probability(test.p_value)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
