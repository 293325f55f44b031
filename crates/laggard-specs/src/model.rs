//! Decoder-only transformers by their shape.

mod check;

use serde::{Deserialize, Serialize};

use crate::accelerator::Confidence;
use crate::error::SpecsError;
use crate::flop_count::Attention;
use crate::layer::layer_flop;
use crate::tables;

/// The kind of normalization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// RMS norm: one vector of weights.
    Rms,
    /// Layer norm: weights and biases.
    Layer,
}

impl Norm {
    /// Parameters per channel.
    pub(crate) fn vectors(self) -> u64 {
        match self {
            Self::Rms => 1,
            Self::Layer => 2,
        }
    }
}

/// A mixture of experts in place of the feed-forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experts {
    /// Routed experts per layer.
    pub count: u64,
    /// Routed experts that each token uses.
    pub active: u64,
    /// Experts that every token uses, beside the routed ones.
    #[serde(default)]
    pub shared: u64,
    /// Width of one expert.
    pub ffn_hidden: u64,
    /// Leading layers with an ordinary feed-forward.
    #[serde(default)]
    pub dense_layers: u64,
    /// Of every so many further layers, the last one has experts; 1 if all have.
    #[serde(default = "one")]
    pub every: u64,
    /// Whether experts and router have biases.
    #[serde(default)]
    pub bias: bool,
}

const fn one() -> u64 {
    1
}

/// Attention that sees only the last tokens, in some or all layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlidingWindow {
    /// Tokens that a windowed layer sees.
    pub tokens: u64,
    /// Of every so many layers the last one sees all tokens; without it none does.
    pub full_every: Option<u64>,
}

/// Multi-head latent attention (DeepSeek-V2, <https://arxiv.org/abs/2405.04434>, section 2.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentAttention {
    /// Rank of the compressed queries.
    pub q_rank: u64,
    /// Rank of the compressed keys and values.
    pub kv_rank: u64,
    /// Query and key channels per head without position.
    pub nope_dim: u64,
    /// Query and key channels per head with rotary position.
    pub rope_dim: u64,
    /// Value channels per head.
    pub v_dim: u64,
}

/// The shape of a decoder-only transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Short unique name.
    pub id: String,
    /// Name to print.
    pub name: String,
    /// Other exact names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Transformer layers.
    pub layers: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Channels per head; heads times this need not be `hidden`.
    pub head_dim: u64,
    /// Width of the dense feed-forward.
    pub ffn_hidden: u64,
    /// Matrices of the feed-forward: 2 plain, 3 gated.
    pub ffn_matrices: u64,
    /// Activation of the feed-forward, for reading.
    pub activation: Option<String>,
    /// Vocabulary.
    pub vocab: u64,
    /// Whether the output head shares the input embedding's weights.
    pub tied_embeddings: bool,
    /// Learned position embeddings; 0 for none.
    #[serde(default)]
    pub learned_positions: u64,
    /// Whether every linear layer has biases (the head has none).
    #[serde(default)]
    pub linear_bias: bool,
    /// Whether at least queries, keys and values have biases.
    #[serde(default)]
    pub qkv_bias: bool,
    /// Kind of normalization: two per layer, one at the end.
    pub norm: Norm,
    /// Whether queries and keys are normalized per head.
    #[serde(default)]
    pub qk_norm: bool,
    /// Sequence length that the model was trained with.
    pub context: Option<u64>,
    /// Mixture of experts, if it is one.
    pub experts: Option<Experts>,
    /// Latent attention, if it has it.
    pub latent_attention: Option<LatentAttention>,
    /// Sliding-window attention, if it has it.
    pub sliding_window: Option<SlidingWindow>,
    /// Modules that predict further tokens (DeepSeek-V3, <https://arxiv.org/abs/2412.19437>,
    /// section 2.2): each a projection of twice the width, a layer like the last one, and a pass
    /// through the shared head.
    #[serde(default)]
    pub mtp_modules: u64,
    /// Total parameters as published.
    pub published_parameters: Option<u64>,
    /// Parameters that each token uses, as published.
    pub published_active_parameters: Option<u64>,
    /// How far the entry is to be trusted.
    pub confidence: Confidence,
    /// Where the numbers come from.
    pub sources: Vec<String>,
    /// What a user of the numbers must know.
    pub note: Option<String>,
}

