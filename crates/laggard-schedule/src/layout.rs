//! How a job is laid out over ranks.

mod coordinates;
mod split;
mod text;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use coordinates::Coordinates;
pub use split::LayerSplit;

/// What the ranks of one data-parallel group share out among themselves instead of each keeping
/// all of it. Source: Rajbhandari et al. 2020, "ZeRO", section 5.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Zero {
    /// Nothing: gradients are reduced to all, and each rank updates all parameters.
    #[default]
    None,
    /// Stage 1, the optimizer's state: gradients are reduce-scattered once a step, each rank
    /// updates its shard, and parameters are gathered.
    Optimizer,
    /// Stage 2, gradients too: they are reduce-scattered after each micro-batch.
    Gradients,
    /// Stage 3, parameters too (FSDP): each layer's are gathered before each of its passes.
    Parameters,
}

/// What backward computes again because forward did not keep it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Nothing.
    #[default]
    None,
    /// Every transformer layer, but not the head: only the inputs of layers are kept.
    Layers,
}

/// A parallel layout. The world has `tensor_parallel x context_parallel x data_parallel x
/// pipeline_parallel` ranks, numbered in this order, tensor parallel fastest (Megatron-LM's default
/// order). Expert parallel groups are consecutive ranks of the data and context dimensions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Number of replicas.
    pub data_parallel: u32,
    /// Ranks that share each matrix of a layer.
    #[serde(default = "one")]
    pub tensor_parallel: u32,
    /// Ranks that a micro-batch passes through one after the other.
    #[serde(default = "one")]
    pub pipeline_parallel: u32,
    /// Ranks that share the tokens of each sequence.
    #[serde(default = "one")]
    pub context_parallel: u32,
    /// Ranks that share the experts of a layer.
    #[serde(default = "one")]
    pub expert_parallel: u32,
    /// Separate pieces of the model on each pipeline rank; more than one interleaves them.
    #[serde(default = "one")]
    pub virtual_stages: u32,
    /// Transformer layers of each of the `pipeline_parallel x virtual_stages` pieces, in the order
    /// of the model; empty for as even a split as there is. The last piece has the head as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stage_layers: Vec<u32>,
    /// Whether tensor-parallel ranks also share the tokens between the matrices (Korthikanti et
    /// al. 2022), which turns each all-reduce into a reduce-scatter and an all-gather.
    #[serde(default)]
    pub sequence_parallel: bool,
    /// What data-parallel ranks share out.
    #[serde(default)]
    pub zero: Zero,
    /// What backward computes again.
    #[serde(default)]
    pub recompute: Recompute,
    /// Where layers are computed again: only so many of each piece, its first ones, at least 1;
    /// `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recompute_layers: Option<u32>,
    /// Micro-batches per step of each replica; uneven shares are allowed, zero is not.
    pub micro_batches: Vec<u32>,
    /// Gradients are reduced in buckets of at least this many bytes, except the last.
    pub bucket_bytes: u64,
    /// Whether a bucket is reduced while backward goes on (`true`), or all of them after it.
    pub overlap: bool,
}

const fn one() -> u32 {
    1
}

/// A layout that cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The text form is not understood.
    #[error("cannot read layout `{text}`: {why}")]
    Unreadable {
        /// What was given.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// The product of the degrees is not the world size.
    #[error(
        "layout `{layout}` needs {needed} ranks, but there are {ranks}\nhint: give `--ranks \
         {needed}` or another `--layout`"
    )]
    WrongWorldSize {
        /// The layout, in text form.
        layout: String,
        /// Ranks that it needs.
        needed: u64,
        /// Ranks that there are.
        ranks: u32,
    },
    /// Shares of micro-batches do not fit the replicas.
    #[error(
        "{given} micro-batch shares for {replicas} data-parallel replicas\nhint: give \
         `--micro-batches` one number, or one for each replica"
    )]
    WrongShares {
        /// How many shares were given.
        given: usize,
        /// How many replicas there are.
        replicas: u32,
    },
    /// A replica without work would not take part in the step.
    #[error(
        "data-parallel replica {replica} has no micro-batch\nhint: give every replica at least one \
         with `--micro-batches`"
    )]
    EmptyShare {
        /// The replica.
        replica: u32,
    },
    /// Two parts of the layout, or the layout and the model, do not go together.
    #[error("layout `{layout}`: {why}\nhint: {hint}")]
    Contradiction {
        /// The layout, in text form.
        layout: String,
        /// What does not fit.
        why: String,
        /// What to change.
        hint: String,
    },
}

