//! Times of one layer and micro-batch on one rank.

use laggard_schedule::Zero;
use laggard_specs::Recompute;

use super::{Communication, accumulated_bytes};
use crate::compute::{AttentionWork, Constant, Gemm, Kernelry};
use crate::job::{ExpertShape, Job, Kernels, Selective, TensorOverlap};

/// Bytes per token and channel of the residual stream that a layer's element-wise kernels move
/// forward when fused: two norms (one read and one write each) and two residual sums with dropout
/// (two reads, one write, a mask of one byte), in half precision.
const RESIDUAL_BYTES: f64 = 22.0;
/// Bytes per token and channel of the feed-forward: an activation reads and writes; a gated one
/// reads two.
const ACTIVATION_BYTES: [f64; 2] = [4.0, 6.0];
/// Bytes per token and projected channel: queries, keys and values get their layout, and rotary
/// positions where the model is a gated one.
const PROJECTION_BYTES: [f64; 2] = [4.0, 6.0];
/// What eager kernels add to each of the three: an RMS norm in single precision is six kernels, a
/// rotation four, a gate two.
const EAGER_BYTES: [f64; 3] = [50.0, 4.0, 12.0];
/// Backward of element-wise kernels over forward: they read their input again beside the gradient.
const ELEMENTWISE_BACKWARD: f64 = 1.5;
/// Synchronisations of tensor-parallel ranks in each pass of a layer.
const TENSOR_SYNCHRONISATIONS: f64 = 2.0;
/// Share of the layer's host time that recomputing a layer adds: forward, which has about two of
/// five kernels, is issued again.
const HOST_RECOMPUTE: f64 = 0.4;
/// Host time of fused kernels over that of one kernel for each operation, by the number of kernels:
/// about 50 beside 130 of a layer with dropout, forward and backward.
const HOST_FUSED: f64 = 0.4;
/// What halving recomputation recomputes.
const HALF: f64 = 0.5;

/// Times of one layer and micro-batch on one rank, in seconds; communication as far as it is
/// exposed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LayerTimes {
    /// Products, forward and backward.
    pub products_s: [f64; 2],
    /// Attention, forward and backward.
    pub attention_s: [f64; 2],
    /// Element-wise kernels, forward and backward.
    pub elementwise_s: [f64; 2],
    /// Forward again during backward, with its communication.
    pub recompute_s: f64,
    /// Tensor-parallel communication.
    pub tensor_s: f64,
    /// Context-parallel communication.
    pub context_s: f64,
    /// Expert-parallel communication.
    pub expert_s: f64,
    /// Gathering and scattering sharded parameters.
    pub shard_s: f64,
    /// All of it.
    pub total_s: f64,
    /// What the host needs to issue it, meanwhile.
    pub issue_s: f64,
}

impl LayerTimes {
    /// Times of a layer, averaged over the kinds of layers of the model.
    #[must_use]
    pub(crate) fn of(job: &Job, kernels: &Kernelry<'_>, communication: &Communication) -> Self {
        let mut layer = Self {
            products_s: products(job, kernels),
            attention_s: kernels.attention(job.software.attention, &attention_work(job)),
            elementwise_s: elementwise(job, kernels),
            ..Self::default()
        };
        let constant = |constant| kernels.constants.get(constant);
        let (forward, backward) = match job.software.overlap_tensor {
            TensorOverlap::None => (Constant::TensorExposed, Constant::TensorExposed),
            TensorOverlap::Backward => (Constant::TensorExposed, Constant::TensorBackwardExposed),
            TensorOverlap::Both => (
                Constant::TensorOverlappedExposed,
                Constant::TensorOverlappedExposed,
            ),
        };
        let synchronisations = TENSOR_SYNCHRONISATIONS * communication.tensor_s;
        let tensor = synchronisations * constant(forward);
        let context = communication.context_s * constant(Constant::ContextExposed);
        let experts = job.shape.experts.map_or(0.0, |one| one.share_of_layers);
        let expert = 2.0 * communication.expert_s * experts * constant(Constant::ExpertExposed);
        layer.tensor_s = tensor + synchronisations * constant(backward);
        // Backward brings the gradients of keys and values back beside gathering them again.
        layer.context_s = 3.0 * context;
        layer.expert_s = 2.0 * expert;
        let forward = layer.products_s[0]
            + layer.attention_s[0]
            + layer.elementwise_s[0]
            + tensor
            + context
            + expert;
        layer.recompute_s = layer.recomputed(job, forward);
        let busy = layer.products()
            + layer.attention()
            + layer.elementwise()
            + layer.tensor_s
            + layer.context_s
            + layer.expert_s
            + layer.recompute_s;
        if job.degrees.zero == Zero::Parameters {
            // Gathered in both passes, and gradients scattered in one.
            let all = 3.0 * communication.shard_s;
            let hidden = constant(Constant::OverlapShare) * busy;
            layer.shard_s = (constant(Constant::ShardExposed) * all).max(all - hidden);
        }
        layer.total_s = busy + layer.shard_s;
        layer.issue_s = issue(job, constant(Constant::HostLayer));
        layer
    }

    /// Products of both passes.
    #[must_use]
    pub fn products(&self) -> f64 {
        self.products_s.iter().sum()
    }

    /// Attention of both passes.
    #[must_use]
    pub fn attention(&self) -> f64 {
        self.attention_s.iter().sum()
    }

    /// Element-wise kernels of both passes.
    #[must_use]
    pub fn elementwise(&self) -> f64 {
        self.elementwise_s.iter().sum()
    }

