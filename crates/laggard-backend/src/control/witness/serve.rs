//! A witness's own process: waits for connections to end, and ends itself: when all ranks have
//! left, when it has testified, when a rank gives up in its own words, or soon after its leader.

use super::case::{Case, Culprits, Gone};
use super::{
    Ground, JUDGES, Setup, call_judges, name_of_witness, receive_over, send_over, set_patience,
};
use crate::BackendError;
use crate::control::card::{Card, listen};
use crate::control::greeting::Reception;
use crate::control::link::{CHUNK_BYTES, Link};
use crate::control::loss::{How, LastSeen, Loss};
use crate::control::tree::Tree;
use crate::control::wire::{Fields, Frame};
use laggard_types::Rank;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::kill;
use nix::unistd::{Pid, close};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a witness outlives its leader: judges elsewhere must see that its host is alive, and
/// this one may have to testify.
const LINGER: Duration = Duration::from_secs(2);
/// Ends of connections taken at a time.
const EVENTS_AT_A_TIME: usize = 256;

/// What a witness has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Testimony {
    /// The host that the witness is on.
    pub host: String,
    /// Who was the first to go, in the words of a survivor.
    pub loss: Loss,
    /// The record of the run, if there is one yet; see
    /// [`ControlPlane::name_record`](super::super::ControlPlane::name_record).
    pub record: Option<PathBuf>,
    /// All other ranks are gone too, and so is what started those of the witness's host: a launcher
    /// that is killed may end ranks, in any order.
    pub is_launcher_gone: bool,
    /// Nothing follows. What comes before may name a rank of a host that is gone as a whole.
    pub is_final: bool,
}

/// Makes this process the witness of a host, started by its leader as
/// [`WitnessProgram`](super::WitnessProgram) says, and returns when there is nothing more to
/// witness. It closes all files but the standard ones, and so must be the first thing that a
/// program does.
///
/// # Errors
/// [`BackendError::System`] if it was not started by a leader, or if the system refuses sockets.
pub fn serve_witness(tell: impl FnMut(&Testimony)) -> Result<(), BackendError> {
    let system = |error: io::Error| BackendError::System {
        what: "a witness, which ranks start".to_owned(),
        why: error.to_string(),
    };
    close_inherited();
    // Every rank has a connection to a judge.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    let mut witness = Witness::start(tell).map_err(system)?;
    while !witness.is_done(Instant::now()) {
        witness.turn().map_err(system)?;
    }
    witness.part();
    Ok(())
}

/// Closes what MPI and launchers have left open across the start of this process: who waits for the
/// end of a rank's connection would wait for the witness too.
fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let number = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let open: Vec<RawFd> = entries.filter_map(number).collect();
    for file in open.into_iter().filter(|file| *file > 2) {
        // That of the listing itself is closed already.
        _ = close(file);
    }
}

struct Witness<T> {
    host: usize,
    launchers: Vec<u32>,
    tree: Tree,
    leash: UnixStream,
    /// When the leader's end was noticed.
    unleashed: Option<Instant>,
    /// On judges.
    reception: Option<Reception>,
    /// To ranks and other witnesses, by name.
    links: BTreeMap<Rank, Link>,
    /// Wakes for ends of connections, and lists them in the order in which they came: Linux keeps
    /// what is ready in a queue, and what else comes in does not enter this one.
    ends: Epoll,
    inputs: Epoll,
    case: Case,
    seen: BTreeMap<Rank, (Instant, LastSeen)>,
    record: Option<PathBuf>,
    had_peers: bool,
    /// A rank has given up in its own words: what ends later ends because of that.
    has_word: bool,
    /// There is nothing more to say.
    is_settled: bool,
    told: Vec<Rank>,
    tell: T,
    chunk: Vec<u8>,
}

