//! The schedule of a ByteDance trace: which operation needs which, as the trace's own analysis
//! models it. Read from one replica's first step; all replicas and steps are alike.
//!
//! Compute runs in order of start. The four kinds of transfer each have a stream. The all-gather of
//! a model chunk's parameters comes before its first forward, the reduce-scatter of its gradients
//! after its last backward where reductions overlap. The rest of the step is a chain: garbage
//! collection, layer norm, embedding (first and last stage), reductions that are left, clipping
//! (all ranks meet), optimizer.

use super::Grid;
use super::rows::{OpType, Row};
use super::transfers::connect_transfers;
use laggard_schedule::{
    Axis, Operation, OperationKind, Phase, Program, Schedule, ScheduleOrigin, Stream,
};
use laggard_types::Collective;
use std::collections::BTreeMap;

/// Names an operation within a step of any replica: stage, type, number.
pub(super) type OperationKey = (u32, OpType, u32);

/// Positions in the schedule's axes.
const DATA_PARALLEL: u32 = 0;
const EMBEDDING: u32 = 1;
const WORLD: u32 = 2;
const TENSOR_PARALLEL: u32 = 3;

/// A schedule under construction.
pub(super) struct Builder {
    pub(super) grid: Grid,
    pub(super) schedule: Schedule,
    ids: BTreeMap<OperationKey, u32>,
}

/// One stage of the pattern, in order of start.
pub(super) struct Stage<'a> {
    pub(super) stage: u32,
    pub(super) rows: &'a [Row],
    /// Forward and backward computations.
    pub(super) compute: Vec<&'a Row>,
}

impl<'a> Stage<'a> {
    fn new(stage: u32, rows: &'a [Row]) -> Self {
        let is_compute =
            |row: &&Row| matches!(row.kind, OpType::ForwardCompute | OpType::BackwardCompute);
        Self {
            stage,
            rows,
            compute: rows.iter().filter(is_compute).collect(),
        }
    }

    /// The operations of a type, in order of start.
    pub(super) fn of(&self, kind: OpType) -> impl DoubleEndedIterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.kind == kind)
    }
}

/// Builds the schedule from the operations of one replica's step, each of them named once.
pub(super) fn build_schedule(
    grid: Grid,
    pattern: &[Row],
) -> Result<(Schedule, BTreeMap<OperationKey, u32>), String> {
    let mut sorted = pattern.to_vec();
    sorted.sort_by(|a, b| {
        let times = a.start_s.total_cmp(&b.start_s);
        a.stage
            .cmp(&b.stage)
            .then(times)
            .then((a.sequence, a.kind).cmp(&(b.sequence, b.kind)))
    });
    let stages: Vec<Stage<'_>> = (sorted.chunk_by(|a, b| a.stage == b.stage).zip(0..))
        .map(|(rows, stage)| Stage::new(stage, rows))
        .collect();
    if stages.len() != grid.stages as usize {
        return Err("replica 0 lacks a stage in its first step".to_owned());
    }
    let overlapped = sorted
        .iter()
        .any(|row| row.kind == OpType::SeparateAllReduce);
    let mut builder = Builder::new(grid);
    for stage in &stages {
        builder.add_stage(stage, overlapped);
    }
    for stage in &stages {
        builder.connect_parameters(stage);
        if overlapped {
            builder.connect_gradients(stage);
        }
        builder.connect_tail(stage, overlapped);
    }
    connect_transfers(&mut builder, &stages)?;
    Ok((builder.schedule, builder.ids))
}