    fn recomputed(&self, job: &Job, forward: f64) -> f64 {
        match (job.degrees.recompute, job.software.selective) {
            (Recompute::None, _) => 0.0,
            (Recompute::Layers, _) => job.recomputed_share() * forward,
            (Recompute::Attention, Selective::Half) => {
                HALF * self.products_s[0] + self.elementwise_s[0]
            }
            (Recompute::Attention, Selective::Attention) => {
                match job.software.attention.keeps_scores() {
                    true => self.attention_s[0],
                    false => 0.0,
                }
            }
        }
    }
}

/// Seconds in which the host issues a layer's kernels: `layer` where each operation is one.
fn issue(job: &Job, layer: f64) -> f64 {
    let fused = match job.software.kernels {
        Kernels::Eager => 1.0,
        _ => HOST_FUSED,
    };
    let again = 1.0 + HOST_RECOMPUTE * job.recomputed_share();
    layer * fused * again
}

/// Every product with a weight, forward and backward.
fn products(job: &Job, kernels: &Kernelry<'_>) -> [f64; 2] {
    let shape = &job.shape;
    let tensor = f64::from(job.degrees.tensor);
    let tokens = job.tokens_per_micro_batch();
    let accumulated = accumulated_bytes(job, kernels.constants);
    let both = |tokens: f64, outputs: f64, inputs: f64| {
        let product = |m, n, k| kernels.gemm(Gemm { m, n, k });
        let backward = product(tokens, inputs, outputs)
            + product(outputs, inputs, tokens)
            + kernels.memory(accumulated * outputs * inputs);
        [product(tokens, outputs, inputs), backward]
    };
    let mut sum = [0.0; 2];
    let mut add = |share: f64, times: [f64; 2]| {
        sum[0] += share * times[0];
        sum[1] += share * times[1];
    };
    for product in shape.attention.iter().filter(|one| one.outputs > 0.0) {
        let (outputs, inputs) = product.on_rank(tensor);
        add(1.0, both(tokens, outputs, inputs));
    }
    let up = (shape.ffn_matrices - 1.0) * shape.ffn_hidden / tensor;
    let dense = shape.experts.map_or(1.0, |one| 1.0 - one.share_of_layers);
    if dense > 0.0 {
        add(dense, both(tokens, up, shape.hidden));
        add(dense, both(tokens, shape.hidden, shape.ffn_hidden / tensor));
    }
    if let Some(experts) = &shape.experts {
        for (share, tokens, width) in expert_products(job, experts) {
            let up = (shape.ffn_matrices - 1.0) * width;
            add(share, both(tokens, up, shape.hidden));
            add(share, both(tokens, shape.hidden, width));
        }
    }
    sum
}

/// The products of a layer's experts: how many alike, over how many tokens, how wide. Routing is
/// taken to be even.
fn expert_products(job: &Job, experts: &ExpertShape) -> [(f64, f64, f64); 2] {
    let tensor = f64::from(job.degrees.tensor);
    let tokens = job.tokens_per_micro_batch();
    let ranks = f64::from(job.degrees.expert);
    let own = experts.count / ranks;
    let layers = experts.share_of_layers;
    // With experts on ranks of their own, tensor-parallel ranks share the tokens, not the width.
    let (own_tokens, width) = match job.degrees.expert {
        1 => (
            tokens * experts.active / experts.count,
            experts.ffn_hidden / tensor,
        ),
        _ => (
            tokens / tensor * experts.active * ranks / experts.count,
            experts.ffn_hidden,
        ),
    };
    let shared = (experts.shared * experts.ffn_hidden / tensor).max(1.0);
    let with_shared = if experts.shared > 0.0 { layers } else { 0.0 };
    [
        (layers * own, own_tokens, width),
        (with_shared, tokens, shared),
    ]
}

fn attention_work(job: &Job) -> AttentionWork {
    let length = f64::from(job.sequence_length);
    AttentionWork {
        queries: job.tokens_per_micro_batch(),
        keys: length,
        attended: job.shape.attended_keys(length),
        heads: job.shape.heads / f64::from(job.degrees.tensor),
        head_dim: job.shape.head_dim,
    }
}

fn elementwise(job: &Job, kernels: &Kernelry<'_>) -> [f64; 2] {
    let shape = &job.shape;
    let tensor = f64::from(job.degrees.tensor);
    let tokens = job.tokens_per_micro_batch();
    let residual = if job.degrees.sequence_parallel {
        tokens / tensor
    } else {
        tokens
    };
    let constant = |constant| kernels.constants.get(constant);
    let gated = shape.ffn_matrices > 2.5;
    let (scale, eager) = match job.software.kernels {
        Kernels::Fused => (1.0, 0.0),
        Kernels::Native => (constant(Constant::NativeElementwise), 0.0),
        Kernels::Eager => {
            let added = if gated {
                constant(Constant::EagerElementwise)
            } else {
                0.0
            };
            (constant(Constant::NativeElementwise), added)
        }
    };
    let of = |bytes: [f64; 2], added: f64| bytes[usize::from(gated)] + eager * added;
    let (width, routed) = match &shape.experts {
        None => (shape.ffn_hidden, 0.0),
        Some(experts) => {
            let each = (experts.active + experts.shared) * experts.ffn_hidden;
            let share = experts.share_of_layers;
            let routed = constant(Constant::RoutingBytes) * experts.active * share * shape.hidden;
            (share * each + (1.0 - share) * shape.ffn_hidden, routed)
        }
    };
    let bytes = (RESIDUAL_BYTES + eager * EAGER_BYTES[0]) * shape.hidden * residual
        + of(ACTIVATION_BYTES, EAGER_BYTES[1]) * width / tensor * tokens
        + of(PROJECTION_BYTES, EAGER_BYTES[2]) * shape.projected / tensor * tokens
        + routed * tokens / tensor;
    let forward = kernels.memory(constant(Constant::Elementwise) * scale * bytes);
    [forward, ELEMENTWISE_BACKWARD * forward]
}
