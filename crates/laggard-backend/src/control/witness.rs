//! Witnesses: one small process per host that no launcher knows of, so that somebody is left to say
//! which rank was the first to go where the launcher kills all others within milliseconds.
//!
//! A host's leader starts its witness and holds its leash. Those of the first two hosts judge: all
//! ranks and all other witnesses are connected to them (`serve.rs`, `case.rs`). The others only
//! show by their connections that their hosts are alive. This file is the ranks' side. A run
//! without witnesses is a run all the same, so what goes wrong here is logged and no error.

mod case;
mod serve;

pub use serve::{Testimony, serve_witness};

use super::card::Card;
use super::engine::Seen;
use super::greeting::{Calling, Key, write_by};
use super::link::Link;
use super::naming::last_seen;
use super::shared::{Queue, Shared};
use super::tree::Tree;
use super::wire::{Fields, Frame, Writer};
use crate::messenger::all_gather;
use crate::{BackendError, Messenger};
use laggard_types::Rank;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Hosts whose witnesses judge: if one is lost the other is left.
const JUDGES: usize = 2;
/// Longest wait for a witness to start, and for all that judge to answer: shorter than any silence
/// that ends a run, since the other ranks wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long saying good-bye to a witness may take.
const FAREWELL: Duration = Duration::from_millis(300);
/// Time between two words of where a rank is, and least time of a judge for each rank's.
const USUAL_NEWS: Duration = Duration::from_secs(1);
const NEWS_PER_RANK: Duration = Duration::from_millis(10);
/// Bytes that a witness may not have taken yet before it gets no more news.
const NEWS_ROOM_BYTES: usize = 64 << 10;
/// How the names of launchers' processes begin: mpirun and mpiexec, Open MPI's orted and prterun,
/// MPICH's hydra_pmi_proxy, Slurm's srun and slurmstepd.
const LAUNCHER_NAMES: [&str; 6] = ["mpi", "orte", "prte", "hydra", "srun", "slurm"];
/// Longest message over a leash.
const LEASH_BYTES: u32 = 64 << 20;

/// What becomes a witness when it is started: a program that calls [`serve_witness`].
#[derive(Debug, Clone)]
pub struct WitnessProgram {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// What witnesses are called where ranks are called by their numbers.
fn name_of_witness(host: usize) -> Rank {
    Rank::MAX - 1 - host as Rank
}

/// This process's connections to the witnesses.
pub(super) struct Witnesses {
    lines: Vec<Line>,
    /// Ends with this process, or with its plane.
    _leash: Option<UnixStream>,
    next_news: Instant,
    news_every: Duration,
    told_abort: bool,
}

struct Line {
    link: Link,
    queue: Queue,
}

/// What joining the plane has settled.
pub(super) struct Ground<'a> {
    pub tree: &'a Tree,
    pub key: &'a Key,
    /// Of this rank.
    pub card: &'a Card,
    pub deadline: Instant,
}

impl Witnesses {
    pub(super) fn none() -> Self {
        Self {
            lines: Vec::new(),
            _leash: None,
            next_news: Instant::now(),
            news_every: USUAL_NEWS,
            told_abort: false,
        }
    }

