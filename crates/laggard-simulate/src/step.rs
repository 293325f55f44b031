//! How long a training step takes, by cause: kernels of each layer, communication that is not
//! hidden, the pipeline's bubble, gradients and the optimizer.
//!
//! The form is physics, the constants are few and global ([`crate::Constants`]): nothing is fitted
//! to a run. Nothing here allocates, so that a search can evaluate layouts by the million.

mod communication;
mod layer;
mod operations;

use serde::Serialize;

use crate::compute::{Constant, Constants, Gemm, Kernelry};
use crate::job::{Accumulation, Degrees, Job, Machine, ShardUpdate};
pub use communication::Communication;
use laggard_schedule::Zero;
pub use layer::LayerTimes;
pub use operations::OperationCosts;

/// Share of a stage's time that backward of its last micro-batch takes: what gradients can hide
/// under. Backward has two of three products.
const BACKWARD_SHARE: f64 = 2.0 / 3.0;
/// Passes over the embedding's output: looked up, written, and its gradient added.
const EMBEDDING_PASSES: f64 = 4.0;

/// A predicted step, by cause, in seconds of the slowest rank's timeline. The causes sum to the
/// total.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct StepTime {
    /// Matrix products of layers.
    pub products_s: f64,
    /// Attention between its projections.
    pub attention_s: f64,
    /// Element-wise kernels of layers.
    pub elementwise_s: f64,
    /// Computing again what forward did not keep, its communication included.
    pub recompute_s: f64,
    /// Output head, loss and embedding on the stage that is waited for.
    pub ends_s: f64,
    /// Waiting for the host to issue kernels.
    pub host_s: f64,
    /// Exposed communication between ranks that share a layer's matrices or tokens.
    pub tensor_s: f64,
    /// The same between ranks that share a sequence.
    pub context_s: f64,
    /// The same between ranks that share experts.
    pub expert_s: f64,
    /// Exposed transfers between stages.
    pub transfer_s: f64,
    /// Stages that have nothing to do while the pipeline fills and drains.
    pub bubble_s: f64,
    /// Exposed reduction of gradients and gathering of parameters.
    pub gradients_s: f64,
    /// Update of the parameters.
    pub optimizer_s: f64,
    /// What depends on nothing else.
    pub fixed_s: f64,
    /// Waiting for whichever rank is late at random.
    pub jitter_s: f64,
    /// The whole step.
    pub total_s: f64,
}

/// Predicts a step.
#[must_use]
pub fn predict(job: &Job, machine: &Machine, constants: &Constants) -> StepTime {
    predict_with(job, machine, constants, &Communication::of(job, machine))
}

/// Predicts a step whose communication is known already: it does not depend on the constants.
#[must_use]
pub fn predict_with(
    job: &Job,
    machine: &Machine,
    constants: &Constants,
    communication: &Communication,
) -> StepTime {
    let kernels = Kernelry {
        machine,
        constants,
        precision: job.precision,
    };
    let layer = LayerTimes::of(job, &kernels, communication);
    let stages = Stages::of(job, &kernels, &layer);
    let degrees = &job.degrees;
    let micro_batches = f64::from(degrees.micro_batches);
    let pieces = f64::from(degrees.virtual_stages);
    let exposed = 2.0 * pieces * constants.get(Constant::TransferExposed);
    let filling = stages.sum - stages.longest + exposed * communication.through_s;
    let layers = micro_batches * stages.layers_of_longest;
    let gradients = gradients(job, constants, communication, stages.longest);
    let mut step = StepTime {
        products_s: layers * layer.products(),
        attention_s: layers * layer.attention(),
        elementwise_s: layers * layer.elementwise(),
        recompute_s: layers * layer.recompute_s,
        ends_s: micro_batches * stages.ends_of_longest,
        host_s: micro_batches * stages.host_of_longest,
        tensor_s: layers * layer.tensor_s,
        context_s: layers * layer.context_s,
        expert_s: layers * layer.expert_s,
        transfer_s: micro_batches * exposed * communication.transfer_s,
        bubble_s: filling / pieces,
        gradients_s: gradients + layers * layer.shard_s,
        optimizer_s: optimizer(job, &kernels),
        fixed_s: constants.get(Constant::StepFixed),
        jitter_s: 0.0,
        total_s: 0.0,
    };
    let base = step.sum();
    step.jitter_s = base * jitter_share(degrees, constants);
    step.total_s = base + step.jitter_s;
    step
}

