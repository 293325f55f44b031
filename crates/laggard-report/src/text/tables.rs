//! The tables of the text report: ranks, classes, compared figures.

use super::columns::{self, Column, Keep};
use super::layout::Page;
use crate::figure::{self, TimeUnit};
use crate::ranks::{self, Limit};
use crate::{subject, what_if};
use laggard_analyze::{Analysis, Charged, Comparison, RankFigures, WhatIfUnit};

const RANK_LIMIT: Limit = Limit {
    rows: 16,
    typical: 4,
};
/// An excess from which on a row stands out in colour.
const MARKED_EXCESS: f64 = 0.05;

/// One row per rank, the worst first if they are many.
pub(super) fn ranks(page: &mut Page, analysis: &Analysis) {
    if analysis.ranks.is_empty() {
        return;
    }
    let selection = ranks::select(analysis, RANK_LIMIT);
    let explained = || "own is the time of a step's work without waiting".to_owned();
    page.heading("ranks", &selection.note().unwrap_or_else(explained));
    let rows = &selection.rows;
    let mut table = who(analysis, rows);
    table.extend(how_slow(analysis, rows));
    let marked: Vec<bool> = rows
        .iter()
        .map(|rank| rank.excess >= MARKED_EXCESS)
        .collect();
    columns::print(page, table, &marked);
    charged_to_no_rank(page, analysis);
}

/// The columns that say which ranks these are.
fn who(analysis: &Analysis, rows: &[&RankFigures]) -> Vec<Column> {
    let cells =
        |cell: &dyn Fn(&RankFigures) -> String| rows.iter().map(|rank| cell(rank)).collect();
    let mut table = vec![
        Column::numbers("rank", Keep::Always, cells(&|rank| rank.rank.to_string())),
        Column::names("host", Keep::Always, cells(&|rank| rank.host.clone())),
    ];
    let classes = &analysis.classes;
    if classes.len() > 1 && classes.iter().all(|class| class.emulated) {
        let names = cells(&|rank| rank.class.clone());
        table.push(Column::names("emulated class", Keep::IfRoom, names));
    } else if classes.len() > 1 || classes.iter().any(|class| class.emulated) {
        let names = cells(&|rank| subject::class_label(analysis, &rank.class));
        table.push(Column::names("class", Keep::IfRoom, names));
    }
    if analysis.ranks.iter().any(|rank| rank.stage > 0) {
        let stages = cells(&|rank| rank.stage.to_string());
        table.push(Column::numbers("stage", Keep::IfRoom, stages));
    }
    table
}

/// The columns of figures, the most needed first.
fn how_slow(analysis: &Analysis, rows: &[&RankFigures]) -> Vec<Column> {
    let cells =
        |cell: &dyn Fn(&RankFigures) -> String| rows.iter().map(|rank| cell(rank)).collect();
    let optional = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), figure::percent);
    let blame = ranks::blame_by_rank(analysis);
    let entry = |rank: &RankFigures| blame.get(&rank.rank).copied();
    let unit = TimeUnit::for_all(rows.iter().map(|rank| rank.own_time));
    let own_time = cells(&|rank| unit.number(rank.own_time));
    let excess = cells(&|rank| figure::excess(rank.excess));
    let charged = cells(&|rank| optional(entry(rank).map(|entry| entry.share)));
    let waits = cells(&|rank| figure::percent(rank.wait_share));
    let last_in = cells(&|rank| optional(entry(rank).and_then(|entry| entry.last_in_steps)));
    let mut table = vec![
        Column::numbers(own_time_title(analysis, unit), Keep::Always, own_time),
        Column::numbers("excess", Keep::Always, excess),
        Column::numbers("charged", Keep::Always, charged),
        Column::numbers("waits", Keep::IfRoom, waits),
        Column::numbers("last in", Keep::IfRoom, last_in),
    ];
    if rows.iter().any(|rank| rank.descheduled_share.is_some()) {
        let off_cpu = cells(&|rank| optional(rank.descheduled_share));
        table.push(Column::numbers("off CPU", Keep::IfRoom, off_cpu));
    }
    table
}

