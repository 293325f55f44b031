//! A layer cut where ranks that share it may have to communicate.

use serde::{Deserialize, Serialize};

use crate::flop_count::{Attention, counted_square};
use crate::model::Model;

/// A stretch of a layer, in the order of forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerPart {
    /// The projections to queries, keys and values.
    Qkv,
    /// Attention itself and its output projection.
    Attention,
    /// A dense feed-forward part.
    FeedForward,
    /// The scores by which a token chooses its experts.
    Router,
    /// Experts that a token chooses.
    Experts,
    /// Experts that every token uses.
    SharedExperts,
    /// The projection that joins the two inputs of a module for multi-token prediction.
    Projection,
    /// The output head.
    Head,
}

/// What one part computes and holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PartFlop {
    /// Which part.
    pub part: LayerPart,
    /// Forward FLOP per token of the matrix products with weights; of experts, those of the ones
    /// that a token uses.
    pub forward_flop_per_token: f64,
    /// Forward FLOP of attention scores and their product with the values, per squared sequence
    /// length: a sequence of s tokens costs this times s^2, or as [`Self::attention_flop`] says if
    /// the layer has a window.
    pub forward_attention_flop_per_squared_token: f64,
    /// Tokens that attention sees, if that is a window that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_window: Option<u64>,
    /// Elements of its matrices, of all experts, without biases and norms. A head has its own even
    /// if it shares the embedding's.
    pub matrix_elements: u64,
}

impl PartFlop {
    /// Forward FLOP of attention over a sequence of `length` tokens.
    #[must_use]
    pub fn attention_flop(&self, length: u64) -> f64 {
        let square = counted_square(length as f64, self.attention_window);
        self.forward_attention_flop_per_squared_token * square
    }
}

/// One layer's parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerParts {
    /// `layer 0` and so on, `mtp 0` and so on, then `head`.
    pub name: String,
    /// Its parts, in the order of forward.
    pub parts: Vec<PartFlop>,
}

/// The layers that multiply, in forward order: transformer layers, modules for multi-token
/// prediction, then the head. Without the embedding, which is looked up. Backward costs twice the
/// forward FLOP.
#[must_use]
pub fn layer_parts(model: &Model, attention: Attention) -> Vec<LayerParts> {
    let layer = |index: u64| LayerParts {
        name: format!("layer {index}"),
        parts: transformer_layer(model, index, attention),
    };
    let module = |index: u64| {
        let last = model.layers.saturating_sub(1);
        let mut parts = vec![part(LayerPart::Projection, model.mtp_projection_weights())];
        parts.extend(transformer_layer(model, last, attention));
        for part in &mut parts {
            part.attention_window = None;
        }
        parts.push(part(LayerPart::Head, model.head_matmul_parameters()));
        LayerParts {
            name: format!("mtp {index}"),
            parts,
        }
    };
    let head = LayerParts {
        name: "head".to_owned(),
        parts: vec![part(LayerPart::Head, model.head_matmul_parameters())],
    };
    let layers = (0..model.layers).map(layer);
    layers
        .chain((0..model.mtp_modules).map(module))
        .chain([head])
        .collect()
}

fn transformer_layer(model: &Model, index: u64, attention: Attention) -> Vec<PartFlop> {
    let mut parts = vec![
        part(LayerPart::Qkv, model.qkv_weights()),
        PartFlop {
            forward_attention_flop_per_squared_token: 4.0
                * model.attention_width()
                * attention.share_of_pairs(),
            attention_window: attention.counted_window(model.window_of_layer(index)),
            ..part(LayerPart::Attention, model.output_weights())
        },
    ];
    let Some(experts) = model.experts_of_layer(index) else {
        parts.push(part(LayerPart::FeedForward, model.dense_ffn_weights()));
        return parts;
    };
    let one = model.expert_weights(experts);
    parts.push(part(LayerPart::Router, model.hidden * experts.count));
    parts.push(PartFlop {
        matrix_elements: experts.count * one,
        ..part(LayerPart::Experts, experts.active * one)
    });
    if experts.shared > 0 {
        parts.push(part(LayerPart::SharedExperts, experts.shared * one));
    }
    parts
}