/// What waiting for whichever rank is late at random adds to a step, as a share of the rest of it.
#[must_use]
pub fn jitter_share(degrees: &Degrees, constants: &Constants) -> f64 {
    let doublings = (degrees.ranks() as f64 / 8.0).max(1.0).log2();
    let each = constants.get(match degrees.zero {
        Zero::Parameters => Constant::LayerJitter,
        _ => Constant::Jitter,
    });
    each * doublings
}

impl StepTime {
    /// The sum of all causes.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.causes().iter().map(|(_, seconds)| seconds).sum()
    }

    /// Exposed communication of every kind.
    #[must_use]
    pub fn communication_s(&self) -> f64 {
        let links = [
            self.tensor_s,
            self.context_s,
            self.expert_s,
            self.transfer_s,
            self.gradients_s,
        ];
        links.iter().sum()
    }

    /// Every cause with its name, in the order of a report.
    #[must_use]
    pub fn causes(&self) -> [(&'static str, f64); 15] {
        [
            ("products", self.products_s),
            ("attention", self.attention_s),
            ("element-wise", self.elementwise_s),
            ("recompute", self.recompute_s),
            ("head and embedding", self.ends_s),
            ("host", self.host_s),
            ("tensor parallel", self.tensor_s),
            ("context parallel", self.context_s),
            ("expert parallel", self.expert_s),
            ("pipeline transfer", self.transfer_s),
            ("pipeline bubble", self.bubble_s),
            ("gradients", self.gradients_s),
            ("optimizer", self.optimizer_s),
            ("fixed", self.fixed_s),
            ("jitter", self.jitter_s),
        ]
    }
}

/// Times of one micro-batch on the stages of the pipeline.
struct Stages {
    /// Of all stages together.
    sum: f64,
    /// Of the stage that takes longest.
    longest: f64,
    /// Its layers.
    layers_of_longest: f64,
    /// Its embedding or head.
    ends_of_longest: f64,
    /// What the host adds to it.
    host_of_longest: f64,
}

impl Stages {
    fn of(job: &Job, kernels: &Kernelry<'_>, layer: &LayerTimes) -> Self {
        let host = host(job, kernels.constants, layer);
        let (head, embedding) = (head(job, kernels), embedding(job, kernels));
        // Each run of stages with equally many layers, and what its ends add.
        let mut stages = job.split().runs().map(|(layers, count)| Run {
            layers: layers as f64,
            stages: count as f64,
            ends: 0.0,
        });
        let last = if job.degrees.pipeline == 1 { 0 } else { 3 };
        stages[0].ends += embedding;
        stages[last].ends += head;
        let time = |run: &Run| run.layers * layer.total_s + run.ends + host(run.layers);
        let mut longest = &stages[0];
        for run in &stages {
            if run.stages > 0.0 && time(run) > time(longest) {
                longest = run;
            }
        }
        Self {
            sum: stages.iter().map(|run| run.stages * time(run)).sum(),
            longest: time(longest),
            layers_of_longest: longest.layers,
            ends_of_longest: longest.ends,
            host_of_longest: host(longest.layers),
        }
    }
}

/// Stages of a pipeline with equally many layers.
struct Run {
    layers: f64,
    stages: f64,
    /// Seconds of the embedding or head of each.
    ends: f64,
}

/// What the host adds to a micro-batch on a stage, by the layers of the stage. It issues kernels
/// and transfers while the device is at work, but not wholly: some kernels take longer to issue
/// than to run, and others less. Together they take between the longer of both and their sum.
fn host(job: &Job, constants: &Constants, layer: &LayerTimes) -> impl Fn(f64) -> f64 {
    let transfers = match job.degrees.pipeline {
        1 => 0.0,
        _ => f64::from(job.degrees.virtual_stages) * constants.get(Constant::HostTransfer),
    };
    let always = constants.get(Constant::HostMicroBatch);
    move |layers| {
        let device = layers * layer.total_s;
        let issue = layers * layer.issue_s + transfers;
        always + issue.hypot(device) - device
    }
}

