//! The conformance suite: what every backend must do, checked against answers known beforehand. A
//! backend passes it by running every [`Check`] at several world sizes, through a [`Launcher`] of
//! its own. Inputs are small integers, so that results are exact in every element type; one check
//! bounds the rounding of fractions.

mod collectives;
mod device;
mod failures;
mod fixture;
mod messages;
mod order;

pub use device::{Bench, DEVICE_CHECKS, DeviceCheck, check_device};

use crate::World;
use laggard_types::Rank;
use thiserror::Error;

/// Something that a backend did otherwise than it must.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("rank {rank}: {case}: {why}")]
pub struct Violation {
    /// The rank that saw it.
    pub rank: Rank,
    /// What was done.
    pub case: String,
    /// What was expected, and what came.
    pub why: String,
}

/// Starts worlds of one backend.
pub trait Launcher {
    /// Runs `body` on every rank of a fresh world of so many ranks, at the same time, and returns
    /// the first violation of any rank that this process runs. A check makes worlds fail, so none
    /// may be used for a second one.
    ///
    /// # Errors
    /// The first violation.
    fn run(
        &self,
        ranks: u32,
        body: &(dyn Fn(&World) -> Result<(), Violation> + Sync),
    ) -> Result<(), Violation>;
}

/// One part of the suite, to be run on every rank of a fresh world.
#[derive(Clone, Copy)]
pub struct Check {
    /// What it is about.
    pub name: &'static str,
    /// Ranks that it needs at least.
    pub least_ranks: u32,
    /// The check itself, as one rank runs it.
    pub body: fn(&World) -> Result<(), Violation>,
}

/// Every check.
pub const CHECKS: &[Check] = &[
    Check {
        name: "all_reduce",
        least_ranks: 1,
        body: collectives::all_reduce,
    },
    Check {
        name: "reduce",
        least_ranks: 1,
        body: collectives::reduce,
    },
    Check {
        name: "reduce_scatter",
        least_ranks: 1,
        body: collectives::reduce_scatter,
    },
    Check {
        name: "all_gather",
        least_ranks: 1,
        body: collectives::all_gather,
    },
    Check {
        name: "gather and scatter",
        least_ranks: 1,
        body: collectives::gather_scatter,
    },
    Check {
        name: "all_to_all",
        least_ranks: 1,
        body: collectives::all_to_all,
    },
    Check {
        name: "broadcast",
        least_ranks: 1,
        body: collectives::broadcast,
    },
    Check {
        name: "rounding",
        least_ranks: 1,
        body: collectives::rounding,
    },
    Check {
        name: "ring",
        least_ranks: 1,
        body: order::ring,
    },
    Check {
        name: "split",
        least_ranks: 1,
        body: order::split,
    },
    Check {
        name: "order of tokens",
        least_ranks: 1,
        body: order::tokens,
    },
    Check {
        name: "parts of one buffer",
        least_ranks: 1,
        body: order::parts,
    },
    Check {
        name: "messages",
        least_ranks: 1,
        body: messages::messages,
    },
    Check {
        name: "invalid calls",
        least_ranks: 1,
        body: failures::invalid,
    },
    Check {
        name: "another collective",
        least_ranks: 2,
        body: failures::other_collective,
    },
    Check {
        name: "another reduction",
        least_ranks: 2,
        body: failures::other_reduction,
    },
    Check {
        name: "another type",
        least_ranks: 2,
        body: failures::other_type,
    },
    Check {
        name: "another length",
        least_ranks: 2,
        body: failures::other_length,
    },
    Check {
        name: "another block length",
        least_ranks: 2,
        body: failures::other_block,
    },
    Check {
        name: "another message length",
        least_ranks: 2,
        body: failures::other_message,
    },
    Check {
        name: "missing rank",
        least_ranks: 2,
        body: failures::missing,
    },
    Check {
        name: "abort",
        least_ranks: 1,
        body: failures::abort,
    },
];

/// Runs every check that so many ranks suffice for.
///
/// # Errors
/// The first violation, with the name of its check.
pub fn check_all(launcher: &dyn Launcher, ranks: u32) -> Result<(), Violation> {
    for check in CHECKS.iter().filter(|check| check.least_ranks <= ranks) {
        launcher
            .run(ranks, &check.body)
            .map_err(|violation| Violation {
                case: format!("{} over {ranks} ranks: {}", check.name, violation.case),
                ..violation
            })?;
    }
    Ok(())
}
