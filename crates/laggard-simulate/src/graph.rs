//! A step by its schedule: every operation of every rank on its stream, meeting points where ranks
//! wait for each other, and durations that somebody else models.
//!
//! Ranks that do the same in the same time are evaluated once: of blocks of replicas that are alike
//! in everything, one stands for all ([`predict_step`]). That is exact, because the members of a
//! collective that arrive together wait for each other no longer than one of them would alone.

#[cfg(test)]
mod closed_form;
mod symmetry;
mod timeline;

use crate::error::SimulateError;
use laggard_schedule::{Durations, Operation, Replay, Schedule, Times};
use laggard_types::Rank;

pub(crate) use symmetry::replicas_per_block;
pub use timeline::{PredictedTimeline, predicted_work};

/// Operations of all evaluated ranks together, above which a step does not fit in memory.
const LARGEST_GRAPH: usize = 1 << 24;

/// What one rank does in a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankTimes {
    /// Seconds that its kernels run.
    pub compute_s: f64,
    /// Seconds of its own transfers without the waiting, whether they are exposed or not.
    pub transfer_s: f64,
    /// Seconds of the step in which no kernel runs: waiting, exposed transfers, bubble, host.
    pub idle_s: f64,
}

/// A predicted step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepPrediction {
    /// Length of the step in seconds. Where a collective of the whole world ends a step, it is the
    /// time between two of them.
    pub step_s: f64,
    /// Times of every rank of the world.
    pub ranks: Vec<RankTimes>,
    /// How many ranks were evaluated; the others are like one of them.
    pub evaluated: usize,
}

/// Predicts one step of a schedule. `seconds` gives the duration of an operation on a rank, of a
/// meeting point without the waiting. `alike` gives ranks that take equally long for everything the
/// same number; where it gives each rank its own, every rank is evaluated.
///
/// # Errors
/// If the schedule cannot be evaluated, a duration is no time, or too many ranks differ.
pub fn predict_step(
    schedule: &Schedule,
    alike: impl Fn(Rank) -> u64,
    seconds: impl Fn(&Operation, Rank) -> f64,
) -> Result<StepPrediction, SimulateError> {
    let folded = symmetry::fold(schedule, alike);
    let small = folded.schedule.as_ref().unwrap_or(schedule);
    let operations = (0..small.world_size()).map(|rank| small.program(rank as Rank).len());
    let operations = operations.sum();
    if operations > LARGEST_GRAPH {
        return Err(SimulateError::LargeGraph {
            ranks: small.world_size(),
            operations,
            limit: LARGEST_GRAPH,
        });
    }
    let replay = Replay::new(small)?;
    let own = durations(&replay, small, |operation, rank| {
        seconds(operation, folded.original(rank))
    })?;
    let mut times = Times::default();
    let lanes = Durations {
        lanes: 1,
        own: &own,
        delay: None,
    };
    replay.evaluate(lanes, &mut times);
    let step_s = times.finish[0];
    let small_times = rank_times(&replay, small, &own, step_s);
    let ranks = (0..schedule.world_size())
        .map(|rank| small_times[folded.representative(rank as Rank) as usize])
        .collect();
    Ok(StepPrediction {
        step_s,
        ranks,
        evaluated: small.world_size(),
    })
}

/// Durations of all nodes in order.
pub(crate) fn durations(
    replay: &Replay,
    schedule: &Schedule,
    mut seconds: impl FnMut(&Operation, Rank) -> f64,
) -> Result<Vec<f64>, SimulateError> {
    let of_node = |node: &laggard_schedule::Node| {
        let operation = &schedule.operations[node.operation as usize];
        let value = seconds(operation, node.rank);
        if value.is_finite() && value >= 0.0 {
            return Ok(value);
        }
        Err(SimulateError::Duration {
            operation: operation.name.clone(),
            rank: node.rank,
            seconds: value,
        })
    };
    replay.nodes().iter().map(of_node).collect()
}

fn rank_times(replay: &Replay, schedule: &Schedule, own: &[f64], step_s: f64) -> Vec<RankTimes> {
    let of_rank = |rank: usize| {
        let (mut compute_s, mut transfer_s) = (0.0, 0.0);
        for &node in replay.nodes_of_rank(rank as Rank) {
            let id = replay.nodes()[node as usize].operation;
            match schedule.operations[id as usize].kind {
                laggard_schedule::OperationKind::Compute => compute_s += own[node as usize],
                laggard_schedule::OperationKind::Host => {}
                _ => transfer_s += own[node as usize],
            }
        }
        RankTimes {
            compute_s,
            transfer_s,
            idle_s: (step_s - compute_s).max(0.0),
        }
    };
    (0..schedule.world_size()).map(of_rank).collect()
}

#[cfg(test)]
mod tests;
