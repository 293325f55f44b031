//! The control thread: waits for input and for the time, and does everything that the plane does by
//! itself. It never blocks on a peer, so that one that is stuck keeps no other waiting.

use super::Position;
use super::greeting::{Calling, Key, Reception};
use super::link::{CHUNK_BYTES, End, Link};
use super::loss::How;
use super::naming::{Suspect, Suspects};
use super::shared::{Ending, Shared, lock};
use super::tree::ROOT;
use super::wire::{Frame, Pulse};
use super::witness::Witnesses;
use laggard_types::Rank;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long saying good-bye may take when there is no waiting for the others.
const HURRY: Duration = Duration::from_millis(300);

/// How a rank reaches rank 0 when its leader is gone.
pub(super) struct WayToRoot {
    pub key: Key,
    pub addresses: Vec<SocketAddr>,
}

/// When something was last heard of a rank, and what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub at: Instant,
    pub position: Option<Position>,
}

/// How far this process is with saying good-bye.
#[derive(Default)]
struct Farewell {
    told_parent: bool,
    told_children: bool,
    /// When waiting for the others' ends of connections stops.
    until: Option<Instant>,
}

pub(super) struct Engine {
    pub shared: Arc<Shared>,
    pub links: BTreeMap<Rank, Link>,
    pub seen: BTreeMap<Rank, Seen>,
    pub suspects: Suspects,
    reception: Option<Reception>,
    way_to_root: Option<WayToRoot>,
    alarm: UnixStream,
    next_beat: Instant,
    launcher: u32,
    farewell: Farewell,
    witnesses: Witnesses,
    /// What input passes through.
    chunk: Vec<u8>,
}

/// What a control thread starts with.
pub(super) struct Start {
    pub shared: Arc<Shared>,
    /// Non-blocking.
    pub streams: Vec<(Rank, TcpStream)>,
    /// Where those whose leader is gone report; rank 0 alone has it.
    pub reception: Option<Reception>,
    pub way_to_root: Option<WayToRoot>,
    /// Non-blocking.
    pub alarm: UnixStream,
    /// The process that started this one.
    pub launcher: u32,
    pub witnesses: Witnesses,
}

impl Engine {
    pub(super) fn new(start: Start) -> Self {
        let now = Instant::now();
        let links = start.streams.into_iter();
        Self {
            links: links
                .map(|(peer, stream)| (peer, Link::new(peer, stream, now)))
                .collect(),
            seen: BTreeMap::new(),
            suspects: Suspects::new(&start.shared.options),
            shared: start.shared,
            reception: start.reception,
            way_to_root: start.way_to_root,
            alarm: start.alarm,
            next_beat: now,
            launcher: start.launcher,
            farewell: Farewell::default(),
            witnesses: start.witnesses,
            chunk: vec![0; CHUNK_BYTES],
        }
    }