impl Layout {
    /// An even data-parallel layout.
    pub fn data_parallel(replicas: u32, micro_batches: u32) -> Self {
        Self {
            data_parallel: replicas,
            tensor_parallel: 1,
            pipeline_parallel: 1,
            context_parallel: 1,
            expert_parallel: 1,
            virtual_stages: 1,
            stage_layers: Vec::new(),
            sequence_parallel: false,
            zero: Zero::None,
            recompute: Recompute::None,
            recompute_layers: None,
            micro_batches: vec![micro_batches; replicas as usize],
            bucket_bytes: Self::DEFAULT_BUCKET_BYTES,
            overlap: true,
        }
    }

    /// PyTorch DDP's default bucket, 25 MiB, is larger than the gradients of a demonstration model;
    /// 1 MiB is the size of its first bucket.
    /// Source: pytorch torch/nn/parallel/distributed.py, `bucket_cap_mb` and
    /// `_DEFAULT_FIRST_BUCKET_BYTES`.
    pub const DEFAULT_BUCKET_BYTES: u64 = 1 << 20;

    /// Number of ranks; saturates.
    pub fn world_size(&self) -> u64 {
        [
            self.tensor_parallel,
            self.context_parallel,
            self.data_parallel,
            self.pipeline_parallel,
        ]
        .into_iter()
        .fold(1, |product, degree| product.saturating_mul(degree.into()))
    }

    /// Ranks of one replica.
    pub fn ranks_per_replica(&self) -> u32 {
        self.tensor_parallel * self.context_parallel * self.pipeline_parallel
    }

    /// Ranks that a dense parameter's gradients are reduced over.
    pub fn gradient_ranks(&self) -> u32 {
        self.data_parallel * self.context_parallel
    }

    /// Ranks that an expert's gradients are reduced over.
    pub fn expert_gradient_ranks(&self) -> u32 {
        self.gradient_ranks() / self.expert_parallel
    }

    /// Pieces of the model.
    pub fn pieces(&self) -> u32 {
        self.pipeline_parallel * self.virtual_stages
    }

    /// Transformer layers of each piece, for a model of this many.
    ///
    /// # Errors
    /// If the split does not fit the model.
    pub fn layers_of_pieces(&self, layers: u32) -> Result<Vec<u32>, LayoutError> {
        let pieces = self.pieces();
        let even = |piece: u32| layers / pieces + u32::from(piece < layers % pieces);
        let split: Vec<u32> = match self.stage_layers.is_empty() {
            true => (0..pieces).map(even).collect(),
            false => self.stage_layers.clone(),
        };
        let given: u64 = split.iter().map(|&count| u64::from(count)).sum();
        if given != u64::from(layers) {
            return Err(self.contradiction(
                format!("its stages have {given} layers, the model has {layers}"),
                "give --stage-layers numbers that sum to the model's layers",
            ));
        }
        // The last piece has the head at least.
        match split[..split.len() - 1]
            .iter()
            .position(|&count| count == 0)
        {
            None => Ok(split),
            Some(piece) => Err(self.contradiction(
                format!("piece {piece} of the pipeline has no layer"),
                "use a smaller pp or vp, or a model of more layers",
            )),
        }
    }

    /// Whether backward computes a transformer layer again that is at this place of its piece.
    #[must_use]
    pub fn computes_again(&self, place: u32) -> bool {
        let within = self.recompute_layers.is_none_or(|layers| place < layers);
        self.recompute == Recompute::Layers && within
    }

    /// Share of the layers of a model that backward computes again.
    ///
    /// # Errors
    /// If the layout does not fit the model.
    pub fn recomputed_share(&self, layers: u32) -> Result<f64, LayoutError> {
        let pieces = self.layers_of_pieces(layers)?;
        let again = pieces.iter().map(|&piece| match self.recompute {
            Recompute::None => 0,
            Recompute::Layers => self.recompute_layers.map_or(piece, |most| most.min(piece)),
        });
        Ok(f64::from(again.sum::<u32>()) / f64::from(layers.max(1)))
    }

