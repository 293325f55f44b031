//! Which random numbers are drawn where: every purpose, step and rank has a stream of its own, so
//! that no draw depends on the order of threads.

use laggard_stats::Rng;

/// What random numbers are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Token ids of a micro-batch.
    Tokens,
    /// The embedding table.
    Embedding,
    /// First values of a weight; its layer takes the place of the step.
    Weights,
    /// What the head should put out.
    Targets,
    /// One injected fault, by its position.
    Fault(u8),
}

/// Positions of [`Purpose::Fault`] that there are streams for.
pub(crate) const MOST_FAULTS: usize = 1 << 7;

/// The generator of a purpose, step and index (a rank or micro-batch below 2^24).
pub(crate) fn generator(seed: u64, purpose: Purpose, step: u32, index: u32) -> Rng {
    let purpose = match purpose {
        Purpose::Tokens => 0,
        Purpose::Embedding => 1,
        Purpose::Weights => 2,
        Purpose::Targets => 3,
        Purpose::Fault(position) => MOST_FAULTS as u64 + u64::from(position),
    };
    Rng::for_stream(
        seed,
        purpose << 56 | u64::from(step) << 24 | u64::from(index),
    )
}
