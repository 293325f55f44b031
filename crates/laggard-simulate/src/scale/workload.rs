//! What is simulated: groups, times of each pipeline stage, and everything that makes ranks differ.
//! Where the times come from is not known here.

use super::noise::Jitter;
use crate::error::{SimulateError, in_range, positive};
use laggard_schedule::Layout;
use laggard_types::Rank;
use std::ops::Range;

/// Ranks that can be simulated.
const MOST_RANKS: u64 = 1 << 22;
/// Steps that can be simulated.
const MOST_STEPS: u64 = 1 << 24;
/// Passes of all stages of a replica together.
const MOST_PASSES: u64 = 1 << 19;

/// Times of one pipeline stage on a rank whose factor is 1, seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageTimes {
    /// Kernels of one micro-batch forward, all pieces of the stage together.
    pub forward_s: f64,
    /// Kernels of one micro-batch backward, what is computed again included.
    pub backward_s: f64,
    /// Exposed transfers within the forward pass of one micro-batch (tensor, context, expert).
    pub forward_exposed_s: f64,
    /// The same for backward.
    pub backward_exposed_s: f64,
    /// Reduction of gradients that backward does not hide.
    pub reduce_exposed_s: f64,
    /// The update.
    pub optimizer_s: f64,
    /// Gathering of updated parameters, where they are sharded.
    pub gather_exposed_s: f64,
}

/// Ranks that take longer in every step.
#[derive(Debug, Clone, PartialEq)]
pub struct SlowRanks {
    /// Who: a rank, the ranks of a node, ...
    pub ranks: Range<Rank>,
    /// What their kernels' times are multiplied by, above 0. Factors of one rank multiply.
    pub factor: f64,
}

/// A stop of some ranks at the begin of some steps, such as a fault or a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Delay {
    /// Who stops.
    pub ranks: Range<Rank>,
    /// In which steps.
    pub steps: Range<u32>,
    /// For how long, each time.
    pub seconds: f64,
}

/// Random stops of single ranks at the begin of a step, such as garbage collection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pauses {
    /// Probability that a rank stops in a step.
    pub probability: f64,
    /// For how long.
    pub seconds: f64,
}

/// A job to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleWorkload {
    /// The groups that synchronise, and the micro-batches of each replica.
    pub layout: Layout,
    /// Times of each pipeline stage.
    pub stages: Vec<StageTimes>,
    /// A micro-batch's way from one stage to the next, seconds.
    pub transfer_s: f64,
    /// The host's work before the first kernel of a step, seconds.
    pub input_s: f64,
    /// What all ranks do together between gradients and update, seconds.
    pub norm_s: f64,
    /// What kernels' times of each class are multiplied by: 1 for the fastest class.
    pub class_factors: Vec<f64>,
    /// The class of each rank.
    pub class_of_rank: Vec<u16>,
    /// Ranks that are slow for good.
    pub slow: Vec<SlowRanks>,
    /// How kernels' times vary.
    pub jitter: Jitter,
    /// Random stops.
    pub pauses: Option<Pauses>,
    /// Known stops.
    pub delays: Vec<Delay>,
    /// Steps to simulate.
    pub steps: u32,
    /// Seed of all that is random.
    pub seed: u64,
}

impl ScaleWorkload {
    /// Number of ranks.
    pub fn ranks(&self) -> u32 {
        self.layout.world_size() as u32
    }

    /// Refuses what cannot be simulated.
    pub(super) fn check(&self) -> Result<(), SimulateError> {
        at_most("ranks", self.layout.world_size(), MOST_RANKS)?;
        at_most("steps", self.steps.into(), MOST_STEPS)?;
        self.layout.check(self.ranks())?;
        let most = self.layout.micro_batches.iter().max().copied().unwrap_or(1);
        let passes = u64::from(most) * u64::from(self.layout.pieces()) * 2;
        at_most("passes of one replica", passes, MOST_PASSES)?;
        let stages = self.layout.pipeline_parallel as usize;
        has_length("stage times", self.stages.len(), "pipeline stages", stages)?;
        let ranks = self.ranks() as usize;
        has_length("classes", self.class_of_rank.len(), "ranks", ranks)?;
        self.check_times()?;
        for factor in &self.class_factors {
            positive("the factor of a class", *factor)?;
        }
        let classes = self.class_factors.len();
        if let Some(class) = self
            .class_of_rank
            .iter()
            .find(|c| usize::from(**c) >= classes)
        {
            return Err(dangling("class", u64::from(*class), classes as u64));
        }
        self.check_troubles()?;
        self.jitter.check()
    }

    fn check_times(&self) -> Result<(), SimulateError> {
        for (stage, times) in self.stages.iter().enumerate() {
            for (name, value) in [
                ("forward", times.forward_s),
                ("backward", times.backward_s),
                ("exposed forward", times.forward_exposed_s),
                ("exposed backward", times.backward_exposed_s),
                ("exposed reduction", times.reduce_exposed_s),
                ("optimizer", times.optimizer_s),
                ("exposed gather", times.gather_exposed_s),
            ] {
                time(format!("the {name} time of stage {stage}"), value)?;
            }
        }
        time("the transfer time", self.transfer_s)?;
        time("the input time", self.input_s)?;
        time("the norm time", self.norm_s)
    }

    fn check_troubles(&self) -> Result<(), SimulateError> {
        let ranks = u64::from(self.ranks());
        let within = |range: &Range<Rank>| match u64::from(range.end) > ranks {
            true => Err(dangling("rank", u64::from(range.end) - 1, ranks)),
            false => Ok(()),
        };
        for slow in &self.slow {
            within(&slow.ranks)?;
            positive(format!("the factor of ranks {:?}", slow.ranks), slow.factor)?;
        }
        for delay in &self.delays {
            within(&delay.ranks)?;
            time(
                format!("the delay of ranks {:?}", delay.ranks),
                delay.seconds,
            )?;
        }
        let Some(pauses) = self.pauses else {
            return Ok(());
        };
        time("the length of a pause", pauses.seconds)?;
        let (name, value) = ("the probability of a pause", pauses.probability);
        let fits = (0.0..=1.0).contains(&value);
        in_range(name, value, fits, "between 0 and 1").map(|_| ())
    }

    /// What each rank's kernels' times are multiplied by for good.
    pub(super) fn factors(&self) -> Vec<f64> {
        let of_class = |class: &u16| self.class_factors[usize::from(*class)];
        let mut factors: Vec<f64> = self.class_of_rank.iter().map(of_class).collect();
        for slow in &self.slow {
            let ranks = slow.ranks.start as usize..slow.ranks.end as usize;
            for factor in factors.get_mut(ranks).unwrap_or_default() {
                *factor *= slow.factor;
            }
        }
        factors
    }
}

fn has_length(
    what: &'static str,
    given: usize,
    subjects: &'static str,
    needed: usize,
) -> Result<(), SimulateError> {
    match given == needed {
        true => Ok(()),
        false => Err(SimulateError::Length {
            what,
            given,
            subjects,
            needed,
        }),
    }
}

fn at_most(what: &'static str, given: u64, limit: u64) -> Result<(), SimulateError> {
    match given <= limit {
        true => Ok(()),
        false => Err(SimulateError::TooLarge { what, given, limit }),
    }
}

fn dangling(what: &'static str, index: u64, count: u64) -> SimulateError {
    SimulateError::Dangling { what, index, count }
}

fn time(name: impl Into<String>, value: f64) -> Result<(), SimulateError> {
    let fits = value.is_finite() && value >= 0.0;
    in_range(name, value, fits, "at least 0 and finite").map(|_| ())
}
