//! What can go wrong between ranks, always with the rank and the operation.

use laggard_types::Rank;
use std::time::Duration;
use thiserror::Error;

/// An error of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BackendError {
    /// A wait ran past its deadline.
    #[error("rank {rank} waited {waited:?} for {waiting_for}; missing: {}", list(missing))]
    Timeout {
        /// Who waited.
        rank: Rank,
        /// For how long.
        waited: Duration,
        /// The operation, in words.
        waiting_for: String,
        /// The ranks that did not arrive, as far as the backend knows.
        missing: Vec<Rank>,
    },
    /// Somebody called `abort`.
    #[error("rank {rank} stopped, because the world was aborted: {reason}")]
    Aborted {
        /// Who noticed.
        rank: Rank,
        /// The reason given to `abort`.
        reason: String,
    },
    /// Ranks of one group disagree about what they do together.
    #[error("rank {rank} calls {call} where rank {other} calls {other_call}")]
    Mismatch {
        /// The rank that reports.
        rank: Rank,
        /// What it calls.
        call: String,
        /// The rank it disagrees with.
        other: Rank,
        /// What that rank calls.
        other_call: String,
    },
    /// A call that cannot be made: a length, a root or a data type that does not fit.
    #[error("rank {rank}: invalid {call}: {why}")]
    Invalid {
        /// Who called.
        rank: Rank,
        /// The operation.
        call: String,
        /// What is wrong with it.
        why: String,
    },
    /// A queue, token or buffer of another device.
    #[error("unknown {what}")]
    Unknown {
        /// Which handle.
        what: String,
    },
    /// The operating system refused something.
    #[error("{what}: {why}")]
    System {
        /// What was tried.
        what: String,
        /// The system's answer.
        why: String,
    },
}

fn list(ranks: &[Rank]) -> String {
    if ranks.is_empty() {
        return "unknown".to_owned();
    }
    ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
