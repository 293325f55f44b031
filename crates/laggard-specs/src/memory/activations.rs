//! What forward keeps for backward, in bytes of half precision.

use super::{MemoryLayout, StageLayers};
use crate::flop_count::Recompute;
use crate::model::{Experts, Model};

/// Bytes of an element in half precision.
const HALF: f64 = 2.0;
/// Bytes of an element in full precision.
const FULL: f64 = 4.0;
/// Bytes of an element of a dropout mask.
const MASK: f64 = 1.0;

/// What one layer keeps for each token.
struct PerToken {
    /// What tensor-parallel ranks share only if they share the tokens.
    whole: f64,
    /// What they share with the heads and the columns of matrices.
    split: f64,
    /// The same, and gone where attention is recomputed.
    attention: f64,
}

impl PerToken {
    fn of_layer(model: &Model, layout: &MemoryLayout, experts: Option<&Experts>) -> Self {
        let hidden = model.hidden as f64;
        let mut whole = 4.0 * HALF * hidden;
        if layout.dropout {
            whole += 2.0 * MASK * hidden;
        }
        let (ffn_whole, ffn_split) = feed_forward(model, experts);
        let (latent, heads) = attention_inputs(model);
        Self {
            whole: whole + ffn_whole + latent,
            split: ffn_split + heads,
            attention: scores(model, layout),
        }
    }

    fn on_rank(&self, layout: &MemoryLayout, recompute: Recompute) -> f64 {
        let tensor = layout.tensor_parallel as f64;
        let attention = match recompute {
            Recompute::None => self.attention,
            Recompute::Attention | Recompute::Layers => 0.0,
        };
        self.whole / shared_tokens(layout) + (self.split + attention) / tensor
    }
}

/// Queries, keys, values and the input of the output projection: what is whole on each
/// tensor-parallel rank, and what is split by heads.
fn attention_inputs(model: &Model) -> (f64, f64) {
    let heads = model.heads as f64;
    match &model.latent_attention {
        None => {
            let channels = model.head_dim as f64;
            let key_values = 2.0 * model.kv_heads as f64 * channels;
            (0.0, HALF * (2.0 * heads * channels + key_values))
        }
        Some(latent) => {
            let ranks = (latent.q_rank + latent.kv_rank + latent.rope_dim) as f64;
            let queries_and_keys = 2.0 * heads * (latent.nope_dim + latent.rope_dim) as f64;
            let values_and_output = 2.0 * heads * latent.v_dim as f64;
            (HALF * ranks, HALF * (queries_and_keys + values_and_output))
        }
    }
}

/// Scores, their softmax and its dropout; or the softmax's statistics alone, of kernels that do not
/// keep them.
fn scores(model: &Model, layout: &MemoryLayout) -> f64 {
    let heads = model.heads as f64;
    if !layout.keeps_scores {
        return FULL * heads;
    }
    let dropout = if layout.dropout { MASK + HALF } else { 0.0 };
    heads * layout.sequence_length as f64 * (HALF + dropout)
}

/// Inputs of the products inside a feed-forward part: what is whole on each tensor-parallel rank,
/// and what is split by columns. Each token has its input once more for each expert it goes to.
fn feed_forward(model: &Model, experts: Option<&Experts>) -> (f64, f64) {
    let matrices = model.ffn_matrices as f64;
    match experts {
        None => (0.0, HALF * matrices * model.ffn_hidden as f64),
        Some(experts) => {
            let routed = experts.active as f64;
            let scores = FULL * experts.count as f64;
            let used = routed + experts.shared as f64;
            (
                HALF * routed * model.hidden as f64 + scores,
                HALF * matrices * used * experts.ffn_hidden as f64,
            )
        }
    }
}

/// Activations of a stage's layers, of all micro-batches that wait for backward.
pub(super) fn of_layers(
    model: &Model,
    layout: &MemoryLayout,
    stage: u64,
    layers: &StageLayers,
) -> f64 {
    let layers = with_prediction_modules(model, layout, stage, layers);
    let dense = PerToken::of_layer(model, layout, None);
    let mixed = PerToken::of_layer(model, layout, model.experts.as_ref());
    let waiting = waiting_pieces(layout, stage) / layout.virtual_stages as f64;
    // What is not computed again is kept, as far as attention is not.
    let recompute = match layout.recompute {
        Recompute::Layers => Recompute::None,
        other => other,
    };
    let kinds = [(&layers.dense, &dense), (&layers.mixed, &mixed)];
    let kept = kinds.map(|(count, per_token)| {
        let input = HALF * model.hidden as f64 / shared_tokens(layout);
        (count.all - count.again) as f64 * per_token.on_rank(layout, recompute)
            + count.again as f64 * input
    });
    // The layer that is computed again: with experts, if there is one of these.
    let again = match (layers.mixed.again, layers.dense.again) {
        (0, 0) => 0.0,
        (0, _) => dense.on_rank(layout, Recompute::None),
        _ => mixed.on_rank(layout, Recompute::None),
    };
    tokens(layout) * (waiting * kept.iter().sum::<f64>() + again)
}

/// The layers of a stage with those inside modules that predict further tokens, which are like the
/// model's last and computed again if any layers are.
fn with_prediction_modules(
    model: &Model,
    layout: &MemoryLayout,
    stage: u64,
    layers: &StageLayers,
) -> StageLayers {
    let mut layers = *layers;
    if stage + 1 == layout.pipeline_parallel {
        let like = match model.experts_of_layer(model.layers.saturating_sub(1)) {
            Some(_) => &mut layers.mixed,
            None => &mut layers.dense,
        };
        like.all += model.mtp_modules;
        if layout.recompute == Recompute::Layers {
            like.again += model.mtp_modules;
        }
    }
    layers
}

/// Activations of embedding and head.
pub(super) fn of_ends(model: &Model, layout: &MemoryLayout, stage: u64) -> f64 {
    let hidden = model.hidden as f64;
    let tensor = layout.tensor_parallel as f64;
    let shared = shared_tokens(layout);
    let mut per_token = 0.0;
    if stage == 0 && layout.dropout {
        let waiting = waiting_pieces(layout, stage) / layout.virtual_stages as f64;
        per_token += waiting.ceil() * MASK * hidden / shared;
    }
    if stage + 1 == layout.pipeline_parallel {
        let heads = (1 + model.mtp_modules) as f64;
        let inputs = 2.0 * HALF * hidden / shared;
        per_token += heads * (inputs + FULL * model.vocab as f64 / tensor);
    }
    tokens(layout) * per_token
}

/// Pieces of a stage whose activations wait for backward at the same time: of 1F1B, one for each
/// stage from this one on; interleaved, as many as Megatron-LM's warm-up computes, and one.
fn waiting_pieces(layout: &MemoryLayout, stage: u64) -> f64 {
    let (stages, pieces) = (layout.pipeline_parallel, layout.virtual_stages);
    let after = stages - stage - 1;
    let waiting = match pieces {
        1 => after + 1,
        _ => 2 * after + (pieces - 1) * stages + 1,
    };
    waiting.min(layout.micro_batches.saturating_mul(pieces)) as f64
}

/// Ranks that share the tokens between the matrices.
fn shared_tokens(layout: &MemoryLayout) -> f64 {
    match layout.sequence_parallel {
        true => layout.tensor_parallel as f64,
        false => 1.0,
    }
}

/// Tokens of a micro-batch on one rank.
fn tokens(layout: &MemoryLayout) -> f64 {
    let tokens = layout.micro_batch_sequences as f64 * layout.sequence_length as f64;
    tokens / layout.context_parallel as f64
}
