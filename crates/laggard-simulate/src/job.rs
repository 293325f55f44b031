//! What is trained, how it is laid out and with which software: the input of the step-time model,
//! as plain numbers that a search can change millions of times a second.

mod machine;
mod shape;
mod software;

use laggard_schedule::{LayerSplit, Layout, Zero};
use laggard_specs::{MemoryLayout, Recompute};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::SimulateError;

pub use machine::{Corrections, Family, Machine};
pub use shape::{ExpertShape, Product, Shape, Split};
pub use software::{
    Accumulation, AttentionKernel, Framework, Frameworks, Kernels, Selective, ShardUpdate,
    Software, TensorOverlap,
};

/// The arithmetic of the large matrix products.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// bf16 or fp16.
    Half,
    /// fp8, with half precision elsewhere.
    Fp8,
    /// fp4, with half precision elsewhere.
    Fp4,
}

/// How a job is laid out: degrees alone, at least 1 each, without a list of anything, so that
/// evaluating it allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Degrees {
    /// Ranks that share each matrix.
    pub tensor: u32,
    /// Ranks that share the tokens of each sequence.
    pub context: u32,
    /// Pipeline stages.
    pub pipeline: u32,
    /// Replicas.
    pub data: u32,
    /// Ranks that share the experts of a layer.
    pub expert: u32,
    /// Separate pieces of the model on each stage.
    pub virtual_stages: u32,
    /// Sequences of a micro-batch.
    pub micro_batch: u32,
    /// Micro-batches of a step and replica.
    pub micro_batches: u32,
    /// Whether tensor-parallel ranks also share the tokens between the matrices.
    pub sequence_parallel: bool,
    /// What replicas share out.
    pub zero: Zero,
    /// Among how many ranks they share it; `None` for all of them.
    pub shard_ranks: Option<u32>,
    /// What backward computes again.
    pub recompute: Recompute,
    /// Where whole layers are computed again: only so many of each piece, the first ones; `None`
    /// for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recompute_layers: Option<u32>,
}

impl Degrees {
    /// One rank, one micro-batch of one sequence, nothing shared out or computed again.
    pub const ONE: Self = Self {
        tensor: 1,
        context: 1,
        pipeline: 1,
        data: 1,
        expert: 1,
        virtual_stages: 1,
        micro_batch: 1,
        micro_batches: 1,
        sequence_parallel: false,
        zero: Zero::None,
        shard_ranks: None,
        recompute: Recompute::None,
        recompute_layers: None,
    };

    /// The degrees of a layout whose replicas have equal shares, with micro-batches of
    /// `micro_batch` sequences. Of unequal shares the largest counts.
    #[must_use]
    pub fn of_layout(layout: &Layout, micro_batch: u32) -> Self {
        Self {
            tensor: layout.tensor_parallel,
            context: layout.context_parallel,
            pipeline: layout.pipeline_parallel,
            data: layout.data_parallel,
            expert: layout.expert_parallel,
            virtual_stages: layout.virtual_stages,
            micro_batch,
            micro_batches: layout.micro_batches.iter().copied().max().unwrap_or(1),
            sequence_parallel: layout.sequence_parallel,
            zero: layout.zero,
            shard_ranks: None,
            recompute: match layout.recompute {
                laggard_schedule::Recompute::None => Recompute::None,
                laggard_schedule::Recompute::Layers => Recompute::Layers,
            },
            recompute_layers: layout.recompute_layers,
        }
    }

    /// Ranks of the job.
    #[must_use]
    pub fn ranks(&self) -> u64 {
        self.ranks_per_replica() * u64::from(self.data)
    }

    /// Ranks of one replica.
    #[must_use]
    pub fn ranks_per_replica(&self) -> u64 {
        [self.tensor, self.context, self.pipeline]
            .into_iter()
            .map(u64::from)
            .product()
    }

    /// Ranks that a dense parameter's gradients are reduced over.
    #[must_use]
    pub fn gradient_ranks(&self) -> u32 {
        self.data * self.context
    }

    /// The same as the count of memory takes it, for kernels of today: without kept scores.
    #[must_use]
    pub fn memory_layout(&self, sequence_length: u32) -> MemoryLayout {
        MemoryLayout {
            tensor_parallel: self.tensor.into(),
            sequence_parallel: self.sequence_parallel,
            pipeline_parallel: self.pipeline.into(),
            virtual_stages: self.virtual_stages.into(),
            context_parallel: self.context.into(),
            expert_parallel: self.expert.into(),
            data_parallel: self.data.into(),
            zero: match self.zero {
                Zero::None => 0,
                Zero::Optimizer => 1,
                Zero::Gradients => 2,
                Zero::Parameters => 3,
            },
            recompute: self.recompute,
            recompute_layers: self.recompute_layers.map(u64::from),
            micro_batch_sequences: self.micro_batch.into(),
            micro_batches: self.micro_batches.into(),
            ..MemoryLayout::single(sequence_length.into())
        }
    }

