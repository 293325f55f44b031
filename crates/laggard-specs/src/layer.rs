//! A model cut into the units that a training step computes one after the other.

mod parts;

use serde::{Deserialize, Serialize};

use crate::flop_count::{Attention, counted_square};
use crate::model::Model;
pub use parts::{LayerPart, LayerParts, PartFlop, layer_parts};

/// What one layer computes and holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerFlop {
    /// `embedding`, `layer 0` and so on, `mtp 0` and so on, `head`.
    pub name: String,
    /// Forward FLOP per token of the matrix products with weights.
    pub forward_flop_per_token: f64,
    /// Forward FLOP of attention scores and their product with the values, per squared sequence
    /// length: a sequence of s tokens costs this times s^2, or as [`Self::attention_flop`] says if
    /// the layer has a window.
    pub forward_attention_flop_per_squared_token: f64,
    /// Tokens that attention sees, if that is a window that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_window: Option<u64>,
    /// Parameters, those of all experts included. Tied weights count in the embedding.
    pub parameters: u64,
}

impl LayerFlop {
    /// Forward FLOP of attention over a sequence of `length` tokens.
    #[must_use]
    pub fn attention_flop(&self, length: u64) -> f64 {
        let square = counted_square(length as f64, self.attention_window);
        self.forward_attention_flop_per_squared_token * square
    }
}

/// The layers of a model in forward order: embedding, transformer layers, modules for multi-token
/// prediction, head. Backward costs twice the forward FLOP. The final norm belongs to the head.
#[must_use]
pub fn layer_flop(model: &Model, attention: Attention) -> Vec<LayerFlop> {
    let embedding = LayerFlop {
        name: "embedding".to_owned(),
        forward_flop_per_token: 0.0,
        forward_attention_flop_per_squared_token: 0.0,
        attention_window: None,
        parameters: (model.vocab + model.learned_positions) * model.hidden,
    };
    let per_pair = 4.0 * model.attention_width() * attention.share_of_pairs();
    let layers = (0..model.layers).map(|layer| LayerFlop {
        name: format!("layer {layer}"),
        forward_flop_per_token: 2.0 * model.layer_matmul_parameters(layer) as f64,
        forward_attention_flop_per_squared_token: per_pair,
        attention_window: attention.counted_window(model.window_of_layer(layer)),
        parameters: model.layer_parameters(layer),
    });
    let modules = (0..model.mtp_modules).map(|module| LayerFlop {
        name: format!("mtp {module}"),
        forward_flop_per_token: 2.0 * model.mtp_matmul_parameters() as f64,
        forward_attention_flop_per_squared_token: per_pair,
        attention_window: None,
        parameters: model.mtp_parameters(),
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
        attention_window: None,
        parameters: head_weights + model.norm.vectors() * model.hidden,
    };
    std::iter::once(embedding)
        .chain(layers)
        .chain(modules)
        .chain([head])
        .collect()
}
