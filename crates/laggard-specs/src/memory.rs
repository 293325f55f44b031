//! The device memory that a rank of a training job needs: weights, gradients, optimizer states and
//! the activations that wait for backward.
//!
//! Activations follow Korthikanti et al. 2022 (<https://arxiv.org/abs/2205.05198>, sections 4 and
//! 5), whose figures come out exactly; for grouped queries, gated feed-forward parts, latent
//! attention and experts the same count is made of what each matrix product reads. States follow
//! Rajbhandari et al. 2020 (<https://arxiv.org/abs/1910.02054>, section 5). Allocator gaps,
//! communication buffers and the CUDA context are not counted.

mod activations;

use laggard_schedule::LayerSplit;
use laggard_types::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::SpecsError;
use crate::flop_count::Recompute;
use crate::model::Model;

/// Bytes that each parameter costs while it is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBytes {
    /// Of the weights that layers compute with.
    pub parameter: u64,
    /// Of their gradients.
    pub gradient: u64,
    /// Of what the optimizer keeps.
    pub optimizer: u64,
}

impl Default for StateBytes {
    /// Mixed precision with Adam as Megatron-LM does it: half-precision weights, fp32 gradients,
    /// fp32 master weights and two moments; 18 bytes.
    fn default() -> Self {
        Self {
            parameter: 2,
            gradient: 4,
            optimizer: 12,
        }
    }
}

/// What of a job's layout decides on memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryLayout {
    /// Ranks that share each matrix.
    pub tensor_parallel: u64,
    /// Whether they share the tokens between matrices too.
    pub sequence_parallel: bool,
    /// Pipeline stages.
    pub pipeline_parallel: u64,
    /// Pieces of the model on each stage.
    pub virtual_stages: u64,
    /// Ranks that share the tokens of a sequence.
    pub context_parallel: u64,
    /// Ranks that share the experts of a layer; part of the data and context dimensions.
    pub expert_parallel: u64,
    /// Replicas.
    pub data_parallel: u64,
    /// `ZeRO` stage, 0 to 3: optimizer states, gradients and parameters are shared out one after
    /// the other.
    pub zero: u8,
    /// What backward computes again.
    pub recompute: Recompute,
    /// Where whole layers are computed again: only so many of each piece, the first ones, as with
    /// Megatron-LM's `--recompute-method block`; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recompute_layers: Option<u64>,
    /// Whether attention keeps its scores, as it did before `FlashAttention`.
    pub keeps_scores: bool,
    /// Whether dropout keeps masks.
    pub dropout: bool,
    /// Tokens of a sequence.
    pub sequence_length: u64,
    /// Sequences of a micro-batch.
    pub micro_batch_sequences: u64,
    /// Micro-batches of a step, of one replica.
    pub micro_batches: u64,
    /// Bytes of each parameter.
    pub state_bytes: StateBytes,
}

impl MemoryLayout {
    /// One device, one sequence per micro-batch, enough micro-batches to fill any pipeline, kernels
    /// of today: scores are not kept, and there is no dropout.
    #[must_use]
    pub fn single(sequence_length: u64) -> Self {
        Self {
            tensor_parallel: 1,
            sequence_parallel: false,
            pipeline_parallel: 1,
            virtual_stages: 1,
            context_parallel: 1,
            expert_parallel: 1,
            data_parallel: 1,
            zero: 0,
            recompute: Recompute::None,
            recompute_layers: None,
            keeps_scores: false,
            dropout: false,
            sequence_length,
            micro_batch_sequences: 1,
            micro_batches: u64::MAX,
            state_bytes: StateBytes::default(),
        }
    }