impl<T: FnMut(&Testimony)> Witness<T> {
    fn start(tell: T) -> io::Result<Self> {
        let stumped = || io::Error::from(ErrorKind::InvalidData);
        let mut leash = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        set_patience(&leash)?;
        let setup = Setup::read(&receive_over(&mut leash)?).ok_or_else(stumped)?;
        let tree = Tree::new(&setup.names);
        let host = setup.host;
        let place = tree.hosts.get(host).ok_or_else(stumped)?;
        let other = |error: BackendError| io::Error::other(error.to_string());
        let listener = listen(place.leader()).map_err(other)?;
        let card = Card::write(place.leader(), &place.name, &listener).map_err(other)?;
        let is_judge = host < JUDGES;
        let reception = Reception::new(listener, setup.key, name_of_witness(host))?;
        send_over(&mut leash, &card.encode())?;
        // The leader waits for the cards of all others meanwhile.
        leash.set_read_timeout(None)?;
        let judges = receive_over(&mut leash)?;
        let judges = Fields(&judges).list(Fields::bytes).ok_or_else(stumped)?;
        leash.set_nonblocking(true)?;
        let epoll = || Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        let mut witness = Self {
            host,
            launchers: setup.launchers,
            tree,
            leash,
            unleashed: None,
            reception: is_judge.then_some(reception),
            links: BTreeMap::new(),
            ends: epoll()?,
            inputs: epoll()?,
            case: Case::default(),
            seen: BTreeMap::new(),
            record: None,
            had_peers: !is_judge,
            has_word: false,
            is_settled: false,
            told: Vec::new(),
            tell,
            chunk: vec![0; CHUNK_BYTES],
        };
        let ground = Ground {
            tree: &witness.tree,
            key: &setup.key,
            card: &card,
            deadline: Instant::now() + super::PATIENCE,
        };
        // Of two judges the second calls the first.
        let earlier = &judges[..judges.len().min(host)];
        for (judge, stream) in call_judges(earlier, &ground, name_of_witness(host)) {
            let name = name_of_witness(judge);
            witness.add(name, Link::new(name, stream, Instant::now()))?;
        }
        Ok(witness)
    }

    fn add(&mut self, name: Rank, link: Link) -> io::Result<()> {
        let event = |flags| EpollEvent::new(flags, u64::from(name));
        self.ends.add(&link.stream, event(EpollFlags::EPOLLRDHUP))?;
        self.inputs.add(&link.stream, event(EpollFlags::EPOLLIN))?;
        self.had_peers |= self.tree.holds(name);
        self.links.insert(name, link);
        Ok(())
    }

    /// Waits for something to happen, and takes it in.
    fn turn(&mut self) -> io::Result<()> {
        self.sleep();
        let now = Instant::now();
        if let Some(reception) = &mut self.reception {
            for (name, stream) in reception.turn(now) {
                let is_known = self.tree.holds(name) || self.host_of(name).is_some();
                if is_known && !self.links.contains_key(&name) {
                    self.add(name, Link::new(name, stream, now))?;
                }
            }
        }
        for name in ready(&self.inputs)? {
            self.read(name, now);
        }
        // Whoever ended before a rank gave up is in this list, and is why it did.
        for name in ready(&self.ends)? {
            self.end(name, now);
        }
        self.is_settled |= self.has_word && self.case.culprits(&self.tree).is_none();
        if self.unleashed.is_none() && self.has_lost_leash() {
            self.unleashed = Some(now);
        }
        self.testify(now);
        Ok(())
    }

