//! Transfers between pipeline stages: which computation each belongs to, and which send meets which
//! receive.
//!
//! The profiler also records transfers that were never launched, at the edges of the step and of
//! the model. They keep their place on their stream, but meet nobody.

use super::dependencies::{Builder, Stage};
use super::rows::{OpType, Row};
use laggard_schedule::Axis;
use std::collections::BTreeMap;

/// Clocks of one stage's streams agree to this, in seconds: by how much a transfer may seem to be
/// out of order with the computation that it belongs to.
/// Source: ByteDance-Seed/StragglerAnalysis, analyzer/dependency_model.py, `setup_pp_dependency`.
const TOLERANCE_S: f64 = 5e-5;

/// One of the four kinds of transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Direction {
    transfer: OpType,
    peer: OpType,
    compute: OpType,
    sends: bool,
    /// Whether the other side is the next stage (and chunk), or the one before.
    to_next: bool,
}

const DIRECTIONS: [Direction; 4] = [
    direction(
        OpType::ForwardSend,
        OpType::ForwardReceive,
        OpType::ForwardCompute,
        true,
    ),
    direction(
        OpType::ForwardReceive,
        OpType::ForwardSend,
        OpType::ForwardCompute,
        false,
    ),
    direction(
        OpType::BackwardSend,
        OpType::BackwardReceive,
        OpType::BackwardCompute,
        true,
    ),
    direction(
        OpType::BackwardReceive,
        OpType::BackwardSend,
        OpType::BackwardCompute,
        false,
    ),
];

const fn direction(transfer: OpType, peer: OpType, compute: OpType, sends: bool) -> Direction {
    let to_next = matches!(transfer, OpType::ForwardSend | OpType::BackwardReceive);
    Direction {
        transfer,
        peer,
        compute,
        sends,
        to_next,
    }
}

/// The transfers of one kind and stage that were launched, in order.
type Launched<'a> = BTreeMap<(OpType, u32), Vec<&'a Row>>;

/// Connects all transfers with computations and with each other.
pub(super) fn connect_transfers(builder: &mut Builder, stages: &[Stage<'_>]) -> Result<(), String> {
    let mut launched = Launched::new();
    let mut alone = Vec::new();
    let chunks = 1 + stages
        .iter()
        .flat_map(|s| &s.compute)
        .filter_map(|r| r.chunk)
        .max()
        .unwrap_or(0);
    for stage in stages {
        for direction in DIRECTIONS {
            let mut live = Vec::new();
            for (row, compute) in match_compute(stage, direction, stages.len() as u32)? {
                let Some(compute) = compute else {
                    alone.push(row);
                    continue;
                };
                depend_on_compute(builder, stage, direction, row, compute);
                if leads_outside(compute, direction, chunks * stages.len() as u32) {
                    alone.push(row);
                } else {
                    live.push(row);
                }
            }
            launched.insert((direction.transfer, stage.stage), live);
        }
        connect_first_backward(builder, stage);
    }
    pair(builder, &launched)?;
    isolate(builder, &alone);
    Ok(())
}

/// Each transfer of a kind with the computation that feeds it or that it feeds; `None` where it was
/// recorded outside of the computations' time.
fn match_compute<'a>(
    stage: &Stage<'a>,
    direction: Direction,
    stages: u32,
) -> Result<Vec<(&'a Row, Option<&'a Row>)>, String> {
    let mut computes: Vec<&Row> = stage.of(direction.compute).collect();
    computes.sort_by_key(|row| row.sequence);
    let last_start = computes
        .iter()
        .map(|row| row.start_s)
        .fold(f64::MIN, f64::max);
    let first_end = computes
        .iter()
        .map(|row| row.end_s())
        .fold(f64::MAX, f64::min);
    let belongs = |row: &&Row| match direction.sends {
        true => row.end_s() >= first_end - TOLERANCE_S,
        false => row.start_s <= last_start + TOLERANCE_S,
    };
    let count = stage.of(direction.transfer).filter(belongs).count();
    let at_the_edge = stage.stage == 0 || stage.stage + 1 == stages;
    let one_short = count + 1 == computes.len();
    if count != computes.len() && !(at_the_edge && (count == 0 || one_short)) {
        return Err(format!(
            "stage {} has {count} of `{}` for {} of `{}`",
            stage.stage,
            direction.transfer.name(),
            computes.len(),
            direction.compute.name()
        ));
    }
    // Where one receive is missing, it is the first: its data came from the input.
    let mut next = computes
        .iter()
        .skip(usize::from(!direction.sends && one_short));
    let pairs = stage.of(direction.transfer).map(|row| {
        let compute = if belongs(&row) {
            next.next().copied()
        } else {
            None
        };
        (row, compute)
    });
    Ok(pairs.collect())
}

