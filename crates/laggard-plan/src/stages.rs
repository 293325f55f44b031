//! Layers for pipeline stages of different speeds.
//!
//! A step of one pipeline takes `sum(t) + (m - 1) * max(t)` seconds for m micro-batches over stages
//! that take `t` seconds each for the forward and backward of one: the first micro-batch passes
//! all stages, each further one waits for the slowest. Both terms matter where classes differ, so
//! the search keeps every pair of them that no other pair beats: exact by dynamic programming over
//! the layers done and the stages used of each class.

use serde::{Deserialize, Serialize};
use std::ops::Range;
use thiserror::Error;

/// A chain of layers to be cut into stages.
pub struct Chain<'a> {
    /// Number of layers.
    pub layers: usize,
    /// Micro-batches of the pipeline's step.
    pub micro_batches: u64,
    /// Seconds that a stage of a class takes for forward and backward of some layers. What it
    /// communicates belongs to it.
    pub seconds: &'a dyn Fn(usize, Range<usize>) -> f64,
    /// Whether a stage has the memory for some layers.
    pub fits: &'a dyn Fn(Stage, Range<usize>) -> bool,
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
        "no way to cut {layers} layers into {stages} stages fits in memory\nhint: use more stages, \
         more tensor parallelism or recomputation"
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
    let classes = order.iter().max().map_or(0, |last| last + 1);
    let mut counts = vec![0; classes];
    order.iter().for_each(|&class| counts[class] += 1);
    search(chain, &counts, Some(order))
}

/// Cuts a chain for so many stages of each class, in the best order of all. Exact.
///
/// # Errors
/// More stages than layers, or no cut that fits.
pub fn order_stages(chain: &Chain<'_>, counts: &[usize]) -> Result<Cut, ChainError> {
    search(chain, counts, None)
}

/// A way to place the layers so far.
#[derive(Clone, Copy)]
struct Partial {
    slowest: f64,
    sum: f64,
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
        slowest: 0.0,
        sum: 0.0,
        class: 0,
        from: (0, 0),
    });
    for state in 0..used.states() {
        let before = used.all(state);
        let is_next = |&class: &usize| {
            used.of(state, class) < counts[class]
                && order.is_none_or(|order| order[before] == class)
        };
        for class in (0..counts.len()).filter(is_next) {
            let stage = Stage {
                class,
                before,
                after: stages - before - 1,
            };
            extend(
                chain,
                &mut table,
                stage,
                (state * width, used.step(class) * width),
            );
        }
    }
    let last = &table[(used.states() - 1) * width + layers];
    let best = (0..last.len()).min_by(|&a, &b| {
        let time = |it: &Partial| it.sum + (chain.micro_batches.max(1) - 1) as f64 * it.slowest;
        time(&last[a]).total_cmp(&time(&last[b]))
    });
    match best {
        Some(best) => Ok(trace(chain, &table, &used, best)),
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
            if !(chain.fits)(stage, done..end) {
                continue;
            }
            let seconds = (chain.seconds)(stage.class, done..end);
            for (way, partial) in ways.iter().enumerate() {
                let next = Partial {
                    slowest: partial.slowest.max(seconds),
                    sum: partial.sum + seconds,
                    class: stage.class as u32,
                    from: (done as u32, way as u32),
                };
                keep(&mut table[row + step + end], next);
            }
        }
        table[row + done] = ways;
    }
}

/// Adds a way unless another is as good in both; drops those that it beats.
fn keep(ways: &mut Vec<Partial>, new: Partial) {
    let beats = |a: &Partial, b: &Partial| a.slowest <= b.slowest && a.sum <= b.sum;
    if ways.iter().any(|old| beats(old, &new)) {
        return;
    }
    ways.retain(|old| !beats(&new, old));
    ways.push(new);
}

/// The stages of the best way, from its end.
fn trace(chain: &Chain<'_>, table: &[Vec<Partial>], used: &Used<'_>, best: usize) -> Cut {
    let width = chain.layers + 1;
    let (mut state, mut end, mut way) = (used.states() - 1, chain.layers, best);
    let last = table[state * width + end][way];
    let mut stages = Vec::new();
    while state > 0 {
        let partial = table[state * width + end][way];
        let begin = partial.from.0 as usize;
        stages.push((partial.class as usize, begin..end));
        state -= used.step(partial.class as usize);
        (end, way) = (begin, partial.from.1 as usize);
    }
    stages.reverse();
    Cut {
        seconds: last.sum + (chain.micro_batches.max(1) - 1) as f64 * last.slowest,
        stages,
    }
}

#[cfg(test)]
mod tests;
