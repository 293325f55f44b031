//! What a training step does, in which order, on which rank and stream: pure data.

use crate::{Layout, Part};
use laggard_types::{Collective, Rank};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A queue of one rank. Operations of one stream run in order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The host thread that feeds the device.
    Host,
    /// Kernels.
    Compute,
    /// Collectives over gradients.
    Communication,
    /// Gathers of sharded parameters.
    Gather,
    /// Collectives between ranks that share a layer: tensor, context and expert parallel.
    ModelCommunication,
    /// Activations sent to the next pipeline stage.
    SendForward,
    /// Activations received from the stage before.
    ReceiveForward,
    /// Gradients sent to the stage before.
    SendBackward,
    /// Gradients received from the next stage.
    ReceiveBackward,
}

impl Stream {
    /// How many streams a rank can have.
    pub const COUNT: usize = 9;
}

/// What an operation is, which decides how it is timed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Work of the host: input, garbage collection, pauses.
    Host,
    /// Work of the device that waits for nobody.
    Compute,
    /// A meeting point of all members of a group.
    Collective(Collective),
    /// The sending side of a point-to-point pair.
    Send,
    /// The receiving side of a point-to-point pair.
    Receive,
}

impl OperationKind {
    /// Whether the operation meets other ranks, so that part of its duration may be waiting.
    pub const fn meets(self) -> bool {
        matches!(self, Self::Collective(_) | Self::Send | Self::Receive)
    }
}

/// The part of a training step that an operation belongs to.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Preparing the micro-batches on the host.
    Input,
    /// Forward pass.
    Forward,
    /// Backward pass.
    Backward,
    /// Forward done again during backward, because its activations were not kept.
    Recompute,
    /// Reduction of gradients over replicas.
    GradientReduce,
    /// Gathering of sharded parameters.
    ParameterGather,
    /// Activations and their gradients between pipeline stages.
    PipelineTransfer,
    /// Norm of all gradients, by which they are clipped.
    GradientNorm,
    /// Update of the parameters.
    Optimizer,
    /// Housekeeping of the host, such as garbage collection.
    Housekeeping,
}

impl Phase {
    /// The name that reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Recompute => "recompute",
            Self::GradientReduce => "gradient reduce",
            Self::ParameterGather => "parameter gather",
            Self::PipelineTransfer => "pipeline transfer",
            Self::GradientNorm => "gradient norm",
            Self::Optimizer => "optimizer",
            Self::Housekeeping => "housekeeping",
        }
    }
}

/// What a collective between ranks that share a layer moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// What goes into the part; for attention its keys and values.
    Input,
    /// What comes out of it.
    Output,
    /// Gradient of what goes in.
    InputGradient,
    /// Gradient of what comes out.
    OutputGradient,
}

/// One operation of a step. Its position in [`Schedule::operations`] is its id, to which samples
/// refer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// A name for people, such as `layer 3 backward`.
    pub name: String,
    /// What it is.
    pub kind: OperationKind,
    /// The part of the step.
    pub phase: Phase,
    /// The queue that it runs on.
    pub stream: Stream,
    /// Ids of operations of the same rank and step that it needs beside those before it on its
    /// stream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<u32>,
    /// The model layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
    /// The parts of the layer that are computed, in the order of forward, or whose data are moved;
    /// empty for the whole layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// For collectives between ranks that share a layer: what of the part is moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// The micro-batch, from 0 within the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<u32>,
    /// The gradient bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<u32>,
    /// For meeting points: which partition of the world (index into [`Schedule::axes`]) names the
    /// group of each rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<u32>,
    /// For meeting points: members of one group meet where axis and sequence are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u32>,
    /// Bytes of the collective, as nccl-tests counts them; of work on parameters or gradients, the
    /// bytes of those.
    #[serde(default)]
    pub bytes: u64,
    /// FLOP that grow with the number of tokens, at the nominal micro-batch. They are model FLOP in
    /// all phases but [`Phase::Recompute`].
    #[serde(default)]
    pub flop: f64,
    /// FLOP of attention, which grow with the sum of squared sequence lengths, at the nominal
    /// micro-batch.
    #[serde(default)]
    pub attention_flop: f64,
}

impl Operation {
    /// An operation without any detail.
    pub fn new(name: String, kind: OperationKind, phase: Phase, stream: Stream) -> Self {
        Self {
            name,
            kind,
            phase,
            stream,
            after: Vec::new(),
            layer: None,
            parts: Vec::new(),
            payload: None,
            micro_batch: None,
            bucket: None,
            axis: None,
            sequence: None,
            bytes: 0,
            flop: 0.0,
            attention_flop: 0.0,
        }
    }
}

/// A partition of ranks into groups that communicate, such as all data-parallel groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// `dp`, `pp 0-1`, ...
    pub name: String,
    /// The groups; a rank is in at most one of them. A send goes to the next member of the group,
    /// a receive comes from the one before; the first follows the last.
    pub groups: Vec<Vec<Rank>>,
}

/// The operations of one kind of rank, in the order in which its host issues them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Operation ids.
    pub operations: Vec<u32>,
}

/// Where a schedule came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleOrigin {
    /// From a layout, by a generator of this crate.
    Generated(Layout),
    /// Read out of a trace.
    Trace,
}

/// One training step of a whole world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Where it came from.
    pub origin: ScheduleOrigin,
    /// All operations; the id is the position.
    pub operations: Vec<Operation>,
    /// Programs; ranks that do the same share one.
    pub programs: Vec<Program>,
    /// The program of each rank; its length is the world size.
    pub program_of_rank: Vec<u32>,
    /// The pipeline stage of each rank.
    pub stage_of_rank: Vec<u32>,
    /// The partitions that meeting points refer to.
    pub axes: Vec<Axis>,
}

impl Schedule {
    /// Number of ranks.
    pub fn world_size(&self) -> usize {
        self.program_of_rank.len()
    }

    /// Number of pipeline stages.
    pub fn stages(&self) -> u32 {
        self.stage_of_rank.iter().max().map_or(1, |last| last + 1)
    }

    /// Operation ids of one rank, in issue order.
    pub fn program(&self, rank: Rank) -> &[u32] {
        &self.programs[self.program_of_rank[rank as usize] as usize].operations
    }

    /// The group that a rank meets on an axis.
    pub fn group(&self, axis: u32, rank: Rank) -> Option<&[Rank]> {
        let groups = &self.axes[axis as usize].groups;
        groups
            .iter()
            .find(|group| group.contains(&rank))
            .map(Vec::as_slice)
    }
}
