//! A group of ranks as one of them sees it: its lines, its name in roll calls, and how its failures
//! spread. One rank at one call is a [`Visit`].

use crate::line::{Line, Stopped};
use crate::wait::Pace;
use laggard_backend::agreement::mixed;
use laggard_backend::{Abort, BackendError, Call, GroupId, Meeting, RollCall};
use laggard_types::Rank;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long others are given to answer a roll call. The asker has waited long already; this is
/// for an answer over a loaded network, and for processes that share a processor.
const PATIENCE: Duration = Duration::from_secs(1);

/// What all groups of a world have in common.
pub(crate) struct Settings {
    pub timeout: Duration,
    pub pace: Pace,
    pub check_calls: bool,
    pub roll_call: Arc<dyn RollCall>,
    pub abort: Arc<Abort>,
}

impl Settings {
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }
}

/// A group of ranks. Inside it ranks are positions in the group; errors name ranks of the job.
pub(crate) struct Group {
    /// Carries the calls, on queues' threads.
    pub calls: Arc<Line>,
    /// Carries splits, on the callers' threads.
    pub side: Arc<Line>,
    pub members: Vec<Rank>,
    pub settings: Arc<Settings>,
    id: GroupId,
}

impl Group {
    pub(crate) fn new(
        (calls, side): (Arc<Line>, Arc<Line>),
        members: Vec<Rank>,
        id: GroupId,
        settings: &Arc<Settings>,
    ) -> Arc<Self> {
        Arc::new(Self {
            calls,
            side,
            members,
            settings: Arc::clone(settings),
            id,
        })
    }

    pub(crate) fn rank(&self) -> Rank {
        self.calls.rank()
    }

    pub(crate) fn size(&self) -> u32 {
        self.calls.size()
    }

    /// A member's rank in the job.
    pub(crate) fn job_rank(&self, member: Rank) -> Rank {
        self.members.get(member as usize).copied().unwrap_or(member)
    }

    /// The name of the group's splits in roll calls.
    pub(crate) fn splits_id(&self) -> GroupId {
        GroupId(mixed(&[self.id.0, u64::MAX]))
    }

    /// The name of a part of this group.
    pub(crate) fn part_id(&self, split: u64, color: u32) -> GroupId {
        GroupId(mixed(&[self.id.0, split, u64::from(color)]))
    }

    /// Stops the group on this rank.
    pub(crate) fn fail(&self, error: &BackendError) {
        self.calls.fail(error.clone());
        self.side.fail(error.clone());
    }

    /// Stops the group on this rank, and the world on all, since the others may wait for this one.
    /// Does nothing if the group had stopped before: then the others know.
    pub(crate) fn give_up(&self, why: &str) {
        if self.calls.check().is_err() {
            return;
        }
        let rank = self.calls.job_rank();
        let reason = format!("rank {rank} gave up: {why}");
        self.fail(&BackendError::Aborted {
            rank,
            reason: reason.clone(),
        });
        self.settings.abort.abort(&reason);
    }

    /// The members that have not come to a call of a group.
    pub(crate) fn missing(&self, group: GroupId, number: u64) -> Vec<Rank> {
        let roll_call = &self.settings.roll_call;
        roll_call.missing(group, number, &self.members, PATIENCE)
    }

    /// The error of an operation that stopped; `missing` is asked for only if it was late.
    pub(crate) fn error(
        &self,
        stopped: Stopped,
        what: &str,
        missing: impl FnOnce() -> Vec<Rank>,
    ) -> BackendError {
        let rank = self.calls.job_rank();
        match stopped {
            Stopped::Failed(error) => error,
            Stopped::Late => BackendError::Timeout {
                rank,
                waited: self.settings.timeout,
                waiting_for: what.to_owned(),
                missing: missing(),
            },
            Stopped::Truncated => BackendError::System {
                what: what.to_owned(),
                why: "another rank sent more than there is memory for".to_owned(),
            },
        }
    }
}

/// One rank at one call.
pub(crate) struct Visit {
    pub group: Arc<Group>,
    pub call: Call,
    /// The call in words.
    pub what: String,
    /// Counts the collectives of the group, or the transfers between two ranks, from 1.
    pub number: u64,
    pub has_arrived: AtomicBool,
}

impl Visit {
    /// Says that this rank has come to the collective.
    pub(crate) fn arrive(&self) {
        let Group { settings, id, .. } = &*self.group;
        settings.roll_call.arrive(*id, self.number);
        self.has_arrived.store(true, Ordering::Release);
    }

    /// The ranks that are waited for.
    pub(crate) fn absent(&self) -> Vec<Rank> {
        let peer = match &self.call {
            Call::Send { to: peer, .. } | Call::Receive { from: peer, .. } => *peer,
            _ => {
                // Before this rank has arrived, it waits for whoever holds up the call before.
                let arrived = u64::from(self.has_arrived.load(Ordering::Acquire));
                return match self.number - 1 + arrived {
                    0 => Vec::new(),
                    number => self.group.missing(self.group.id, number),
                };
            }
        };
        vec![self.group.job_rank(peer)]
    }

    /// The error of an operation of this call that stopped.
    pub(crate) fn error(&self, stopped: Stopped) -> BackendError {
        self.group.error(stopped, &self.what, || self.absent())
    }
}

impl Meeting for Visit {
    fn missing(&self) -> (String, Vec<Rank>) {
        (self.what.clone(), self.absent())
    }

    fn give_up(&self, why: &str) {
        self.group.give_up(why);
    }
}
