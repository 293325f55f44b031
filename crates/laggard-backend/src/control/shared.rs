//! What the control thread and the threads that use the plane share: what is to be sent, what came
//! in, and what is known of the others.

use super::loss::Loss;
use super::progress::Progress;
use super::roll_calls::Rolls;
use super::tree::{ROOT, Tree};
use super::wire::{Frame, LONGEST_PAYLOAD_BYTES, Letter};
use super::{ControlOptions, Envelope, Position};
use crate::BackendError;
use crate::gate::{Abort, Abortable, Gate, Patience};
use laggard_types::Rank;
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that may wait for one connection before a sender is made to wait.
const ROOM_BYTES: usize = 8 << 20;

/// What an operation is called.
pub(super) type Describe = Box<dyn Fn(Rank, Position) -> String + Send + Sync>;

/// Is told at once when a rank is silent.
pub(super) type SilenceListener = Box<dyn Fn(&Loss) + Send + Sync>;

/// How far the end of the plane has come. It only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Ending {
    No,
    /// Waits for the others.
    Leaving,
    /// Waits no more, but says good-bye.
    Hurrying,
    /// Drops everything.
    Dropping,
}

/// Frames for one connection.
#[derive(Default)]
pub(super) struct Queue {
    pub frames: VecDeque<Vec<u8>>,
    /// Bytes of the first frame that are sent already.
    pub sent_bytes: usize,
    /// Bytes of all frames.
    pub held_bytes: usize,
}

#[derive(Default)]
struct Inboxes {
    senders: BTreeMap<u8, Sender<Envelope>>,
    /// What came before it was asked for.
    waiting: BTreeMap<u8, Receiver<Envelope>>,
    is_closed: bool,
}

pub(super) struct Shared {
    pub rank: Rank,
    pub tree: Tree,
    pub options: ControlOptions,
    pub progress: Progress,
    pub describe: OnceLock<Describe>,
    pub silence_listener: OnceLock<SilenceListener>,
    /// For the witnesses: where what they say is to be written down.
    testament: Mutex<Option<Letter>>,
    pub abort: Arc<Abort>,
    /// The reason of the abort, from the moment on that the others are told.
    reason: OnceLock<String>,
    /// Who aborted, and why, if it was another rank.
    heard: OnceLock<(Rank, String)>,
    /// The rank that this one reports to, or `NOBODY`.
    parent: AtomicU32,
    /// By peer; there is an entry for each open connection.
    queues: Mutex<BTreeMap<Rank, Queue>>,
    inboxes: Mutex<Inboxes>,
    losses: Mutex<Vec<Loss>>,
    pub rolls: Rolls,
    ending: AtomicU8,
    pub has_ended: AtomicBool,
    /// Whom `leave` still waits for.
    pub awaited: Mutex<Vec<Rank>>,
    pub watches_parent: AtomicBool,
    /// Rung after any change that somebody may wait for.
    pub gate: Gate,
    /// A byte into it wakes the control thread.
    waker: UnixStream,
    #[cfg(test)]
    pub is_frozen: AtomicBool,
    /// Ranks whose position has been heard.
    #[cfg(test)]
    pub positions: Mutex<std::collections::BTreeSet<Rank>>,
}

const NOBODY: Rank = Rank::MAX;

