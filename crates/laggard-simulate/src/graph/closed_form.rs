//! The step of equal stages as a formula. It is exact where nothing but the pipeline's order makes
//! a rank wait: equal pieces, transfers between stages that take no time of their own, gradients
//! reduced once a step, parameters gathered at its end (ZeRO-1) or not at all.
//!
//! Sources: Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters
//! Using Megatron-LM", section 2.2 (both pipelines).

/// Equal pieces of a model in a pipeline, 1F1B or interleaved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct EvenPipeline {
    /// Pipeline stages.
    pub(super) stages: u32,
    /// Pieces of each stage; more than one are interleaved.
    pub(super) chunks: u32,
    /// Micro-batches of a step; of interleaved pieces a multiple of the stages.
    pub(super) micro_batches: u32,
    /// Seconds of one micro-batch forward through one piece, exposed transfers included.
    pub(super) forward_s: f64,
    /// The same backward, what is computed again included.
    pub(super) backward_s: f64,
}

impl EvenPipeline {
    /// Seconds from the first forward to the last backward: each stage has `micro_batches x chunks`
    /// passes both ways, and waits for `stages - 1` more.
    pub(super) fn seconds(&self) -> f64 {
        let passes = f64::from(self.micro_batches) * f64::from(self.chunks);
        (passes + f64::from(self.stages) - 1.0) * (self.forward_s + self.backward_s)
    }

    /// Share of [`EvenPipeline::seconds`] in which a stage has nothing to do.
    pub(super) fn bubble_share(&self) -> f64 {
        let passes = f64::from(self.micro_batches) * f64::from(self.chunks);
        let waits = f64::from(self.stages) - 1.0;
        waits / (passes + waits)
    }
}

/// The reduction of one bucket of gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reduction {
    /// Seconds before the end of the last backward at which the bucket is complete; 0 where
    /// reductions wait for that end.
    pub(super) before_end_s: f64,
    /// Seconds that it takes.
    pub(super) seconds: f64,
}

/// A step of equal ranks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EvenStep {
    /// Seconds of the host before the first kernel.
    pub(super) input_s: f64,
    /// The passes.
    pub(super) pipeline: EvenPipeline,
    /// Reductions of the stage that ends last (the first stage), one after the other.
    pub(super) reductions: Vec<Reduction>,
    /// Seconds of the gradient norm with its collective; 0 where there is none.
    pub(super) norm_s: f64,
    /// Seconds of the update.
    pub(super) optimizer_s: f64,
    /// Seconds in which updated parameters are gathered.
    pub(super) gather_s: f64,
}

impl EvenStep {
    /// Length of the step.
    pub(super) fn seconds(&self) -> f64 {
        let before = self.input_s + self.pipeline.seconds();
        before + self.exposed_reduction_s() + self.norm_s + self.optimizer_s + self.gather_s
    }

    /// Seconds of reductions that no backward hides: the last one ends
    /// `max_i (sum_{j >= i} seconds_j - before_end_i)` after backward.
    pub(super) fn exposed_reduction_s(&self) -> f64 {
        let (mut sum, mut exposed) = (0.0_f64, 0.0_f64);
        for reduction in self.reductions.iter().rev() {
            sum += reduction.seconds;
            exposed = exposed.max(sum - reduction.before_end_s);
        }
        exposed
    }
}
