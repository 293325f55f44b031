//! FLOP of training, 2 per multiply-add: F = 6 N s + 12 A s^2 for one sequence of s tokens, or
//! 6 A s^2 if only the pairs that a causal mask keeps are counted. N are the weights that multiply
//! a token ([`Model::matmul_parameters`]), A is layers times [`Model::attention_width`].
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
    /// Half of the pairs: what a causal mask leaves to compute.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    let forward = 2.0 * model.matmul_parameters() as f64
        + attention_forward(model, attention) * sequence_length as f64;
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
    let scores = attention_forward(model, attention) * sequence_length as f64;
    let layers = 2.0 * (model.matmul_parameters() - model.head_matmul_parameters()) as f64;
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
    let squares: f64 = sequence_lengths
        .iter()
        .map(|&length| (length as f64).powi(2))
        .sum();
    let forward = 2.0 * model.matmul_parameters() as f64 * tokens
        + attention_forward(model, attention) * squares;
    Flop(3.0 * forward)
}

/// Forward FLOP of attention per token and token of sequence length, over all layers.
fn attention_forward(model: &Model, attention: Attention) -> f64 {
    4.0 * model.layers as f64 * model.attention_width() * attention.share_of_pairs()
}

#[cfg(test)]
mod tests;
