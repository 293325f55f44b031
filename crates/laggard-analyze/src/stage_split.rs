//! What the split of the model into stages makes of each stage's time, so that a stage that has
//! more to do is told from one that is slow.
//!
//! Stages are compared by what all of them do: passes of like layers, with the same FLOP. What only
//! some do (the output head) is measured against the like passes of the same ranks, so that a slow
//! stage makes neither of them look larger. Imported traces say nothing of the work of an
//! operation; their stages are not compared.

use crate::cells::{Cells, Slot, Slots};
use crate::intake::Measurements;
use crate::per_step::Typical;
use laggard_record::Manifest;
use laggard_schedule::{Phase, Replay, Schedule, ScheduleOrigin};
use laggard_stats::median;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Operations that cost the same on equally fast ranks: slot, phase, whether it is the output head,
/// and FLOP by their bits.
type Kind = (usize, Phase, bool, u64, u64);

/// Passes of one kind on the ranks of a stage.
#[derive(Default, Clone, Copy)]
struct Passes {
    count: f64,
    seconds: f64,
}

impl Passes {
    fn each(self) -> f64 {
        self.seconds / self.count
    }
}

/// What a stage's times are expected to be, relative to the mean over ranks, for each rank. `None`
/// where the stages have nothing in common to compare.
pub(crate) fn expected(
    manifest: &Manifest,
    replay: &Replay,
    measured: &Measurements,
    cells: &Cells,
    typical: &Typical,
) -> Option<Vec<Slots>> {
    let schedule = &manifest.schedule;
    let is_known = matches!(schedule.origin, ScheduleOrigin::Generated(_));
    if !is_known || cells.stages() < 2 {
        return None;
    }
    let mut seconds = mean_times(measured);
    for (node, slot) in cells.slot_of_node.iter().enumerate() {
        if *slot == Some(Slot::Host) {
            // Pauses say nothing of the split.
            seconds[node] = typical.host_own[node];
        }
    }
    let passes = passes(schedule, replay, cells, &seconds);
    let rate = |rank: usize| manifest.classes[cells.class_of_rank[rank]].relative_rate;
    let mut of_stage = vec![[1.0; Slot::COUNT]; cells.stages()];
    for slot in Slot::ALL {
        let column = if slot.scales_with_work() {
            expected_work(&passes, slot)?
        } else {
            // Hosts of fast classes are no faster.
            let scale = |rank: usize| if slot == Slot::Host { 1.0 } else { rate(rank) };
            as_measured(cells, slot, &seconds, scale)
        };
        for (stage, value) in column.into_iter().enumerate() {
            of_stage[stage][slot as usize] = value;
        }
    }
    let mut of_rank: Vec<Slots> = cells
        .stage_of_rank
        .iter()
        .map(|stage| of_stage[*stage as usize])
        .collect();
    for slot in 0..Slot::COUNT {
        let mean = of_rank.iter().map(|slots| slots[slot]).sum::<f64>() / cells.ranks as f64;
        of_rank.iter_mut().for_each(|slots| slots[slot] /= mean);
    }
    Some(of_rank)
}

/// Mean own time of each node.
fn mean_times(measured: &Measurements) -> Vec<f64> {
    let (nodes, steps) = (measured.nodes, measured.steps());
    let column = |node: usize| {
        let values = measured.own.iter().skip(node).step_by(nodes);
        values.map(|own| f64::from(*own)).sum::<f64>() / steps as f64
    };
    (0..nodes).into_par_iter().map(column).collect()
}

/// What each stage computes, by kind.
fn passes(
    schedule: &Schedule,
    replay: &Replay,
    cells: &Cells,
    seconds: &[f64],
) -> Vec<BTreeMap<Kind, Passes>> {
    let head = schedule
        .operations
        .iter()
        .filter_map(|operation| operation.layer)
        .max();
    let mut stages = vec![BTreeMap::<Kind, Passes>::new(); cells.stages()];
    for (node, place) in replay.nodes().iter().enumerate() {
        let Some(slot) = cells.slot_of_node[node].filter(|slot| slot.scales_with_work()) else {
            continue;
        };
        let operation = &schedule.operations[place.operation as usize];
        let kind = (
            slot as usize,
            operation.phase,
            operation.layer == head,
            operation.flop.to_bits(),
            operation.attention_flop.to_bits(),
        );
        let stage = cells.stage_of_rank[place.rank as usize] as usize;
        let passes = stages[stage].entry(kind).or_default();
        passes.count += 1.0;
        passes.seconds += seconds[node];
    }
    let mut ranks = vec![0.0; stages.len()];
    for stage in &cells.stage_of_rank {
        ranks[*stage as usize] += 1.0;
    }
    for (stage, ranks) in stages.iter_mut().zip(ranks) {
        for passes in stage.values_mut() {
            passes.count /= ranks;
            passes.seconds /= ranks;
        }
    }
    stages
}

/// Each stage's time if all ranks were equally fast.
fn expected_work(stages: &[BTreeMap<Kind, Passes>], slot: Slot) -> Option<Vec<f64>> {
    let of_slot = |kind: &&Kind| kind.0 == slot as usize;
    let is_common = |kind: &&Kind| stages.iter().all(|stage| stage.contains_key(*kind));
    let common: Vec<Kind> = stages[0]
        .keys()
        .filter(of_slot)
        .filter(is_common)
        .copied()
        .collect();
    let speed =
        |stage: &BTreeMap<Kind, Passes>| common.iter().map(|kind| stage[kind].each()).sum::<f64>();
    if common.is_empty() || stages.iter().any(|stage| speed(stage) <= 0.0) {
        return None;
    }
    // What a pass of each kind takes, relative to one of every kind.
    let cost = |kind: &Kind| {
        let each: Vec<f64> = stages.iter().map(|s| s[kind].each() / speed(s)).collect();
        median(&each).unwrap_or(0.0)
    };
    let costs: Vec<f64> = common.iter().map(cost).collect();
    let expected = |stage: &BTreeMap<Kind, Passes>| {
        let of_kinds = common.iter().zip(&costs);
        let work: f64 = of_kinds.map(|(kind, cost)| stage[kind].count * cost).sum();
        let of_slot = stage.iter().filter(|(kind, _)| kind.0 == slot as usize);
        let all: f64 = of_slot.map(|(_, passes)| passes.seconds).sum();
        let alike: f64 = common.iter().map(|kind| stage[kind].seconds).sum();
        work * all / alike
    };
    Some(stages.iter().map(expected).collect())
}

/// Where nothing says how much there is to do, all differences between stages count as the split's.
fn as_measured(
    cells: &Cells,
    slot: Slot,
    seconds: &[f64],
    scale: impl Fn(usize) -> f64,
) -> Vec<f64> {
    let mut sums = vec![0.0; cells.stages()];
    let mut ranks = vec![0.0; cells.stages()];
    for rank in 0..cells.ranks {
        ranks[cells.stage_of_rank[rank] as usize] += 1.0;
    }
    for (node, rank) in cells.rank_of_node.iter().enumerate() {
        if cells.slot_of_node[node] == Some(slot) {
            sums[cells.stage_of_rank[*rank] as usize] += seconds[node] * scale(*rank);
        }
    }
    let means: Vec<f64> = sums
        .iter()
        .zip(ranks)
        .map(|(sum, ranks)| sum / ranks)
        .collect();
    // A stage that does nothing of the kind has nothing to divide.
    match means.iter().all(|mean| *mean > 0.0) {
        true => means,
        false => vec![1.0; means.len()],
    }
}
