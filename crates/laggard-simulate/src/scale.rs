//! Whole steps of every rank: one draw for each rank, phase and step, through all groups that
//! synchronise.
//!
//! What a step is: every rank begins with its update (after which those of a stage and tensor
//! position wait for each other where parameters are sharded), stops and input; each micro-batch's
//! pass through a stage takes as long as the slowest of the ranks that share it (tensor, context
//! and expert parallel: they meet at the end of each pass), plus the exposed transfers; passes
//! follow each other as the schedule has it; when all replicas have reduced their gradients, the
//! step ends. A rank's factor holds for all micro-batches of its step and phase, so that a step of
//! `m` micro-batches is not averaged over `m` draws: jitter lasts longer than a pass. Under ZeRO-3,
//! whose gathers make all replicas meet in each layer, the slowest of all replicas sets each pass.
//!
//! Against the graph of the same schedule with the same draws this is exact, but for two things:
//! where members of a stage share passes and transfers between stages take time, the graph lets a
//! member that is early begin its transfer early (the step here is too long by at most what
//! transfers cost); under ZeRO-3 the graph lets ranks run two layers ahead of others.
//!
//! Results are functions of the workload alone: draws are keyed by rank, phase and step, maxima
//! and counts do not depend on order, and sums are made in a fixed one.

mod blame;
mod block;
mod expected;
mod noise;
mod pipeline;
mod sketch;
mod tally;
mod workload;

use crate::error::SimulateError;
use crate::graph::replicas_per_block;
use block::{Arrivals, Batch, RankState, Updated, World, nominal_s};
use laggard_schedule::Zero;
use laggard_types::Rank;
use pipeline::{LANES, Lane, Pipeline};
use rayon::prelude::*;
use std::collections::BTreeMap;
use tally::Binning;

pub(crate) use noise::quantile_at;
pub use noise::{DrawPhase, Jitter, JitterDistribution, Noise, NoiseState};
pub use workload::{Delay, Pauses, ScaleWorkload, SlowRanks, StageTimes};

/// Ranks that one piece of parallel work has at least.
const CHUNK_RANKS: usize = 512;

/// A simulated job.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleRun {
    /// The step without anything random.
    pub baseline: Baseline,
    /// Every step.
    pub steps: Vec<StepOutcome>,
    /// Every rank.
    pub ranks: Vec<RankOutcome>,
}

/// Lengths of a step without jitter, pauses and delays, seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baseline {
    /// If classes shared the work in proportion to their speeds.
    pub even_s: f64,
    /// With the factors of classes.
    pub classes_s: f64,
    /// With ranks that are slow for good, too.
    pub lasting_s: f64,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepOutcome {
    /// Its length, seconds.
    pub wall_s: f64,
    /// Its length had nobody stopped.
    pub unpaused_s: f64,
    /// When the first replica (or block of replicas that share experts) had reduced its gradients.
    pub first_s: f64,
    /// The mean over replicas.
    pub mean_s: f64,
    /// When the last but one had.
    pub second_s: f64,
    /// When the last had.
    pub arrival_s: f64,
    /// The rank that took longest in the replica that came last.
    pub last_rank: Rank,
}

/// One rank over all steps. Own time is what it takes by itself: input, kernels and stops, and the
/// update where no gather of parameters follows it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankOutcome {
    /// Mean of its own time, seconds.
    pub mean_s: f64,
    /// Its shortest own time.
    pub shortest_s: f64,
    /// Median.
    pub p50_s: f64,
    /// 95th percentile.
    pub p95_s: f64,
    /// 99th percentile.
    pub p99_s: f64,
    /// Its longest own time.
    pub longest_s: f64,
    /// Its share of what replicas waited for the last, summed over steps: each delay is shared by
    /// those who were not there yet (the Shapley value), and a replica's share is put on the rank
    /// that took longest in it. Shares sum to the last arrival less the first.
    pub blamed_s: f64,
    /// Steps in which it took longest in the replica that came last.
    pub last_steps: u32,
}

