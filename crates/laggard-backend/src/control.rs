//! The control plane between processes: a tree of TCP connections beside whatever carries the data.
//! It notices ranks that are gone and says which, passes on aborts and small messages, and asks who
//! has come to a collective call. Knows nothing of MPI and nothing of what a step does.
//!
//! The ranks of a host are connected to its lowest, the host's leader, and leaders to rank 0. One
//! thread per process does all of it and sleeps in between.

mod card;
mod engine;
mod greeting;
mod join;
mod link;
mod loss;
mod naming;
mod part;
mod post;
mod progress;
mod rendezvous;
mod roll_calls;
mod shared;
mod tcp_messenger;
#[cfg(test)]
mod tests;
mod tree;
mod wire;
mod witness;

pub use loss::{How, LastSeen, Loss};
pub use part::part_of;
pub use progress::{Position, Progress};
pub use rendezvous::MeetingPoint;
pub use tree::HostRanks;
pub use witness::{Testimony, WitnessProgram, serve_witness};

use crate::gate::{Abort, Patience};
use crate::{BackendError, GroupId, Messenger, RollCall};
use engine::{Engine, Start};
use laggard_types::Rank;
use shared::{Ending, Parts, Shared, lock};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use wire::{Frame, Letter};
use witness::{Ground, Witnesses};

/// Longest time between two signs of life.
const USUAL_HEARTBEAT: Duration = Duration::from_millis(200);
/// Signs of life that a rank gives, at least, before its silence counts.
const BEATS_PER_SILENCE: u32 = 10;
/// How long the control thread may take to end once it has been told to.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// How long things may take.
#[derive(Debug, Clone)]
pub struct ControlOptions {
    /// A rank that gives no sign of life for so long is lost. Messages that nobody takes are given
    /// up after as long.
    pub silence: Duration,
    /// All connections must be there after so long.
    pub join: Duration,
    /// Time between two signs of life; at most half of `silence`.
    pub heartbeat: Duration,
    /// What each host's leader starts, to say who was the first to go where launchers leave no
    /// survivors; on all ranks or on none. None is started by default.
    pub witness: Option<WitnessProgram>,
}

impl ControlOptions {
    /// The same patience for joining and for silence, and a heartbeat that suits it.
    pub fn new(silence: Duration) -> Self {
        Self {
            silence,
            join: silence,
            heartbeat: USUAL_HEARTBEAT.min(silence / BEATS_PER_SILENCE),
            witness: None,
        }
    }
}

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Who sent it.
    pub from: Rank,
    /// What it says.
    pub payload: Vec<u8>,
}

/// This process's part of the control plane.
///
/// To be ended with [`ControlPlane::leave`]; a plane that is dropped without is a loss to the
/// others.
pub struct ControlPlane {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl ControlPlane {
    /// Connects all ranks of a messenger's world. Collective. `host` is this rank's host: ranks
    /// that give the same name are one host, and those of lost hosts are named by it. An abort of
    /// `abort` is told to all other ranks, and theirs abort it.
    ///
    /// # Errors
    /// [`BackendError::Timeout`] and [`BackendError::Unreachable`] name the ranks, with their
    /// hosts, that did not come within [`ControlOptions::join`]; errors of the messenger;
    /// [`BackendError::Invalid`] for a heartbeat that does not fit the silence;
    /// [`BackendError::System`] if the system refuses sockets or threads.
    pub fn join(
        messenger: &dyn Messenger,
        host: &str,
        abort: Arc<Abort>,
        options: &ControlOptions,
    ) -> Result<Arc<Self>, BackendError> {
        let rank = messenger.rank();
        let launcher = parent_id();
        if options.heartbeat.is_zero() || options.heartbeat > options.silence / 2 {
            let (heartbeat, silence) = (options.heartbeat, options.silence);
            return Err(BackendError::Invalid {
                rank,
                call: "join of the control plane".to_owned(),
                why: format!("a heartbeat of {heartbeat:?} and a silence of {silence:?}"),
            });
        }
        let system = |what: &str, why: std::io::Error| BackendError::System {
            what: format!("rank {rank}: {what}"),
            why: why.to_string(),
        };
        let deadline = Instant::now() + options.join;
        let joined = join::join(messenger, host, options.join)?;
        let ground = Ground {
            tree: &joined.tree,
            key: &joined.key,
            card: &joined.card,
            deadline,
        };
        let witnesses = match &options.witness {
            Some(program) => Witnesses::start(messenger, program, &ground)?,
            None => Witnesses::none(),
        };
        let pair = UnixStream::pair().and_then(|(waker, alarm)| {
            waker.set_nonblocking(true)?;
            alarm.set_nonblocking(true)?;
            Ok((waker, alarm))
        });
        let (waker, alarm) = pair.map_err(|error| system("a pair of sockets", error))?;
        let shared = Arc::new(Shared::new(Parts {
            rank,
            tree: joined.tree,
            options: options.clone(),
            abort: Arc::clone(&abort),
            waker,
            peers: joined.streams.iter().map(|(peer, _)| *peer).collect(),
        }));
        let engine = Engine::new(Start {
            shared: Arc::clone(&shared),
            streams: joined.streams,
            reception: joined.reception,
            way_to_root: joined.way_to_root,
            alarm,
            launcher,
            witnesses,
        });
        let thread = Builder::new().name("laggard-control".to_owned());
        let thread = thread.spawn(|| engine.run());
        let thread = thread.map_err(|error| system("starting the control thread", error))?;
        let listener: Weak<Shared> = Arc::downgrade(&shared);
        abort.listen(listener);
        let thread = Some(thread);
        Ok(Arc::new(Self { shared, thread }))
    }

