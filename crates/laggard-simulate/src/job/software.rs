//! What a training framework does well and badly, as facts about its code, never as a number that
//! is fitted to a run; the optional efficiency scalar of a framework stands apart.

use laggard_schedule::Zero;
use serde::{Deserialize, Serialize};

use crate::error::SimulateError;

const TABLE: &str = include_str!("../../data/frameworks.toml");

/// How scores of attention are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionKernel {
    /// Tile by tile, without writing the scores (FlashAttention and its kin).
    Flash,
    /// Two batched products with one kernel for scale, mask and softmax between them.
    FusedSoftmax,
    /// One kernel for each step, softmax in single precision.
    Eager,
}

/// How element-wise work is put into kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernels {
    /// Norms, biases, activations, dropout and residuals are fused.
    Fused,
    /// Norms are single kernels, the rest is not fused.
    Native,
    /// Every operation of the source is a kernel, RMS norms among them.
    Eager,
}

/// What "selective" recomputation means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selective {
    /// Attention between its projections (Korthikanti et al. 2022); nothing with flash kernels,
    /// which do it anyway.
    Attention,
    /// Every other layer, or every other product (PyTorch).
    Half,
}

/// How gradients of micro-batches are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accumulation {
    /// By the products themselves.
    Fused,
    /// By kernels of their own, after each micro-batch.
    Separate,
}

/// How a sharded optimizer gets the new parameters to all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardUpdate {
    /// All ranks gather from all.
    Gather,
    /// One broadcast after the other, from each owner.
    Broadcast,
}

/// What tensor-parallel communication goes on beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TensorOverlap {
    /// Nothing: products wait for it.
    None,
    /// In backward, the products that make gradients of weights.
    Backward,
    /// In both passes, the products that it feeds.
    Both,
}

impl AttentionKernel {
    /// Whether backward needs the scores that forward had.
    #[must_use]
    pub const fn keeps_scores(self) -> bool {
        matches!(self, Self::FusedSoftmax | Self::Eager)
    }
}

/// What a framework does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Software {
    /// Kernels of attention.
    pub attention: AttentionKernel,
    /// Kernels of element-wise work.
    pub kernels: Kernels,
    /// What "selective" recomputes.
    pub selective: Selective,
    /// How gradients are added up.
    pub accumulation: Accumulation,
    /// How sharded updates are spread.
    pub shard_update: ShardUpdate,
    /// Whether gradients are reduced while backward goes on.
    pub overlap_gradients: bool,
    /// What tensor-parallel communication goes on beside.
    pub overlap_tensor: TensorOverlap,
    /// Whether tensor-parallel ranks each send their part of what goes to the next stage.
    pub scatter_transfers: bool,
    /// Whether collectives over several nodes use all network cards of a node.
    pub all_cards: bool,
    /// Bytes of a gradient element as it is reduced.
    pub gradient_bytes: f64,
}

/// A framework of the table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Framework {
    /// Short unique name.
    pub id: String,
    /// Other spellings, as a `framework` column may have them.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Sources of published rows that used it, where rows themselves do not say.
    #[serde(default)]
    pub published_sources: Vec<String>,
    /// Words of a row's model or notes that say that it was used.
    #[serde(default)]
    pub words: Vec<String>,
    /// Whether tensor parallelism implies sequence parallelism where a row does not say.
    #[serde(default)]
    pub sequence_parallel: bool,
    /// Whether a row that is silent about virtual stages may have them.
    #[serde(default)]
    pub interleaves: bool,
    /// What replicas share out where a row does not say.
    pub zero: Zero,
    /// What it does.
    pub software: Software,
    /// Measured over predicted throughput of the published rows that used it, as the fit found it;
    /// absent without such rows.
    pub efficiency: Option<f64>,
    /// Where the facts come from.
    pub source: String,
}

/// The table of frameworks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frameworks {
    /// The frameworks; the first is taken where none is known.
    #[serde(rename = "framework")]
    pub entries: Vec<Framework>,
}

impl Frameworks {
    /// The table that laggard ships.
    ///
    /// # Errors
    /// None in a released laggard: its tests load it.
    pub fn builtin() -> Result<Self, SimulateError> {
        Self::from_toml_str(TABLE)
    }

    /// A table from text.
    ///
    /// # Errors
    /// Text that is no such table, or a table without entries.
    pub fn from_toml_str(text: &str) -> Result<Self, SimulateError> {
        let table: Self = toml::from_str(text).map_err(|source| SimulateError::Parse {
            table: "frameworks",
            source: Box::new(source),
        })?;
        match table.entries.is_empty() {
            false => Ok(table),
            true => Err(SimulateError::NoEntry {
                table: "frameworks",
                id: "any".to_owned(),
            }),
        }
    }

    /// The framework of this id or alias, in any ASCII case.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Framework> {
        let is = |entry: &&Framework| {
            let mut names = std::iter::once(&entry.id).chain(&entry.aliases);
            names.any(|own| own.eq_ignore_ascii_case(name))
        };
        self.entries.iter().find(is)
    }
}
