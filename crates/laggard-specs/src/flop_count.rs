//! FLOP of training, 2 per multiply-add: F = 6 N s + 12 A s^2 for one sequence of s tokens, or
//! 6 A s^2 if only the pairs that a causal mask keeps are counted. N are the weights that multiply
//! a token ([`Model::matmul_parameters`]), A is layers times [`Model::attention_width`]. A causal
//! mask with a window of w tokens keeps s w - w^2/2 of the s^2 pairs. Modules for multi-token
//! prediction count as layers with a projection and a head of their own.
//!
//! The 12 A s form is that of PaLM (<https://arxiv.org/abs/2204.02311>, appendix B) with N without
//! the input embedding; for plain transformers it equals the form 72 L h^2 (1 + s/6h + V/12Lh) of
//! Korthikanti et al. (<https://arxiv.org/abs/2205.05198>, appendix A).

use laggard_types::Flop;
use serde::{Deserialize, Serialize};

use crate::model::Model;

/// Which pairs of tokens attention counts. Print it next to every MFU: at long sequences the two
/// differ by half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attention {
    /// What a causal mask leaves to compute: half of the pairs, and fewer where a layer has a
    /// window.
    Causal,
    /// All pairs, as many published numbers count.
    Full,
}

impl Attention {
    pub(crate) fn share_of_pairs(self) -> f64 {
        match self {
            Self::Causal => 0.5,
            Self::Full => 1.0,
        }
    }

    /// The window that is counted of one that a layer has.
    pub(crate) fn counted_window(self, window: Option<u64>) -> Option<u64> {
        window.filter(|_| self == Self::Causal)
    }
}

/// The squared length that counts for a sequence of `length` tokens: that of the pairs that are
/// left of it, where a window of so many tokens leaves fewer.
pub(crate) fn counted_square(length: f64, window: Option<u64>) -> f64 {
    match window.map(|window| window as f64) {
        Some(window) if window < length => window * (2.0 * length - window),
        _ => length * length,
    }
}

/// One direction through the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pass {
    /// From input to loss.
    Forward,
    /// Gradients of weights and activations: twice the FLOP of forward.
    Backward,
}

/// What backward computes again because it was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Nothing.
    None,
    /// The attention between projections ("selective").
    Attention,
    /// Every transformer layer, but not the head ("full").
    Layers,
}

/// FLOP of one pass per token of a sequence of `sequence_length` tokens.
#[must_use]
pub fn flop_per_token(
    model: &Model,
    pass: Pass,
    sequence_length: u64,
    attention: Attention,
) -> Flop {
    let length = sequence_length as f64;
    let forward = 2.0 * model.matmul_parameters() as f64
        + attention_forward(model, length, attention) / length.max(1.0);
    match pass {
        Pass::Forward => Flop(forward),
        Pass::Backward => Flop(2.0 * forward),
    }
}

/// FLOP of forward and backward per token of a sequence of `sequence_length` tokens: the model
/// FLOP that MFU counts.
#[must_use]
pub fn training_flop_per_token(model: &Model, sequence_length: u64, attention: Attention) -> Flop {
    flop_per_token(model, Pass::Forward, sequence_length, attention)
        + flop_per_token(model, Pass::Backward, sequence_length, attention)
}

/// FLOP that recomputation adds per token: what HFU counts beyond MFU.
///
/// Selective recomputation adds one attention forward. The hardware FLOP of Korthikanti et al.
/// (their term s/3h in place of s/6h) count it three times, so their HFU is higher.
#[must_use]
pub fn recompute_flop_per_token(
    model: &Model,
    sequence_length: u64,
    attention: Attention,
    recompute: Recompute,
) -> Flop {
    let length = sequence_length as f64;
    let scores = attention_forward(model, length, attention) / length.max(1.0);
    let heads = (1 + model.mtp_modules) * model.head_matmul_parameters();
    let layers = 2.0 * (model.matmul_parameters() - heads) as f64;
    match recompute {
        Recompute::None => Flop(0.0),
        Recompute::Attention => Flop(scores),
        Recompute::Layers => Flop(layers + scores),
    }
}

/// Model FLOP of forward and backward over sequences of any lengths: attention grows with the sum
/// of their squares, so ragged batches of equal token counts differ.
#[must_use]
pub fn training_flop(model: &Model, sequence_lengths: &[u64], attention: Attention) -> Flop {
    let tokens: f64 = sequence_lengths.iter().map(|&length| length as f64).sum();
    let attention: f64 = sequence_lengths
        .iter()
        .map(|&length| attention_forward(model, length as f64, attention))
        .sum();
    Flop(3.0 * (2.0 * model.matmul_parameters() as f64 * tokens + attention))
}

/// Model FLOP of forward and backward per token where each token is counted as attending to
/// `whole` others in a layer without a window, and to `windowed` of its window in one with: for
/// conventions that count neither all pairs nor those of the mask.
pub(crate) fn counted_flop_per_token(
    model: &Model,
    whole: f64,
    windowed: impl Fn(u64) -> f64,
) -> Flop {
    let (layers, with_window) = attention_layers(model);
    let tokens = match model.sliding_window.as_ref() {
        Some(window) => layers as f64 * whole + with_window as f64 * windowed(window.tokens),
        None => layers as f64 * whole,
    };
    Flop(6.0 * model.matmul_parameters() as f64 + 12.0 * model.attention_width() * tokens)
}

/// Forward FLOP of attention over one sequence, over all layers.
fn attention_forward(model: &Model, length: f64, attention: Attention) -> f64 {
    let (layers, with_window) = attention_layers(model);
    let window = model.sliding_window.as_ref().map(|window| window.tokens);
    let squares = layers as f64 * counted_square(length, None)
        + with_window as f64 * counted_square(length, attention.counted_window(window));
    4.0 * model.attention_width() * attention.share_of_pairs() * squares
}

/// How many layers attend to all earlier tokens, modules for further tokens among them, and how
/// many only within a window.
fn attention_layers(model: &Model) -> (u64, u64) {
    let with_window = model.windowed_layers();
    (model.layers - with_window + model.mtp_modules, with_window)
}

#[cfg(test)]
mod tests;