    fn sleep(&self) {
        let now = Instant::now();
        let linger = self.unleashed.map(|at| at + LINGER);
        let next = self.due().into_iter().chain(linger).min();
        let wait = next.map(|next| {
            let wait = next.saturating_duration_since(now).as_micros();
            PollTimeout::try_from(wait.div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        let input = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![input(self.ends.0.as_fd()), input(self.inputs.0.as_fd())];
        fds.extend(self.reception.iter().flat_map(Reception::inputs).map(input));
        if self.unleashed.is_none() {
            fds.push(input(self.leash.as_fd()));
        }
        // Interrupted, it looks around for nothing.
        _ = poll(&mut fds, wait.unwrap_or(PollTimeout::NONE));
    }

    fn host_of(&self, name: Rank) -> Option<usize> {
        (0..self.tree.hosts.len()).find(|host| name_of_witness(*host) == name)
    }

    fn has_lost_leash(&mut self) -> bool {
        let mut byte = [0];
        match io::Read::read(&mut self.leash, &mut byte) {
            Ok(count) => count == 0,
            Err(error) => ![ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()),
        }
    }

    fn read(&mut self, name: Rank, now: Instant) {
        let Some(link) = self.links.get_mut(&name) else {
            return;
        };
        let frames = link.read(&mut self.chunk, now).frames;
        for frame in frames {
            match frame {
                Frame::Seen(seen) => _ = self.seen.insert(name, (now, seen)),
                Frame::ToParent(letter) => {
                    let path = std::ffi::OsString::from_vec(letter.payload);
                    self.record = Some(PathBuf::from(path));
                }
                Frame::Abort { .. } => {
                    link.is_excused = true;
                    self.has_word = true;
                }
                Frame::Leaving => link.has_left = true,
                Frame::Left => self.is_settled = true,
                _ => {}
            }
        }
    }

    fn end(&mut self, name: Rank, now: Instant) {
        self.read(name, now);
        let link = self.links.remove(&name);
        if !link.is_some_and(|link| link.is_due()) {
            return;
        }
        let gone = match self.host_of(name) {
            Some(host) => Gone::Host(host),
            None => Gone::Rank(name),
        };
        tracing::debug!(?gone, "a connection has ended");
        if !self.is_settled && self.reception.is_some() {
            self.case.add(gone, now);
        }
    }

    /// Whether this is the second judge, and the first one is there to speak.
    fn defers(&self) -> bool {
        self.links.contains_key(&name_of_witness(0))
    }

    /// When the case is closed. Who defers leaves time to the other, who would take its end for
    /// that of its host.
    fn due(&self) -> Option<Instant> {
        let more = if self.defers() {
            LINGER
        } else {
            Duration::ZERO
        };
        Some(self.case.due()? + more)
    }

    /// Says what is known by now, and what is known for good.
    fn testify(&mut self, now: Instant) {
        if self.is_settled {
            return;
        }
        let is_due = self.due().is_some_and(|due| now >= due);
        let culprits = self.case.culprits(&self.tree);
        if is_due && culprits.is_none() {
            self.case = Case::default();
        }
        let Some(Culprits { ranks, at }) = culprits else {
            return;
        };
        self.is_settled |= is_due;
        if self.defers() || (!is_due && !self.told.is_empty()) {
            return;
        }
        let loss = self.loss(ranks, at);
        self.told.clone_from(&loss.ranks);
        let testimony = Testimony {
            host: self.tree.hosts[self.host].name.clone(),
            loss,
            record: self.record.clone(),
            is_launcher_gone: is_due && self.is_launcher_gone(),
            is_final: is_due,
        };
        (self.tell)(&testimony);
    }

    /// Whether the launcher may have been first. Where a whole host is gone it was not.
    fn is_launcher_gone(&self) -> bool {
        let is_host = self.told.iter().any(|rank| {
            let host = Gone::Host(self.tree.place_of(*rank));
            self.case.has(host)
        });
        let mut launchers = self.launchers.iter().map(|id| Pid::from_raw(*id as i32));
        let is_gone = launchers.any(|launcher| kill(launcher, None) == Err(Errno::ESRCH));
        !self.has_ranks() && !is_host && is_gone
    }

    fn has_ranks(&self) -> bool {
        self.links.keys().any(|name| self.tree.holds(*name))
    }

    fn loss(&self, ranks: Vec<Rank>, at: Instant) -> Loss {
        let host = self.tree.host_of(ranks[0]);
        let last = ranks.iter().filter_map(|rank| {
            let (heard, seen) = self.seen.get(rank)?;
            let age = at.saturating_duration_since(*heard);
            Some(LastSeen {
                age,
                ..seen.clone()
            })
        });
        Loss {
            last: last.collect(),
            host: host.name.clone(),
            whole_host: ranks == host.ranks,
            how: How::Closed,
            ranks,
        }
    }

    fn is_done(&self, now: Instant) -> bool {
        let is_open = self.due().is_some_and(|due| now < due);
        let is_lost = self.unleashed.is_some_and(|at| now >= at + LINGER) && !is_open;
        let has_peers = match self.reception {
            Some(_) => self.has_ranks(),
            None => !self.links.is_empty(),
        };
        let is_alone = self.had_peers && !has_peers && self.case.is_empty();
        self.is_settled || is_lost || is_alone
    }

    /// Tells other witnesses that all is said, if this one has said it: others may have to.
    fn part(&mut self) {
        if self.told.is_empty() {
            return;
        }
        let word = Frame::Left.encode();
        for (name, link) in &mut self.links {
            if !self.tree.holds(*name) {
                // A few bytes on a connection that carries nothing else. Who is gone hears nothing.
                drop(link.stream.write(&word));
            }
        }
    }
}

/// Who is ready, in the order in which they became so.
fn ready(epoll: &Epoll) -> io::Result<Vec<Rank>> {
    let mut events = [EpollEvent::empty(); EVENTS_AT_A_TIME];
    let count = match epoll.wait(&mut events, PollTimeout::ZERO) {
        Err(Errno::EINTR) => 0,
        other => other?,
    };
    Ok(events[..count]
        .iter()
        .map(|event| event.data() as Rank)
        .collect())
}
