//! Blocks of replicas that meet nobody else before gradients are reduced: when each is done, and
//! which of its ranks took longest, for some steps at once.

use super::noise::{DrawPhase, Noise, NoiseState};
use super::pipeline::{LANES, Lane, Pipeline, StageLanes, later};
use super::tally::{Binning, RankTally};
use super::workload::{ScaleWorkload, StageTimes};
use laggard_schedule::Zero;
use laggard_stats::splitmix64_at;
use laggard_types::Rank;
use std::collections::BTreeMap;

/// What all blocks have in common.
pub(super) struct World<'a> {
    pub(super) workload: &'a ScaleWorkload,
    pub(super) noise: Noise,
    pub(super) binning: Binning,
    /// Lasting factor of each rank.
    pub(super) factors: Vec<f64>,
    /// Passes by micro-batches of a replica.
    pub(super) pipelines: &'a BTreeMap<u32, Pipeline>,
    /// Replicas of a block.
    pub(super) per_block: u32,
    /// The share of ranks' steps that have a pause, of 2^64.
    pub(super) pause_below: u64,
}

/// What a rank's draws stand at, and what is kept of it.
#[derive(Debug, Clone)]
pub(super) struct RankState {
    noise: [NoiseState; 3],
    pub(super) tally: RankTally,
}

impl RankState {
    pub(super) const NEW: Self = Self {
        noise: [NoiseState::START; 3],
        tally: RankTally::EMPTY,
    };
}

/// Steps that are simulated together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    pub(super) first: u32,
    /// At most [`LANES`].
    pub(super) steps: usize,
}

/// When a block is done with a step, and who took longest in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrivals {
    /// Seconds from the begin of the step to the end of gradient reduction.
    pub(super) at: Lane,
    /// Place in the block of the rank that took longest by itself.
    pub(super) slowest: [u32; LANES],
}

impl Arrivals {
    pub(super) const NONE: Self = Self {
        at: [0.0; LANES],
        slowest: [0; LANES],
    };
}

/// When updated parameters are there, by `[stage][tensor position]`, where ranks wait for each
/// other after the update.
pub(super) type Updated = Vec<Lane>;

/// Buffers of one thread.
pub(super) struct Scratch {
    stages: Vec<StageLanes>,
    first: Vec<Lane>,
    first_paused: Vec<Lane>,
    drawn: Drawn,
    ends: Vec<Lane>,
    last: Vec<Lane>,
}

