//! The state that the ranks of one group share: where they meet, what they lay out for each other,
//! and why they stopped, if they did. Knows nothing of what the calls do.

use super::mailbox::Mailbox;
use super::post::Post;
use super::split::Splits;
use crate::cpu::queue::Meeting;
use crate::gate::{Abort, Abortable, Gate, Patience};
use crate::{BackendError, Call};
use laggard_types::Rank;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, TryLockError, Weak};
use std::time::Duration;

/// How a group waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub timeout: Duration,
    pub spin: Duration,
}

/// A group of ranks. Inside it ranks are positions in the group; errors name ranks of the world.
pub(super) struct Group {
    members: Vec<Rank>,
    waiting: Waiting,
    seats: Vec<Seat>,
    /// Arrivals of all ranks at all meetings so far: meeting `m`, from 1, is complete when this is
    /// `m` times the size of the group.
    arrivals: AtomicU64,
    pub(super) gate: Gate,
    failure: OnceLock<Failure>,
    pub(super) splits: Splits,
    abort: Arc<Abort>,
}

/// What belongs to one rank; on cache lines of its own.
#[repr(align(128))]
pub(super) struct Seat {
    /// Meetings that the rank has arrived at.
    meetings: AtomicU64,
    /// Used in turn, so that a rank may already lay out its next call while a slower one still
    /// compares the last.
    posts: [RwLock<Option<Post>>; 2],
    pub(super) mailbox: Mailbox,
    pub(super) gate: Gate,
}

/// Why a group stopped. A group that has failed stays failed.
enum Failure {
    Timeout {
        waiting_for: String,
        missing: Vec<Rank>,
        waited: Duration,
    },
    Aborted {
        reason: String,
    },
}

impl Group {
    pub(super) fn new(members: Vec<Rank>, waiting: Waiting, abort: &Arc<Abort>) -> Arc<Self> {
        let seat = |_: &Rank| Seat {
            meetings: AtomicU64::new(0),
            posts: Default::default(),
            mailbox: Mailbox::default(),
            gate: Gate::default(),
        };
        let group = Arc::new(Self {
            seats: members.iter().map(seat).collect(),
            members,
            waiting,
            arrivals: AtomicU64::new(0),
            gate: Gate::default(),
            failure: OnceLock::new(),
            splits: Splits::default(),
            abort: Arc::clone(abort),
        });
        let listener: Weak<Self> = Arc::downgrade(&group);
        abort.listen(listener);
        group
    }

    /// A group of some of the members, by their positions in this one.
    pub(super) fn subgroup(&self, positions: &[Rank]) -> Arc<Self> {
        let members = positions
            .iter()
            .map(|at| self.members[*at as usize])
            .collect();
        Self::new(members, self.waiting, &self.abort)
    }

