//! What can go wrong between ranks, always with the rank and the operation.

use laggard_types::{DataType, Rank};
use std::time::Duration;
use thiserror::Error;

/// An error of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BackendError {
    /// A wait ran past its deadline.
    #[error(
        "rank {rank} waited {waited:?} for {waiting_for}; missing: {}",
        list(missing)
    )]
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
    /// A rank that no connection leads to.
    #[error(
        "rank {rank} cannot reach rank {other} on host {host}: {why}\n\
         hint: ranks connect over TCP, on ports that the system picks"
    )]
    Unreachable {
        /// Who tried.
        rank: Rank,
        /// The rank it tried to reach.
        other: Rank,
        /// The host that this rank runs on.
        host: String,
        /// What happened instead.
        why: String,
    },
    /// Two pieces of work use the same elements at the same time, and one of them writes.
    #[error(
        "{wanted} overlaps {held} by other work\nhint: put the token of the other work into `after`"
    )]
    Conflict {
        /// Which access to which elements was wanted.
        wanted: String,
        /// Which access to which elements is under way.
        held: String,
    },
    /// A range that is not within its buffer or slice.
    #[error("elements {start}..{end} do not fit the {len} elements that are there")]
    OutOfBounds {
        /// First element wanted.
        start: usize,
        /// One past the last element wanted.
        end: usize,
        /// Elements that are there.
        len: usize,
    },
    /// A buffer of another element type than the one asked for.
    #[error("the buffer holds {}, not {}", found.name(), wanted.name())]
    WrongType {
        /// The type asked for.
        wanted: DataType,
        /// The buffer's type.
        found: DataType,
    },
    /// Memory of a device where only the host's will do.
    #[error("{memory} is a device's, and this works on host memory alone")]
    NotOnHost {
        /// Which memory.
        memory: String,
    },
    /// A device failed, for good or for this one call.
    #[error("rank {rank}: {device}: {doing}: {why}{}", hint_line(hint))]
    Device {
        /// The rank whose device it is.
        rank: Rank,
        /// The device, by name and number.
        device: String,
        /// What was being done.
        doing: String,
        /// What the device's driver says.
        why: String,
        /// What to do about it; empty where nothing is known.
        hint: String,
    },
    /// The code that did the work panicked.
    #[error("work on queue {queue} panicked: {message}")]
    Panicked {
        /// The queue that the work was on.
        queue: u32,
        /// The panic's message.
        message: String,
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

fn hint_line(hint: &str) -> String {
    if hint.is_empty() {
        return String::new();
    }
    format!("\nhint: {hint}")
}

fn list(ranks: &[Rank]) -> String {
    if ranks.is_empty() {
        return "unknown".to_owned();
    }
    ranks
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