    /// Starts the host's witness, on its leader, and connects to those that judge. Collective.
    pub(super) fn start(
        messenger: &dyn Messenger,
        program: &WitnessProgram,
        ground: &Ground<'_>,
    ) -> Result<Self, BackendError> {
        let rank = messenger.rank();
        let host = ground.tree.place_of(rank);
        let started = match ground.tree.leader_of(rank) == rank {
            true => start(program, ground, host)
                .inspect_err(|error| tracing::warn!(rank, %error, "no witness was started"))
                .ok(),
            false => None,
        };
        let card = started.as_ref().filter(|_| host < JUDGES);
        let card = card.map_or_else(Vec::new, |(_, card)| card.clone());
        let cards = all_gather(messenger, &card, ground.deadline)?;
        let judges = ground.tree.hosts.iter().take(JUDGES);
        let judges: Vec<_> = judges
            .map(|host| cards.get(host.leader() as usize).cloned())
            .map(Option::unwrap_or_default)
            .collect();
        let leash = started.and_then(|(mut leash, _)| {
            let mut out = Writer(Vec::new());
            out.list(&judges, |out, card| out.bytes(card));
            send_over(&mut leash, &out.0)
                .inspect_err(|error| tracing::warn!(rank, %error, "the witness has gone"))
                .ok()?;
            Some(leash)
        });
        let lines = call_judges(&judges, ground, rank);
        let now = Instant::now();
        let lines = lines.into_iter().map(|(_, stream)| Line {
            link: Link::new(rank, stream, now),
            queue: Queue::default(),
        });
        Ok(Self {
            lines: lines.collect(),
            _leash: leash,
            news_every: USUAL_NEWS.max(NEWS_PER_RANK * messenger.size()),
            ..Self::none()
        })
    }

    /// Tells the witnesses what there is to tell.
    pub(super) fn tell(&mut self, shared: &Shared, now: Instant) {
        if self.lines.is_empty() {
            return;
        }
        if let Some(letter) = shared.take_testament() {
            self.push(&Frame::ToParent(letter));
        }
        if let Some(reason) = shared.reason().filter(|_| !self.told_abort) {
            self.told_abort = true;
            let (origin, reason) = (shared.rank, reason.to_owned());
            self.push(&Frame::Abort { origin, reason });
        }
        if now >= self.next_news {
            self.next_news = now + self.news_every;
            let position = shared.progress.get();
            let seen = last_seen(shared, shared.rank, Seen { at: now, position }, now);
            let news = Frame::Seen(seen).encode();
            let lines = self.lines.iter_mut();
            lines
                .filter(|line| line.queue.held_bytes < NEWS_ROOM_BYTES)
                .for_each(|line| line.queue.push(news.clone()));
        }
        for Line { link, queue } in &mut self.lines {
            link.write(queue);
        }
    }

    fn push(&mut self, frame: &Frame) {
        let bytes = frame.encode();
        let lines = self.lines.iter_mut();
        lines.for_each(|line| line.queue.push(bytes.clone()));
    }

    /// Tells the witnesses that the end of this process is none of their business any more.
    pub(super) fn leave(&mut self) {
        self.push(&Frame::Leaving);
        for Line { link, queue } in self.lines.drain(..) {
            let until = Instant::now() + FAREWELL;
            let stream = link.stream;
            let written = stream.set_nonblocking(false).and_then(|()| {
                let mut frames = queue.frames.iter();
                let first = frames.next().map(|first| &first[queue.sent_bytes..]);
                let mut all = first.into_iter().chain(frames.map(Vec::as_slice));
                all.try_for_each(|bytes| write_by(&stream, bytes, until))
            });
            if let Err(error) = written {
                tracing::debug!(%error, "a witness does not listen");
            }
        }
    }
}

/// Starts a witness; its leash and its card.
fn start(
    program: &WitnessProgram,
    ground: &Ground<'_>,
    host: usize,
) -> io::Result<(UnixStream, Vec<u8>)> {
    let (mut leash, end) = UnixStream::pair()?;
    // A group of its own, since launchers signal those of ranks. What it says goes where the rank's
    // words go.
    Command::new(&program.program)
        .args(&program.arguments)
        .stdin(Stdio::from(OwnedFd::from(end)))
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()?;
    set_patience(&leash)?;
    let mut out = Writer(ground.key.to_vec());
    out.u32(host as u32);
    out.list(&launchers(parent_id()), |out, id| out.u32(*id));
    let ranks = (0..).take_while(|rank| ground.tree.holds(*rank));
    let names: Vec<&str> = ranks
        .map(|rank| ground.tree.host_of(rank).name.as_str())
        .collect();
    out.list(&names, |out, name| out.bytes(name.as_bytes()));
    send_over(&mut leash, &out.0)?;
    let card = receive_over(&mut leash)?;
    Ok((leash, card))
}

