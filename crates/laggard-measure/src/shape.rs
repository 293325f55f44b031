//! The matrices of the synthetic transformer. Knows sizes, no memory and no ranks.

use laggard_types::DataType;

/// Sizes of a decoder-only transformer without biases, norms and activation functions, or of the
/// part of each layer that one rank holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Transformer layers; the output head comes on top.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; a divisor of `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the feed-forward part, or of one expert.
    pub ffn_hidden: usize,
    /// Whether the feed-forward part has a gate matrix beside up and down.
    pub gated: bool,
    /// Outputs of the head.
    pub vocabulary: usize,
    /// The mixture of experts in place of the feed-forward part.
    pub experts: Option<Experts>,
    /// What weights, activations and gradients are kept and exchanged in.
    pub element: DataType,
}

/// A mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Experts {
    /// How many there are, or a rank holds.
    pub count: usize,
    /// How many each token goes to.
    pub per_token: usize,
    /// Columns of the router: one per expert of the model, or this rank's share of them.
    pub router: usize,
}

/// A weight matrix of one layer, `y = x W` with `W` of `rows x columns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// Query, key and value projections side by side.
    Qkv,
    /// Output projection of attention.
    Output,
    /// First feed-forward matrix.
    Up,
    /// Gate of the feed-forward part.
    Gate,
    /// Second feed-forward matrix.
    Down,
    /// The router of a mixture of experts.
    Router,
    /// First matrix of an expert.
    ExpertUp(usize),
    /// Gate of an expert.
    ExpertGate(usize),
    /// Second matrix of an expert.
    ExpertDown(usize),
    /// The output head.
    Head,
}

impl Shape {
    /// Width of all query heads together.
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together; values are as wide.
    pub(crate) fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Width of query, key and value together.
    pub(crate) fn qkv_width(&self) -> usize {
        self.query_width() + 2 * self.kv_width()
    }

    /// Weights of a layer in the order in which they lie in memory, either its experts' or all
    /// others; layer `layers` is the head.
    pub(crate) fn weights(&self, layer: usize, experts: bool) -> Vec<Weight> {
        if layer == self.layers {
            return if experts {
                Vec::new()
            } else {
                vec![Weight::Head]
            };
        }
        let gated = |weight| self.gated.then_some(weight);
        match (self.experts, experts) {
            (None, true) => Vec::new(),
            (Some(all), true) => (0..all.count)
                .flat_map(|e| {
                    let up = [Some(Weight::ExpertUp(e)), gated(Weight::ExpertGate(e))];
                    up.into_iter().chain([Some(Weight::ExpertDown(e))])
                })
                .flatten()
                .collect(),
            (Some(_), false) => vec![Weight::Qkv, Weight::Output, Weight::Router],
            (None, false) => {
                let first = [Some(Weight::Qkv), Some(Weight::Output), Some(Weight::Up)];
                let rest = [gated(Weight::Gate), Some(Weight::Down)];
                first.into_iter().chain(rest).flatten().collect()
            }
        }
    }

    /// Rows and columns of a weight.
    pub(crate) fn size(&self, weight: Weight) -> (usize, usize) {
        match weight {
            Weight::Qkv => (self.hidden, self.qkv_width()),
            Weight::Output => (self.query_width(), self.hidden),
            Weight::Up | Weight::Gate | Weight::ExpertUp(_) | Weight::ExpertGate(_) => {
                (self.hidden, self.ffn_hidden)
            }
            Weight::Down | Weight::ExpertDown(_) => (self.ffn_hidden, self.hidden),
            Weight::Router => (self.hidden, self.experts.map_or(0, |all| all.router)),
            Weight::Head => (self.hidden, self.vocabulary),
        }
    }

    /// Elements of a weight.
    pub(crate) fn elements(&self, weight: Weight) -> usize {
        let (rows, columns) = self.size(weight);
        rows * columns
    }
}
