//! Tables for people: step times, ranks, classes, the heat map.

use crate::causes::Evidence;
use crate::per_step::{Inputs, wait_shares};
use crate::{ClassFigures, Estimate, HeatMap, RankFigures, StepTimes};
use laggard_record::Manifest;
use laggard_stats::{median, sorted_quantile};

/// Rows and columns that a heat map is binned to.
const HEAT_ROWS: usize = 128;
const HEAT_COLUMNS: usize = 240;
/// Bins of a distribution.
const HISTOGRAM_BINS: usize = 40;

/// The distribution of step times in seconds.
pub(crate) fn step_times(lengths: &[f64], mean: Estimate) -> StepTimes {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |p: f64| sorted_quantile(&sorted, p).unwrap_or(0.0);
    StepTimes {
        n: sorted.len() as u32,
        mean,
        p5: at(0.05),
        median: at(0.5),
        p95: at(0.95),
        p99: at(0.99),
        max: at(1.0),
    }
}

/// Figures of every rank.
pub(crate) fn ranks(evidence: &Evidence<'_>) -> Vec<RankFigures> {
    let (inputs, manifest) = (evidence.inputs, evidence.manifest);
    let waits = wait_shares(inputs, evidence.lengths);
    let descheduled = inputs.measured.descheduled_shares();
    let steps = inputs.own.steps();
    (0..evidence.ranks())
        .map(|rank| {
            let own: f64 = (0..steps)
                .map(|s| inputs.own.of(s, rank).iter().sum::<f64>())
                .sum();
            let place = &manifest.ranks[rank];
            RankFigures {
                rank: rank as u32,
                host: manifest.hosts[place.host as usize].name.clone(),
                class: manifest.classes[place.class as usize].name.clone(),
                stage: inputs.cells.stage_of_rank[rank],
                own_time: own / steps as f64,
                excess: evidence.traits.excess[rank],
                wait_share: waits[rank],
                descheduled_share: descheduled.get(rank).copied(),
            }
        })
        .collect()
}

/// Figures of every class that has ranks.
pub(crate) fn classes(evidence: &Evidence<'_>) -> Vec<ClassFigures> {
    let inputs = evidence.inputs;
    let waits = wait_shares(inputs, evidence.lengths);
    let times_of = |class: usize| {
        let ranks = (0..evidence.ranks()).filter(|&r| inputs.cells.class_of_rank[r] == class);
        let of_rank = |rank: usize| {
            (0..inputs.own.steps()).map(move |s| inputs.own.of(s, rank).iter().sum::<f64>())
        };
        let mut times: Vec<f64> = ranks.flat_map(of_rank).collect();
        times.sort_unstable_by(f64::total_cmp);
        times
    };
    let times: Vec<Vec<f64>> = (0..evidence.manifest.classes.len()).map(times_of).collect();
    class_figures(evidence.manifest, &times, &waits)
}

/// Figures of classes with these sorted own times in seconds, by class; and of what each rank
/// waits.
pub(crate) fn class_figures(
    manifest: &Manifest,
    times: &[Vec<f64>],
    waits: &[f64],
) -> Vec<ClassFigures> {
    let edges = edges(times);
    let mut ranks = vec![0_u32; times.len()];
    let mut waited = vec![0.0; times.len()];
    for (place, wait) in manifest.ranks.iter().zip(waits) {
        ranks[place.class as usize] += 1;
        waited[place.class as usize] += wait;
    }
    times
        .iter()
        .enumerate()
        .filter(|(_, times)| !times.is_empty())
        .map(|(class, times)| {
            let info = &manifest.classes[class];
            let at = |p: f64| sorted_quantile(times, p).unwrap_or(0.0);
            ClassFigures {
                name: info.name.clone(),
                emulated: info.emulated,
                ranks: ranks[class],
                own_time_p5: at(0.05),
                own_time_median: at(0.5),
                own_time_p95: at(0.95),
                wait_share: waited[class] / f64::from(ranks[class]),
                histogram: histogram(times, &edges),
                histogram_edges: edges.clone(),
            }
        })
        .collect()
}

/// Common edges: from the smallest value to the largest 99.5th percentile.
fn edges(times: &[Vec<f64>]) -> Vec<f64> {
    let filled = || times.iter().filter(|times| !times.is_empty());
    let low = filled().map(|times| times[0]).fold(f64::INFINITY, f64::min);
    let top = |times: &Vec<f64>| sorted_quantile(times, 0.995).unwrap_or(0.0);
    let high = filled().map(top).fold(0.0, f64::max).max(low * 1.001);
    let width = (high - low) / HISTOGRAM_BINS as f64;
    (0..=HISTOGRAM_BINS)
        .map(|edge| low + width * edge as f64)
        .collect()
}

/// Counts; what lies beyond the last edge goes to the last bin.
fn histogram(sorted: &[f64], edges: &[f64]) -> Vec<u32> {
    let mut counts = vec![0; edges.len() - 1];
    for value in sorted {
        let bin = edges
            .partition_point(|edge| edge <= value)
            .saturating_sub(1);
        let last = counts.len() - 1;
        counts[bin.min(last)] += 1;
    }
    counts
}

/// Largest excess of own time over the class's median, in bins of ranks and steps.
pub(crate) fn heat_map(evidence: &Evidence<'_>) -> HeatMap {
    let (ranks, steps) = (evidence.ranks(), evidence.inputs.own.steps());
    let rows = ranks.min(HEAT_ROWS);
    let columns = steps.min(HEAT_COLUMNS);
    let starts = |count: usize, bins: usize| (0..bins).map(move |bin| bin * count / bins);
    let medians = class_medians(evidence);
    let mut excess = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            let in_row = row * ranks / rows..(row + 1) * ranks / rows;
            let in_column = column * steps / columns..(column + 1) * steps / columns;
            let mut worst = f64::MIN;
            for rank in in_row {
                for step in in_column.clone() {
                    let own = usual_time(evidence.inputs, step, rank);
                    worst = worst.max(own / medians[evidence.inputs.cells.of_rank[rank]] - 1.0);
                }
            }
            excess.push(worst);
        }
    }
    HeatMap {
        first_rank: starts(ranks, rows).map(|rank| rank as u32).collect(),
        first_step: starts(steps, columns)
            .map(|step| evidence.inputs.measured.step_numbers[step])
            .collect(),
        excess,
    }
}

/// Own time of a rank, as if it had the work that is usual.
fn usual_time(inputs: &Inputs<'_>, step: usize, rank: usize) -> f64 {
    let own = inputs.own.of(step, rank);
    match inputs.cells.across_stages {
        true => inputs.cells.usual(rank, own).iter().sum(),
        false => own.iter().sum(),
    }
}

/// Median own time of each cell over its ranks' medians.
fn class_medians(evidence: &Evidence<'_>) -> Vec<f64> {
    let inputs = evidence.inputs;
    let of_rank = |rank: &usize| {
        let steps = 0..inputs.own.steps();
        let times: Vec<f64> = steps.map(|step| usual_time(inputs, step, *rank)).collect();
        median(&times).unwrap_or(0.0)
    };
    let of_cell = |members: &Vec<usize>| {
        let medians: Vec<f64> = members.iter().map(of_rank).collect();
        median(&medians).unwrap_or(0.0).max(f64::MIN_POSITIVE)
    };
    inputs.cells.members.iter().map(of_cell).collect()
}
