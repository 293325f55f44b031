//! What a simulation of all ranks refuses.

use laggard_schedule::{LayoutError, ReplayError};
use thiserror::Error;

/// A workload that cannot be simulated.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ScaleError {
    /// The layout contradicts itself.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The order of passes cannot be evaluated.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A list has not one entry for each of its subjects.
    #[error("{given} {what} for {needed} {subjects}")]
    Length {
        /// What is listed.
        what: &'static str,
        /// How many there are.
        given: usize,
        /// Who should have one.
        subjects: &'static str,
        /// How many should be there.
        needed: usize,
    },
    /// A duration or factor that cannot be.
    #[error("{what} is {value}\nhint: {hint}")]
    Value {
        /// What it is.
        what: String,
        /// What was given.
        value: f64,
        /// What would be possible.
        hint: &'static str,
    },
    /// A jitter that cannot be drawn.
    #[error("{what} of the jitter {why}")]
    Jitter {
        /// The parameter.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A class, rank or step that is not there.
    #[error("{what} {index} is referred to, but there are only {count}")]
    Dangling {
        /// What is referred to.
        what: &'static str,
        /// The reference.
        index: u64,
        /// How many there are.
        count: u64,
    },
    /// The number of steps or ranks is beyond what fits in memory.
    #[error("{what}: {given}, of which at most {limit} can be simulated")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        given: u64,
        /// The limit.
        limit: u64,
    },
}
