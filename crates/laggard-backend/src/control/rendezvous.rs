//! How processes find each other that nothing but a launcher's variables connects, as torchrun's
//! do: all call rank 0, which tells everybody where the others listen. What comes of it is a
//! messenger, over which the control plane is then joined like over any other.

use super::card::{Card, listen};
use super::greeting::{Calling, Key, Reception, read_by, write_by};
use super::tcp_messenger::TcpMessenger;
use super::tree::ROOT;
use crate::agreement::hash;
use crate::{Abort, Abortable, BackendError, Messenger};
use laggard_types::Rank;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Pause between two looks for callers, and between two questions for an address.
const LOOK: Duration = Duration::from_millis(5);
/// Most bytes of all cards: of a million ranks that say a kilobyte each.
const MOST_BYTES: u64 = 1 << 30;

/// Where a launcher says that ranks meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeetingPoint {
    /// This rank.
    pub rank: Rank,
    /// How many ranks there are.
    pub size: u32,
    /// Rank 0's host, by name or address.
    pub address: String,
    /// The port that rank 0 listens on.
    pub port: u16,
    /// What tells this job from others at the same place.
    pub job: String,
}

impl MeetingPoint {
    /// From `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`, which torchrun sets and Slurm
    /// scripts can. Where torchrun's own store has the port (`TORCHELASTIC_USE_AGENT_STORE`), ranks
    /// meet on the next one. `None` where `RANK` and `WORLD_SIZE` are not both set.
    /// Source: docs.pytorch.org/docs/stable/elastic/run, "Environment Variables".
    ///
    /// # Errors
    /// [`BackendError::System`] for a variable that is missing or is no such number.
    pub fn from_variables(
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, BackendError> {
        let (Some(rank), Some(size)) = (get("RANK"), get("WORLD_SIZE")) else {
            return Ok(None);
        };
        let needed = |name: &str| {
            get(name).ok_or_else(|| refused(name, "it is not set, and RANK is".to_owned()))
        };
        let (rank, size): (Rank, u32) = (number("RANK", &rank)?, number("WORLD_SIZE", &size)?);
        if rank >= size {
            return Err(refused(
                "RANK",
                format!("it is {rank}, and WORLD_SIZE {size}"),
            ));
        }
        let port: u16 = number("MASTER_PORT", &needed("MASTER_PORT")?)?;
        let is_taken = get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|it| it == "True");
        let next = port.checked_add(u16::from(is_taken));
        Ok(Some(Self {
            rank,
            size,
            address: needed("MASTER_ADDR")?,
            port: next.ok_or_else(|| refused("MASTER_PORT", "there is none after it".into()))?,
            job: get("TORCHELASTIC_RUN_ID").unwrap_or_default(),
        }))
    }

    /// Meets the other ranks. Collective. `host` is this rank's host, for messages. An abort ends
    /// the waits of the messenger.
    ///
    /// # Errors
    /// [`BackendError::Timeout`] with the ranks that did not come within `limit`, on rank 0;
    /// [`BackendError::Unreachable`] elsewhere; [`BackendError::Invalid`] if two processes say that
    /// they are the same rank; [`BackendError::System`] if the port is taken.
    pub fn meet(
        &self,
        host: &str,
        limit: Duration,
        abort: &Abort,
    ) -> Result<Arc<dyn Messenger>, BackendError> {
        let door = match self.rank {
            ROOT => Some(self.open_door()?),
            _ => None,
        };
        self.meet_behind(door, host, limit, abort)
    }

    fn open_door(&self) -> Result<TcpListener, BackendError> {
        let any = [
            format!("[::]:{}", self.port),
            format!("0.0.0.0:{}", self.port),
        ];
        let sockets: Vec<SocketAddr> = any.iter().filter_map(|it| it.parse().ok()).collect();
        TcpListener::bind(sockets.as_slice()).map_err(|error| BackendError::System {
            what: format!("rank 0: listening on port {}", self.port),
            why: format!("{error}\nhint: set MASTER_PORT to a free port on all ranks"),
        })
    }

    /// [`MeetingPoint::meet`] where rank 0 has its door already.
    pub(super) fn meet_behind(
        &self,
        door: Option<TcpListener>,
        host: &str,
        limit: Duration,
        abort: &Abort,
    ) -> Result<Arc<dyn Messenger>, BackendError> {
        let deadline = Instant::now() + limit;
        let listener = listen(self.rank)?;
        let own = Card::write(self.rank, host, &listener)?.encode();
        let all = match door {
            Some(door) => self.receive(door, own, (limit, deadline))?,
            None => self.call(&own, deadline)?,
        };
        let cards: Option<Vec<Card>> = all.iter().map(|card| Card::decode(card)).collect();
        let cards = cards.filter(|cards| cards.len() == self.size as usize);
        let cards = cards.ok_or_else(|| self.invalid("what ranks say of themselves is garbled"))?;
        let messenger = Arc::new(TcpMessenger::start(self.rank, cards, listener)?);
        let listener: Weak<dyn Abortable> = Arc::downgrade(&messenger) as Weak<dyn Abortable>;
        abort.listen(listener);
        Ok(messenger)
    }