/// Simulates every rank in every step.
///
/// # Errors
/// If the workload is none that can be simulated.
pub fn simulate_ranks(workload: &ScaleWorkload) -> Result<ScaleRun, SimulateError> {
    workload.check()?;
    let mut shares = workload.layout.micro_batches.clone();
    shares.sort_unstable();
    shares.dedup();
    let least = least_factor(workload)?;
    let compile = |share| Ok((share, Pipeline::new(workload, share, least)?));
    let pipelines: Result<BTreeMap<_, _>, SimulateError> =
        shares.into_iter().map(compile).collect();
    let pipelines = pipelines?;
    let baseline = baseline(workload, &pipelines)?;
    let (steps, states) = run(workload, &pipelines)?;
    Ok(ScaleRun {
        baseline,
        steps,
        ranks: states,
    })
}

/// What no factor of any rank in any step is below, those of the baseline included.
fn least_factor(workload: &ScaleWorkload) -> Result<f64, SimulateError> {
    let noise = Noise::new(&workload.jitter, workload.seed)?;
    let lasting = workload.factors().into_iter().fold(1.0, f64::min);
    let classes = workload
        .class_factors
        .iter()
        .copied()
        .fold(lasting, f64::min);
    Ok(classes * noise.least().min(1.0))
}

fn baseline(
    workload: &ScaleWorkload,
    pipelines: &BTreeMap<u32, Pipeline>,
) -> Result<Baseline, SimulateError> {
    let calm = ScaleWorkload {
        jitter: Jitter::NONE,
        pauses: None,
        delays: Vec::new(),
        steps: 1,
        ..workload.clone()
    };
    let wall = |workload: &ScaleWorkload| {
        let (steps, _) = run(workload, pipelines)?;
        Ok::<f64, SimulateError>(steps[0].wall_s)
    };
    let lasting_s = wall(&calm)?;
    let classes = ScaleWorkload {
        slow: Vec::new(),
        ..calm
    };
    let classes_s = wall(&classes)?;
    let speeds = classes.class_of_rank.iter();
    let speeds = speeds.map(|class| 1.0 / classes.class_factors[usize::from(*class)]);
    let shared = f64::from(classes.ranks()) / speeds.sum::<f64>();
    let even = ScaleWorkload {
        class_factors: vec![shared; classes.class_factors.len()],
        ..classes
    };
    Ok(Baseline {
        even_s: wall(&even)?,
        classes_s,
        lasting_s,
    })
}

fn run(
    workload: &ScaleWorkload,
    pipelines: &BTreeMap<u32, Pipeline>,
) -> Result<(Vec<StepOutcome>, Vec<RankOutcome>), SimulateError> {
    let world = world(workload, pipelines)?;
    let (blocks, block_ranks) = (world.blocks(), world.block_ranks());
    let mut states = vec![RankState::NEW; blocks * block_ranks];
    let mut arrivals = vec![Arrivals::NONE; blocks];
    let chunk = CHUNK_RANKS.div_ceil(block_ranks);
    let mut steps = Vec::with_capacity(workload.steps as usize);
    for first in (0..workload.steps).step_by(LANES) {
        let count = (workload.steps - first).min(LANES as u32);
        let batch = Batch {
            first,
            steps: count as usize,
        };
        let updated = world
            .gathers()
            .then(|| updated(&world, &mut states, batch, chunk));
        let shape = blame::Shape { chunk, block_ranks };
        let unpaused = evaluate(
            &world,
            &mut states,
            &mut arrivals,
            (batch, shape),
            updated.as_ref(),
        );
        let spreads = blame::spreads(&arrivals, chunk);
        blame::assign(&arrivals, &spreads, &mut states, (batch, shape));
        for lane in 0..batch.steps {
            let spread = &spreads[lane];
            let place = arrivals[spread.last_block].slowest[lane] as usize;
            states[spread.last_block * block_ranks + place].tally.last += 1;
            steps.push(StepOutcome {
                wall_s: spread.last_s + workload.norm_s,
                unpaused_s: unpaused[lane] + workload.norm_s,
                first_s: spread.first_s,
                mean_s: spread.mean_s,
                second_s: spread.second_s,
                arrival_s: spread.last_s,
                last_rank: world.rank(spread.last_block, place),
            });
        }
    }
    let ranks = outcomes(&world, &states);
    Ok((steps, ranks))
}

