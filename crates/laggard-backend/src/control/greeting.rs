//! How two ranks make sure of each other when one connects: the caller's hello, the answer and a
//! last byte, each within a deadline. Keeps strangers and stray connections out; it does not hide
//! anything from who listens to the network.

use super::wire::Writer;
use laggard_types::Rank;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Bytes that only the ranks of one job know.
pub(super) type Key = [u8; 16];

/// First bytes of a greeting; the last one is the version of what follows.
const MAGIC: &[u8; 8] = b"laggard\x01";
/// Bytes of a greeting: magic, key, sender, receiver.
const GREETING_BYTES: usize = MAGIC.len() + size_of::<Key>() + 2 * size_of::<Rank>();
/// The caller's last byte: it keeps this connection, and not another that it tried.
const KEPT: u8 = 0x06;
/// How long a caller may take for its hello before it is hung up on.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// Callers that are listened to at a time; the others wait in the system's backlog.
const CALLERS_AT_A_TIME: usize = 64;
/// How long the first round over all addresses waits at each; later rounds wait twice as long.
const FIRST_PATIENCE: Duration = Duration::from_millis(500);
/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(10);

fn greeting(key: &Key, from: Rank, to: Rank) -> [u8; GREETING_BYTES] {
    let mut out = Writer(Vec::with_capacity(GREETING_BYTES));
    out.0.extend(MAGIC);
    out.0.extend(key);
    out.u32(from);
    out.u32(to);
    let mut bytes = [0; GREETING_BYTES];
    bytes.copy_from_slice(&out.0);
    bytes
}

/// Listens for callers and greets them, without ever blocking.
pub(super) struct Reception {
    pub listener: TcpListener,
    pub key: Key,
    pub rank: Rank,
    callers: Vec<Caller>,
}

struct Caller {
    stream: TcpStream,
    since: Instant,
    heard: Vec<u8>,
}

impl Reception {
    pub(super) fn new(listener: TcpListener, key: Key, rank: Rank) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let callers = Vec::new();
        Ok(Self {
            listener,
            key,
            rank,
            callers,
        })
    }

    /// What to wait for input on.
    pub(super) fn inputs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let callers = self.callers.iter().map(|caller| caller.stream.as_fd());
        let has_room = self.callers.len() < CALLERS_AT_A_TIME;
        has_room
            .then_some(self.listener.as_fd())
            .into_iter()
            .chain(callers)
    }

    /// Takes what has come in; gives those whose greeting is complete, as non-blocking streams.
    pub(super) fn turn(&mut self, now: Instant) -> Vec<(Rank, TcpStream)> {
        while self.callers.len() < CALLERS_AT_A_TIME {
            let Ok((stream, _)) = self.listener.accept() else {
                break;
            };
            if stream.set_nonblocking(true).is_ok() && stream.set_nodelay(true).is_ok() {
                let (since, heard) = (now, Vec::new());
                self.callers.push(Caller {
                    stream,
                    since,
                    heard,
                });
            }
        }
        let mut greeted = Vec::new();
        for mut caller in std::mem::take(&mut self.callers) {
            match caller.listen(&self.key, self.rank) {
                Ok(Some(rank)) => greeted.push((rank, caller.stream)),
                Ok(None) if now.duration_since(caller.since) < HELLO_PATIENCE => {
                    self.callers.push(caller);
                }
                _ => tracing::debug!("hung up on a caller that is no rank of this job"),
            }
        }
        greeted
    }
}

impl Caller {
    /// Who it is, once it has said so and has been answered.
    fn listen(&mut self, key: &Key, to: Rank) -> io::Result<Option<Rank>> {
        let mut bytes = [0; GREETING_BYTES + 1];
        loop {
            let left = bytes.len() - self.heard.len();
            match self.stream.read(&mut bytes[..left]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.heard.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let Some((hello, rest)) = self.heard.split_first_chunk::<GREETING_BYTES>() else {
                continue;
            };
            let mut from = [0; size_of::<Rank>()];
            let at = MAGIC.len() + size_of::<Key>();
            from.copy_from_slice(&hello[at..at + size_of::<Rank>()]);
            let from = Rank::from_le_bytes(from);
            if *hello != greeting(key, from, to) {
                return Err(ErrorKind::InvalidData.into());
            }
            match rest {
                // A fresh connection always takes so few bytes at once.
                [] => self.stream.write_all(&greeting(key, to, from))?,
                [KEPT] => return Ok(Some(from)),
                _ => return Err(ErrorKind::InvalidData.into()),
            }
        }
    }
}

/// Who calls whom.
pub(super) struct Calling<'a> {
    pub key: &'a Key,
    pub from: Rank,
    pub to: Rank,
    /// Where the other may be, best first.
    pub addresses: &'a [SocketAddr],
}

impl Calling<'_> {
    /// Connects to the first address where the other answers, going over them again and again until
    /// the deadline; the error says what happened last, but for calls that this left no time. The
    /// stream is blocking.
    pub(super) fn connect(&self, deadline: Instant) -> Result<TcpStream, String> {
        let mut why = None;
        let mut patience = FIRST_PATIENCE;
        loop {
            for address in self.addresses {
                let now = Instant::now();
                let until = deadline.min(now + patience);
                let error = match self.attempt(address, until) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => error,
                };
                // Such a call says less than those before it.
                let is_cut = until.saturating_duration_since(now) < FIRST_PATIENCE;
                if why.is_none() || !is_cut || error.kind() != ErrorKind::TimedOut {
                    why = Some(format!("{address}: {error}"));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left <= PAUSE || self.addresses.is_empty() {
                return Err(why.unwrap_or_else(|| "it has no address".to_owned()));
            }
            std::thread::sleep(PAUSE);
            patience = (2 * patience).min(left);
        }
    }

    fn attempt(&self, address: &SocketAddr, until: Instant) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(address, left(until)?)?;
        stream.set_nodelay(true)?;
        write_by(&stream, &greeting(self.key, self.from, self.to), until)?;
        let mut answer = [0; GREETING_BYTES];
        read_by(&stream, &mut answer, until)?;
        if answer != greeting(self.key, self.to, self.from) {
            let why = "somebody else answers there";
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        write_by(&stream, &[KEPT], until)?;
        Ok(stream)
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// Reads exactly as many bytes as asked for from a blocking stream.
pub(super) fn read_by(mut stream: &TcpStream, bytes: &mut [u8], until: Instant) -> io::Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut bytes[at..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => at += count,
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all bytes to a blocking stream.
pub(super) fn write_by(mut stream: &TcpStream, bytes: &[u8], until: Instant) -> io::Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        stream.set_write_timeout(Some(left(until)?))?;
        match stream.write(&bytes[at..]) {
            Ok(count) => at += count,
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Errors that looking at the clock and trying again is the answer to.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
