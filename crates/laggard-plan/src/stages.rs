//! Layers for pipeline stages of different speeds.
//!
//! A step of one pipeline takes `sum(t) + (m - 1) * max(t) + max(a)` seconds for m micro-batches
//! over stages that take `t` seconds each for the forward and backward of one, and `a` after the
//! last: the first micro-batch passes all stages, each further one waits for the slowest. All terms
//! matter where classes differ, so the search keeps every way whose terms no other way beats: exact
//! by dynamic programming over the layers done and the stages used of each class.

use serde::{Deserialize, Serialize};
use std::ops::Range;
use thiserror::Error;

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
/// More stages than layers, or no cut that fits.
pub fn cut_chain(chain: &Chain<'_>, order: &[usize]) -> Result<Cut, ChainError> {
    // Where the order is given, it is enough to know how many stages are used.
    search(chain, &[order.len()], Some(order))
}

/// Cuts a chain for so many stages of each class, in the best order of all. Exact.
///
/// # Errors
/// More stages than layers, or no cut that fits.
pub fn order_stages(chain: &Chain<'_>, counts: &[usize]) -> Result<Cut, ChainError> {
    search(chain, counts, None)
}

/// What the stages so far take, seconds.
#[derive(Clone, Copy, Default)]
struct Terms {
    slowest: f64,
    sum: f64,
    after: f64,
}

impl Terms {
    fn with(&self, stage: &StageSeconds) -> Self {
        Self {
            slowest: self.slowest.max(stage.micro_batch),
            sum: self.sum + stage.micro_batch,
            after: self.after.max(stage.after),
        }
    }

    /// Seconds of a step of these stages.
    fn step(&self, micro_batches: u64) -> f64 {
        let others = micro_batches.max(1) - 1;
        self.sum + others as f64 * self.slowest + self.after
    }

    /// Whether no pipeline that goes on from here is worse than one that goes on from `other`.
    fn beats(&self, other: &Self) -> bool {
        self.slowest <= other.slowest && self.sum <= other.sum && self.after <= other.after
    }
}

/// A way to place the layers so far.
#[derive(Clone, Copy)]
struct Partial {
    terms: Terms,
    class: u32,
    /// Layers before the last stage, and which of the ways to place those.
    from: (u32, u32),
}

/// The stages used of each class, as a number of mixed radix.
struct Used<'a> {
    counts: &'a [usize],
}

impl Used<'_> {
    fn states(&self) -> usize {
        self.counts.iter().map(|count| count + 1).product()
    }

    fn step(&self, class: usize) -> usize {
        let smaller = self.counts[..class].iter();
        smaller.map(|count| count + 1).product()
    }

    fn of(&self, state: usize, class: usize) -> usize {
        state / self.step(class) % (self.counts[class] + 1)
    }

    fn all(&self, state: usize) -> usize {
        (0..self.counts.len())
            .map(|class| self.of(state, class))
            .sum()
    }
}

fn search(chain: &Chain<'_>, counts: &[usize], order: Option<&[usize]>) -> Result<Cut, ChainError> {
    let (layers, stages) = (chain.layers, counts.iter().sum::<usize>());
    if stages > layers || stages == 0 {
        return Err(ChainError::TooManyStages { stages, layers });
    }
    let used = Used { counts };
    let width = layers + 1;
    let mut table: Vec<Vec<Partial>> = vec![Vec::new(); used.states() * width];
    table[0].push(Partial {
        terms: Terms::default(),
        class: 0,
        from: (0, 0),
    });
    for state in 0..used.states() {
        let before = used.all(state);
        for digit in (0..counts.len()).filter(|&it| used.of(state, it) < counts[it]) {
            let stage = Stage {
                class: order.map_or(digit, |order| order[before]),
                before,
                after: stages - before - 1,
            };
            let step = used.step(digit) * width;
            extend(chain, &mut table, stage, (state * width, step));
        }
    }
    let last = &table[(used.states() - 1) * width + layers];
    let best = (0..last.len()).min_by(|&a, &b| {
        let time = |at: usize| last[at].terms.step(chain.micro_batches);
        time(a).total_cmp(&time(b))
    });
    match best {
        Some(best) => Ok(trace(chain, &table, (&used, order.is_some()), best)),
        None => Err(ChainError::NoMemory { layers, stages }),
    }
}

/// Adds a stage to every way to place layers in the row of `table` at `row`; what comes of it is
/// `step` further on.
fn extend(
    chain: &Chain<'_>,
    table: &mut [Vec<Partial>],
    stage: Stage,
    (row, step): (usize, usize),
) {
    for done in stage.before..chain.layers - stage.after {
        if table[row + done].is_empty() {
            continue;
        }
        let ends = match stage.after {
            0 => chain.layers..=chain.layers,
            after => done + 1..=chain.layers - after,
        };
        let ways = std::mem::take(&mut table[row + done]);
        for end in ends {
            let mut seconds = StageSeconds::of((chain.seconds)(stage, done..end));
            let is_of_use = |seconds: &StageSeconds, partial: &Partial| {
                partial.terms.with(seconds).step(chain.micro_batches) < chain.below
            };
            // More layers take no less. What comes after is asked for only where it may matter: it
            // can be costly to know.
            if !ways.iter().any(|partial| is_of_use(&seconds, partial)) {
                break;
            }
            if !(chain.fits)(stage, done..end) {
                continue;
            }
            seconds.after = (chain.after)(stage, done..end);
            for (way, partial) in ways.iter().enumerate() {
                if is_of_use(&seconds, partial) {
                    let next = Partial {
                        terms: partial.terms.with(&seconds),
                        class: stage.class as u32,
                        from: (done as u32, way as u32),
                    };
                    keep(&mut table[row + step + end], next);
                }
            }
        }
        table[row + done] = ways;
    }
}

/// Adds a way unless another is as good in all; drops those that it beats.
fn keep(ways: &mut Vec<Partial>, new: Partial) {
    if ways.iter().any(|old| old.terms.beats(&new.terms)) {
        return;
    }
    ways.retain(|old| !new.terms.beats(&old.terms));
    ways.push(new);
}

/// The stages of the best way, from its end; `ordered` where states count stages of any class.
fn trace(
    chain: &Chain<'_>,
    table: &[Vec<Partial>],
    (used, ordered): (&Used<'_>, bool),
    best: usize,
) -> Cut {
    let width = chain.layers + 1;
    let (mut state, mut end, mut way) = (used.states() - 1, chain.layers, best);
    let last = table[state * width + end][way];
    let mut stages = Vec::new();
    while state > 0 {
        let partial = table[state * width + end][way];
        let begin = partial.from.0 as usize;
        stages.push((partial.class as usize, begin..end));
        state -= match ordered {
            true => 1,
            false => used.step(partial.class as usize),
        };
        (end, way) = (begin, partial.from.1 as usize);
    }
    stages.reverse();
    Cut {
        seconds: last.terms.step(chain.micro_batches),
        stages,
    }
}

#[cfg(test)]
mod tests;
