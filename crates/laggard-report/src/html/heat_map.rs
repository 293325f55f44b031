//! Ranks by steps: how much longer each took than its class. Cells of one colour are one path, and
//! neighbours in a row one rectangle of it, so that large maps stay small.

use super::shape::{self, Tick};
use crate::{figure, subject};
use laggard_analyze::{Analysis, HeatMap};
use maud::{Markup, html};
use std::fmt::Write;
use std::ops::RangeInclusive;

/// Colours: `--h-3` (shorter) to `--h6` (longer), with `--h0` around zero.
const COLORS: RangeInclusive<i32> = -3..=6;
/// Steps of the scale; the first is taken with which [`WITHIN_SCALE`] of the cells lie within it.
/// None is finer, so that a run without stragglers looks calm.
const SCALE_STEPS: [f64; 6] = [0.02, 0.03, 0.05, 0.1, 0.2, 0.5];
/// This share of the cells lies within the scale.
const WITHIN_SCALE: f64 = 0.99;
/// At least so many pixels between row labels, and at most so many labels of columns.
const LABEL_PITCH: usize = 15;
const COLUMN_LABELS: usize = 6;

/// The section; nothing if there is no map.
pub(super) fn section(analysis: &Analysis) -> Markup {
    let map = &analysis.heat_map;
    let (rows, columns) = (map.first_rank.len(), map.first_step.len());
    if rows == 0 || columns == 0 || map.excess.len() != rows * columns {
        return html! {};
    }
    let scale = scale(map);
    let height = rows * row_height(rows);
    let qualifier = subject::time_qualifier(&analysis.subject);
    let view = format!("0 0 {columns} {rows}");
    let label = format!("heat map of {rows} rows of ranks by {columns} columns of steps");
    html! {
        section {
            h2 { "Ranks over steps" }
            p class="faint" {
                "Own time (work without waiting) over the median of the rank's class; the largest \
                 excess within each cell."
                @if !qualifier.is_empty() { " In " (shape::clean(&qualifier)) "." }
                @if has_onset(analysis) { " Dashed: the step at which a finding begins." }
            }
            div class="heat" {
                div class="rows" aria-hidden="true" { (row_labels(analysis)) }
                svg viewBox=(view) preserveAspectRatio="none" role="img" aria-label=(label)
                    style={ "height:" (height) "px" } {
                    @for (color, path) in COLORS.zip(paths(map, scale)) {
                        @if !path.is_empty() {
                            path style={ "fill:var(--h" (color) ")" } d=(path) {}
                        }
                    }
                    @for onset in analysis.findings.iter().filter_map(|f| f.onset) {
                        @if let Some(column) = column_of(map, onset.step) {
                            line class="onset" x1=(column) x2=(column) y1="0" y2=(rows) {
                                title { (subject::onset(&onset)) }
                            }
                        }
                    }
                    @for row in 0..rows {
                        rect class="hit" x="0" y=(row) width=(columns) height="1" {
                            title { (row_title(analysis, row)) }
                        }
                    }
                }
                div class="foot" aria-hidden="true" { "from step" }
                (shape::axis(&column_ticks(map)))
            }
            (legend(scale))
        }
    }
}

fn has_onset(analysis: &Analysis) -> bool {
    let within = |step| column_of(&analysis.heat_map, step).is_some();
    analysis
        .findings
        .iter()
        .filter_map(|f| f.onset)
        .any(|onset| within(onset.step))
}

const fn row_height(rows: usize) -> usize {
    match rows {
        0..=4 => 32,
        5..=16 => 22,
        17..=40 => 14,
        41..=80 => 8,
        _ => 5,
    }
}

