//! Work by count: what a rank's step needs, and what all ranks do.

use crate::intake;
use laggard_record::Manifest;
use laggard_schedule::{Phase, ScheduleOrigin};

/// What all ranks do, over any number of steps.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Work {
    /// FLOP of the model.
    pub(crate) flop: f64,
    /// The part of it that is attention.
    pub(crate) attention_flop: f64,
    /// FLOP that are done again.
    pub(crate) recomputed_flop: f64,
    pub(crate) tokens: f64,
}

impl Work {
    /// One step as the schedule has it.
    pub(crate) fn nominal(manifest: &Manifest) -> Self {
        let schedule = &manifest.schedule;
        let mut first = vec![None; schedule.programs.len()];
        let mut ranks = vec![0.0; schedule.programs.len()];
        for (rank, program) in schedule.program_of_rank.iter().enumerate() {
            first[*program as usize].get_or_insert(rank);
            ranks[*program as usize] += 1.0;
        }
        let mut all = Self::default();
        for (rank, count) in first.into_iter().zip(ranks) {
            let Some(rank) = rank else { continue };
            NominalWork::of(manifest, rank).add_to(&mut all, count);
        }
        all.tokens /= ranks_per_replica(manifest);
        all
    }
}

/// One rank's step at nominal lengths.
pub(crate) struct NominalWork {
    /// What the model needs.
    pub(crate) model: Count,
    /// What is done again.
    pub(crate) again: Count,
}

/// FLOP, and the tokens that they are for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) linear: f64,
    pub(crate) attention: f64,
    tokens: f64,
    tokens_squared: f64,
}

impl NominalWork {
    pub(crate) fn of(manifest: &Manifest, rank: usize) -> Self {
        let schedule = &manifest.schedule;
        let (mut model, mut again, mut micro_batches) = (Count::default(), Count::default(), 0);
        for &id in schedule.program(rank as u32) {
            let operation = &schedule.operations[id as usize];
            let count = match operation.phase {
                Phase::Recompute => &mut again,
                _ => &mut model,
            };
            count.linear += operation.flop;
            count.attention += operation.attention_flop;
            micro_batches = micro_batches.max(operation.micro_batch.map_or(0, |last| last + 1));
        }
        let workload = &manifest.workload;
        let sequences = f64::from(micro_batches) * f64::from(workload.micro_batch_sequences);
        let length = f64::from(workload.sequence_length);
        for count in [&mut model, &mut again] {
            count.tokens = sequences * length;
            count.tokens_squared = sequences * length * length;
        }
        Self { model, again }
    }

    /// Adds the work of so many ranks like this one.
    pub(crate) fn add_to(&self, all: &mut Work, ranks: f64) {
        all.flop += ranks * self.model.sum();
        all.attention_flop += ranks * self.model.attention;
        all.recomputed_flop += ranks * self.again.sum();
        all.tokens += ranks * self.tokens();
    }

    pub(crate) fn tokens(&self) -> f64 {
        self.model.tokens
    }
}

impl Count {
    /// The count for given tokens.
    pub(crate) fn given(self, work: Option<&intake::Work>) -> Self {
        match work {
            Some(work) if self.tokens > 0.0 => Self {
                linear: self.linear * work.tokens / self.tokens,
                attention: self.attention * work.tokens_squared / self.tokens_squared,
                tokens: work.tokens,
                tokens_squared: work.tokens_squared,
            },
            _ => self,
        }
    }

    pub(crate) fn sum(self) -> f64 {
        self.linear + self.attention
    }
}

/// All ranks of a replica work on the same tokens.
pub(crate) fn ranks_per_replica(manifest: &Manifest) -> f64 {
    match &manifest.schedule.origin {
        ScheduleOrigin::Generated(layout) => f64::from(layout.ranks_per_replica()),
        ScheduleOrigin::Trace => 1.0,
    }
}