/// `compute -> send`, or `compute before -> receive -> compute`.
fn depend_on_compute(
    builder: &mut Builder,
    stage: &Stage<'_>,
    direction: Direction,
    row: &Row,
    compute: &Row,
) {
    if direction.sends {
        builder.depend(row, compute);
        return;
    }
    builder.depend(compute, row);
    let before = |other: &&Row| other.sequence + 1 == compute.sequence;
    if let Some(before) = stage.of(direction.compute).find(before) {
        builder.depend(row, before);
    }
}

/// Whether the other side would be before the model's first chunk or behind its last.
fn leads_outside(compute: &Row, direction: Direction, chunks: u32) -> bool {
    let Some(chunk) = compute.global_chunk else {
        return false;
    };
    if direction.to_next {
        chunk + 1 >= chunks
    } else {
        chunk == 0
    }
}

/// The first backward transfers wait for the last forward but one before the first backward: the
/// host issues them only then.
fn connect_first_backward(builder: &mut Builder, stage: &Stage<'_>) {
    let is_backward = |row: &&Row| row.kind == OpType::BackwardCompute;
    let Some(first) = stage.compute.iter().position(is_backward) else {
        return;
    };
    let Some(before) = first.checked_sub(2) else {
        return;
    };
    for kind in [OpType::BackwardReceive, OpType::BackwardSend] {
        if let Some(transfer) = stage.of(kind).find(|row| row.sequence == 0) {
            builder.depend(transfer, stage.compute[before]);
        }
    }
}

/// The i-th launched send of a stage meets the i-th launched receive of the stage that it leads to.
fn pair(builder: &mut Builder, launched: &Launched<'_>) -> Result<(), String> {
    let grid = builder.grid;
    for direction in DIRECTIONS.iter().filter(|direction| direction.sends) {
        for sender in 0..grid.stages {
            let step = if direction.to_next {
                1
            } else {
                grid.stages - 1
            };
            let receiver = (sender + step) % grid.stages;
            let sends = &launched[&(direction.transfer, sender)];
            let receives = &launched[&(direction.peer, receiver)];
            if sends.len() != receives.len() {
                return Err(format!(
                    "stage {sender} sends {} times with `{}`, but stage {receiver} receives {} \
                     times with `{}`",
                    sends.len(),
                    direction.transfer.name(),
                    receives.len(),
                    direction.peer.name()
                ));
            }
            if sends.is_empty() {
                continue;
            }
            let ends = |replica| {
                let mut ends = vec![grid.rank(replica, sender), grid.rank(replica, receiver)];
                ends.dedup();
                ends
            };
            let groups = (0..grid.replicas).map(ends).collect();
            let way = if direction.transfer == OpType::ForwardSend {
                "forward"
            } else {
                "backward"
            };
            let axis = add_axis(builder, format!("pp {sender}-{receiver} {way}"), groups);
            for (sequence, (send, receive)) in (0..).zip(sends.iter().zip(receives)) {
                for row in [send, receive] {
                    let operation = builder.operation(row);
                    (operation.axis, operation.sequence) = (Some(axis), Some(sequence));
                }
            }
        }
    }
    Ok(())
}

/// Transfers that meet nobody get groups of one.
fn isolate(builder: &mut Builder, alone: &[&Row]) {
    if alone.is_empty() {
        return;
    }
    let groups = (0..builder.grid.world()).map(|rank| vec![rank]).collect();
    let axis = add_axis(builder, "not launched".to_owned(), groups);
    for (sequence, row) in (0..).zip(alone) {
        let operation = builder.operation(row);
        (operation.axis, operation.sequence) = (Some(axis), Some(sequence));
    }
}

fn add_axis(builder: &mut Builder, name: String, groups: Vec<Vec<u32>>) -> u32 {
    builder.schedule.axes.push(Axis { name, groups });
    builder.schedule.axes.len() as u32 - 1
}