    /// Checks that the layout can be executed by `ranks` ranks.
    ///
    /// # Errors
    /// If degrees and ranks do not match, shares do not fit, or parts contradict each other.
    pub fn check(&self, ranks: u32) -> Result<(), LayoutError> {
        let needed = self.world_size();
        if needed != u64::from(ranks) || needed == 0 {
            return Err(LayoutError::WrongWorldSize {
                layout: self.to_string(),
                needed,
                ranks,
            });
        }
        if self.micro_batches.len() != self.data_parallel as usize {
            return Err(LayoutError::WrongShares {
                given: self.micro_batches.len(),
                replicas: self.data_parallel,
            });
        }
        if let Some(replica) = self.micro_batches.iter().position(|&share| share == 0) {
            return Err(LayoutError::EmptyShare {
                replica: replica as u32,
            });
        }
        self.check_pipeline()?;
        self.check_recompute()?;
        self.check_experts()?;
        self.check_sharding()
    }

    fn check_pipeline(&self) -> Result<(), LayoutError> {
        let (stages, pieces) = (self.pipeline_parallel, self.pieces());
        if pieces == 0 || (self.virtual_stages > 1 && stages == 1) {
            return Err(self.contradiction(
                "virtual stages need a pipeline".to_owned(),
                "use pp2 or more with vp, or leave vp out",
            ));
        }
        if !self.stage_layers.is_empty() && self.stage_layers.len() != pieces as usize {
            let given = self.stage_layers.len();
            return Err(self.contradiction(
                format!("{given} numbers of layers for {pieces} pieces"),
                "give --stage-layers one number for each stage and virtual stage",
            ));
        }
        let uneven = |share: &&u32| !share.is_multiple_of(stages);
        match self.micro_batches.iter().find(uneven) {
            Some(share) if self.virtual_stages > 1 => Err(self.contradiction(
                format!("{share} micro-batches of a replica cannot be interleaved over {stages}"),
                "with vp, give --micro-batches multiples of pp",
            )),
            _ => Ok(()),
        }
    }

    fn check_recompute(&self) -> Result<(), LayoutError> {
        match (self.recompute, self.recompute_layers) {
            (_, None) | (Recompute::Layers, Some(1..)) => Ok(()),
            _ => Err(self.contradiction(
                "layers of a piece to compute again, but none are".to_owned(),
                "write `recompute` for all layers, or `recompute2` for two of each piece",
            )),
        }
    }

    fn check_experts(&self) -> Result<(), LayoutError> {
        let (experts, ranks) = (self.expert_parallel, self.gradient_ranks());
        if experts == 0 || !ranks.is_multiple_of(experts) {
            return Err(self.contradiction(
                format!("{ranks} data- and context-parallel ranks are no multiple of ep"),
                "use an ep that divides dp x cp",
            ));
        }
        let replica = |rank: u32| (rank / self.context_parallel) as usize;
        let share = |rank: u32| self.micro_batches[replica(rank)];
        let uneven = (0..ranks).any(|rank| share(rank) != share(rank / experts * experts));
        if uneven {
            return Err(self.contradiction(
                "replicas that share experts have different numbers of micro-batches".to_owned(),
                "give them equal --micro-batches: they exchange tokens in each of them",
            ));
        }
        Ok(())
    }

    fn check_sharding(&self) -> Result<(), LayoutError> {
        if self.sequence_parallel && self.tensor_parallel == 1 {
            return Err(self.contradiction(
                "sequence parallel shares tokens between tensor-parallel ranks".to_owned(),
                "use tp2 or more with sp",
            ));
        }
        if self.zero < Zero::Gradients {
            return Ok(());
        }
        if self
            .micro_batches
            .iter()
            .any(|share| *share != self.micro_batches[0])
        {
            return Err(self.contradiction(
                "it reduces gradients after each micro-batch, and replicas have different numbers"
                    .to_owned(),
                "give equal --micro-batches, or use zero1",
            ));
        }
        match self.overlap {
            true => Ok(()),
            false => Err(self.contradiction(
                "it reduces gradients as backward goes on".to_owned(),
                "leave --no-overlap out, or use zero1",
            )),
        }
    }

    pub(crate) fn contradiction(&self, why: String, hint: &str) -> LayoutError {
        LayoutError::Contradiction {
            layout: self.to_string(),
            why,
            hint: hint.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