    /// Runs until the plane ends.
    pub(super) fn run(mut self) {
        loop {
            #[cfg(test)]
            while self.shared.is_frozen.load(Ordering::Acquire) {
                if self.shared.ending() == Ending::Dropping {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            self.flush();
            let ready = self.sleep();
            // Input is taken before silence is judged: after this process itself has slept, what
            // others sent meanwhile is there.
            let now = Instant::now();
            ready.into_iter().for_each(|peer| self.read(peer, now));
            self.greet(now);
            self.judge_silence(now);
            self.beat(now);
            self.name_the_lost(now);
            self.witnesses.tell(&self.shared, now);
            if self.farewell(now) {
                break;
            }
        }
        self.flush();
        if self.shared.ending() != Ending::Dropping {
            self.witnesses.leave();
        }
        let peers: Vec<_> = self.links.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.shared.close(peer));
        self.shared.close_inboxes();
        self.shared.has_ended.store(true, Ordering::Release);
        self.shared.gate.ring();
    }

    /// Writes what waits to be written.
    fn flush(&mut self) {
        let mut made_room = false;
        for (peer, queue) in self.shared.queues().iter_mut() {
            if let Some(link) = self.links.get_mut(peer) {
                made_room |= link.write(queue);
            }
        }
        if made_room {
            self.shared.gate.ring();
        }
    }

    /// Sleeps until there is something to do; the peers that there is input from.
    fn sleep(&mut self) -> Vec<Rank> {
        // Rounded up, so as not to wake just before the time and turn in circles.
        let wait_ms = self
            .wakes_at()
            .saturating_duration_since(Instant::now())
            .as_micros()
            .div_ceil(1000);
        let mut fds = vec![PollFd::new(self.alarm.as_fd(), PollFlags::POLLIN)];
        let queues = self.shared.queues();
        for link in self.links.values() {
            let waits = queues
                .get(&link.peer)
                .is_some_and(|queue| !queue.frames.is_empty());
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, waits && !link.is_shut);
            fds.push(PollFd::new(link.stream.as_fd(), flags));
        }
        drop(queues);
        let callers = self.reception.iter().flat_map(Reception::inputs);
        fds.extend(callers.map(|input| PollFd::new(input, PollFlags::POLLIN)));
        let timeout = PollTimeout::try_from(wait_ms).unwrap_or(PollTimeout::MAX);
        // A signal may interrupt it, such as that which wakes a stopped process. What came in
        // meanwhile must be seen all the same, before silence is judged.
        let polled = poll(&mut fds, timeout).or_else(|_| poll(&mut fds, PollTimeout::ZERO));
        if polled.is_err() {
            return Vec::new();
        }
        let has_input = |fd: &PollFd<'_>| {
            let output_alone = PollFlags::POLLOUT;
            fd.revents()
                .is_some_and(|events| !(events - output_alone).is_empty())
        };
        let ready = self
            .links
            .keys()
            .zip(&fds[1..])
            .filter(|(_, fd)| has_input(fd));
        let ready = ready.map(|(peer, _)| *peer).collect();
        let mut bytes = [0; 64];
        while (&self.alarm)
            .read(&mut bytes)
            .is_ok_and(|count| count == bytes.len())
        {}
        ready
    }

    /// When there is something to do if nothing comes in.
    pub(super) fn wakes_at(&self) -> Instant {
        let silences = self.links.values().filter(|link| link.is_due());
        let times = silences.map(|link| link.heard + self.shared.options.silence);
        let times = times.chain(self.suspects.name_at());
        times
            .chain(self.farewell.until)
            .fold(self.next_beat, Instant::min)
    }

    fn read(&mut self, peer: Rank, now: Instant) {
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        let input = link.read(&mut self.chunk, now);
        input
            .frames
            .into_iter()
            .for_each(|frame| self.take(peer, frame, now));
        match input.end {
            Some(End::Closed) => self.lose(peer, How::Closed, now),
            Some(End::Garbled) => self.lose(peer, How::Garbled, now),
            None => {}
        }
    }

    /// Does what a frame says.
    fn take(&mut self, peer: Rank, frame: Frame, now: Instant) {
        let shared = Arc::clone(&self.shared);
        let is_parent = shared.parent() == Some(peer);
        match frame {
            Frame::Heartbeat(pulses) => {
                for Pulse {
                    rank,
                    age,
                    position,
                } in pulses
                {
                    if let Some(at) = now.checked_sub(age) {
                        self.seen.insert(rank, Seen { at, position });
                        #[cfg(test)]
                        lock(&shared.positions).extend(position.map(|_| rank));
                    }
                }
            }
            Frame::ToParent(letter) => shared.deliver(letter),
            Frame::ToRoot(letter) if shared.is_root() => shared.deliver(letter),
            Frame::ToRoot(letter) => {
                if let Some(parent) = shared.parent() {
                    shared.push(parent, &Frame::ToRoot(letter));
                }
            }
            Frame::ToAll(letter) => {
                let frame = Frame::ToAll(letter.clone());
                shared.push_all(&frame, Some(peer));
                shared.deliver(letter);
            }
            Frame::ToRank(to, letter) => shared.pass(to, letter),
            Frame::Loss(loss) => {
                if shared.record(&loss) {
                    let words = loss.to_string();
                    shared.push_all(&Frame::Loss(loss), Some(peer));
                    shared.abort.abort(&words);
                }
            }
            Frame::Abort { origin, reason } => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.is_excused = true;
                }
                shared.hear_abort(origin, &reason);
            }
            Frame::Ask(question) => shared.ask(question),
            Frame::Answer(answer) => shared.answer(answer),
            Frame::Leaving if !is_parent => self.see_off(peer),
            Frame::Left if is_parent => self.see_off(peer),
            Frame::Leaving | Frame::Left | Frame::Seen(_) => {}
        }
    }

    fn see_off(&mut self, peer: Rank) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.has_left = true;
        }
    }

    /// Takes in those whose leader is gone.
    fn greet(&mut self, now: Instant) {
        let greeted = self.reception.as_mut().map(|reception| reception.turn(now));
        for (rank, stream) in greeted.into_iter().flatten() {
            let is_known = self.shared.tree.holds(rank) && !self.links.contains_key(&rank);
            if is_known && rank != self.shared.rank {
                self.shared.open(rank, false);
                self.links.insert(rank, Link::new(rank, stream, now));
            }
        }
    }

    pub(super) fn judge_silence(&mut self, now: Instant) {
        let silence = self.shared.options.silence;
        let links = self.links.values().filter(|link| link.is_due());
        let silent = links.filter(|link| now.duration_since(link.heard) >= silence);
        let silent: Vec<_> = silent.map(|link| (link.peer, now - link.heard)).collect();
        for (peer, lasting) in silent {
            if let Some(tell) = self.shared.silence_listener.get() {
                let host = self.shared.tree.host_of(peer);
                tell(&self.loss(host, vec![peer], How::Silent(lasting), now));
            }
            self.dismiss(peer, lasting);
            self.lose(peer, How::Silent(lasting), now);
        }
    }

    /// Leaves a word for a peer that may only be stopped, and wake up some day.
    fn dismiss(&mut self, peer: Rank, lasting: Duration) {
        let name = self.shared.tree.name(peer);
        let lasting_s = lasting.as_secs_f64();
        let reason = format!("{name} showed no sign of life for {lasting_s:.1} s");
        let origin = self.shared.rank;
        self.shared.push(peer, &Frame::Abort { origin, reason });
        self.flush();
    }

    /// A connection ends.
    fn lose(&mut self, peer: Rank, how: How, now: Instant) {
        let Some(link) = self.links.remove(&peer) else {
            return;
        };
        self.shared.close(peer);
        if !link.is_due() || self.farewell.until.is_some() {
            return;
        }
        let seen = self.seen.get(&peer);
        tracing::debug!(peer, ?how, ?seen, "a rank is gone");
        self.suspects.add(Suspect {
            rank: peer,
            how,
            at: now,
        });
        if self.shared.parent() == Some(peer) && peer != ROOT {
            self.report_to_root(now);
        }
    }

    /// The leader of this host is gone: connects to rank 0 instead. Nobody is below this rank, so
    /// it may wait here as long as rank 0 does before it names the host.
    fn report_to_root(&mut self, now: Instant) {
        let Some(way) = self.way_to_root.take() else {
            return;
        };
        let calling = Calling {
            key: &way.key,
            from: self.shared.rank,
            to: ROOT,
            addresses: &way.addresses,
        };
        let deadline = self.suspects.name_at().unwrap_or(now);
        match calling.connect(deadline) {
            Ok(stream) if stream.set_nonblocking(true).is_ok() => {
                self.shared.open(ROOT, true);
                self.links
                    .insert(ROOT, Link::new(ROOT, stream, Instant::now()));
            }
            Ok(_) => {}
            Err(why) => tracing::debug!(why, "rank 0 cannot be reached either"),
        }
    }

    pub(super) fn beat(&mut self, now: Instant) {
        if now < self.next_beat {
            return;
        }
        self.next_beat = now + self.shared.options.heartbeat;
        let (rank, position) = (self.shared.rank, self.shared.progress.get());
        let own = Pulse {
            rank,
            age: Duration::ZERO,
            position,
        };
        let mut pulses = vec![own];
        let parent = self.shared.parent();
        let below = self.links.keys().filter(|peer| Some(**peer) != parent);
        pulses.extend(below.filter_map(|peer| {
            let Seen { at, position } = *self.seen.get(peer)?;
            let age = now.duration_since(at);
            Some(Pulse {
                rank: *peer,
                age,
                position,
            })
        }));
        self.shared.push_down(&Frame::Heartbeat(vec![own]));
        if let Some(parent) = parent {
            self.shared.push(parent, &Frame::Heartbeat(pulses));
        }
        if self.shared.watches_parent.load(Ordering::Relaxed) && parent_id() != self.launcher {
            self.shared.abort.abort("the launcher is gone");
        }
    }

    /// Does what is due of the end; true when all is done.
    fn farewell(&mut self, now: Instant) -> bool {
        let ending = self.shared.ending();
        if ending == Ending::No {
            return false;
        }
        if ending == Ending::Dropping {
            return true;
        }
        // First it is said who is gone: what comes after might only be its consequence.
        if self.suspects.name_at().is_some() {
            return false;
        }
        let is_hurried = ending == Ending::Hurrying;
        let parent = self.shared.parent();
        let has_gone = |peer: &Rank| self.links.get(peer).is_none_or(|link| link.has_left);
        let below = self.links.keys().filter(|peer| Some(**peer) != parent);
        let waits_for_children: Vec<_> = below.copied().filter(|peer| !has_gone(peer)).collect();
        let waits_for_parent = parent.filter(|parent| !has_gone(parent));
        if !self.farewell.told_parent && (is_hurried || waits_for_children.is_empty()) {
            self.farewell.told_parent = true;
            if let Some(parent) = parent {
                self.shared.push(parent, &Frame::Leaving);
            }
        }
        let is_free = self.farewell.told_parent && waits_for_parent.is_none();
        if !self.farewell.told_children && (is_hurried || is_free) {
            self.farewell.told_children = true;
            self.farewell.until = Some(now + HURRY);
            self.shared.push_down(&Frame::Left);
        }
        let awaits_children = !self.farewell.told_parent;
        let awaited = match awaits_children {
            true => waits_for_children,
            false => waits_for_parent.into_iter().collect(),
        };
        *lock(&self.shared.awaited) = awaited;
        self.farewell.told_children && self.part(now)
    }

    /// Closes connections once all is written, and waits for the peers to do the same: a close
    /// with input unread would take back what was written last.
    fn part(&mut self, now: Instant) -> bool {
        self.flush();
        let queues = self.shared.queues();
        for link in self.links.values_mut() {
            if queues
                .get(&link.peer)
                .is_none_or(|queue| queue.frames.is_empty())
            {
                link.shut();
            }
        }
        self.links.is_empty() || self.farewell.until.is_none_or(|until| now >= until)
    }
}