/// A lock whose holder cannot have left it half-written.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a plane is made of.
pub(super) struct Parts {
    pub rank: Rank,
    pub tree: Tree,
    pub options: ControlOptions,
    pub abort: Arc<Abort>,
    pub waker: UnixStream,
    /// Those that it is connected to.
    pub peers: Vec<Rank>,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let queues = parts.peers.iter().map(|peer| (*peer, Queue::default()));
        Self {
            rank: parts.rank,
            parent: AtomicU32::new(parts.tree.parent_of(parts.rank).unwrap_or(NOBODY)),
            tree: parts.tree,
            options: parts.options,
            progress: Progress::default(),
            describe: OnceLock::new(),
            silence_listener: OnceLock::new(),
            testament: Mutex::default(),
            abort: parts.abort,
            reason: OnceLock::new(),
            heard: OnceLock::new(),
            queues: Mutex::new(queues.collect()),
            inboxes: Mutex::default(),
            losses: Mutex::default(),
            rolls: Rolls::default(),
            ending: AtomicU8::new(Ending::No as u8),
            has_ended: AtomicBool::new(false),
            awaited: Mutex::default(),
            watches_parent: AtomicBool::new(false),
            gate: Gate::default(),
            waker: parts.waker,
            #[cfg(test)]
            is_frozen: AtomicBool::new(false),
            #[cfg(test)]
            positions: Mutex::default(),
        }
    }

    /// Wakes the control thread; a full pipe wakes it too.
    pub(super) fn wake(&self) {
        drop((&self.waker).write(&[0]));
    }

    pub(super) fn ending(&self) -> Ending {
        match self.ending.load(Ordering::Acquire) {
            0 => Ending::No,
            1 => Ending::Leaving,
            2 => Ending::Hurrying,
            _ => Ending::Dropping,
        }
    }

    pub(super) fn end(&self, ending: Ending) {
        self.ending.fetch_max(ending as u8, Ordering::AcqRel);
        self.wake();
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    pub(super) fn parent(&self) -> Option<Rank> {
        Some(self.parent.load(Ordering::Acquire)).filter(|parent| *parent != NOBODY)
    }

    pub(super) fn queues(&self) -> MutexGuard<'_, BTreeMap<Rank, Queue>> {
        lock(&self.queues)
    }

    /// A connection more. `is_parent`: this rank reports to it from now on.
    pub(super) fn open(&self, peer: Rank, is_parent: bool) {
        if is_parent {
            self.parent.store(peer, Ordering::Release);
        }
        let mut queues = self.queues();
        let queue = queues.entry(peer).or_default();
        *queue = Queue::default();
        // Who comes now has not heard of what happened before.
        for loss in self.losses() {
            queue.push(Frame::Loss(loss).encode());
        }
        if let Some(reason) = self.reason() {
            queue.push(self.abort_frame(reason));
        }
    }

    /// A connection less.
    pub(super) fn close(&self, peer: Rank) {
        self.queues().remove(&peer);
        self.gate.ring();
    }

    /// The peer that the way to a rank leads over.
    pub(super) fn next_hop(&self, to: Rank) -> Option<Rank> {
        let queues = self.queues();
        let leader = self.tree.leader_of(to);
        let near = [to, leader].into_iter().filter(|hop| *hop != self.rank);
        // Whoever is below this rank and has no connection any more is not behind the parent
        // either.
        let is_below = leader == self.rank;
        let parent = self
            .parent()
            .filter(|hop| !is_below && queues.contains_key(hop));
        near.filter(|hop| queues.contains_key(hop))
            .chain(parent)
            .next()
    }

    /// Sends on without waiting: what is relayed is bounded by how long a peer may stay silent.
    pub(super) fn push(&self, peer: Rank, frame: &Frame) {
        if let Some(queue) = self.queues().get_mut(&peer) {
            queue.push(frame.encode());
        }
    }

    /// Sends to all peers except one.
    pub(super) fn push_all(&self, frame: &Frame, except: Option<Rank>) {
        let bytes = frame.encode();
        let mut queues = self.queues();
        let others = queues.iter_mut().filter(|(peer, _)| Some(**peer) != except);
        others.for_each(|(_, queue)| queue.push(bytes.clone()));
    }

    /// Sends to children: everybody but the parent.
    pub(super) fn push_down(&self, frame: &Frame) {
        self.push_all(frame, self.parent());
    }

    /// Sends a letter, waiting for room.
    pub(super) fn send(&self, peer: Rank, frame: &Frame) -> Result<(), BackendError> {
        let bytes = frame.encode();
        let limit = Some(self.options.silence);
        let spin = Duration::ZERO;
        let begin = Instant::now();
        let has_room = || {
            self.queues()
                .get(&peer)
                .is_none_or(|q| q.held_bytes < ROOM_BYTES)
        };
        if !self.gate.wait(Patience { spin, limit }, has_room) {
            return Err(BackendError::Timeout {
                rank: self.rank,
                waited: begin.elapsed(),
                waiting_for: format!("{} to take messages", self.tree.name(peer)),
                missing: vec![peer],
            });
        }
        match self.queues().get_mut(&peer) {
            Some(queue) => queue.push(bytes),
            None => return Err(self.unreachable(peer, "the connection is closed")),
        }
        self.wake();
        Ok(())
    }

    pub(super) fn unreachable(&self, other: Rank, why: &str) -> BackendError {
        BackendError::Unreachable {
            rank: self.rank,
            other,
            host: self.tree.host_of(other).name.clone(),
            why: why.to_owned(),
        }
    }

    pub(super) fn letter(&self, kind: u8, payload: Vec<u8>) -> Result<Letter, BackendError> {
        if payload.len() > LONGEST_PAYLOAD_BYTES {
            let (got, most) = (payload.len(), LONGEST_PAYLOAD_BYTES);
            return Err(self.invalid(format!("{got} bytes are more than the {most} allowed")));
        }
        let from = self.rank;
        Ok(Letter {
            kind,
            from,
            payload,
        })
    }

    /// Leaves a letter for the witnesses.
    pub(super) fn leave_testament(&self, letter: Letter) {
        *lock(&self.testament) = Some(letter);
        self.wake();
    }

    pub(super) fn take_testament(&self) -> Option<Letter> {
        lock(&self.testament).take()
    }

    pub(super) fn invalid(&self, why: String) -> BackendError {
        let call = "message over the control plane".to_owned();
        BackendError::Invalid {
            rank: self.rank,
            call,
            why,
        }
    }

    /// Puts a letter into the inbox of its kind.
    pub(super) fn deliver(&self, letter: Letter) {
        let Letter {
            kind,
            from,
            payload,
        } = letter;
        let mut inboxes = lock(&self.inboxes);
        if inboxes.is_closed {
            return;
        }
        let Inboxes {
            senders, waiting, ..
        } = &mut *inboxes;
        let sender = senders.entry(kind).or_insert_with(|| {
            let (sender, receiver) = channel();
            waiting.insert(kind, receiver);
            sender
        });
        // Fails if the receiver is gone: then nobody wants it.
        drop(sender.send(Envelope { from, payload }));
    }

    pub(super) fn inbox(&self, kind: u8) -> Receiver<Envelope> {
        let mut inboxes = lock(&self.inboxes);
        if let Some(receiver) = inboxes.waiting.remove(&kind) {
            return receiver;
        }
        let (sender, receiver) = channel();
        if !inboxes.is_closed {
            inboxes.senders.insert(kind, sender);
        }
        receiver
    }

    /// Nothing comes in any more: receivers get what is there, and then an end.
    pub(super) fn close_inboxes(&self) {
        let mut inboxes = lock(&self.inboxes);
        inboxes.is_closed = true;
        inboxes.senders.clear();
    }

    pub(super) fn losses(&self) -> Vec<Loss> {
        lock(&self.losses).clone()
    }

    /// Whether a rank is known to be gone.
    pub(super) fn is_lost(&self, rank: Rank) -> bool {
        lock(&self.losses)
            .iter()
            .any(|loss| loss.ranks.contains(&rank))
    }

    /// Notes a loss; false if all of it was known.
    pub(super) fn record(&self, loss: &Loss) -> bool {
        if loss.ranks.iter().all(|rank| self.is_lost(*rank)) {
            return false;
        }
        lock(&self.losses).push(loss.clone());
        self.gate.ring();
        true
    }

    /// Another rank has given up.
    pub(super) fn hear_abort(&self, origin: Rank, reason: &str) {
        if self.reason().is_none() && self.tree.holds(origin) {
            self.heard.get_or_init(|| (origin, reason.to_owned()));
            let name = self.tree.name(origin);
            self.abort.abort(&format!("{name} gave up: {reason}"));
        }
    }

    fn abort_frame(&self, reason: &str) -> Vec<u8> {
        let own = || (self.rank, reason.to_owned());
        let (origin, reason) = self.heard.get().cloned().unwrap_or_else(own);
        Frame::Abort { origin, reason }.encode()
    }

    /// The job's root or not.
    pub(super) fn is_root(&self) -> bool {
        self.rank == ROOT
    }
}

impl Abortable for Shared {
    /// The world of this process has been aborted: tells the others.
    fn abort(&self, reason: &str) {
        // Under the lock, so that each connection is told once: here or when it opens.
        let mut queues = self.queues();
        if self.reason.set(reason.to_owned()).is_ok() {
            let bytes = self.abort_frame(reason);
            queues
                .values_mut()
                .for_each(|queue| queue.push(bytes.clone()));
        }
        drop(queues);
        self.wake();
        self.gate.ring();
    }
}

impl Queue {
    pub(super) fn push(&mut self, frame: Vec<u8>) {
        self.held_bytes += frame.len();
        self.frames.push_back(frame);
    }
}