    /// Rank 0 hears from all, and tells them all cards.
    fn receive(
        &self,
        door: TcpListener,
        own: Vec<u8>,
        (limit, deadline): (Duration, Instant),
    ) -> Result<Vec<Vec<u8>>, BackendError> {
        let reception = Reception::new(door, self.key(), self.rank);
        let mut reception = reception.map_err(|error| BackendError::System {
            what: "rank 0: a listening socket".to_owned(),
            why: error.to_string(),
        })?;
        let mut callers: BTreeMap<Rank, (TcpStream, Vec<u8>)> = BTreeMap::new();
        while callers.len() + 1 < self.size as usize {
            if Instant::now() >= deadline {
                let missing: Vec<Rank> = (1..self.size)
                    .filter(|rank| !callers.contains_key(rank))
                    .collect();
                return Err(BackendError::Timeout {
                    rank: self.rank,
                    waited: limit,
                    waiting_for: format!("{} ranks to come to port {}", self.size, self.port),
                    missing,
                });
            }
            for (rank, stream) in reception.turn(Instant::now()) {
                let heard = stream.set_nonblocking(false);
                let card = heard.and_then(|()| hear(&stream, deadline));
                let card = card.map_err(|error| self.unreachable(rank, error.to_string()))?;
                if rank >= self.size || rank == ROOT || callers.contains_key(&rank) {
                    return Err(self.invalid(&format!("two processes say that they are {rank}")));
                }
                callers.insert(rank, (stream, card));
            }
            std::thread::sleep(LOOK);
        }
        let cards = callers.values().map(|(_, card)| card.clone());
        let all: Vec<Vec<u8>> = [own].into_iter().chain(cards).collect();
        let packed = crate::messenger::pack(&all);
        for (rank, (stream, _)) in &callers {
            let told = say(stream, &packed, deadline);
            told.map_err(|error| self.unreachable(*rank, error.to_string()))?;
        }
        Ok(all)
    }

    /// Another rank calls rank 0.
    fn call(&self, own: &[u8], deadline: Instant) -> Result<Vec<Vec<u8>>, BackendError> {
        let addresses = self.resolve(deadline)?;
        let calling = Calling {
            key: &self.key(),
            from: self.rank,
            to: ROOT,
            addresses: &addresses,
        };
        let stream = calling.connect(deadline);
        let stream = stream.map_err(|why| self.unreachable(ROOT, why))?;
        let told = say(&stream, own, deadline).and_then(|()| hear(&stream, deadline));
        let packed = told.map_err(|error| self.unreachable(ROOT, error.to_string()))?;
        Ok(crate::messenger::unpack(&packed))
    }

    /// Rank 0's addresses; name servers may know them later than ranks start.
    fn resolve(&self, deadline: Instant) -> Result<Vec<SocketAddr>, BackendError> {
        loop {
            match (self.address.as_str(), self.port).to_socket_addrs() {
                Ok(addresses) => return Ok(addresses.collect()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(self.unreachable(ROOT, error.to_string()));
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    /// No secret: it keeps ranks of other jobs and strangers apart from these.
    fn key(&self) -> Key {
        let of = |salt: u8| hash(self.job.bytes().chain([salt])).to_le_bytes();
        let mut key = Key::default();
        let (first, second) = key.split_at_mut(size_of::<u64>());
        first.copy_from_slice(&of(0));
        second.copy_from_slice(&of(1));
        key
    }

    fn unreachable(&self, other: Rank, why: String) -> BackendError {
        BackendError::Unreachable {
            rank: self.rank,
            other,
            host: match other {
                ROOT => self.address.clone(),
                _ => "unknown".to_owned(),
            },
            why,
        }
    }

    fn invalid(&self, why: &str) -> BackendError {
        BackendError::Invalid {
            rank: self.rank,
            call: format!("meeting at {}:{}", self.address, self.port),
            why: why.to_owned(),
        }
    }
}

fn refused(name: &str, why: String) -> BackendError {
    BackendError::System {
        what: format!("reading {name}"),
        why: format!(
            "{why}\nhint: torchrun sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; without it, \
             set all four"
        ),
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, BackendError> {
    text.parse()
        .map_err(|_| refused(name, format!("`{text}` is no such number")))
}

fn say(stream: &TcpStream, message: &[u8], deadline: Instant) -> io::Result<()> {
    write_by(stream, &(message.len() as u64).to_le_bytes(), deadline)?;
    write_by(stream, message, deadline)
}

fn hear(stream: &TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut length = [0; size_of::<u64>()];
    read_by(stream, &mut length, deadline)?;
    let length = u64::from_le_bytes(length);
    if length > MOST_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length as usize];
    read_by(stream, &mut message, deadline)?;
    Ok(message)
}
