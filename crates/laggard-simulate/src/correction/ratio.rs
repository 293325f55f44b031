//! Measured over predicted times of one class, with intervals over its ranks and steps.

use laggard_stats::{
    BlockBootstrap, Ranked, Resampling, Rng, block_length, median, percentile_interval,
};
use rayon::prelude::*;

use super::parts::Parts;
use super::{Correction, Ratio};
use crate::error::SimulateError;

/// Resamples of an interval, and its confidence.
const REPLICATES: usize = 1000;
const CONFIDENCE: f64 = 0.95;

/// Operations whose times are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Series {
    /// Forward and backward.
    Layers,
    /// Kernels that only move memory.
    MemoryBound,
    /// Collectives and transfers.
    Links,
}

/// What the operations of one rank took and were to take.
#[derive(Debug, Clone)]
pub(super) struct RankTimes {
    layers: Times,
    memory_bound: Times,
    links: Times,
    /// Seconds of its layers that are bound by memory, as predicted.
    within_layers: f64,
}

/// Seconds of a step.
#[derive(Debug, Clone)]
struct Times {
    measured: Vec<f64>,
    predicted: f64,
}

impl RankTimes {
    pub(super) fn new(steps: usize) -> Self {
        let none = Times {
            measured: vec![0.0; steps],
            predicted: 0.0,
        };
        Self {
            layers: none.clone(),
            memory_bound: none.clone(),
            links: none,
            within_layers: 0.0,
        }
    }

    /// Adds an operation by what it took in each step.
    pub(super) fn add(
        &mut self,
        series: Series,
        predicted: &Parts,
        taken: impl Iterator<Item = f64>,
    ) {
        let (times, seconds) = match series {
            Series::Layers => {
                self.within_layers += predicted.memory_bound;
                (&mut self.layers, predicted.products)
            }
            Series::MemoryBound => (&mut self.memory_bound, predicted.memory_bound),
            Series::Links => (&mut self.links, predicted.links),
        };
        times.predicted += seconds;
        let sums = times.measured.iter_mut();
        sums.zip(taken).for_each(|(sum, taken)| *sum += taken);
    }
}

/// Ratios of one rank, step by step, and what of a factor on memory-bound kernels to take off them.
struct RankRatios {
    steps: Ranked,
    memory_bound: f64,
}

/// The ratios of the ranks that tell.
fn of_ranks(
    ranks: &[RankTimes],
    times: impl Fn(&RankTimes) -> (&Times, f64),
) -> Result<Vec<RankRatios>, SimulateError> {
    let mut list = Vec::new();
    for rank in ranks {
        let (times, within) = times(rank);
        if times.predicted > 0.0 {
            let ratios: Vec<f64> = times
                .measured
                .iter()
                .map(|it| it / times.predicted)
                .collect();
            list.push(RankRatios {
                steps: Ranked::new(&ratios)?,
                memory_bound: within / times.predicted,
            });
        }
    }
    Ok(list)
}

/// Draws steps in blocks, and ranks.
struct Draws {
    steps: usize,
    bootstrap: BlockBootstrap,
    seed: u64,
}

impl Draws {
    fn new(step_s: &[f64], seed: u64) -> Result<Self, SimulateError> {
        let steps = step_s.len();
        let block_length = block_length(step_s).unwrap_or(1).clamp(1, steps.max(1));
        let resampling = Resampling {
            block_length,
            replicates: REPLICATES,
            seed,
        };
        Ok(Self {
            steps,
            bootstrap: BlockBootstrap::new(steps, resampling)?,
            seed,
        })
    }

    /// The median over ranks of their medians over steps, where memory-bound kernels within take
    /// `memory_bound` times their default: of everything, then of each resample.
    fn medians(
        &self,
        ranks: &[RankRatios],
        memory_bound: &Medians,
    ) -> Result<Medians, SimulateError> {
        let all = vec![1; self.steps];
        let point = over_ranks(ranks.iter(), &all, memory_bound.point)?;
        let resample = |replicate: usize| {
            let mut counts = Vec::new();
            self.bootstrap.fill_counts(replicate, &mut counts);
            // Ranks are drawn apart from steps.
            let mut rng = Rng::for_stream(self.seed ^ u64::MAX, replicate as u64);
            let drawn = (0..ranks.len()).map(|_| &ranks[rng.below(ranks.len())]);
            over_ranks(drawn, &counts, memory_bound.resampled[replicate])
        };
        let resampled = (0..REPLICATES).into_par_iter().map(resample);
        Ok(Medians {
            point,
            resampled: resampled.collect::<Result<_, _>>()?,
        })
    }
}

fn over_ranks<'a>(
    ranks: impl Iterator<Item = &'a RankRatios>,
    counts: &[u32],
    memory_bound: f64,
) -> Result<f64, SimulateError> {
    let of_rank = |rank: &RankRatios| -> Result<f64, SimulateError> {
        let whole = rank.steps.resampled_quantile(counts, 0.5)?;
        Ok(whole - memory_bound * rank.memory_bound)
    };
    let list: Vec<f64> = ranks.map(of_rank).collect::<Result<_, _>>()?;
    Ok(median(&list)?)
}

/// A statistic of everything and of each resample.
struct Medians {
    point: f64,
    resampled: Vec<f64>,
}

impl Medians {
    /// The default.
    fn one() -> Self {
        Self {
            point: 1.0,
            resampled: vec![1.0; REPLICATES],
        }
    }

    fn correction(&self, ranks: usize, steps: usize) -> Result<Correction, SimulateError> {
        if self.point <= 0.0 {
            return Ok(Correction::untold("no time is left for it"));
        }
        let interval = percentile_interval(&self.resampled, CONFIDENCE)?;
        Ok(Correction::Measured(Ratio {
            value: self.point,
            low: interval.low,
            high: interval.high,
            ranks,
            steps,
        }))
    }
}

/// The corrections of products, memory-bound kernels and links. Products are what layers take
/// beyond their memory-bound kernels, of which the optimizer and its like tell. `no_links` says why
/// links may be missing.
pub(super) fn ratios(
    ranks: &[RankTimes],
    step_s: &[f64],
    (no_links, seed): (&str, u64),
) -> Result<[Correction; 3], SimulateError> {
    let draws = Draws::new(step_s, seed)?;
    let memory = of_ranks(ranks, |rank| (&rank.memory_bound, 0.0))?;
    let layers = of_ranks(ranks, |rank| (&rank.layers, rank.within_layers))?;
    let links = of_ranks(ranks, |rank| (&rank.links, 0.0))?;
    let one = Medians::one();
    let found = |list: &[RankRatios], within: &Medians, missing: &str| {
        if list.is_empty() {
            return Ok((Medians::one(), Correction::untold(missing)));
        }
        let medians = draws.medians(list, within)?;
        let correction = medians.correction(list.len(), draws.steps)?;
        Ok::<_, SimulateError>(match correction {
            Correction::Measured(_) => (medians, correction),
            Correction::Default { .. } => (Medians::one(), correction),
        })
    };
    let (within, memory_bound) = found(&memory, &one, "nothing of it is bound by memory alone")?;
    let (_, products) = found(&layers, &within, "it has no layers")?;
    let (_, links) = found(&links, &one, no_links)?;
    Ok([products, memory_bound, links])
}