impl Builder {
    fn new(grid: Grid) -> Self {
        let ranks = || 0..grid.replicas;
        let stages = || 0..grid.stages;
        let replicas_of = |stage| ranks().map(|replica| grid.rank(replica, stage)).collect();
        let ends = |replica| {
            let mut ends = vec![grid.rank(replica, 0), grid.rank(replica, grid.stages - 1)];
            ends.dedup();
            ends
        };
        let axis = |name: &str, groups| Axis {
            name: name.to_owned(),
            groups,
        };
        let schedule = Schedule {
            origin: ScheduleOrigin::Trace,
            operations: Vec::new(),
            programs: Vec::new(),
            program_of_rank: ranks().flat_map(|_| stages()).collect(),
            stage_of_rank: ranks().flat_map(|_| stages()).collect(),
            axes: vec![
                axis("dp", stages().map(replicas_of).collect()),
                axis("embedding", ranks().map(ends).collect()),
                axis("world", vec![(0..grid.world()).collect()]),
                // The trace folds a tensor-parallel group into one worker.
                axis("tp", (0..grid.world()).map(|rank| vec![rank]).collect()),
            ],
        };
        Self {
            grid,
            schedule,
            ids: BTreeMap::new(),
        }
    }

    /// Gives the operations of a stage their ids, in the order in which they are issued.
    fn add_stage(&mut self, stage: &Stage<'_>, overlapped: bool) {
        let tail = tail_of(stage, overlapped);
        let is_tail = |row: &&Row| tail.iter().any(|other| other.row == row.row);
        let head = stage.rows.iter().filter(|row| !is_tail(row));
        let mut program = Program {
            operations: Vec::new(),
        };
        for row in head.chain(tail.iter().copied()) {
            let id = self.schedule.operations.len() as u32;
            let sequence = program.operations.len() as u32;
            self.ids.insert((row.stage, row.kind, row.sequence), id);
            self.schedule.operations.push(operation_of(row, sequence));
            program.operations.push(id);
        }
        self.schedule.programs.push(program);
    }

    /// The last all-gather of a chunk comes before the chunk's first forward.
    fn connect_parameters(&mut self, stage: &Stage<'_>) {
        let mut last_of: BTreeMap<Option<u32>, &Row> = BTreeMap::new();
        for row in stage.of(OpType::ParamsAllGather) {
            let last = last_of.entry(row.chunk).or_insert(row);
            if row.sequence > last.sequence {
                *last = row;
            }
        }
        for (chunk, gather) in last_of {
            if let Some(first) = stage
                .of(OpType::ForwardCompute)
                .find(|row| row.chunk == chunk)
            {
                self.depend(first, gather);
            }
        }
    }

    /// The last backward of a chunk comes before the chunk's first reduce-scatter.
    fn connect_gradients(&mut self, stage: &Stage<'_>) {
        let mut first_of: BTreeMap<Option<u32>, &Row> = BTreeMap::new();
        for row in stage.of(OpType::GradsReduceScatter) {
            let first = first_of.entry(row.chunk).or_insert(row);
            if row.sequence < first.sequence {
                *first = row;
            }
        }
        for (chunk, scatter) in first_of {
            let backward = stage
                .of(OpType::BackwardCompute)
                .filter(|row| row.chunk == chunk);
            if let Some(last) = latest(backward) {
                self.depend(scatter, last);
            }
        }
    }

    /// What ends the step is a chain behind the last computation, and behind the reductions that
    /// overlap with it.
    fn connect_tail(&mut self, stage: &Stage<'_>, overlapped: bool) {
        let tail = tail_of(stage, overlapped);
        let mut before = latest(stage.compute.iter().copied());
        for row in &tail {
            if let Some(before) = before {
                self.depend(row, before);
            }
            before = Some(row);
        }
        let after_collection = tail
            .iter()
            .find(|row| row.kind != OpType::GarbageCollection);
        let last_scatter = stage
            .of(OpType::GradsReduceScatter)
            .max_by_key(|row| row.sequence);
        if let (true, Some(row), Some(scatter)) = (overlapped, after_collection, last_scatter) {
            self.depend(row, scatter);
        }
    }

    /// Operation `row` needs `before`, an operation of the same stage.
    pub(super) fn depend(&mut self, row: &Row, before: &Row) {
        let before = self.id(before);
        let after = &mut self.operation(row).after;
        if !after.contains(&before) {
            after.push(before);
        }
    }

    pub(super) fn operation(&mut self, row: &Row) -> &mut Operation {
        let id = self.id(row);
        &mut self.schedule.operations[id as usize]
    }