/// A part of matrix products alone, all of whose elements a token multiplies with.
fn part(part: LayerPart, elements: u64) -> PartFlop {
    PartFlop {
        part,
        forward_flop_per_token: 2.0 * elements as f64,
        forward_attention_flop_per_squared_token: 0.0,
        attention_window: None,
        matrix_elements: elements,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::layer_flop;
    use crate::tables::Tables;

    fn parts_of(name: &str) -> Vec<LayerParts> {
        let tables = Tables::builtin().unwrap();
        layer_parts(tables.model(name).unwrap(), Attention::Causal)
    }

    /// Forward FLOP per token, those per squared token, and elements, of each part.
    #[track_caller]
    fn check(name: &str, layer: usize, expect: &[(LayerPart, f64, f64, u64)]) {
        let got: Vec<_> = parts_of(name)[layer]
            .parts
            .iter()
            .map(|it| {
                let squared = it.forward_attention_flop_per_squared_token;
                (
                    it.part,
                    it.forward_flop_per_token,
                    squared,
                    it.matrix_elements,
                )
            })
            .collect();
        assert_eq!(got, expect, "{name} {layer}");
    }

    /// By hand: 2 FLOP an element, and 4 x heads x head_dim / 2 for each pair of tokens.
    #[test]
    fn parts_by_hand() {
        use LayerPart::{Attention, Experts, FeedForward, Head, Qkv, Router, SharedExperts};
        let dense = |part, elements: u64| (part, 2.0 * elements as f64, 0.0, elements);
        let attention = |pairs, elements: u64| (Attention, 2.0 * elements as f64, pairs, elements);
        // Llama 3 8B: grouped queries (32 and 8 heads of 128) and a gated feed-forward of 14336.
        let gated = 3 * 4096 * 14336;
        check(
            "llama3-8b",
            31,
            &[
                dense(Qkv, 4096 * (4096 + 2 * 1024)),
                attention(2.0 * 4096.0, 4096 * 4096),
                dense(FeedForward, gated),
            ],
        );
        check("llama3-8b", 32, &[dense(Head, 128_256 * 4096)]);
        // Mixtral 8x7B: two of eight such feed-forward parts.
        check(
            "mixtral-8x7b",
            0,
            &[
                dense(Qkv, 4096 * (4096 + 2 * 1024)),
                attention(2.0 * 4096.0, 4096 * 4096),
                dense(Router, 4096 * 8),
                (Experts, 2.0 * 2.0 * f64::from(gated as u32), 0.0, 8 * gated),
            ],
        );
        // DeepSeek-V3, arXiv 2412.19437 section 4.2: 8 of 256 experts of 2048 and a shared one,
        // after three dense layers.
        let one = 3 * 7168 * 2048;
        let queries = 7168 * 1536 + 1536 * 128 * 192;
        let keys_and_values = 7168 * 576 + 512 * 128 * 256;
        let output = 128 * 128 * 7168;
        let qkv = dense(Qkv, queries + keys_and_values);
        let latent = attention(4.0 * 128.0 * 160.0 / 2.0, output);
        check(
            "deepseek-v3",
            2,
            &[qkv, latent, dense(FeedForward, 3 * 7168 * 18432)],
        );
        check(
            "deepseek-v3",
            3,
            &[
                qkv,
                latent,
                dense(Router, 7168 * 256),
                (Experts, 2.0 * 8.0 * f64::from(one as u32), 0.0, 256 * one),
                dense(SharedExperts, one),
            ],
        );
    }

    /// Parts make up what is counted of whole layers and models.
    #[test]
    fn parts_sum_to_layers_and_models() {
        for model in Tables::builtin().unwrap().models() {
            for attention in [Attention::Causal, Attention::Full] {
                let parts = layer_parts(model, attention);
                let layers = layer_flop(model, attention);
                assert_eq!(parts.len() + 1, layers.len(), "{}", model.id);
                for (parts, layer) in parts.iter().zip(&layers[1..]) {
                    assert_eq!(parts.name, layer.name);
                    let sum =
                        |what: fn(&PartFlop) -> f64| parts.parts.iter().map(what).sum::<f64>();
                    let flop = sum(|part| part.forward_flop_per_token);
                    let pairs = sum(|part| part.forward_attention_flop_per_squared_token);
                    let whole = (
                        layer.forward_flop_per_token,
                        layer.forward_attention_flop_per_squared_token,
                    );
                    assert_eq!((flop, pairs), whole, "{} {}", model.id, layer.name);
                }
                let all = parts.iter().flat_map(|layer| &layer.parts);
                let active: f64 = all.clone().map(|it| it.forward_flop_per_token / 2.0).sum();
                assert_eq!(active as u64, model.matmul_parameters(), "{}", model.id);
                let biases = model.linear_bias || model.qkv_bias || model.qk_norm;
                if !biases && !model.tied_embeddings && model.latent_attention.is_none() {
                    let matrices: u64 = all.map(|it| it.matrix_elements).sum();
                    let embedding = (model.vocab + model.learned_positions) * model.hidden;
                    let norms = (2 * model.layers + 1) * model.norm.vectors() * model.hidden;
                    let total = matrices + embedding + norms;
                    assert_eq!(total, model.parameters(), "{}", model.id);
                }
            }
        }
    }
}