/// Seconds of the output head and the loss, forward and backward, of one micro-batch.
fn head(job: &Job, kernels: &Kernelry<'_>) -> f64 {
    let shape = &job.shape;
    let tokens = job.tokens_per_micro_batch();
    let vocab = shape.vocab / f64::from(job.degrees.tensor);
    let product = |m, n, k| kernels.gemm(Gemm { m, n, k });
    let accumulated = accumulated_bytes(job, kernels.constants) * vocab * shape.hidden;
    let logits = kernels.constants.get(Constant::LogitBytes) * tokens * vocab;
    let once = product(tokens, vocab, shape.hidden)
        + product(tokens, shape.hidden, vocab)
        + product(vocab, shape.hidden, tokens)
        + kernels.memory(accumulated + logits);
    once * shape.heads_out
}

fn embedding(job: &Job, kernels: &Kernelry<'_>) -> f64 {
    let half = 2.0;
    kernels.memory(EMBEDDING_PASSES * half * job.tokens_per_micro_batch() * job.shape.hidden)
}

/// Bytes per parameter that adding up a micro-batch's gradients moves.
pub(crate) fn accumulated_bytes(job: &Job, constants: &Constants) -> f64 {
    match job.software.accumulation {
        Accumulation::Separate => constants.get(Constant::SeparateAccumulation),
        Accumulation::Fused if job.degrees.micro_batches > 1 => {
            constants.get(Constant::FusedAccumulation)
        }
        Accumulation::Fused => 0.0,
    }
}

/// Parameters of a rank: its layers and an end of the pipeline, without those that only expert
/// parallelism shares out.
pub(crate) fn parameters_of_rank(job: &Job) -> (f64, f64) {
    let (shape, degrees) = (&job.shape, &job.degrees);
    let tensor = f64::from(degrees.tensor);
    let layers = f64::from(shape.layers.div_ceil(degrees.pipeline));
    let dense = shape.attention_parameters() + shape.dense_ffn_parameters();
    let ends = if degrees.pipeline == 1 && !shape.tied {
        2.0
    } else {
        1.0
    };
    let dense = layers * dense / tensor + ends * shape.vocab * shape.hidden / tensor;
    let routed = layers * shape.routed_parameters() / communication::routed_over(degrees).shared_by;
    (dense, routed)
}

/// Exposed reduction of gradients and gathering of parameters, once a step.
fn gradients(
    job: &Job,
    constants: &Constants,
    communication: &Communication,
    micro_batch: f64,
) -> f64 {
    let exposed = |all: f64| match job.software.overlap_gradients {
        true => {
            let hidden = constants.get(Constant::OverlapShare) * BACKWARD_SHARE * micro_batch;
            (constants.get(Constant::GradientExposed) * all).max(all - hidden)
        }
        false => all,
    };
    // Sharded gradients are scattered after each micro-batch, not only after the last.
    let earlier = match job.degrees.zero {
        Zero::Gradients => f64::from(job.degrees.micro_batches.saturating_sub(1)),
        _ => 0.0,
    };
    let exposed = exposed(communication.gradients_s) + earlier * exposed(communication.reduce_s);
    let broadcasts = match job.software.shard_update {
        ShardUpdate::Broadcast
            if (Zero::Optimizer..Zero::Parameters).contains(&job.degrees.zero) =>
        {
            constants.get(Constant::OwnerBroadcast) * communication::shards(job)
        }
        _ => 0.0,
    };
    exposed + broadcasts
}

fn optimizer(job: &Job, kernels: &Kernelry<'_>) -> f64 {
    let (dense, routed) = parameters_of_rank(job);
    let (dense_shards, routed_shards) = match job.degrees.zero {
        Zero::None => (1.0, 1.0),
        _ => (
            communication::shards(job),
            communication::routed_over(&job.degrees).shards,
        ),
    };
    let parameters = dense / dense_shards + routed / routed_shards;
    kernels.memory(kernels.constants.get(Constant::OptimizerBytes) * parameters)
}

#[cfg(test)]
mod tests;
