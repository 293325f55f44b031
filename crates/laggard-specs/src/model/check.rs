//! What a shape must be so that its counts make sense and fit the arithmetic.

use super::Model;
use crate::error::SpecsError;

/// Largest dimension that is taken for meant: products of a few of these fit the arithmetic.
const LARGEST_DIMENSION: u64 = 1 << 24;
/// Largest number of layers.
const MOST_LAYERS: u64 = 1 << 16;
/// Largest number of parameters.
const MOST_PARAMETERS: u128 = 1 << 60;
/// Largest number of modules for multi-token prediction.
const MOST_MODULES: u64 = 16;

/// A name, a value if the model has it, and the largest value that is taken for meant.
type Dimension = (&'static str, Option<u64>, u64);

impl Model {
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
        if let Some(window) = &self.sliding_window
            && window.full_every == Some(1)
        {
            let problem = "is 1: then no layer has the window; leave sliding_window out".to_owned();
            return Err(self.invalid("sliding_window.full_every", problem));
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
        if let Some(experts) = &self.experts
            && self.layers_with_experts() == 0
        {
            let (dense, every, layers) = (experts.dense_layers, experts.every, self.layers);
            let problem = format!(
                "is {dense}, which with every {every} of the rest leaves none of {layers} layers \
                 with experts"
            );
            return Err(self.invalid("experts.dense_layers", problem));
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
    fn dimensions(&self) -> impl Iterator<Item = Dimension> {
        let own = self.own_dimensions().into_iter();
        own.chain(self.expert_dimensions())
            .chain(self.attention_dimensions())
    }

    fn own_dimensions(&self) -> [Dimension; 9] {
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
            ("mtp_modules", Some(self.mtp_modules.max(1)), MOST_MODULES),
        ]
    }

    fn expert_dimensions(&self) -> [Dimension; 5] {
        let experts = self.experts.as_ref();
        [
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
                "experts.every",
                experts.map(|experts| experts.every),
                MOST_LAYERS,
            ),
        ]
    }

    fn attention_dimensions(&self) -> [Dimension; 7] {
        let latent = self.latent_attention.as_ref();
        let window = self.sliding_window.as_ref();
        [
            (
                "sliding_window.tokens",
                window.map(|window| window.tokens),
                LARGEST_DIMENSION,
            ),
            (
                "sliding_window.full_every",
                window.and_then(|window| window.full_every),
                MOST_LAYERS,
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
            (wide(experts.count) + wide(experts.shared)) * (3 * wide(experts.ffn_hidden) + 4)
        });
        let ffn = hidden * (3 * wide(self.ffn_hidden) + experts);
        let embeddings = hidden * (2 * wide(self.vocab) + wide(self.learned_positions));
        wide(self.layers + self.mtp_modules) * (attention + ffn + 16 * hidden * heads) + embeddings
    }
}