    fn check(&self, model: &Model) -> Result<(), SpecsError> {
        let wrong = |what, problem: String| Err(SpecsError::Layout { what, problem });
        let counts = [
            ("tensor_parallel", self.tensor_parallel),
            ("pipeline_parallel", self.pipeline_parallel),
            ("virtual_stages", self.virtual_stages),
            ("context_parallel", self.context_parallel),
            ("expert_parallel", self.expert_parallel),
            ("data_parallel", self.data_parallel),
            ("sequence_length", self.sequence_length),
            ("micro_batch_sequences", self.micro_batch_sequences),
            ("micro_batches", self.micro_batches),
        ];
        if let Some((what, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return wrong(what, "is 0".to_owned());
        }
        if !model.heads.is_multiple_of(self.tensor_parallel) {
            let (heads, ranks) = (model.heads, self.tensor_parallel);
            return wrong(
                "tensor_parallel",
                format!("is {ranks}, which does not divide {heads} heads"),
            );
        }
        let pieces = self.pipeline_parallel.saturating_mul(self.virtual_stages);
        // The first piece may have the embedding alone, and the last one the head.
        if pieces > model.layers.saturating_add(2) {
            let layers = model.layers;
            return wrong(
                "pipeline_parallel",
                format!("makes {pieces} pieces of {layers} layers"),
            );
        }
        let experts = model.experts.as_ref().map_or(1, |experts| experts.count);
        if !experts.is_multiple_of(self.expert_parallel) {
            let ranks = self.expert_parallel;
            let problem = format!("is {ranks}, which does not divide {experts} experts");
            return wrong("expert_parallel", problem);
        }
        let replicas = self.data_parallel.saturating_mul(self.context_parallel);
        if !replicas.is_multiple_of(self.expert_parallel) {
            let problem = format!("does not divide the {replicas} ranks of data and context");
            return wrong("expert_parallel", problem);
        }
        if self.zero > 3 {
            return wrong(
                "zero",
                format!("is {}, but stages go from 0 to 3", self.zero),
            );
        }
        Ok(())
    }

    /// The layers of a stage by their feed-forward.
    fn layers_of_stage(&self, model: &Model, stage: u64) -> StageLayers {
        let split = LayerSplit {
            layers: model.layers,
            stages: self.pipeline_parallel,
            virtual_stages: self.virtual_stages,
        };
        let again = match self.recompute {
            Recompute::Layers => self.recompute_layers.unwrap_or(u64::MAX),
            Recompute::None | Recompute::Attention => 0,
        };
        let mut counts = StageLayers::default();
        let uniform = match &model.experts {
            None => Some(&mut counts.dense),
            Some(experts) if experts.dense_layers == 0 && experts.every == 1 => {
                Some(&mut counts.mixed)
            }
            Some(_) => None,
        };
        if let Some(count) = uniform {
            let all = split.of_stage(stage);
            let (each, more) = (all / self.virtual_stages, all % self.virtual_stages);
            let smaller = self.virtual_stages - more;
            *count = LayerCount {
                all,
                again: smaller * again.min(each) + more * again.min(each + 1),
            };
            return counts;
        }
        let mut first = 0;
        for piece in 0..split.pieces() {
            let end = first + split.of_piece(piece);
            let own = piece % self.pipeline_parallel == stage;
            for layer in (first..end).filter(|_| own) {
                let count = match model.experts_of_layer(layer) {
                    Some(_) => &mut counts.mixed,
                    None => &mut counts.dense,
                };
                count.all += 1;
                count.again += u64::from(layer - first < again);
            }
            first = end;
        }
        counts
    }
}

/// Layers of a stage by their feed-forward.
#[derive(Default, Clone, Copy)]
struct StageLayers {
    dense: LayerCount,
    mixed: LayerCount,
}

/// Layers, and those of them that backward computes again.
#[derive(Clone, Copy, Default)]
struct LayerCount {
    all: u64,
    again: u64,
}

/// What a rank needs, at the moment of a step that needs most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MemoryNeed {
    /// Weights; under `ZeRO` 3 also the largest layer, gathered.
    pub parameters: Bytes,
    /// Gradients.
    pub gradients: Bytes,
    /// Optimizer states.
    pub optimizer: Bytes,
    /// Activations of layers, of all micro-batches that wait for backward.
    pub activations: Bytes,
    /// Activations of embedding and head, with the scores of all tokens of the vocabulary.
    pub end_activations: Bytes,
}

impl MemoryNeed {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Bytes {
        self.parts().into_iter().map(|(_, bytes)| bytes).sum()
    }

    /// The part that needs most, with its name: what to reduce where the total does not fit.
    #[must_use]
    pub fn largest(&self) -> (&'static str, Bytes) {
        let mut parts = self.parts();
        parts.sort_by_key(|(_, bytes)| bytes.0);
        parts[parts.len() - 1]
    }