/// What this process was started by: its parent, and that one's where it is a launcher too and no
/// shell. Hydra and Slurm have a process on each host between them and the ranks.
fn launchers(parent: u32) -> Vec<u32> {
    let of = |id: u32, what: &str| {
        let file = std::fs::read_to_string(format!("/proc/{id}/{what}")).unwrap_or_default();
        file.trim().to_owned()
    };
    let status = of(parent, "status");
    let mut lines = status.lines();
    let above = lines.find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    let above = above.filter(|id| {
        let name = of(*id, "comm");
        LAUNCHER_NAMES.iter().any(|start| name.starts_with(start))
    });
    let all = [Some(parent), above].into_iter().flatten();
    all.filter(|id| *id > 1).collect()
}

/// Connects to those judges that answer, as the caller of that name; by host, non-blocking.
fn call_judges(judges: &[Vec<u8>], ground: &Ground<'_>, from: Rank) -> Vec<(usize, TcpStream)> {
    let deadline = ground.deadline.min(Instant::now() + PATIENCE);
    let call = |(host, card): (usize, &Vec<u8>)| {
        let to = name_of_witness(host);
        let card = Card::decode(card).filter(|_| to != from)?;
        let calling = Calling {
            key: ground.key,
            from,
            to,
            addresses: &card.sockets(ground.card),
        };
        let stream = calling.connect(deadline).and_then(|stream| {
            let done = stream.set_nonblocking(true);
            done.map(|()| stream).map_err(|error| error.to_string())
        });
        let warn = |why: &String| tracing::warn!(host, why, "a witness cannot be reached");
        Some((host, stream.inspect_err(warn).ok()?))
    };
    judges.iter().enumerate().filter_map(call).collect()
}

fn set_patience(leash: &UnixStream) -> io::Result<()> {
    leash.set_read_timeout(Some(PATIENCE))?;
    leash.set_write_timeout(Some(PATIENCE))
}

fn send_over(leash: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    leash.write_all(&(bytes.len() as u32).to_le_bytes())?;
    leash.write_all(bytes)
}

fn receive_over(leash: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; size_of::<u32>()];
    leash.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > LEASH_BYTES {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    leash.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// What a leader tells its witness first.
struct Setup {
    key: Key,
    host: usize,
    /// What started the leader, and what started that: a launcher has a process on each host that
    /// it starts ranks by.
    launchers: Vec<u32>,
    /// The host of each rank.
    names: Vec<String>,
}

impl Setup {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk()?;
        let mut fields = Fields(rest);
        let (host, launchers) = (fields.u32()? as usize, fields.list(Fields::u32)?);
        let names = fields.list(Fields::string)?;
        (host < names.len()).then_some(Self {
            key: *key,
            host,
            launchers,
            names,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_started_the_parent_is_a_launcher_by_its_name() {
        let own = std::process::id();
        assert_eq!(launchers(own), [own], "cargo is no launcher");
        let folder = tempfile::tempdir().expect("temporary directory");
        let launcher = folder.path().join("mpiexec");
        std::fs::copy("/bin/sh", &launcher).expect("a copy of the shell");
        let script = "sleep 60 & echo $!; wait";
        let mut child = Command::new(&launcher)
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = [0; 16];
        let mut words = child.stdout.take().expect("a pipe");
        let count = words.read(&mut line).expect("a line");
        let below = String::from_utf8_lossy(&line[..count]).trim().parse();
        let below: u32 = below.expect("a process number");
        let found = launchers(below);
        for id in [below, child.id()] {
            let id = nix::unistd::Pid::from_raw(id as i32);
            nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL).expect("an end");
        }
        drop(child.wait());
        assert_eq!(found, [below, child.id()]);
    }
}
