//! The dimensions of a model that its step time depends on.

use laggard_specs::Model;

/// How tensor parallelism cuts a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Outputs are shared out.
    Outputs,
    /// Inputs are shared out: the partial sums are reduced afterwards.
    Inputs,
    /// Not at all.
    Whole,
}

/// A matrix product with one weight, for each token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    /// Channels that come out; 0 marks an unused place.
    pub outputs: f64,
    /// Channels that go in.
    pub inputs: f64,
    /// How tensor parallelism cuts it.
    pub split: Split,
}

impl Product {
    const UNUSED: Self = Self::new(0.0, 0.0, Split::Whole);

    const fn new(outputs: f64, inputs: f64, split: Split) -> Self {
        Self {
            outputs,
            inputs,
            split,
        }
    }

    /// Outputs and inputs on one of `ranks` ranks.
    pub(crate) fn on_rank(&self, ranks: f64) -> (f64, f64) {
        match self.split {
            Split::Outputs => (self.outputs / ranks, self.inputs),
            Split::Inputs => (self.outputs, self.inputs / ranks),
            Split::Whole => (self.outputs, self.inputs),
        }
    }
}

/// A mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertShape {
    /// Routed experts of a layer.
    pub count: f64,
    /// Routed experts of a token.
    pub active: f64,
    /// Experts of every token.
    pub shared: f64,
    /// Width of one.
    pub ffn_hidden: f64,
    /// Share of the layers that have experts.
    pub share_of_layers: f64,
}

/// The dimensions of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Transformer layers, those that predict further tokens among them.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: f64,
    /// The products of attention.
    pub attention: [Product; 5],
    /// Query heads.
    pub heads: f64,
    /// Channels per head, those of queries and values averaged.
    pub head_dim: f64,
    /// Channels of queries, keys and values together.
    pub projected: f64,
    /// Channels of keys and values together.
    pub keys_and_values: f64,
    /// Width of the dense feed-forward.
    pub ffn_hidden: f64,
    /// Its matrices: 2 plain, 3 gated.
    pub ffn_matrices: f64,
    /// The experts.
    pub experts: Option<ExpertShape>,
    /// Vocabulary.
    pub vocab: f64,
    /// Passes through the output head.
    pub heads_out: f64,
    /// Whether embedding and head are one matrix.
    pub tied: bool,
    /// Tokens of a sliding window and the share of layers that have it.
    pub window: Option<(f64, f64)>,
}

impl Shape {
    /// The dimensions of a model.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        let (hidden, heads) = (model.hidden as f64, model.heads as f64);
        let keys = (model.kv_heads * model.head_dim) as f64;
        let queries = heads * model.head_dim as f64;
        let windowed = (0..model.layers).filter(|&layer| model.window_of_layer(layer).is_some());
        let windowed = windowed.count() as f64 / model.layers as f64;
        let (attention, projected) = match &model.latent_attention {
            None => (
                [
                    Product::new(queries + 2.0 * keys, hidden, Split::Outputs),
                    Product::new(hidden, queries, Split::Inputs),
                    Product::UNUSED,
                    Product::UNUSED,
                    Product::UNUSED,
                ],
                queries + 2.0 * keys,
            ),
            Some(latent) => {
                let (q_rank, kv_rank) = (latent.q_rank as f64, latent.kv_rank as f64);
                let (nope, rope) = (latent.nope_dim as f64, latent.rope_dim as f64);
                let value = latent.v_dim as f64;
                let split = Split::Outputs;
                (
                    [
                        Product::new(q_rank, hidden, Split::Whole),
                        Product::new(heads * (nope + rope), q_rank, split),
                        Product::new(kv_rank + rope, hidden, Split::Whole),
                        Product::new(heads * (nope + value), kv_rank, split),
                        Product::new(hidden, heads * value, Split::Inputs),
                    ],
                    heads * (2.0 * nope + 2.0 * rope + value),
                )
            }
        };
        Self {
            layers: (model.layers + model.mtp_modules) as u32,
            hidden,
            attention,
            heads,
            head_dim: model.attention_width() / heads,
            projected,
            keys_and_values: model.key_value_width() as f64,
            ffn_hidden: model.ffn_hidden as f64,
            ffn_matrices: model.ffn_matrices as f64,
            experts: experts(model),
            vocab: model.vocab as f64,
            heads_out: 1.0 + model.mtp_modules as f64,
            tied: model.tied_embeddings,
            window: model
                .sliding_window
                .as_ref()
                .map(|window| (window.tokens as f64, windowed)),
        }
    }

    /// Parameters of a layer's attention.
    #[must_use]
    pub fn attention_parameters(&self) -> f64 {
        let products = self.attention.iter();
        products.map(|one| one.outputs * one.inputs).sum()
    }

    /// Parameters of the dense feed-forward of a layer, averaged over all layers, shared experts
    /// and routers among them.
    #[must_use]
    pub fn dense_ffn_parameters(&self) -> f64 {
        let dense = self.ffn_matrices * self.hidden * self.ffn_hidden;
        match &self.experts {
            None => dense,
            Some(experts) => {
                let shared =
                    experts.shared * self.expert_parameters() + self.hidden * experts.count;
                (1.0 - experts.share_of_layers) * dense + experts.share_of_layers * shared
            }
        }
    }

    /// Parameters of the routed experts of a layer, averaged over all layers.
    #[must_use]
    pub fn routed_parameters(&self) -> f64 {
        self.experts.as_ref().map_or(0.0, |experts| {
            experts.share_of_layers * experts.count * self.expert_parameters()
        })
    }

    /// Parameters of one expert.
    pub(crate) fn expert_parameters(&self) -> f64 {
        let width = self.experts.as_ref().map_or(0.0, |one| one.ffn_hidden);
        self.ffn_matrices * self.hidden * width
    }

    /// Parameters, without norms and biases.
    #[must_use]
    pub fn parameters(&self) -> f64 {
        let layer =
            self.attention_parameters() + self.dense_ffn_parameters() + self.routed_parameters();
        let ends = if self.tied { 1.0 } else { 2.0 };
        f64::from(self.layers) * layer + ends * self.vocab * self.hidden
    }

    /// Keys that a query attends to under a causal mask, averaged over positions and layers.
    #[must_use]
    pub fn attended_keys(&self, sequence_length: f64) -> f64 {
        let full = sequence_length / 2.0;
        match self.window {
            Some((tokens, share)) if tokens < sequence_length => {
                let windowed = tokens - tokens * tokens / (2.0 * sequence_length);
                share * windowed + (1.0 - share) * full
            }
            _ => full,
        }
    }
}

fn experts(model: &Model) -> Option<ExpertShape> {
    let experts = model.experts.as_ref()?;
    Some(ExpertShape {
        count: experts.count as f64,
        active: experts.active as f64,
        shared: experts.shared as f64,
        ffn_hidden: experts.ffn_hidden as f64,
        share_of_layers: model.layers_with_experts() as f64 / model.layers as f64,
    })
}