fn charged_to_no_rank(page: &mut Page, analysis: &Analysis) {
    let rest: Vec<String> = (analysis.blame.iter())
        .filter(|entry| !matches!(entry.charged, Charged::Rank(_) | Charged::OtherRanks(_)))
        .map(|entry| {
            format!(
                "{} {}",
                subject::charged(&entry.charged),
                figure::percent(entry.share)
            )
        })
        .collect();
    if !rest.is_empty() {
        page.note(&format!("charged to no rank: {}", rest.join(", ")));
    }
}

/// One row per unit that would save something at its ideal.
pub(super) fn what_if(page: &mut Page, analysis: &Analysis) {
    let rows = what_if::rows(analysis);
    if rows.is_empty() {
        return;
    }
    page.heading("what if", &what_if::remark(analysis));
    let cells = |cell: &dyn Fn(&WhatIfUnit) -> String| rows.iter().map(|row| cell(row)).collect();
    let saved = cells(&|row| figure::percent(row.saved.value));
    let interval = cells(&|row| figure::percent_interval(&row.saved));
    let table = vec![
        Column::names("unit", Keep::Always, cells(&|row| row.name.clone())),
        Column::numbers("saves", Keep::Always, saved),
        Column::names("95 %", Keep::IfRoom, interval),
        Column::numbers("of the loss", Keep::IfRoom, cells(&what_if::of_loss)),
        Column::numbers(
            "step then",
            Keep::Always,
            cells(&|row| figure::seconds(row.step_time)),
        ),
    ];
    columns::print(page, table, &[]);
}

/// One row per class.
pub(super) fn classes(page: &mut Page, analysis: &Analysis) {
    let classes = &analysis.classes;
    if classes.is_empty() {
        return;
    }
    page.heading("classes", "median of own time over ranks and steps");
    let unit = TimeUnit::for_all(classes.iter().map(|class| class.own_time_median));
    let times = |time: fn(&laggard_analyze::ClassFigures) -> f64| {
        classes
            .iter()
            .map(|class| unit.number(time(class)))
            .collect::<Vec<_>>()
    };
    let ranks = classes
        .iter()
        .map(|class| class.ranks.to_string())
        .collect();
    let waits = classes
        .iter()
        .map(|class| figure::percent(class.wait_share))
        .collect();
    let names = classes.iter().map(subject::class_name).collect();
    let table = vec![
        Column::names("class", Keep::Always, names),
        Column::numbers("ranks", Keep::Always, ranks),
        Column::numbers(
            own_time_title(analysis, unit),
            Keep::Always,
            times(|class| class.own_time_median),
        ),
        Column::numbers("p5", Keep::IfRoom, times(|class| class.own_time_p5)),
        Column::numbers("p95", Keep::IfRoom, times(|class| class.own_time_p95)),
        Column::numbers("waits", Keep::Always, waits),
    ];
    columns::print(page, table, &[]);
}

/// `own [ms, virtual]`: the label stands where the numbers are.
fn own_time_title(analysis: &Analysis, unit: TimeUnit) -> String {
    match analysis.subject.time_basis.as_str() {
        "wall" => format!("own [{}]", unit.name()),
        basis => format!("own [{}, {basis}]", unit.name()),
    }
}

/// One row per compared figure.
pub(super) fn comparison(page: &mut Page, comparison: &Comparison) {
    let rows = &comparison.rows;
    if rows.is_empty() {
        return;
    }
    page.blank();
    let column = |cell: fn(&laggard_analyze::ComparisonRow) -> String| {
        rows.iter().map(cell).collect::<Vec<_>>()
    };
    let change = |row: &laggard_analyze::ComparisonRow| {
        if row.significant {
            "significant"
        } else {
            "within chance"
        }
        .to_owned()
    };
    let table = vec![
        Column::names("figure", Keep::Always, column(|row| row.name.clone())),
        Column::numbers("A", Keep::Always, column(|row| figure::significant(row.a))),
        Column::numbers("B", Keep::Always, column(|row| figure::significant(row.b))),
        Column::numbers(
            "B / A",
            Keep::Always,
            column(|row| figure::decimal(row.ratio.value, 3)),
        ),
        Column::names(
            "95 %",
            Keep::IfRoom,
            column(|row| figure::ratio_interval(&row.ratio)),
        ),
        Column::names("change", Keep::Always, column(change)),
    ];
    let marked: Vec<bool> = rows.iter().map(|row| row.significant).collect();
    columns::print(page, table, &marked);
}