impl Model {
    /// One model from TOML text: the keys of one `[[model]]` entry.
    ///
    /// # Errors
    /// Text that is not such an entry, or an impossible shape.
    pub fn from_toml_str(text: &str) -> Result<Self, SpecsError> {
        let model: Self = toml::from_str(text).map_err(|source| SpecsError::Parse {
            table: "model",
            source: Box::new(source),
        })?;
        model.check()?;
        Ok(model)
    }

    /// The entry as it stands in a table of models, to start one of one's own from.
    ///
    /// # Errors
    /// None for a model of a table.
    pub fn to_toml(&self) -> Result<String, SpecsError> {
        tables::entry("model", self)
    }

    /// Total parameters.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        layer_flop(self, Attention::Causal)
            .iter()
            .map(|layer| layer.parameters)
            .sum()
    }

    /// Weights that multiply each token: without the input embedding, with the output head (tied
    /// or not), and of the experts only those that a token uses.
    #[must_use]
    pub fn matmul_parameters(&self) -> u64 {
        let layers: u64 = (0..self.layers)
            .map(|layer| self.layer_matmul_parameters(layer))
            .sum();
        layers + self.head_matmul_parameters() + self.mtp_modules * self.mtp_matmul_parameters()
    }

    /// The part of [`Self::matmul_parameters`] in one module for multi-token prediction.
    pub(crate) fn mtp_matmul_parameters(&self) -> u64 {
        let layer = self.layer_matmul_parameters(self.layers.saturating_sub(1));
        self.mtp_projection_weights() + layer + self.head_matmul_parameters()
    }

    /// Weights of the projection that joins the two inputs of such a module.
    pub(crate) fn mtp_projection_weights(&self) -> u64 {
        2 * self.hidden * self.hidden
    }

    /// All parameters of one such module: its head and embedding are those of the model, and it
    /// normalizes both inputs and its output.
    pub(crate) fn mtp_parameters(&self) -> u64 {
        let layer = self.layer_parameters(self.layers.saturating_sub(1));
        self.mtp_projection_weights() + layer + 3 * self.norm.vectors() * self.hidden
    }

    /// The part of [`Self::matmul_parameters`] in one transformer layer.
    pub(crate) fn layer_matmul_parameters(&self, layer: u64) -> u64 {
        self.attention_weights()
            + self.ffn_weights(self.experts_of_layer(layer), |experts| experts.active)
    }

    /// The part of [`Self::matmul_parameters`] in the output head.
    pub(crate) fn head_matmul_parameters(&self) -> u64 {
        self.vocab * self.hidden
    }

    /// All parameters of one transformer layer.
    pub(crate) fn layer_parameters(&self, layer: u64) -> u64 {
        self.layer_parameters_with(self.experts_of_layer(layer))
    }

    /// All parameters of a transformer layer with these experts, or with a dense feed-forward.
    pub(crate) fn layer_parameters_with(&self, experts: Option<&Experts>) -> u64 {
        self.attention_weights()
            + self.ffn_weights(experts, |experts| experts.count)
            + self.attention_biases_and_norms()
            + self.ffn_biases(experts)
            + 2 * self.norm.vectors() * self.hidden
    }

    /// Half the channels of queries and values together, over all heads: attention multiplies
    /// each pair of tokens with 4 times this many FLOP forward.
    #[must_use]
    pub fn attention_width(&self) -> f64 {
        let per_head = match &self.latent_attention {
            Some(latent) => (latent.nope_dim + latent.rope_dim + latent.v_dim) as f64 / 2.0,
            None => self.head_dim as f64,
        };
        self.heads as f64 * per_head
    }

    /// Channels of a token's key and value together, over all heads that have their own: what
    /// ranks that share a sequence exchange.
    #[must_use]
    pub fn key_value_width(&self) -> u64 {
        match &self.latent_attention {
            Some(latent) => self.heads * (latent.nope_dim + latent.rope_dim + latent.v_dim),
            None => 2 * self.kv_heads * self.head_dim,
        }
    }

    /// The experts of one transformer layer, if it has any.
    pub(crate) fn experts_of_layer(&self, layer: u64) -> Option<&Experts> {
        self.experts.as_ref().filter(|experts| {
            layer >= experts.dense_layers
                && (layer - experts.dense_layers + 1).is_multiple_of(experts.every)
        })
    }

    /// How many transformer layers have experts.
    #[must_use]
    pub fn layers_with_experts(&self) -> u64 {
        self.experts.as_ref().map_or(0, |experts| {
            self.layers.saturating_sub(experts.dense_layers) / experts.every
        })
    }

    /// The tokens that one transformer layer's attention sees, if that is a window.
    #[must_use]
    pub fn window_of_layer(&self, layer: u64) -> Option<u64> {
        let window = self.sliding_window.as_ref()?;
        let is_full = window
            .full_every
            .is_some_and(|every| (layer + 1).is_multiple_of(every));
        (!is_full).then_some(window.tokens)
    }

    /// How many layers have a window.
    pub(crate) fn windowed_layers(&self) -> u64 {
        match &self.sliding_window {
            None => 0,
            Some(window) => self.layers - window.full_every.map_or(0, |every| self.layers / every),
        }
    }

    fn attention_weights(&self) -> u64 {
        self.qkv_weights() + self.output_weights()
    }

    /// Weights of the projections to queries, keys and values of one layer.
    pub(crate) fn qkv_weights(&self) -> u64 {
        let (h, a, k, d) = (self.hidden, self.heads, self.kv_heads, self.head_dim);
        let Some(latent) = &self.latent_attention else {
            return h * a * d + 2 * h * k * d;
        };
        let queries = h * latent.q_rank + latent.q_rank * a * (latent.nope_dim + latent.rope_dim);
        let keys_and_values = h * (latent.kv_rank + latent.rope_dim)
            + latent.kv_rank * a * (latent.nope_dim + latent.v_dim);
        queries + keys_and_values
    }

    /// Weights of the output projection of one layer's attention.
    pub(crate) fn output_weights(&self) -> u64 {
        let latent = self.latent_attention.as_ref();
        let width = latent.map_or(self.head_dim, |latent| latent.v_dim);
        self.heads * width * self.hidden
    }

    /// Weights of one dense feed-forward part.
    pub(crate) fn dense_ffn_weights(&self) -> u64 {
        self.ffn_matrices * self.hidden * self.ffn_hidden
    }

    /// Weights of one expert.
    pub(crate) fn expert_weights(&self, experts: &Experts) -> u64 {
        self.ffn_matrices * self.hidden * experts.ffn_hidden
    }

    /// Weights of all routers, those of modules for further tokens among them.
    pub(crate) fn router_weights(&self) -> u64 {
        let Some(experts) = &self.experts else {
            return 0;
        };
        let last = self.layers.saturating_sub(1);
        let modules = self.experts_of_layer(last).map_or(0, |_| self.mtp_modules);
        (self.layers_with_experts() + modules) * self.hidden * experts.count
    }

    fn ffn_weights(&self, experts: Option<&Experts>, routed: impl Fn(&Experts) -> u64) -> u64 {
        match experts {
            None => self.dense_ffn_weights(),
            Some(experts) => {
                let one = self.expert_weights(experts);
                (routed(experts) + experts.shared) * one + self.hidden * experts.count
            }
        }
    }

    fn attention_biases_and_norms(&self) -> u64 {
        let projections = self.heads * self.head_dim + 2 * self.kv_heads * self.head_dim;
        let qkv = if self.qkv_bias || self.linear_bias {
            projections
        } else {
            0
        };
        let out = if self.linear_bias { self.hidden } else { 0 };
        let qk_norm = if self.qk_norm { 2 * self.head_dim } else { 0 };
        let latent_norms = self
            .latent_attention
            .as_ref()
            .map_or(0, |latent| latent.q_rank + latent.kv_rank);
        qkv + out + qk_norm + latent_norms
    }

    fn ffn_biases(&self, experts: Option<&Experts>) -> u64 {
        if let Some(experts) = experts {
            let one = (self.ffn_matrices - 1) * experts.ffn_hidden + self.hidden;
            return if experts.bias {
                experts.count * (one + 1)
            } else {
                0
            };
        }
        if !self.linear_bias {
            return 0;
        }
        (self.ffn_matrices - 1) * self.ffn_hidden + self.hidden
    }
}