    pub(super) fn size(&self) -> u32 {
        // Groups are made of `u32` ranks, so this never saturates.
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn seat(&self, rank: Rank) -> &Seat {
        &self.seats[rank as usize]
    }

    pub(super) fn world_rank(&self, rank: Rank) -> Rank {
        self.members[rank as usize]
    }

    pub(super) fn patience(&self) -> Patience {
        Patience {
            spin: self.waiting.spin,
            limit: Some(self.waiting.timeout),
        }
    }

    /// The error of a group that has failed, as `rank` sees it.
    pub(super) fn check(&self, rank: Rank) -> Result<(), BackendError> {
        let rank = self.world_rank(rank);
        match self.failure.get() {
            None => Ok(()),
            Some(Failure::Timeout {
                waiting_for,
                missing,
                waited,
            }) => Err(BackendError::Timeout {
                rank,
                waited: *waited,
                waiting_for: waiting_for.clone(),
                missing: missing.clone(),
            }),
            Some(Failure::Aborted { reason }) => Err(BackendError::Aborted {
                rank,
                reason: reason.clone(),
            }),
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    /// Stops the group because `missing` (positions in it) did not come; returns the error.
    pub(super) fn time_out(
        &self,
        rank: Rank,
        waiting_for: String,
        missing: &[Rank],
    ) -> Result<(), BackendError> {
        let missing = missing.iter().map(|at| self.world_rank(*at)).collect();
        self.fail(Failure::Timeout {
            waiting_for,
            missing,
            waited: self.waiting.timeout,
        });
        self.check(rank)
    }

    /// Waits until every rank has come to this meeting.
    pub(super) fn meet(&self, rank: Rank, call: &Call) -> Result<(), BackendError> {
        self.check(rank)?;
        let meetings = &self.seat(rank).meetings;
        let meeting = meetings.load(Ordering::Relaxed) + 1;
        meetings.store(meeting, Ordering::Relaxed);
        let complete = meeting * self.members.len() as u64;
        if self.arrivals.fetch_add(1, Ordering::AcqRel) + 1 == complete {
            self.gate.ring();
            return Ok(());
        }
        let all_came = || self.arrivals.load(Ordering::Acquire) >= complete;
        self.gate
            .wait(self.patience(), || all_came() || self.has_failed());
        if all_came() {
            return Ok(());
        }
        self.check(rank)?;
        self.time_out(rank, call.to_string(), &self.absent(meeting))
    }

    /// Lays out a post until the guard is dropped.
    pub(super) fn publish(&self, rank: Rank, post: Post) -> Published<'_> {
        let place = self.place(rank, post.number);
        *place.write().unwrap_or_else(PoisonError::into_inner) = Some(post);
        Published { place }
    }

    /// What a rank has laid out for a call; `None` if it has withdrawn it, or is just about to:
    /// waiting for it here, with other posts in hand, could end in a circle.
    pub(super) fn post(
        &self,
        rank: Rank,
        number: u64,
    ) -> Option<RwLockReadGuard<'_, Option<Post>>> {
        let post = match self.place(rank, number).try_read() {
            Ok(post) => post,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let is_current = post.as_ref().is_some_and(|post| post.number == number);
        is_current.then_some(post)
    }

    fn place(&self, rank: Rank, number: u64) -> &RwLock<Option<Post>> {
        &self.seat(rank).posts[usize::from(number % 2 == 1)]
    }

    /// Positions of the ranks that have not come to a meeting.
    fn absent(&self, meeting: u64) -> Vec<Rank> {
        (0..self.size())
            .filter(|rank| self.seat(*rank).meetings.load(Ordering::Relaxed) < meeting)
            .collect()
    }

    fn fail(&self, failure: Failure) {
        // Only the first failure counts.
        let _ = self.failure.set(failure);
        self.gate.ring();
        for seat in &self.seats {
            seat.gate.ring();
        }
    }
}

impl Abortable for Group {
    fn abort(&self, reason: &str) {
        self.fail(Failure::Aborted {
            reason: reason.to_owned(),
        });
    }
}

/// A post that peers may look at. Dropping it withdraws the post, after the peers that are just
/// working on it have finished.
pub(super) struct Published<'a> {
    place: &'a RwLock<Option<Post>>,
}

impl Published<'_> {
    /// Leaves the post where it is until the next but one call of this rank. Only for posts without
    /// claims on memory.
    pub(super) fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        self.place
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

/// One rank at one call.
pub(super) struct Visit {
    pub group: Arc<Group>,
    pub rank: Rank,
    pub call: Arc<Call>,
}

impl Meeting for Visit {
    fn missing(&self) -> (String, Vec<Rank>) {
        let missing = match &*self.call {
            Call::Send { to: peer, .. } | Call::Receive { from: peer, .. } => vec![*peer],
            _ => {
                let arrived = self.group.seat(self.rank).meetings.load(Ordering::Relaxed);
                self.group.absent(arrived)
            }
        };
        let missing = missing
            .iter()
            .map(|rank| self.group.world_rank(*rank))
            .collect();
        (self.call.to_string(), missing)
    }

    fn give_up(&self, why: &str) {
        let rank = self.group.world_rank(self.rank);
        self.group.fail(Failure::Aborted {
            reason: format!("rank {rank} gave up: {why}"),
        });
    }
}