/// The size of one step of the scale.
fn scale(map: &HeatMap) -> f64 {
    let mut sizes: Vec<f64> = map
        .excess
        .iter()
        .filter(|e| e.is_finite())
        .copied()
        .collect();
    sizes.sort_by(f64::total_cmp);
    let place = (sizes.len() as f64 * WITHIN_SCALE) as usize;
    let largest = sizes
        .get(place.min(sizes.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0);
    let top = f64::from(*COLORS.end()) + 0.5;
    SCALE_STEPS
        .into_iter()
        .find(|step| step * top >= largest)
        .unwrap_or(0.5)
}

/// The colour of a cell; `None` where there is no number.
fn color(excess: f64, scale: f64) -> Option<i32> {
    excess
        .is_finite()
        .then(|| ((excess / scale).round() as i32).clamp(*COLORS.start(), *COLORS.end()))
}

/// For each colour the path of its cells.
fn paths(map: &HeatMap, scale: f64) -> Vec<String> {
    let mut paths = vec![String::new(); COLORS.count()];
    for (row, cells) in map.excess.chunks(map.first_step.len()).enumerate() {
        let mut start = 0;
        for run in cells.chunk_by(|a, b| color(*a, scale) == color(*b, scale)) {
            if let Some(found) = color(run[0], scale) {
                let path = &mut paths[(found - COLORS.start()) as usize];
                let width = run.len();
                write!(path, "M{start} {row}h{width}v1h-{width}z").expect("a string takes all");
            }
            start += run.len();
        }
    }
    paths
}

fn row_labels(analysis: &Analysis) -> Markup {
    let rows = analysis.heat_map.first_rank.len();
    let every = LABEL_PITCH.div_ceil(row_height(rows));
    html! {
        @for row in (0..rows).step_by(every) {
            span style={ "top:" (shape::at((row as f64 + 0.5) / rows as f64 * 100.0)) "%" } {
                (row_name(analysis, row))
            }
        }
    }
}

/// `5 host-1`, or `8-15 host-1` where a row has several ranks.
fn row_name(analysis: &Analysis, row: usize) -> String {
    let firsts = &analysis.heat_map.first_rank;
    let first = firsts[row];
    let end = firsts
        .get(row + 1)
        .copied()
        .unwrap_or(analysis.subject.ranks.max(first + 1));
    let host = analysis
        .ranks
        .iter()
        .find(|rank| rank.rank == first)
        .map(|rank| &rank.host);
    let ranks = match end.saturating_sub(1) {
        last if last > first => format!("{first}-{last}"),
        _ => first.to_string(),
    };
    host.map_or_else(
        || ranks.clone(),
        |host| format!("{ranks} {}", shape::clean(host)),
    )
}

fn row_title(analysis: &Analysis, row: usize) -> String {
    let map = &analysis.heat_map;
    let columns = map.first_step.len();
    let cells = &map.excess[row * columns..(row + 1) * columns];
    let finite = cells
        .iter()
        .enumerate()
        .filter(|(_, excess)| excess.is_finite());
    let largest = finite.max_by(|a, b| a.1.total_cmp(b.1));
    let name = row_name(analysis, row);
    largest.map_or_else(
        || format!("rank {name}: no data"),
        |(column, excess)| {
            let step = map.first_step[column];
            format!(
                "rank {name}: at most {} (from step {step})",
                figure::excess(*excess)
            )
        },
    )
}

/// Where a step lies, in columns.
fn column_of(map: &HeatMap, step: u32) -> Option<f64> {
    let after = map.first_step.partition_point(|first| *first <= step);
    let before = after.checked_sub(1)?;
    let first = map.first_step[before];
    let width = match map.first_step.get(after) {
        Some(next) => next - first,
        None => map
            .first_step
            .windows(2)
            .last()
            .map_or(1, |pair| pair[1] - pair[0]),
    };
    let within = f64::from(step - first) / f64::from(width.max(1));
    (within < 1.0).then_some(before as f64 + within)
}

fn column_ticks(map: &HeatMap) -> Vec<Tick> {
    let columns = map.first_step.len();
    let every = columns.div_ceil(COLUMN_LABELS);
    let tick = |column: usize| Tick {
        place: column as f64 / columns as f64,
        label: figure::count(map.first_step[column].into()),
    };
    (0..columns).step_by(every).map(tick).collect()
}

fn legend(scale: f64) -> Markup {
    let range = |color: i32| {
        let center = figure::excess(f64::from(color) * scale);
        match color {
            c if c == *COLORS.start() => format!("{center} and less"),
            c if c == *COLORS.end() => format!("{center} and more"),
            0 => format!("{center} (as its class)"),
            _ => center,
        }
    };
    html! {
        div class="legend" {
            @for color in COLORS {
                span { i style={ "background:var(--h" (color) ")" } {} (range(color)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(columns: u32, excess: &[f64]) -> HeatMap {
        let rows = excess.len() as u32 / columns;
        HeatMap {
            first_rank: (0..rows).collect(),
            first_step: (0..columns).map(|column| column * 10).collect(),
            excess: excess.to_vec(),
        }
    }

    #[test]
    fn neighbours_of_one_colour_are_one_rectangle() {
        let map = map(3, &[0.0, 0.0, 0.1, 0.1, f64::NAN, -0.5]);
        let paths = paths(&map, 0.1);
        assert_eq!(paths[3], "M0 0h2v1h-2z");
        assert_eq!(paths[4], "M2 0h1v1h-1zM0 1h1v1h-1z");
        assert_eq!(paths[0], "M2 1h1v1h-1z");
    }

    #[test]
    fn the_scale_spans_the_cells() {
        assert_eq!(scale(&map(2, &[0.0, 0.02])).to_bits(), 0.02_f64.to_bits());
        assert_eq!(scale(&map(2, &[0.0, 0.18])).to_bits(), 0.03_f64.to_bits());
        assert_eq!(scale(&map(1, &[f64::NAN])).to_bits(), 0.02_f64.to_bits());
    }

    #[test]
    fn steps_lie_within_columns() {
        let map = map(3, &[0.0; 3]);
        assert_eq!(column_of(&map, 0), Some(0.0));
        assert_eq!(column_of(&map, 25), Some(2.5));
        assert_eq!(column_of(&map, 30), None);
    }
}