    /// The same degrees with as many micro-batches as make a step of so many sequences.
    ///
    /// # Errors
    /// A batch that these replicas cannot share evenly, or too large to count.
    pub fn with_global_batch(self, sequences: u64) -> Result<Self, SimulateError> {
        let at_once = u64::from(self.data) * u64::from(self.micro_batch);
        let refused = SimulateError::BatchNotShared { sequences, at_once };
        if at_once == 0 || sequences == 0 || !sequences.is_multiple_of(at_once) {
            return Err(refused);
        }
        match u32::try_from(sequences / at_once) {
            Ok(micro_batches) => Ok(Self {
                micro_batches,
                ..self
            }),
            Err(_) => Err(refused),
        }
    }

    /// Sequences of a step of all replicas.
    #[must_use]
    pub fn global_batch(&self) -> u64 {
        u64::from(self.micro_batch) * u64::from(self.micro_batches) * u64::from(self.data)
    }
}

/// As `--layout` has it; micro-batches are no part of it.
impl std::fmt::Display for Degrees {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let degrees = [
            ("dp", self.data),
            ("tp", self.tensor),
            ("pp", self.pipeline),
            ("vp", self.virtual_stages),
            ("cp", self.context),
            ("ep", self.expert),
        ];
        let mut comma = "";
        for (name, degree) in degrees {
            if degree > 1 || name == "dp" {
                write!(f, "{comma}{name}{degree}")?;
                comma = ",";
            }
        }
        match self.zero {
            Zero::None => {}
            Zero::Optimizer => write!(f, ",zero1")?,
            Zero::Gradients => write!(f, ",zero2")?,
            Zero::Parameters => write!(f, ",zero3")?,
        }
        if self.sequence_parallel {
            write!(f, ",sp")?;
        }
        match (self.recompute, self.recompute_layers) {
            (Recompute::None, _) => Ok(()),
            (Recompute::Attention, _) => write!(f, ",recompute (attention)"),
            (Recompute::Layers, None) => write!(f, ",recompute"),
            (Recompute::Layers, Some(layers)) => write!(f, ",recompute{layers}"),
        }
    }
}

/// A training job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Job {
    /// The model's dimensions.
    pub shape: Shape,
    /// The layout.
    pub degrees: Degrees,
    /// Tokens of a sequence.
    pub sequence_length: u32,
    /// Arithmetic of the products.
    pub precision: Precision,
    /// What the software does well and badly.
    pub software: Software,
}

impl Job {
    /// Tokens of a micro-batch on one rank before tensor parallelism divides them.
    #[must_use]
    pub fn tokens_per_micro_batch(&self) -> f64 {
        let degrees = &self.degrees;
        f64::from(degrees.micro_batch) * f64::from(self.sequence_length)
            / f64::from(degrees.context)
    }

    /// Tokens of a step of all ranks.
    #[must_use]
    pub fn tokens_per_step(&self) -> f64 {
        self.degrees.global_batch() as f64 * f64::from(self.sequence_length)
    }

    /// How the layers are cut into the pieces of the pipeline.
    pub(crate) fn split(&self) -> LayerSplit {
        LayerSplit {
            layers: self.shape.layers.into(),
            stages: self.degrees.pipeline.into(),
            virtual_stages: self.degrees.virtual_stages.into(),
        }
    }

    /// Share of the layers that backward computes again as a whole.
    #[must_use]
    pub fn recomputed_share(&self) -> f64 {
        let degrees = &self.degrees;
        match (degrees.recompute, degrees.recompute_layers) {
            (Recompute::None | Recompute::Attention, _) => 0.0,
            (Recompute::Layers, None) => 1.0,
            (Recompute::Layers, Some(layers)) => {
                let split = self.split();
                let (all, pieces) = (split.layers as f64, split.pieces() as f64);
                (f64::from(layers) * pieces / all).min(1.0)
            }
        }
    }

    /// The layout that schedules are generated of, its layers cut as the step is predicted with.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let split = self.split();
        let is_even = split.layers.is_multiple_of(split.pieces());
        let of_pieces = (0..split.pieces()).map(|piece| split.of_piece(piece) as u32);
        Layout {
            stage_layers: if is_even {
                Vec::new()
            } else {
                of_pieces.collect()
            },
            ..layout_of(&self.degrees)
        }
    }
}

/// The layout of degrees alone. Attention that is computed again is part of attention's own time.
#[must_use]
pub fn layout_of(degrees: &Degrees) -> Layout {
    // No layer of each piece is none at all.
    let (recompute, recompute_layers) = match (degrees.recompute, degrees.recompute_layers) {
        (Recompute::None | Recompute::Attention, _) | (_, Some(0)) => {
            (laggard_schedule::Recompute::None, None)
        }
        (Recompute::Layers, layers) => (laggard_schedule::Recompute::Layers, layers),
    };
    Layout {
        tensor_parallel: degrees.tensor,
        pipeline_parallel: degrees.pipeline,
        context_parallel: degrees.context,
        expert_parallel: degrees.expert,
        virtual_stages: degrees.virtual_stages,
        sequence_parallel: degrees.sequence_parallel,
        zero: degrees.zero,
        recompute,
        recompute_layers,
        ..Layout::data_parallel(degrees.data, degrees.micro_batches)
    }
}
