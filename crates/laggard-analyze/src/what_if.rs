//! What would be saved if one rank, host, stage or class were at its ideal: replays of measured
//! steps in which only that differs. The share of the loss that goes with it is rem(G) of
//! ByteDance's what-if analysis (Lin et al. 2025, OSDI).

use crate::causes::Evidence;
use crate::causes::words::{host_name, rank_name};
use crate::cells::{Slot, Slots};
use crate::chunk::{Chunk, Tables};
use crate::per_step::LANES;
use crate::{Unit, WhatIf, WhatIfUnit};
use laggard_schedule::Times;
use rayon::prelude::*;

/// Units of each kind that are reported.
const REPORTED: usize = 5;
/// Units of each kind that are tried.
const TRIED: usize = 8;
/// Evaluations of a node in a step that all of this may take: some tenths of a second.
const BUDGET: f64 = 1e8;
/// Fewest steps to replay, where the record has them.
const FEWEST_STEPS: usize = 32;
/// The loss, as share of the step, from which on it is said how much of it would go.
const LOSS: f64 = 0.03;

/// Replays the units that are most likely to save something.
pub(crate) fn what_if(evidence: &Evidence<'_>) -> WhatIf {
    let units = candidates(evidence);
    let steps = chosen_steps(evidence, units.len());
    let chunks: Vec<Vec<Vec<f64>>> = steps
        .par_chunks(LANES)
        .map(|steps| saved(evidence, steps, &units))
        .collect();
    let wall = evidence.waterfall.point.wall;
    let loss = evidence.waterfall.point.loss() / wall;
    let row = |(at, unit): (usize, &Unit)| {
        let series: Vec<f64> = chunks
            .iter()
            .flat_map(|chunk| chunk[at].iter().map(|seconds| seconds / wall))
            .collect();
        let saved = evidence.mean(&series);
        WhatIfUnit {
            unit: *unit,
            name: name(evidence, *unit),
            step_time: wall * (1.0 - saved.value),
            saved,
            of_loss: (loss >= LOSS).then(|| saved.value / loss),
        }
    };
    let mut rows: Vec<WhatIfUnit> = units.iter().enumerate().map(row).collect();
    rows.sort_by(|a, b| {
        let by_saving = b.saved.value.total_cmp(&a.saved.value);
        kind(a.unit)
            .cmp(&kind(b.unit))
            .then(by_saving)
            .then(a.unit.cmp(&b.unit))
    });
    let mut count = [0; 4];
    rows.retain(|row| {
        count[kind(row.unit)] += 1;
        count[kind(row.unit)] <= REPORTED
    });
    WhatIf {
        steps: steps.len() as u32,
        units: rows,
    }
}

const fn kind(unit: Unit) -> usize {
    match unit {
        Unit::Rank(_) => 0,
        Unit::Host(_) => 1,
        Unit::Stage(_) => 2,
        Unit::Class(_) => 3,
    }
}

fn name(evidence: &Evidence<'_>, unit: Unit) -> String {
    let manifest = evidence.manifest;
    match unit {
        Unit::Rank(rank) => rank_name(manifest, rank as usize),
        Unit::Host(host) => format!("host {}", host_name(manifest, host as usize)),
        Unit::Stage(stage) => format!("stage {stage}"),
        Unit::Class(class) => format!("class {}", manifest.classes[class as usize].name),
    }
}

/// Those of each kind that are charged most, or take longest; kinds of one unit have no ideal.
fn candidates(evidence: &Evidence<'_>) -> Vec<Unit> {
    let cells = evidence.inputs.cells;
    let blame: Vec<f64> = (0..cells.ranks)
        .map(|rank| evidence.blame.total(rank))
        .collect();
    let steps = evidence.inputs.own.steps();
    let own: Vec<f64> = (0..cells.ranks)
        .map(|rank| {
            (0..steps)
                .map(|s| evidence.inputs.own.of(s, rank).iter().sum::<f64>())
                .sum()
        })
        .collect();
    let stage_of_rank: Vec<usize> = cells.stage_of_rank.iter().map(|s| *s as usize).collect();
    let ranks: Vec<usize> = (0..cells.ranks).collect();
    let mut units = Vec::new();
    let mut add = |unit: fn(u32) -> Unit, of_rank: &[usize], value: &[f64]| {
        let mut mean: Vec<(f64, f64)> = Vec::new();
        for (&group, value) in of_rank.iter().zip(value) {
            mean.resize(mean.len().max(group + 1), (0.0, 0.0));
            mean[group].0 += value;
            mean[group].1 += 1.0;
        }
        let mut order: Vec<usize> = (0..mean.len()).filter(|&at| mean[at].1 > 0.0).collect();
        let level = |at: usize| mean[at].0 / mean[at].1;
        order.sort_by(|&a, &b| level(b).total_cmp(&level(a)).then(a.cmp(&b)));
        if order.len() > 1 {
            units.extend(order.into_iter().take(TRIED).map(|at| unit(at as u32)));
        }
    };
    add(Unit::Rank, &ranks, &blame);
    add(Unit::Host, &cells.host_of_rank, &blame);
    add(Unit::Stage, &stage_of_rank, &own);
    add(Unit::Class, &cells.class_of_rank, &own);
    units
}

