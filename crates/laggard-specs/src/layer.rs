//! A model cut into the units that a training step computes one after the other.

mod parts;

use serde::{Deserialize, Serialize};

use crate::flop_count::Attention;
use crate::model::Model;
pub use parts::{LayerPart, LayerParts, PartFlop, layer_parts};

/// What one layer computes and holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerFlop {
    /// `embedding`, `layer 0` and so on, `head`.
    pub name: String,
    /// Forward FLOP per token of the matrix products with weights.
    pub forward_flop_per_token: f64,
    /// Forward FLOP of attention scores and their product with the values, per squared sequence
    /// length: a sequence of s tokens costs this times s^2.
    pub forward_attention_flop_per_squared_token: f64,
    /// Parameters, those of all experts included. Tied weights count in the embedding.
    pub parameters: u64,
}

/// The layers of a model in forward order: embedding, transformer layers, head. Backward costs
/// twice the forward FLOP. The final norm belongs to the head.
#[must_use]
pub fn layer_flop(model: &Model, attention: Attention) -> Vec<LayerFlop> {
    let embedding = LayerFlop {
        name: "embedding".to_owned(),
        forward_flop_per_token: 0.0,
        forward_attention_flop_per_squared_token: 0.0,
        parameters: (model.vocab + model.learned_positions) * model.hidden,
    };
    let per_pair = 4.0 * model.attention_width() * attention.share_of_pairs();
    let layers = (0..model.layers).map(|layer| LayerFlop {
        name: format!("layer {layer}"),
        forward_flop_per_token: 2.0 * model.layer_matmul_parameters(layer) as f64,
        forward_attention_flop_per_squared_token: per_pair,
        parameters: model.layer_parameters(layer),
    });
    let head_weights = if model.tied_embeddings {
        0
    } else {
        model.vocab * model.hidden
    };
    let head = LayerFlop {
        name: "head".to_owned(),
        forward_flop_per_token: 2.0 * model.head_matmul_parameters() as f64,
        forward_attention_flop_per_squared_token: 0.0,
        parameters: head_weights + model.norm.vectors() * model.hidden,
    };
    std::iter::once(embedding)
        .chain(layers)
        .chain([head])
        .collect()
}