impl World<'_> {
    /// Blocks of the world.
    pub(super) fn blocks(&self) -> usize {
        (self.workload.layout.data_parallel / self.per_block) as usize
    }

    /// Ranks of one block.
    pub(super) fn block_ranks(&self) -> usize {
        (self.per_block * self.workload.layout.ranks_per_replica()) as usize
    }

    /// Ranks of one stage of a block.
    fn width(&self) -> usize {
        self.block_ranks() / self.workload.stages.len()
    }

    /// The rank at a place in a block: stage by stage.
    pub(super) fn rank(&self, block: usize, place: usize) -> Rank {
        let layout = &self.workload.layout;
        let sharing = layout.tensor_parallel * layout.context_parallel;
        let (stage, within) = (place / self.width(), place % self.width());
        let replica = block as u32 * self.per_block + stage as u32 * layout.data_parallel;
        sharing * replica + within as u32
    }

    pub(super) fn scratch(&self) -> Scratch {
        let stages = self.workload.stages.len();
        Scratch {
            stages: vec![StageLanes::ZERO; stages],
            first: vec![[0.0; LANES]; stages],
            first_paused: vec![[0.0; LANES]; stages],
            drawn: Drawn::ZERO,
            ends: Vec::new(),
            last: vec![[0.0; LANES]; stages],
        }
    }

    /// Whether updated parameters are gathered at the end of a step.
    pub(super) fn gathers(&self) -> bool {
        matches!(self.workload.layout.zero, Zero::Optimizer | Zero::Gradients)
    }

    /// Draws the updates of a block that the steps begin with, and raises `updated` to them.
    pub(super) fn update(
        &self,
        block: usize,
        ranks: &mut [RankState],
        batch: Batch,
        updated: &mut Updated,
    ) {
        let tensor = self.workload.layout.tensor_parallel as usize;
        for (place, state) in ranks.iter_mut().enumerate() {
            let (stage, rank) = (place / self.width(), self.rank(block, place));
            let optimizer = self.optimizer(rank, stage, state, batch);
            let slot = stage * tensor + rank as usize % tensor;
            raise(&mut updated[slot], &optimizer);
        }
    }

    fn optimizer(&self, rank: Rank, stage: usize, state: &mut RankState, batch: Batch) -> Lane {
        let scale = self.factors[rank as usize] * self.workload.stages[stage].optimizer_s;
        self.draw((rank, DrawPhase::Optimizer), state, (batch, scale))
    }

    /// A rank's seconds of one phase, if they are `scale` without jitter.
    fn draw(
        &self,
        (rank, phase): (Rank, DrawPhase),
        state: &mut RankState,
        (batch, scale): (Batch, f64),
    ) -> Lane {
        let mut seconds = [0.0; LANES];
        let noise = &mut state.noise[phase as usize];
        let factors = &mut seconds[..batch.steps];
        self.noise.fill((rank, phase), batch.first, noise, factors);
        seconds.map(|factor| factor * scale)
    }

    /// One block's steps, and when it would have been done without pauses and delays. `updated` is
    /// there where parameters are gathered.
    pub(super) fn block(
        &self,
        block: usize,
        ranks: &mut [RankState],
        (batch, updated): (Batch, Option<&Updated>),
        scratch: &mut Scratch,
    ) -> (Arrivals, Lane) {
        let replica = block * self.per_block as usize;
        let micro_batches = self.workload.layout.micro_batches[replica];
        let mut arrivals = Arrivals::NONE;
        let mut longest = [0.0; LANES];
        let mut has_pause = false;
        let width = self.width();
        for stage in 0..self.workload.stages.len() {
            let mut slowest = StageLanes::ZERO;
            let (mut first, mut first_paused) = ([0.0; LANES], [0.0; LANES]);
            let members = ranks.iter_mut().enumerate().skip(stage * width);
            for (place, state) in members.take(width) {
                let rank = self.rank(block, place);
                let member = Member {
                    rank,
                    stage,
                    micro_batches,
                };
                let drawn = &mut scratch.drawn;
                self.member(member, state, (batch, updated), drawn);
                has_pause |= drawn.has_pause;
                raise(&mut slowest.forward, &drawn.forward);
                raise(&mut slowest.backward, &drawn.backward);
                raise(&mut first, &drawn.first);
                raise(&mut first_paused, &drawn.first_paused);
                let slowest = longest.iter_mut().zip(&mut arrivals.slowest);
                for ((longest, slowest), own) in slowest.zip(&drawn.own) {
                    if own > longest {
                        (*longest, *slowest) = (*own, place as u32);
                    }
                }
            }
            scratch.stages[stage] = slowest;
            scratch.first[stage] = first;
            scratch.first_paused[stage] = first_paused;
        }
        let pipeline = &self.pipelines[&micro_batches];
        let unpaused = self.arrival(pipeline, scratch, false);
        arrivals.at = match has_pause {
            true => self.arrival(pipeline, scratch, true),
            false => unpaused,
        };
        (arrivals, unpaused)
    }

    fn arrival(&self, pipeline: &Pipeline, scratch: &mut Scratch, paused: bool) -> Lane {
        let first = if paused {
            &scratch.first_paused
        } else {
            &scratch.first
        };
        pipeline.evaluate(&scratch.stages, first, &mut scratch.ends, &mut scratch.last);
        let mut at = [0.0; LANES];
        for (end, times) in scratch.last.iter().zip(&self.workload.stages) {
            let reduced = end.map(|end| end + times.reduce_exposed_s);
            raise(&mut at, &reduced);
        }
        at
    }

    fn member(
        &self,
        member: Member,
        state: &mut RankState,
        (batch, updated): (Batch, Option<&Updated>),
        drawn: &mut Drawn,
    ) {
        let workload = self.workload;
        let Member {
            rank,
            stage,
            micro_batches,
        } = member;
        let times = &workload.stages[stage];
        let factor = self.factors[rank as usize];
        let (forward, backward) = (factor * times.forward_s, factor * times.backward_s);
        drawn.forward = self.draw((rank, DrawPhase::Forward), state, (batch, forward));
        drawn.backward = self.draw((rank, DrawPhase::Backward), state, (batch, backward));
        let tensor = workload.layout.tensor_parallel as usize;
        let ready = match updated {
            Some(updated) => {
                let mut ready = updated[stage * tensor + rank as usize % tensor];
                ready
                    .iter_mut()
                    .for_each(|at| *at += times.gather_exposed_s);
                ready
            }
            None => self.optimizer(rank, stage, state, batch),
        };
        let pauses = self.pauses(rank, batch);
        drawn.has_pause = pauses.is_some();
        let pauses = pauses.unwrap_or([0.0; LANES]);
        let transfer = if stage > 0 { workload.transfer_s } else { 0.0 };
        let share = 1.0 / f64::from(workload.layout.virtual_stages);
        let count = f64::from(micro_batches);
        let begin = workload.input_s + transfer;
        let alone = updated.is_none();
        for (lane, ready) in ready.iter().enumerate().take(batch.steps) {
            drawn.first[lane] = ready + begin + share * drawn.forward[lane];
            drawn.first_paused[lane] = drawn.first[lane] + pauses[lane];
            let passes = count * (drawn.forward[lane] + drawn.backward[lane]);
            let update = if alone { *ready } else { 0.0 };
            drawn.own[lane] = update + workload.input_s + pauses[lane] + passes;
        }
        let nominal = nominal_s(times, factor, count, alone) + workload.input_s;
        state
            .tally
            .add(&self.binning, nominal, &drawn.own[..batch.steps]);
    }

    /// A rank's stops at the begin of the steps, if it has any.
    fn pauses(&self, rank: Rank, batch: Batch) -> Option<Lane> {
        let mut seconds = [0.0; LANES];
        let mut any = false;
        if let Some(pauses) = self.workload.pauses.filter(|_| self.pause_below > 0) {
            let key = self.noise.key(rank, DrawPhase::Pause);
            for (step, value) in (u64::from(batch.first)..).zip(&mut seconds[..batch.steps]) {
                if splitmix64_at(key, step) <= self.pause_below {
                    *value += pauses.seconds;
                    any = true;
                }
            }
        }
        for delay in self
            .workload
            .delays
            .iter()
            .filter(|delay| delay.ranks.contains(&rank))
        {
            for (step, value) in (batch.first..).zip(&mut seconds[..batch.steps]) {
                if delay.steps.contains(&step) {
                    *value += delay.seconds;
                    any = true;
                }
            }
        }
        any.then_some(seconds)
    }
}

/// Which rank is drawn.
#[derive(Debug, Clone, Copy)]
struct Member {
    rank: Rank,
    stage: usize,
    micro_batches: u32,
}

/// One rank's steps.
struct Drawn {
    forward: Lane,
    backward: Lane,
    first: Lane,
    first_paused: Lane,
    own: Lane,
    has_pause: bool,
}

impl Drawn {
    const ZERO: Self = Self {
        forward: [0.0; LANES],
        backward: [0.0; LANES],
        first: [0.0; LANES],
        first_paused: [0.0; LANES],
        own: [0.0; LANES],
        has_pause: false,
    };
}

/// What a rank takes by itself in a step without jitter, the host's input apart.
pub(super) fn nominal_s(times: &StageTimes, factor: f64, micro_batches: f64, update: bool) -> f64 {
    let passes = micro_batches * (times.forward_s + times.backward_s);
    factor * (passes + if update { times.optimizer_s } else { 0.0 })
}

pub(super) fn raise(to: &mut Lane, by: &Lane) {
    for (to, by) in to.iter_mut().zip(by) {
        *to = later(*to, *by);
    }
}