/// As many steps as the budget allows, spread evenly.
fn chosen_steps(evidence: &Evidence<'_>, units: usize) -> Vec<usize> {
    let steps = evidence.inputs.measured.steps();
    let per_step = evidence.inputs.measured.nodes * (units + 1);
    let affordable = (BUDGET / per_step as f64) as usize;
    let count = affordable.max(FEWEST_STEPS).min(steps);
    (0..count).map(|at| at * steps / count).collect()
}

/// Seconds that each unit saves in each of some steps, `[unit][step]`.
fn saved(evidence: &Evidence<'_>, steps: &[usize], units: &[Unit]) -> Vec<Vec<f64>> {
    let (inputs, lanes) = (evidence.inputs, steps.len());
    let chunk = Chunk { inputs, steps };
    let mut measured = chunk.as_measured();
    let mut ideal = chunk.as_class(&measured.own, chunk.typical_delay());
    let mut times = Times::default();
    inputs
        .replay
        .evaluate(measured.durations(lanes), &mut times);
    let base = times.finish.clone();
    let cells = inputs.cells;
    let of_unit = |unit: Unit| -> Vec<usize> {
        let is_in = |rank: &usize| match unit {
            Unit::Rank(it) => *rank == it as usize,
            Unit::Host(it) => cells.host_of_rank[*rank] == it as usize,
            Unit::Stage(it) => cells.stage_of_rank[*rank] == it,
            Unit::Class(it) => cells.class_of_rank[*rank] == it as usize,
        };
        (0..cells.ranks).filter(is_in).collect()
    };
    let run = |unit: &Unit| {
        let ranks = of_unit(*unit);
        let mut levelled;
        let other = match unit {
            Unit::Rank(_) | Unit::Host(_) => &mut ideal,
            Unit::Stage(_) | Unit::Class(_) => {
                levelled = level(&chunk, &measured, *unit, &ranks);
                &mut levelled
            }
        };
        let mut swap = |measured: &mut Tables| {
            for &rank in &ranks {
                measured.swap(other, chunk.range_of(rank));
            }
        };
        swap(&mut measured);
        inputs
            .replay
            .evaluate(measured.durations(lanes), &mut times);
        swap(&mut measured);
        base.iter()
            .zip(&times.finish)
            .map(|(base, then)| base - then)
            .collect()
    };
    units.iter().map(run).collect()
}

/// Durations with the ranks of a stage or class brought to the mean over all stages or classes.
fn level(chunk: &Chunk<'_>, measured: &Tables, unit: Unit, ranks: &[usize]) -> Tables {
    let (cells, lanes) = (chunk.inputs.cells, chunk.lanes());
    let mut tables = measured.clone();
    let is_class = matches!(unit, Unit::Class(_));
    for (lane, &step) in chunk.steps.iter().enumerate() {
        let row = chunk.inputs.own.of_step(step);
        // Classes are compared where they do the same.
        let time = |rank: usize| match is_class {
            true => cells.usual(rank, &row[rank]),
            false => row[rank],
        };
        for &rank in ranks {
            let alike = |other: &usize| {
                !is_class
                    || cells.across_stages
                    || cells.stage_of_rank[*other] == cells.stage_of_rank[rank]
            };
            let mine = ranks.iter().copied().filter(alike);
            let all = (0..cells.ranks).filter(alike);
            let factor = ratio(&mean(all, time), &mean(mine, time));
            for &node in chunk.inputs.replay.nodes_of_rank(rank as u32) {
                match cells.slot_of_node[node as usize] {
                    None | Some(Slot::Host) => {}
                    Some(slot) => {
                        tables.own[node as usize * lanes + lane] *= factor[slot as usize];
                    }
                }
            }
        }
    }
    tables
}

fn mean(ranks: impl Iterator<Item = usize>, time: impl Fn(usize) -> Slots) -> Slots {
    let (mut sum, mut count) = ([0.0; Slot::COUNT], 0.0);
    for rank in ranks {
        let slots = time(rank);
        sum.iter_mut()
            .zip(slots)
            .for_each(|(sum, time)| *sum += time);
        count += 1.0;
    }
    sum.map(|sum| sum / count)
}

fn ratio(wanted: &Slots, is: &Slots) -> Slots {
    let mut ratio = [1.0; Slot::COUNT];
    for slot in (0..Slot::COUNT).filter(|slot| is[*slot] > 0.0) {
        ratio[slot] = wanted[slot] / is[slot];
    }
    ratio
}
