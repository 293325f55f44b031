//! What a model costs, part by part: the generators' input. Where the figures come from is not
//! known here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A stretch of a layer between two points where ranks may have to communicate.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The projections to queries, keys and values.
    Qkv,
    /// Attention itself and its output projection.
    Attention,
    /// A dense feed-forward part.
    FeedForward,
    /// Sorting tokens by the experts that they go to.
    Dispatch,
    /// The feed-forward parts of a mixture of experts.
    Experts,
    /// Summing what a token's experts made of it.
    Combine,
    /// The output head with the loss.
    Head,
}

/// One part of a layer, for one nominal micro-batch, all of its ranks together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartWork {
    /// Which part.
    pub part: Part,
    /// Forward FLOP that grow with the number of tokens. Backward costs twice as much.
    pub forward_flop: f64,
    /// Forward FLOP that grow with the sum of squared sequence lengths.
    pub forward_attention_flop: f64,
    /// Trainable elements, over all ranks that share them.
    pub parameters: u64,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerWork {
    /// The layer's name, such as `layer 3` or `head`.
    pub name: String,
    /// Its parts, in the order of forward.
    pub parts: Vec<PartWork>,
}

/// A model and its micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelWork {
    /// Transformer layers, then the head.
    pub layers: Vec<LayerWork>,
    /// Bytes of one element of parameters, gradients and activations.
    pub element_bytes: u64,
    /// Elements of the activations between two layers, for one nominal micro-batch.
    pub stream_elements: u64,
    /// Elements of keys and values of one layer, for one nominal micro-batch.
    pub key_value_elements: u64,
    /// Experts that each token goes to.
    pub experts_per_token: u32,
}

impl ModelWork {
    /// Transformer layers, without the head.
    pub fn transformer_layers(&self) -> u32 {
        (self.layers.len() as u32).saturating_sub(1)
    }
}
