//! Layers for pipeline stages of different speeds.
//!
//! A step of one pipeline takes `sum(t) + (m - 1) * max(t) + max(a)` seconds for m micro-batches
//! over stages that take `t` seconds each for the forward and backward of one, and `a` after the
//! last: the first micro-batch passes all stages, each further one waits for the slowest. All terms
//! matter where classes differ, so the search keeps every way whose terms no other way beats: exact
//! by dynamic programming over the layers done and the stages used of each class.
//!
//! Where stages stand at several sites, what joins two of these is between neighbours, and they
//! wait for each other. How long depends on how many stages come after them, so the search goes
//! from the last stage to the first.

mod search;

use serde::{Deserialize, Serialize};
use std::ops::Range;
use thiserror::Error;

use search::{Terms, search};

/// A chain of layers to be cut into stages.
pub struct Chain<'a> {
    /// Number of layers.
    pub layers: usize,
    /// Micro-batches of the pipeline's step.
    pub micro_batches: u64,
    /// Seconds that a stage takes for forward and backward of some layers, what it communicates
    /// included. More layers from the same one on never take less.
    pub seconds: &'a dyn Fn(Stage, Range<usize>) -> f64,
    /// Seconds that a stage takes once its last micro-batch is done: to reduce gradients, and for
    /// the update.
    pub after: &'a dyn Fn(Stage, Range<usize>) -> f64,
    /// Whether a stage has the memory for some layers.
    pub fits: &'a dyn Fn(Stage, Range<usize>) -> bool,
    /// Seconds of a step that are of no use, such as those of a cut that is known already: only
    /// less is looked for. Infinite where any cut will do.
    pub below: f64,
    /// No layer takes a stage of a class less, seconds; zero where nothing is known of that.
    pub layer: &'a dyn Fn(usize) -> f64,
    /// Where classes stand, if not all at one site. More layers up to the same one must then not
    /// take less either.
    pub joints: Option<Joints<'a>>,
}

/// Sites of classes, and what joins them. Stages at a site stand together.
#[derive(Clone, Copy)]
pub struct Joints<'a> {
    /// The site of a class.
    pub site: &'a dyn Fn(usize) -> usize,
    /// What joins two sites; `None` where stages at them cannot be neighbours.
    pub between: &'a dyn Fn([usize; 2]) -> Option<Joint>,
}

/// What a way between two sites costs a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Joint {
    /// Seconds of a micro-batch there and back.
    pub both_ways: f64,
    /// No micro-batch follows the one before it over the way in less, seconds.
    pub each: f64,
}

impl Joint {
    /// Seconds in which one of `micro_batches` follows the other on average, where the two
    /// neighbours of the way take `seconds` and there are `from_on` stages from the first of them
    /// on.
    ///
    /// By the order of 1F1B (Narayanan et al., <https://arxiv.org/abs/2104.04473>, section 2.2) the
    /// first neighbour begins as many micro-batches as there are stages from it on, unasked. Each
    /// further one waits there for one to come back, and the second neighbour, which has begun one
    /// less, goes on only once it has arrived: two of them for each way there and back.
    #[must_use]
    pub fn holds_up(&self, seconds: [f64; 2], from_on: usize, micro_batches: u64) -> f64 {
        let [first, second] = seconds;
        let others = micro_batches.saturating_sub(1);
        if others == 0 {
            return 0.0;
        }
        let waits = micro_batches.saturating_sub(from_on as u64).div_ceil(2);
        let held = waits as f64 * (self.both_ways + first + second);
        let free = others.saturating_sub(2 * waits) as f64 * first.max(second);
        (held + free) / others as f64
    }
}

/// A place in a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// The class of its devices.
    pub class: usize,
    /// Stages before it.
    pub before: usize,
    /// Stages after it: with m micro-batches, it holds the activations of `min(m, after + 1)`.
    pub after: usize,
}

/// The best way to cut a chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// Seconds of the step.
    pub seconds: f64,
    /// Class and layers of each stage in order.
    pub stages: Vec<(usize, Range<usize>)>,
}

/// What a stage takes, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StageSeconds {
    /// Forward and backward of a micro-batch, with what it communicates.
    pub micro_batch: f64,
    /// What comes once its last micro-batch is done.
    pub after: f64,
}

impl StageSeconds {
    /// A stage after whose last micro-batch nothing comes.
    #[must_use]
    pub const fn of(micro_batch: f64) -> Self {
        Self {
            micro_batch,
            after: 0.0,
        }
    }
}

/// Seconds of a step of one pipeline: `sum(t) + (m - 1) * max(t) + max(a)`.
#[must_use]
pub fn pipeline_seconds(micro_batches: u64, stages: &[StageSeconds]) -> f64 {
    let add = |terms: Terms, stage: &StageSeconds| terms.with(stage);
    let terms = stages.iter().fold(Terms::default(), add);
    terms.step(micro_batches)
}

/// Why a chain cannot be cut.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    /// More stages than layers.
    #[error("{stages} stages for {layers} layers\nhint: use fewer pipeline stages")]
    TooManyStages {
        /// Stages asked for.
        stages: usize,
        /// Layers that there are.
        layers: usize,
    },
    /// No cut fits in memory.
    #[error(
        "no way to cut {layers} layers into {stages} stages fits in memory and takes less than is \
         asked for\nhint: use more stages, more tensor parallelism or recomputation"
    )]
    NoMemory {
        /// Layers.
        layers: usize,
        /// Stages.
        stages: usize,
    },
}

/// Cuts a chain for stages of given classes in a given order. Exact.
///
/// # Errors
/// More stages than layers, neighbours that nothing joins, or no cut that fits.
pub fn cut_chain(chain: &Chain<'_>, order: &[usize]) -> Result<Cut, ChainError> {
    // Where the order is given, it is enough to know how many stages are used.
    from_an_end(chain, &[order.len()], Some(order))
}

/// Cuts a chain for so many stages of each class, in the best order of all. Exact.
///
/// # Errors
/// More stages than layers, or no cut that fits.
pub fn order_stages(chain: &Chain<'_>, counts: &[usize]) -> Result<Cut, ChainError> {
    from_an_end(chain, counts, None)
}

/// Searches from the first stage, or where stages stand at several sites, from the last.
fn from_an_end(
    chain: &Chain<'_>,
    counts: &[usize],
    order: Option<&[usize]>,
) -> Result<Cut, ChainError> {
    if chain.joints.is_none() {
        return search(chain, counts, order);
    }
    let stage = |it: Stage| Stage {
        class: it.class,
        before: it.after,
        after: it.before,
    };
    let range = |it: Range<usize>| chain.layers - it.end..chain.layers - it.start;
    let turned = Chain {
        seconds: &|it, layers| (chain.seconds)(stage(it), range(layers)),
        after: &|it, layers| (chain.after)(stage(it), range(layers)),
        fits: &|it, layers| (chain.fits)(stage(it), range(layers)),
        ..*chain
    };
    let order: Option<Vec<usize>> = order.map(|order| order.iter().rev().copied().collect());
    let mut cut = search(&turned, counts, order.as_deref())?;
    cut.stages.reverse();
    cut.stages
        .iter_mut()
        .for_each(|it| it.1 = range(it.1.clone()));
    Ok(cut)
}

#[cfg(test)]
mod tests;
