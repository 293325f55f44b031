//! Who has come to a collective call, where the backend itself cannot see it.

use laggard_types::Rank;
use std::time::Duration;

/// A group of ranks, by a number that all its members derive alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

/// Keeps count of the calls that this rank has come to, and asks others for theirs.
pub trait RollCall: Send + Sync {
    /// This rank has come to call number `call` of a group, from 1. Costs no more than a store: it
    /// is part of every step.
    fn arrive(&self, group: GroupId, call: u64);

    /// Which of `members` (by rank of the job) have not come to a call, or do not answer within
    /// `patience`. Asked only when a wait has run out.
    fn missing(&self, group: GroupId, call: u64, members: &[Rank], patience: Duration)
    -> Vec<Rank>;
}