    /// This rank.
    pub fn rank(&self) -> Rank {
        self.shared.rank
    }

    /// All hosts, in the order of their leaders.
    pub fn hosts(&self) -> &[HostRanks] {
        &self.shared.tree.hosts
    }

    /// The ranks of this rank's host, in ascending order.
    pub fn host_ranks(&self) -> &[Rank] {
        &self.shared.tree.host_of(self.shared.rank).ranks
    }

    /// Whether this rank is the lowest of its host.
    pub fn is_leader(&self) -> bool {
        self.leader_of(self.shared.rank) == Some(self.shared.rank)
    }

    /// The lowest rank of a rank's host; `None` if there is no such rank.
    pub fn leader_of(&self, rank: Rank) -> Option<Rank> {
        let tree = &self.shared.tree;
        tree.holds(rank).then(|| tree.leader_of(rank))
    }

    /// Where this rank says how far it is.
    pub fn progress(&self) -> &Progress {
        &self.shared.progress
    }

    /// Gives operations of a rank their words, such as "backward of layer 2", for the messages
    /// about lost ranks; to be called once.
    pub fn describe(&self, words: impl Fn(Rank, Position) -> String + Send + Sync + 'static) {
        let is_first = self.shared.describe.set(Box::new(words)).is_ok();
        debug_assert!(is_first, "operations are described once");
    }

    /// Whether this is the lowest rank of its host that is not gone: the one that speaks for it.
    pub fn is_first_left(&self) -> bool {
        let lost: Vec<Rank> = self
            .losses()
            .into_iter()
            .flat_map(|loss| loss.ranks)
            .collect();
        let mut left = self.host_ranks().iter().filter(|rank| !lost.contains(rank));
        left.next() == Some(&self.rank())
    }

    /// Has `tell` called, on the control thread, the moment that a rank is silent for too long,
    /// before it is known whether the whole host is: some launchers leave no time for more. Of
    /// connections that end, witnesses tell, who know which was the first. To be called once.
    pub fn on_silence(&self, tell: impl Fn(&Loss) + Send + Sync + 'static) {
        let is_first = self.shared.silence_listener.set(Box::new(tell)).is_ok();
        debug_assert!(is_first, "one listener for silence");
    }

    /// Names the run's record to the witnesses, for what they may have to say.
    pub fn name_record(&self, record: &Path) {
        let payload = record.as_os_str().as_bytes().to_vec();
        let (kind, from) = (0, self.shared.rank);
        let letter = Letter {
            kind,
            from,
            payload,
        };
        self.shared.leave_testament(letter);
    }

    /// The ranks that are gone without having left, in the order in which this was found out.
    pub fn losses(&self) -> Vec<Loss> {
        self.shared.losses()
    }

    /// Aborts the world of this process and those of all others.
    pub fn abort(&self, reason: &str) {
        self.shared.abort.abort(reason);
    }

    /// Aborts when the process that started this one is gone.
    pub fn watch_parent(&self) {
        self.shared.watches_parent.store(true, Ordering::Relaxed);
    }