    fn id(&self, row: &Row) -> u32 {
        self.ids[&(row.stage, row.kind, row.sequence)]
    }
}

/// The operations that end a step of a stage, in the order of the chain.
fn tail_of<'a>(stage: &Stage<'a>, overlapped: bool) -> Vec<&'a Row> {
    let reductions = if overlapped {
        OpType::SeparateAllReduce
    } else {
        OpType::GradsReduceScatter
    };
    let chain = [
        OpType::GarbageCollection,
        OpType::LayernormAllReduce,
        OpType::EmbeddingAllReduce,
        reductions,
        OpType::ClipMainGrad,
        OpType::Optimizer,
    ];
    let mut tail: Vec<&Row> = Vec::new();
    for kind in chain {
        let from = tail.len();
        tail.extend(stage.of(kind));
        tail[from..].sort_by_key(|row| row.sequence);
    }
    tail
}

/// The operation that ends last.
fn latest<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<&'a Row> {
    rows.max_by(|a, b| a.end_s().total_cmp(&b.end_s()))
}

/// An operation without what it needs. `sequence` tells meetings of one axis apart.
fn operation_of(row: &Row, sequence: u32) -> Operation {
    let (kind, phase, stream, axis) = shape_of(row.kind);
    let meeting = match row.kind {
        // Stages have programs of their own, but meet here: the number must be the same for all.
        OpType::EmbeddingAllReduce | OpType::ClipMainGrad => Some(row.sequence),
        _ => axis.map(|_| sequence),
    };
    let is_bucket = matches!(
        row.kind,
        OpType::ParamsAllGather | OpType::GradsReduceScatter
    );
    Operation {
        micro_batch: row.micro_batch,
        bucket: is_bucket.then_some(row.sequence),
        axis,
        sequence: meeting,
        ..Operation::new(
            format!("{} {}", row.kind.name(), row.sequence),
            kind,
            phase,
            stream,
        )
    }
}

/// What a type of operation is, and the axis that it meets on; that of a transfer comes later.
fn shape_of(kind: OpType) -> (OperationKind, Phase, Stream, Option<u32>) {
    use Collective::{AllGather, AllReduce, ReduceScatter};
    use OperationKind::{Collective as Meet, Compute, Host, Receive, Send};
    use Phase::{Backward, Forward, GradientReduce, Housekeeping, ParameterGather};
    let transfer = Phase::PipelineTransfer;
    let (compute, communication) = (Stream::Compute, Stream::Communication);
    let (dp, embedding, world) = (Some(DATA_PARALLEL), Some(EMBEDDING), Some(WORLD));
    let tensor = Some(TENSOR_PARALLEL);
    match kind {
        OpType::ForwardCompute => (Compute, Forward, compute, None),
        OpType::BackwardCompute => (Compute, Backward, compute, None),
        OpType::ForwardSend => (Send, transfer, Stream::SendForward, None),
        OpType::ForwardReceive => (Receive, transfer, Stream::ReceiveForward, None),
        OpType::BackwardSend => (Send, transfer, Stream::SendBackward, None),
        OpType::BackwardReceive => (Receive, transfer, Stream::ReceiveBackward, None),
        OpType::ParamsAllGather => (Meet(AllGather), ParameterGather, communication, dp),
        OpType::GradsReduceScatter => (Meet(ReduceScatter), GradientReduce, communication, dp),
        OpType::SeparateAllReduce => (Meet(AllReduce), GradientReduce, communication, dp),
        OpType::EmbeddingAllReduce => (Meet(AllReduce), GradientReduce, communication, embedding),
        OpType::LayernormAllReduce => (Meet(AllReduce), GradientReduce, communication, tensor),
        OpType::ClipMainGrad => (Meet(AllReduce), Phase::GradientNorm, communication, world),
        OpType::Optimizer => (Compute, Phase::Optimizer, compute, None),
        OpType::GarbageCollection => (Host, Housekeeping, Stream::Host, None),
    }
}
