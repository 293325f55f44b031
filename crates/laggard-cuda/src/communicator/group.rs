//! A group of ranks as one of them sees it: its name in roll calls, and how its failures spread.
//! One rank at one call is a [`Visit`].

use super::line::Line;
use super::mail::{Mail, Talk};
use laggard_backend::agreement::mixed;
use laggard_backend::{Abort, BackendError, Call, GroupId, Meeting, RollCall, messenger};
use laggard_types::Rank;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long others are given to answer a roll call. The asker has waited long already; this is for
/// an answer over a loaded network.
const PATIENCE: Duration = Duration::from_secs(1);

/// What all groups of a world have in common.
pub(crate) struct Settings {
    pub mail: Arc<Mail>,
    pub timeout: Duration,
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
    pub rank: Rank,
    /// Ranks of the job.
    pub members: Vec<Rank>,
    pub settings: Arc<Settings>,
    id: GroupId,
    failure: OnceLock<BackendError>,
}

/// What ranks exchange messages about; together with a number it makes a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Matter {
    /// The id of the group's communicator.
    Join,
    /// The wishes of split number so much.
    Split(u64),
    /// The id of the communicator for messages from one rank to another.
    Pair(Rank, Rank),
    /// What the calls are, of collective number so much.
    Collective(u64),
    /// What the calls are, of message number so much from one rank to another.
    Message(Rank, Rank, u64),
}

impl Group {
    pub(crate) fn new(
        rank: Rank,
        members: Vec<Rank>,
        id: GroupId,
        settings: &Arc<Settings>,
    ) -> Arc<Self> {
        Arc::new(Self {
            rank,
            members,
            settings: Arc::clone(settings),
            id,
            failure: OnceLock::new(),
        })
    }

    pub(crate) fn size(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// A member's rank in the job.
    pub(crate) fn job_rank(&self, member: Rank) -> Rank {
        self.members.get(member as usize).copied().unwrap_or(member)
    }

    /// This rank in the job.
    pub(crate) fn own_job_rank(&self) -> Rank {
        self.job_rank(self.rank)
    }

    /// The name of the group's splits in roll calls.
    fn splits_id(&self) -> GroupId {
        GroupId(mixed(&[self.id.0, u64::MAX]))
    }

    /// The name of a part of this group.
    pub(crate) fn part_id(&self, split: u64, color: u32) -> GroupId {
        GroupId(mixed(&[self.id.0, split, u64::from(color)]))
    }

    /// The error that stopped the group, if one did.
    pub(crate) fn check(&self) -> Result<(), BackendError> {
        self.failure
            .get()
            .map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Stops the group on this rank: calls that come now fail with this.
    pub(crate) fn fail(&self, error: &BackendError) {
        // The first error counts.
        let _ = self.failure.set(error.clone());
    }

    /// Stops the group on this rank, and the world on all, since the others may wait for this one.
    /// Does nothing if the group had stopped before: then the others know.
    pub(crate) fn give_up(&self, why: &str) {
        let rank = self.own_job_rank();
        let reason = format!("rank {rank} gave up: {why}");
        let error = BackendError::Aborted {
            rank,
            reason: reason.clone(),
        };
        if self.failure.set(error).is_ok() {
            self.settings.abort.abort(&reason);
        }
    }

    /// What every rank of some members of the group says on a matter, in order of them. Collective.
    ///
    /// # Errors
    /// [`BackendError::Timeout`] with what is waited for, and the rank that this one waits for,
    /// which need not be the one that is missing; [`BackendError::Aborted`].
    pub(crate) fn exchange(
        &self,
        (members, rank): (&[Rank], Rank),
        matter: Matter,
        message: &[u8],
        deadline: Instant,
    ) -> Result<Vec<Vec<u8>>, BackendError> {
        let talk = Talk {
            mail: &self.settings.mail,
            members,
            rank,
            topic: self.topic(matter),
        };
        messenger::all_gather(&talk, message, deadline)
    }

    /// What the first of some members says on a matter. Collective.
    ///
    /// # Errors
    /// As for [`Group::exchange`].
    pub(crate) fn tell(
        &self,
        (members, rank): (&[Rank], Rank),
        matter: Matter,
        message: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, BackendError> {
        let talk = Talk {
            mail: &self.settings.mail,
            members,
            rank,
            topic: self.topic(matter),
        };
        messenger::broadcast(&talk, message, deadline)
    }

    fn topic(&self, matter: Matter) -> u64 {
        let id = self.id.0;
        match matter {
            Matter::Join => mixed(&[id, 1]),
            Matter::Split(number) => mixed(&[id, 2, number]),
            Matter::Pair(from, to) => mixed(&[id, 3, from.into(), to.into()]),
            Matter::Collective(number) => mixed(&[id, 4, number]),
            Matter::Message(from, to, number) => mixed(&[id, 5, from.into(), to.into(), number]),
        }
    }

    /// This rank has come to a collective.
    pub(crate) fn arrive(&self, number: u64) {
        self.settings.roll_call.arrive(self.id, number);
    }

    /// This rank has come to a split.
    pub(crate) fn arrive_at_split(&self, number: u64) {
        self.settings.roll_call.arrive(self.splits_id(), number);
    }

    /// The members that have not come to a collective.
    pub(crate) fn missing(&self, number: u64) -> Vec<Rank> {
        let roll_call = &self.settings.roll_call;
        roll_call.missing(self.id, number, &self.members, PATIENCE)
    }

    /// An error of a wait in a split, with those that are missing.
    pub(crate) fn split_error(&self, error: BackendError, number: u64) -> BackendError {
        let missing = || {
            let roll_call = &self.settings.roll_call;
            roll_call.missing(self.splits_id(), number, &self.members, PATIENCE)
        };
        self.late(error, "split", missing)
    }

    /// Gives an error of a wait its words and its missing ranks; other errors stay as they are.
    pub(crate) fn late(
        &self,
        error: BackendError,
        what: &str,
        missing: impl FnOnce() -> Vec<Rank>,
    ) -> BackendError {
        match error {
            BackendError::Timeout { waited, .. } => BackendError::Timeout {
                rank: self.own_job_rank(),
                waited,
                waiting_for: what.to_owned(),
                missing: missing(),
            },
            error => error,
        }
    }
}

/// One rank at one call.
pub(crate) struct Visit {
    pub group: Arc<Group>,
    pub call: Call,
    /// The call in words.
    pub what: String,
    /// The calls that it is one of.
    pub line: Arc<Line>,
    /// Its number there, from 1.
    pub number: u32,
}

impl Visit {
    /// The ranks that are waited for.
    pub(crate) fn absent(&self) -> Vec<Rank> {
        match &self.call {
            Call::Send { to: peer, .. } | Call::Receive { from: peer, .. } => {
                vec![self.group.job_rank(*peer)]
            }
            _ => {
                // Before this rank has arrived, it waits for whoever holds up the call before.
                let arrived = u32::from(self.line.has_arrived(self.number));
                match self.number.wrapping_sub(1).wrapping_add(arrived) {
                    0 => Vec::new(),
                    number => {
                        self.group.arrive(self.line.arrived().into());
                        self.group.missing(number.into())
                    }
                }
            }
        }
    }

    /// The error of a call whose time has run out.
    pub(crate) fn timeout(&self) -> BackendError {
        BackendError::Timeout {
            rank: self.group.own_job_rank(),
            waited: self.group.settings.timeout,
            waiting_for: self.what.clone(),
            missing: self.absent(),
        }
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