    /// Sends a message to the rank above: a host's leader, or rank 0 from a leader. Waits while
    /// messages that the other has not taken yet fill some MiB.
    ///
    /// # Errors
    /// [`BackendError::Timeout`] if the other takes none for [`ControlOptions::silence`];
    /// [`BackendError::Unreachable`] if the connection is closed; [`BackendError::Invalid`] on rank
    /// 0, which has none above it, and for messages of more than 16 MiB.
    pub fn send_up(&self, kind: u8, payload: Vec<u8>) -> Result<(), BackendError> {
        let letter = self.shared.letter(kind, payload)?;
        let parent = self.shared.parent();
        let parent =
            parent.ok_or_else(|| self.shared.invalid("rank 0 has none above it".into()))?;
        self.shared.send(parent, &Frame::ToParent(letter))
    }

    /// Sends a message to rank 0, which may be this one.
    ///
    /// # Errors
    /// As for [`ControlPlane::send_up`].
    pub fn send_to_root(&self, kind: u8, payload: Vec<u8>) -> Result<(), BackendError> {
        let letter = self.shared.letter(kind, payload)?;
        match self.shared.parent() {
            Some(parent) => self.shared.send(parent, &Frame::ToRoot(letter)),
            None => {
                self.shared.deliver(letter);
                Ok(())
            }
        }
    }

    /// Sends a message from rank 0 to every rank, also to itself. Ranks that are gone get none.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] on other ranks, and for messages of more than 16 MiB;
    /// [`BackendError::Timeout`] as for [`ControlPlane::send_up`].
    pub fn send_down(&self, kind: u8, payload: Vec<u8>) -> Result<(), BackendError> {
        if !self.shared.is_root() {
            return Err(self.shared.invalid("only rank 0 sends to all".to_owned()));
        }
        let letter = self.shared.letter(kind, payload)?;
        let peers: Vec<_> = self.shared.queues().keys().copied().collect();
        let frame = Frame::ToAll(letter.clone());
        for peer in peers {
            match self.shared.send(peer, &frame) {
                Err(BackendError::Unreachable { .. }) => {}
                other => other?,
            }
        }
        self.shared.deliver(letter);
        Ok(())
    }

    /// The messages of a kind, also those that came before this call. They end when the plane does.
    /// A later call for the same kind takes over what comes from then on.
    pub fn inbox(&self, kind: u8) -> Receiver<Envelope> {
        self.shared.inbox(kind)
    }

    /// Ends the plane: waits until all ranks have called this, and closes the connections, which
    /// then is a loss to nobody. All messages sent before have arrived when this returns without an
    /// error. After an abort it waits for nobody, but sees to it that the others hear of the abort.
    ///
    /// # Errors
    /// [`BackendError::Timeout`] with those that this rank waited for, after `patience`;
    /// [`BackendError::Aborted`] after an abort. The plane is closed all the same.
    pub fn leave(&self, patience: Duration) -> Result<(), BackendError> {
        let shared = &self.shared;
        let begin = Instant::now();
        shared.end(Ending::Leaving);
        let has_ended = || shared.has_ended.load(Ordering::Acquire);
        let wait = |limit: Duration, ready: &dyn Fn() -> bool| {
            let (spin, limit) = (Duration::ZERO, Some(limit));
            shared.gate.wait(Patience { spin, limit }, ready)
        };
        let is_over = wait(patience, &|| has_ended() || shared.reason().is_some());
        let waited = begin.elapsed();
        let missing = lock(&shared.awaited).clone();
        shared.end(Ending::Hurrying);
        let is_closed = wait(LAST_PATIENCE, &has_ended);
        if let Some(reason) = shared.reason() {
            let (rank, reason) = (shared.rank, reason.to_owned());
            return Err(BackendError::Aborted { rank, reason });
        }
        if is_over && is_closed {
            return Ok(());
        }
        let names: Vec<_> = missing.iter().map(|rank| shared.tree.name(*rank)).collect();
        Err(BackendError::Timeout {
            rank: shared.rank,
            waited,
            waiting_for: format!("{} to leave the control plane", names.join(", ")),
            missing,
        })
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.shared.end(Ending::Dropping);
        let me = std::thread::current().id();
        // The control thread itself may hold the last reference, while it aborts the world.
        if let Some(thread) = self
            .thread
            .take()
            .filter(|thread| thread.thread().id() != me)
        {
            drop(thread.join());
        }
    }
}

impl RollCall for ControlPlane {
    fn arrive(&self, group: GroupId, call: u64) {
        self.shared.arrive(group, call);
    }

    fn missing(
        &self,
        group: GroupId,
        call: u64,
        members: &[Rank],
        patience: Duration,
    ) -> Vec<Rank> {
        self.shared.missing(group, call, members, patience)
    }
}