    fn parts(&self) -> [(&'static str, Bytes); 5] {
        [
            ("parameters", self.parameters),
            ("gradients", self.gradients),
            ("optimizer states", self.optimizer),
            ("activations", self.activations),
            ("activations of embedding and head", self.end_activations),
        ]
    }
}

/// What each rank of one pipeline stage needs, from stage 0.
///
/// # Errors
/// A layout that cannot be: counts of 0, heads, layers or experts that do not divide, an unknown
/// stage.
pub fn memory_of_stage(
    model: &Model,
    layout: &MemoryLayout,
    stage: u64,
) -> Result<MemoryNeed, SpecsError> {
    layout.check(model)?;
    if stage >= layout.pipeline_parallel {
        let problem = format!(
            "has {} stages, and no stage {stage}",
            layout.pipeline_parallel
        );
        return Err(SpecsError::Layout {
            what: "pipeline_parallel",
            problem,
        });
    }
    let layers = layout.layers_of_stage(model, stage);
    let states = states(model, layout, stage, &layers);
    Ok(MemoryNeed {
        parameters: states.parameters,
        gradients: states.gradients,
        optimizer: states.optimizer,
        activations: bytes(activations::of_layers(model, layout, stage, &layers)),
        end_activations: bytes(activations::of_ends(model, layout, stage)),
    })
}

/// What a rank of the stage that needs most needs.
///
/// # Errors
/// A layout that cannot be, as for [`memory_of_stage`].
pub fn memory_per_rank(model: &Model, layout: &MemoryLayout) -> Result<MemoryNeed, SpecsError> {
    let mut most = memory_of_stage(model, layout, 0)?;
    for stage in 1..layout.pipeline_parallel {
        let need = memory_of_stage(model, layout, stage)?;
        if need.total() > most.total() {
            most = need;
        }
    }
    Ok(most)
}

struct States {
    parameters: Bytes,
    gradients: Bytes,
    optimizer: Bytes,
}

fn states(model: &Model, layout: &MemoryLayout, stage: u64, layers: &StageLayers) -> States {
    let tensor = layout.tensor_parallel as f64;
    let replicas = (layout.data_parallel * layout.context_parallel) as f64;
    let experts = layout.expert_parallel as f64;
    let routed_of_layer = model
        .experts
        .as_ref()
        .map_or(0, |experts| experts.count * model.expert_weights(experts));
    let dense_layer = model.layer_parameters_with(None);
    let mixed_layer = model.layer_parameters_with(model.experts.as_ref()) - routed_of_layer;
    let mut routed = layers.mixed.all * routed_of_layer;
    let mut shared = layers.dense.all * dense_layer + layers.mixed.all * mixed_layer;
    let embedding = (model.vocab + model.learned_positions) * model.hidden;
    let (is_first, is_last) = (stage == 0, stage + 1 == layout.pipeline_parallel);
    if is_first {
        shared += embedding;
    }
    if is_last {
        let mtp_routed = model.mtp_modules * routed_of_layer;
        routed += mtp_routed;
        shared += model.mtp_modules * model.mtp_parameters() - mtp_routed;
        shared += model.norm.vectors() * model.hidden;
        if !(is_first && model.tied_embeddings) {
            shared += model.vocab * model.hidden;
        }
    }
    let (shared, routed) = (shared as f64 / tensor, routed as f64 / (tensor * experts));
    let kept = |from_stage: u8| match layout.zero >= from_stage {
        true => shared / replicas + routed * experts / replicas,
        false => shared + routed,
    };
    let gathered = match layout.zero {
        3 => {
            let mixed = mixed_layer as f64 + routed_of_layer as f64 / experts;
            let kinds = [
                (layers.dense.all, dense_layer as f64),
                (layers.mixed.all, mixed),
            ];
            let there = kinds.into_iter().filter(|(count, _)| *count > 0);
            there.map(|(_, size)| size).fold(0.0, f64::max) / tensor
        }
        _ => 0.0,
    };
    let size = layout.state_bytes;
    States {
        parameters: bytes((kept(3) + gathered) * size.parameter as f64),
        gradients: bytes(kept(2) * size.gradient as f64),
        optimizer: bytes(kept(1) * size.optimizer as f64),
    }
}

fn bytes(count: f64) -> Bytes {
    Bytes(count.ceil() as u64)
}

#[cfg(test)]
mod tests;