fn world<'a>(
    workload: &'a ScaleWorkload,
    pipelines: &'a BTreeMap<u32, Pipeline>,
) -> Result<World<'a>, SimulateError> {
    let noise = noise::Noise::new(&workload.jitter, workload.seed)?;
    let times = &workload.stages[0];
    let passes = times.forward_s + times.backward_s;
    // Forward and backward of a step are drawn apart.
    let both = times.forward_s.hypot(times.backward_s) / passes.max(f64::MIN_POSITIVE);
    let layout = &workload.layout;
    let pause = workload.pauses.map_or(0.0, |pauses| pauses.probability);
    Ok(World {
        workload,
        binning: Binning::new(noise.deviation * both),
        noise,
        factors: workload.factors(),
        pipelines,
        per_block: match layout.zero {
            Zero::Parameters => layout.data_parallel,
            _ => replicas_per_block(layout),
        },
        // Saturates at the largest number.
        pause_below: (pause * 2.0_f64.powi(64)) as u64,
    })
}

/// When updated parameters are complete, by stage and tensor position.
fn updated(world: &World<'_>, states: &mut [RankState], batch: Batch, chunk: usize) -> Updated {
    let layout = &world.workload.layout;
    let slots = world.workload.stages.len() * layout.tensor_parallel as usize;
    let none = || vec![[0.0; LANES]; slots];
    let block_ranks = world.block_ranks();
    let of_chunk = |(index, states): (usize, &mut [RankState])| {
        let mut updated = none();
        for (at, ranks) in states.chunks_mut(block_ranks).enumerate() {
            world.update(index * chunk + at, ranks, batch, &mut updated);
        }
        updated
    };
    let chunks = states.par_chunks_mut(chunk * block_ranks).enumerate();
    chunks.map(of_chunk).reduce(none, |mut a, b| {
        a.iter_mut().zip(&b).for_each(|(a, b)| block::raise(a, b));
        a
    })
}

/// Every block's steps. Gives when the last would have been done had nobody stopped.
fn evaluate(
    world: &World<'_>,
    states: &mut [RankState],
    arrivals: &mut [Arrivals],
    (batch, shape): (Batch, blame::Shape),
    updated: Option<&Updated>,
) -> Lane {
    let block_ranks = shape.block_ranks;
    let of_chunk =
        |scratch: &mut block::Scratch,
         (index, (states, arrivals)): (usize, (&mut [RankState], &mut [Arrivals]))| {
            let mut unpaused = [0.0; LANES];
            let ranks = states.chunks_mut(block_ranks);
            for (at, (ranks, arrival)) in ranks.zip(arrivals).enumerate() {
                let block = index * shape.chunk + at;
                let (times, without) = world.block(block, ranks, (batch, updated), scratch);
                *arrival = times;
                block::raise(&mut unpaused, &without);
            }
            unpaused
        };
    let states = states.par_chunks_mut(shape.chunk * block_ranks);
    let arrivals = arrivals.par_chunks_mut(shape.chunk);
    let chunks = states.zip(arrivals).enumerate();
    chunks.map_init(|| world.scratch(), of_chunk).reduce(
        || [0.0; LANES],
        |mut a, b| {
            block::raise(&mut a, &b);
            a
        },
    )
}

/// What is kept of every rank, in order of rank.
fn outcomes(world: &World<'_>, states: &[RankState]) -> Vec<RankOutcome> {
    let workload = world.workload;
    let sharing = (workload.layout.tensor_parallel * workload.layout.context_parallel) as usize;
    let (block_ranks, replicas) = (world.block_ranks(), workload.layout.data_parallel as usize);
    let stages = workload.stages.len();
    let width = block_ranks / stages;
    let of_rank = |rank: usize| {
        let (within, stage) = (rank % (sharing * replicas), rank / (sharing * replicas));
        let place = within / width * block_ranks + stage * width + within % width;
        let tally = &states[place].tally;
        let replica = within / sharing;
        let count = f64::from(workload.layout.micro_batches[replica]);
        let times = &workload.stages[stage];
        let nominal = nominal_s(times, world.factors[rank], count, !world.gathers());
        let nominal = nominal + workload.input_s;
        let quantile = |p| tally.quantile_s(&world.binning, nominal, p);
        RankOutcome {
            mean_s: tally.mean_s(),
            shortest_s: tally.shortest_s,
            p50_s: quantile(0.50),
            p95_s: quantile(0.95),
            p99_s: quantile(0.99),
            longest_s: tally.longest_s,
            blamed_s: tally.blamed_s,
            last_steps: tally.last,
        }
    };
    (0..states.len()).into_par_iter().map(of_rank).collect()
}

#[cfg(test)]
mod tests;
