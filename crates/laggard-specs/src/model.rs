//! Decoder-only transformers by their shape.

use serde::{Deserialize, Serialize};

use crate::accelerator::Confidence;
use crate::error::SpecsError;
use crate::flop_count::Attention;
use crate::layer::layer_flop;

/// Largest dimension that is taken for meant: products of a few of these fit the arithmetic.
const LARGEST_DIMENSION: u64 = 1 << 24;
/// Largest number of layers.
const MOST_LAYERS: u64 = 1 << 16;
/// Largest number of parameters.
const MOST_PARAMETERS: u128 = 1 << 60;

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
        layers + self.head_matmul_parameters()
    }

    /// The part of [`Self::matmul_parameters`] in one transformer layer.
    pub(crate) fn layer_matmul_parameters(&self, layer: u64) -> u64 {
        self.attention_weights() + self.ffn_weights(layer, |experts| experts.active)
    }

    /// The part of [`Self::matmul_parameters`] in the output head.
    pub(crate) fn head_matmul_parameters(&self) -> u64 {
        self.vocab * self.hidden
    }

    /// All parameters of one transformer layer.
    pub(crate) fn layer_parameters(&self, layer: u64) -> u64 {
        self.attention_weights()
            + self.ffn_weights(layer, |experts| experts.count)
            + self.attention_biases_and_norms()
            + self.ffn_biases(layer)
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

    /// The experts of one transformer layer, if it has any.
    pub(crate) fn experts_of_layer(&self, layer: u64) -> Option<&Experts> {
        self.experts
            .as_ref()
            .filter(|experts| layer >= experts.dense_layers)
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

    fn ffn_weights(&self, layer: u64, routed: impl Fn(&Experts) -> u64) -> u64 {
        match self.experts_of_layer(layer) {
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

    fn ffn_biases(&self, layer: u64) -> u64 {
        if !self.linear_bias || self.experts_of_layer(layer).is_some() {
            return 0;
        }
        (self.ffn_matrices - 1) * self.ffn_hidden + self.hidden
    }

    /// Refuses shapes that no model can have, or whose counts would not fit.
    pub(crate) fn check(&self) -> Result<(), SpecsError> {
        for (field, value, most) in self.dimensions() {
            if let Some(value) = value
                && !(1..=most).contains(&value)
            {
                let problem = format!("is {value}, but must be from 1 to {most}");
                return Err(self.invalid(field, problem));
            }
        }
        if !(2..=3).contains(&self.ffn_matrices) {
            let problem = format!("is {}, but must be 2 or 3", self.ffn_matrices);
            return Err(self.invalid("ffn_matrices", problem));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let problem = format!(
                "is {}, which does not divide {} heads",
                self.kv_heads, self.heads
            );
            return Err(self.invalid("kv_heads", problem));
        }
        if let Some(experts) = &self.experts
            && experts.active > experts.count
        {
            let problem = format!("is {} of only {}", experts.active, experts.count);
            return Err(self.invalid("experts.active", problem));
        }
        if self.sources.is_empty() {
            let problem = "is empty: every entry needs a source".to_owned();
            return Err(self.invalid("sources", problem));
        }
        if self.parameters_bound() > MOST_PARAMETERS {
            let problem = "and widths give more than 2^60 parameters".to_owned();
            return Err(self.invalid("layers", problem));
        }
        Ok(())
    }

    fn invalid(&self, field: &'static str, problem: String) -> SpecsError {
        SpecsError::Invalid {
            table: "models",
            id: self.id.clone(),
            field,
            problem,
        }
    }

    /// Every dimension with its name and the largest value that is taken for meant.
    fn dimensions(&self) -> [(&'static str, Option<u64>, u64); 17] {
        let experts = self.experts.as_ref();
        let latent = self.latent_attention.as_ref();
        [
            ("layers", Some(self.layers), MOST_LAYERS),
            ("hidden", Some(self.hidden), LARGEST_DIMENSION),
            ("heads", Some(self.heads), LARGEST_DIMENSION),
            ("kv_heads", Some(self.kv_heads), LARGEST_DIMENSION),
            ("head_dim", Some(self.head_dim), LARGEST_DIMENSION),
            ("ffn_hidden", Some(self.ffn_hidden), LARGEST_DIMENSION),
            ("vocab", Some(self.vocab), LARGEST_DIMENSION),
            (
                "learned_positions",
                Some(self.learned_positions.max(1)),
                LARGEST_DIMENSION,
            ),
            (
                "experts.count",
                experts.map(|experts| experts.count),
                MOST_LAYERS,
            ),
            (
                "experts.active",
                experts.map(|experts| experts.active),
                MOST_LAYERS,
            ),
            (
                "experts.shared",
                experts.map(|experts| experts.shared.max(1)),
                MOST_LAYERS,
            ),
            (
                "experts.ffn_hidden",
                experts.map(|experts| experts.ffn_hidden),
                LARGEST_DIMENSION,
            ),
            (
                "latent_attention.q_rank",
                latent.map(|latent| latent.q_rank),
                LARGEST_DIMENSION,
            ),
            (
                "latent_attention.kv_rank",
                latent.map(|latent| latent.kv_rank),
                LARGEST_DIMENSION,
            ),
            (
                "latent_attention.nope_dim",
                latent.map(|latent| latent.nope_dim),
                MOST_LAYERS,
            ),
            (
                "latent_attention.rope_dim",
                latent.map(|latent| latent.rope_dim),
                MOST_LAYERS,
            ),
            (
                "latent_attention.v_dim",
                latent.map(|latent| latent.v_dim),
                MOST_LAYERS,
            ),
        ]
    }

    /// A rough count from above that cannot overflow, for the check.
    fn parameters_bound(&self) -> u128 {
        let wide = |value: u64| u128::from(value);
        let hidden = wide(self.hidden);
        let heads = wide(self.heads);
        let attention = match &self.latent_attention {
            None => 4 * hidden * heads * wide(self.head_dim),
            Some(latent) => {
                let ranks = wide(latent.q_rank) + wide(latent.kv_rank);
                let dims = wide(latent.nope_dim) + wide(latent.rope_dim) + wide(latent.v_dim);
                hidden * (ranks + dims) + (ranks + hidden) * heads * dims
            }
        };
        let experts = self.experts.as_ref().map_or(0, |experts| {
            (wide(experts.count) + wide(experts.shared)) * (3 * wide(experts.ffn_hidden) + 1)
        });
        let ffn = hidden * (3 * wide(self.ffn_hidden) + experts);
        let embeddings = hidden * (2 * wide(self.vocab) + wide(self.learned_positions));
        wide(self.layers) * (attention + ffn + 16 * hidden * heads) + embeddings
    }
}
