//! The fastest pipelines of replicas on devices of several classes, for costs that somebody else
//! knows: a cost model, or what was measured of each layer.
//!
//! Devices of a class are alike, so the search works on counts. In a stage each replica has a slot:
//! as many devices of one class as tensor parallelism is wide. A stage whose slots are all of one
//! class goes at that class's pace; what is left of several classes besides whole stages can make a
//! stage together, at the pace of its slowest. For each number of replicas, size of micro-batches,
//! width for each class and number of stages of each, a bound says what no cut can beat; where it
//! is below the best that is known, the layers are cut exactly ([`crate::cut_chain`]). Stages of a
//! class stand together; which class comes first is tried too.

mod bound;
mod compositions;
mod search;

use serde::Serialize;
use std::ops::Range;
use thiserror::Error;

/// Where one replica's part of a stage runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Slot {
    /// The class of its devices, by position.
    pub class: usize,
    /// How many of them share its layers.
    pub width: u32,
}

/// A stage between its neighbours: the kinds of slots that its replicas have.
#[derive(Debug, Clone, Copy)]
pub struct StagePlace<'a> {
    /// Kinds of its own slots.
    pub slots: &'a [Slot],
    /// Those of the stage before it.
    pub before: Option<&'a [Slot]>,
    /// Those of the stage after it.
    pub after: Option<&'a [Slot]>,
    /// Stages of the pipeline.
    pub stages: usize,
}

/// What pipelines cost. The search knows nothing else of models and machines. Times are finite and
/// not negative; what is impossible does not fit.
pub trait PipelineCosts {
    /// Layers, among them embedding and head where these are to be placed.
    fn layers(&self) -> usize;

    /// Devices of each class.
    fn devices(&self) -> &[u64];

    /// Sequences of a step. Where replicas do not divide them, each does as many as the one that
    /// has most.
    fn global_batch(&self) -> u64;

    /// Sizes of a micro-batch that are tried, in sequences.
    fn micro_batches(&self) -> &[u32];

    /// Widths of tensor parallelism for which a class's times are known; none where it can take no
    /// part.
    fn widths(&self, class: usize, micro_batch: u32) -> Vec<u32>;

    /// Seconds of forward and backward of a micro-batch through some layers. They add up over
    /// layers.
    fn compute_seconds(&self, slot: Slot, micro_batch: u32, layers: Range<usize>) -> f64;

    /// Seconds of a micro-batch that a stage with these layers spends on its neighbours; nothing
    /// where it has none. More layers from the same one on never take less.
    fn exchange_seconds(
        &self,
        stage: &StagePlace<'_>,
        micro_batch: u32,
        layers: Range<usize>,
    ) -> f64;

    /// No stage on such a slot exchanges in less in a pipeline of so many stages, at least two.
    fn least_exchange_seconds(&self, _slot: Slot, _micro_batch: u32, _stages: usize) -> f64 {
        0.0
    }

    /// Seconds after the last micro-batch: gradients of these layers reduced over so many replicas
    /// whose slots are of these kinds, and the update. More layers, replicas and kinds of slots
    /// never take less.
    fn finish_seconds(&self, slots: &[Slot], replicas: u64, layers: Range<usize>) -> f64;

    /// The least of these for so many layers, wherever they are.
    fn least_finish_seconds(&self, slot: Slot, replicas: u64, layers: usize) -> f64 {
        let starts = 0..=self.layers() - layers;
        let of = |start: usize| self.finish_seconds(&[slot], replicas, start..start + layers);
        starts.map(of).fold(f64::INFINITY, f64::min)
    }

    /// Whether a slot has the memory for some layers, with so many stages after its own.
    fn fits(&self, slot: Slot, micro_batch: u32, layers: Range<usize>, after: usize) -> bool;
}

/// A stage of all replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PipelineStage {
    /// Its layers.
    pub layers: Range<usize>,
    /// The slots of the replicas, and how many there are of each kind.
    pub slots: Vec<(Slot, u64)>,
}

/// Replicas of one pipeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pipeline {
    /// Sequences of a micro-batch.
    pub micro_batch: u32,
    /// Micro-batches of each replica's step.
    pub micro_batches: u64,
    /// How many there are.
    pub replicas: u64,
    /// The stages in order.
    pub stages: Vec<PipelineStage>,
    /// The step: `sum(t) + (m - 1) * max(t) + max(a)` for m micro-batches over stages that take `t`
    /// for one and `a` after the last.
    pub seconds: f64,
}

impl Pipeline {
    /// Devices of a class that have work.
    #[must_use]
    pub fn devices(&self, class: usize) -> u64 {
        let slots = self.stages.iter().flat_map(|stage| &stage.slots);
        slots
            .filter(|(slot, _)| slot.class == class)
            .map(|(slot, count)| u64::from(slot.width) * count)
            .sum()
    }
}

/// The best pipeline, and what there was to choose from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FoundPipeline {
    /// The best of all whose stages of a class stand together.
    pub best: Pipeline,
    /// No pipeline of the kind takes less than this, in whatever order its stages are.
    pub bound_seconds: f64,
    /// Numbers of stages that were judged by their bound.
    pub judged: u64,
    /// Orders of stages whose layers were cut.
    pub cut: u64,
}

/// Why there is no pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoPipeline {
    /// Nothing to place, or nothing to place it on.
    #[error("no {what} to make a pipeline of")]
    Nothing {
        /// What is missing.
        what: &'static str,
    },
    /// No cut fits.
    #[error(
        "no pipeline of {layers} layers fits into the memory of {devices} devices\nhint: use more \
         devices, wider tensor parallelism or smaller micro-batches"
    )]
    NoMemory {
        /// Layers to place.
        layers: usize,
        /// Devices of all classes.
        devices: u64,
    },
}

/// Finds the fastest pipeline.
///
/// # Errors
/// Where there is nothing to place, or nothing that fits.
pub fn fastest_pipeline(costs: &dyn PipelineCosts) -> Result<FoundPipeline, NoPipeline> {
    let missing = [
        (costs.layers() == 0, "layers"),
        (costs.global_batch() == 0, "sequences"),
        (
            !costs.micro_batches().iter().any(|&it| it > 0),
            "micro-batches",
        ),
        (costs.devices().iter().all(|&it| it == 0), "devices"),
    ];
    if let Some((_, what)) = missing.into_iter().find(|(is_missing, _)| *is_missing) {
        return Err(NoPipeline::Nothing { what });
    }
    search::fastest(costs).ok_or_else(|| NoPipeline::NoMemory {
        layers: costs.layers(),
        devices: costs.devices().iter().sum(),
    })
}

#[cfg(test)]
mod tests;
