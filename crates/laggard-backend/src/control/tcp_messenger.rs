//! Messages over TCP connections of their own, made when first used, one for each direction. A
//! thread takes callers in; everything else is done by whoever sends or receives.

use super::card::Card;
use super::greeting::{Calling, Key, Reception, write_by};
use super::tree::ROOT;
use crate::{Abortable, BackendError, Messenger};
use laggard_types::Rank;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait before a look at whether the world goes on.
const LOOK: Duration = Duration::from_millis(50);
/// The same for the thread that takes callers in.
const LOOK_MS: u16 = 200;
/// Bytes of a length, in front of each message.
const LENGTH_BYTES: usize = size_of::<u64>();
/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 << 10;

/// Callers that nobody has listened to yet.
#[derive(Default)]
struct Lobby {
    callers: Mutex<BTreeMap<Rank, TcpStream>>,
    bell: Condvar,
    aborted: Mutex<Option<String>>,
    is_over: AtomicBool,
}

/// A connection that messages come from, and what has come of the next one.
struct Hearing {
    stream: TcpStream,
    heard: Vec<u8>,
}

/// One rank's side.
pub(super) struct TcpMessenger {
    rank: Rank,
    cards: Vec<Card>,
    key: Key,
    lobby: Arc<Lobby>,
    doorman: Option<JoinHandle<()>>,
    sending: Mutex<BTreeMap<Rank, TcpStream>>,
    hearing: Mutex<BTreeMap<Rank, Hearing>>,
    /// Messages of this rank to itself.
    own: Mutex<VecDeque<Vec<u8>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TcpMessenger {
    /// Between the ranks of these cards, of which this one listens here.
    pub(super) fn start(
        rank: Rank,
        cards: Vec<Card>,
        listener: TcpListener,
    ) -> Result<Self, BackendError> {
        let system = |why: String| BackendError::System {
            what: format!("rank {rank}: a listening socket"),
            why,
        };
        let key = cards
            .get(ROOT as usize)
            .map_or(Key::default(), |card| card.key);
        let reception = Reception::new(listener, key, rank);
        let reception = reception.map_err(|error| system(error.to_string()))?;
        let lobby: Arc<Lobby> = Arc::default();
        let of_doorman = Arc::clone(&lobby);
        let doorman = std::thread::Builder::new().name("laggard-door".to_owned());
        let doorman = doorman.spawn(move || of_doorman.take_in(reception));
        Ok(Self {
            rank,
            cards,
            key,
            lobby,
            doorman: Some(doorman.map_err(|error| system(error.to_string()))?),
            sending: Mutex::default(),
            hearing: Mutex::default(),
            own: Mutex::default(),
        })
    }

    fn card(&self, other: Rank) -> Result<&Card, BackendError> {
        let card = self.cards.get(other as usize);
        card.ok_or_else(|| BackendError::Invalid {
            rank: self.rank,
            call: "message".to_owned(),
            why: format!("there is no rank {other}"),
        })
    }

    fn unreachable(&self, other: Rank, why: String) -> BackendError {
        let host = self.cards.get(other as usize);
        BackendError::Unreachable {
            rank: self.rank,
            other,
            host: host.map_or_else(String::new, |card| card.host.clone()),
            why,
        }
    }

    fn check(&self) -> Result<(), BackendError> {
        match &*lock(&self.lobby.aborted) {
            Some(reason) => Err(BackendError::Aborted {
                rank: self.rank,
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    fn late(&self, from: Rank, begin: Instant) -> BackendError {
        BackendError::Timeout {
            rank: self.rank,
            waited: begin.elapsed(),
            waiting_for: "a message".to_owned(),
            missing: vec![from],
        }
    }

    /// Time until the next look; none if the deadline is over.
    fn pause(deadline: Instant) -> Option<Duration> {
        let left = deadline.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.min(LOOK))
    }

    /// The connection that a rank's messages come by, once it has called.
    fn caller(&self, from: Rank, deadline: Instant) -> Result<TcpStream, BackendError> {
        let begin = Instant::now();
        let mut callers = lock(&self.lobby.callers);
        loop {
            if let Some(stream) = callers.remove(&from) {
                let blocking = stream.set_nonblocking(false);
                blocking.map_err(|error| self.unreachable(from, error.to_string()))?;
                return Ok(stream);
            }
            self.check()?;
            let pause = Self::pause(deadline).ok_or_else(|| self.late(from, begin))?;
            let waited = self.lobby.bell.wait_timeout(callers, pause);
            callers = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reads on until so many bytes have been heard.
    fn hear(
        &self,
        from: Rank,
        hearing: &mut Hearing,
        (bytes, deadline): (usize, Instant),
    ) -> Result<(), BackendError> {
        let begin = Instant::now();
        let mut piece = vec![0; bytes.min(PIECE_BYTES)];
        while hearing.heard.len() < bytes {
            self.check()?;
            let pause = Self::pause(deadline).ok_or_else(|| self.late(from, begin))?;
            let read = hearing.stream.set_read_timeout(Some(pause));
            let wanted = (bytes - hearing.heard.len()).min(PIECE_BYTES);
            match read.and_then(|()| hearing.stream.read(&mut piece[..wanted])) {
                Ok(0) => {
                    return Err(self.unreachable(from, "it ended the connection".to_owned()));
                }
                Ok(count) => hearing.heard.extend_from_slice(&piece[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Err(self.unreachable(from, error.to_string())),
                },
            }
        }
        Ok(())
    }

    fn mismatch(&self, from: Rank, expected: usize, came: u64) -> BackendError {
        BackendError::Mismatch {
            rank: self.rank,
            call: format!("receive of {expected} bytes"),
            other: from,
            other_call: format!("send of {came} bytes"),
        }
    }

    fn receive_own(&self, message: &mut [u8], deadline: Instant) -> Result<(), BackendError> {
        let begin = Instant::now();
        loop {
            if let Some(came) = lock(&self.own).pop_front() {
                if came.len() != message.len() {
                    return Err(self.mismatch(self.rank, message.len(), came.len() as u64));
                }
                message.copy_from_slice(&came);
                return Ok(());
            }
            self.check()?;
            let pause = Self::pause(deadline).ok_or_else(|| self.late(self.rank, begin))?;
            std::thread::sleep(pause);
        }
    }
}

impl Messenger for TcpMessenger {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn size(&self) -> u32 {
        u32::try_from(self.cards.len()).unwrap_or(u32::MAX)
    }

    fn send(&self, to: Rank, message: &[u8], deadline: Instant) -> Result<(), BackendError> {
        let card = self.card(to)?;
        self.check()?;
        if to == self.rank {
            lock(&self.own).push_back(message.to_vec());
            return Ok(());
        }
        let mut sending = lock(&self.sending);
        let stream = match sending.remove(&to) {
            Some(stream) => stream,
            None => {
                let calling = Calling {
                    key: &self.key,
                    from: self.rank,
                    to,
                    addresses: &card.sockets(self.card(self.rank)?),
                };
                let called = calling.connect(deadline);
                called.map_err(|why| self.unreachable(to, why))?
            }
        };
        let length = (message.len() as u64).to_le_bytes();
        let sent = write_by(&stream, &[&length[..], message].concat(), deadline);
        match sent {
            Ok(()) => {
                sending.insert(to, stream);
                Ok(())
            }
            // What was sent in part is never completed: the connection ends here.
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(BackendError::Timeout {
                rank: self.rank,
                waited: Duration::ZERO,
                waiting_for: "a message to be taken".to_owned(),
                missing: vec![to],
            }),
            Err(error) => Err(self.unreachable(to, error.to_string())),
        }
    }

    fn receive(
        &self,
        from: Rank,
        message: &mut [u8],
        deadline: Instant,
    ) -> Result<(), BackendError> {
        self.card(from)?;
        if from == self.rank {
            return self.receive_own(message, deadline);
        }
        let mut all = lock(&self.hearing);
        if let std::collections::btree_map::Entry::Vacant(place) = all.entry(from) {
            place.insert(Hearing {
                stream: self.caller(from, deadline)?,
                heard: Vec::new(),
            });
        }
        let Some(hearing) = all.get_mut(&from) else {
            return Ok(());
        };
        self.hear(from, hearing, (LENGTH_BYTES, deadline))?;
        let mut length = [0; LENGTH_BYTES];
        length.copy_from_slice(&hearing.heard[..LENGTH_BYTES]);
        let length = u64::from_le_bytes(length);
        if length != message.len() as u64 {
            return Err(self.mismatch(from, message.len(), length));
        }
        self.hear(from, hearing, (LENGTH_BYTES + message.len(), deadline))?;
        message.copy_from_slice(&hearing.heard[LENGTH_BYTES..]);
        hearing.heard.clear();
        Ok(())
    }
}

impl Abortable for TcpMessenger {
    fn abort(&self, reason: &str) {
        lock(&self.lobby.aborted).get_or_insert_with(|| reason.to_owned());
        self.lobby.bell.notify_all();
    }
}

impl Drop for TcpMessenger {
    fn drop(&mut self) {
        self.lobby.is_over.store(true, Ordering::Release);
        if let Some(doorman) = self.doorman.take() {
            drop(doorman.join());
        }
    }
}

impl Lobby {
    /// Greets callers until it is over.
    fn take_in(&self, mut reception: Reception) {
        while !self.is_over.load(Ordering::Acquire) {
            let mut fds: Vec<PollFd<'_>> = reception
                .inputs()
                .map(|input| PollFd::new(input, PollFlags::POLLIN))
                .collect();
            // However it ends, a look does no harm.
            let _ = poll(&mut fds, PollTimeout::from(LOOK_MS));
            drop(fds);
            let greeted = reception.turn(Instant::now());
            if !greeted.is_empty() {
                lock(&self.callers).extend(greeted);
                self.bell.notify_all();
            }
        }
    }
}
