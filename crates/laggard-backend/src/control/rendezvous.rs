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
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Pause between two looks for callers, and between two questions for an address.
const LOOK: Duration = Duration::from_millis(5);
/// Most bytes of all cards: of a million ranks that say a kilobyte each.
const MOST_BYTES: u64 = 1 << 30;

/// Ports after the one that torchrun's own store has, of which rank 0 takes the first that is free.
const PORTS_TO_TRY: u16 = 8;
/// What rank 0 begins its answer with: everybody's cards follow, or why there will be none.
const CARDS: u8 = 1;
const REFUSAL: u8 = 0;
/// How long those that came are told why there is no meeting.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where a launcher says that ranks meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeetingPoint {
    /// This rank.
    pub rank: Rank,
    /// How many ranks there are.
    pub size: u32,
    /// Rank 0's host, by name or address.
    pub address: String,
    /// The ports that rank 0 may listen on: the first that is free.
    pub ports: RangeInclusive<u16>,
    /// What tells this job from others at the same place.
    pub job: String,
}

impl MeetingPoint {
    /// From `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`, which torchrun sets, and scripts
    /// of Slurm and Kubernetes. Where torchrun's own store has the port
    /// (`TORCHELASTIC_USE_AGENT_STORE`), ranks meet on one of the next. `None` where `RANK` and
    /// `WORLD_SIZE` are not both set.
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
        let ports = match is_taken {
            true => port.saturating_add(1)..=port.saturating_add(PORTS_TO_TRY),
            false => port..=port,
        };
        if is_taken && port == u16::MAX {
            return Err(refused("MASTER_PORT", "there is none after it".to_owned()));
        }
        // A job that torchrun starts anew is another one.
        let names = ["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"];
        let job = names.map(|name| get(name).unwrap_or_default()).join(" ");
        Ok(Some(Self {
            rank,
            size,
            address: needed("MASTER_ADDR")?,
            ports,
            job,
        }))
    }

    /// Meets the other ranks. Collective. `host` is this rank's host, for messages. An abort ends
    /// the waits of the messenger.
    ///
    /// # Errors
    /// [`BackendError::Timeout`] with the ranks that did not come within `limit`, on rank 0, which
    /// tells the others: [`BackendError::Aborted`]; [`BackendError::Unreachable`] where rank 0
    /// does not answer; [`BackendError::Invalid`] if two processes say that they are the same rank,
    /// or ranks do not agree on how many there are; [`BackendError::System`] if the port is taken.
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
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
            Ipv4Addr::UNSPECIFIED.into(),
        ];
        let on_port = |port| any.map(|address| SocketAddr::new(address, port));
        let sockets: Vec<SocketAddr> = self.ports.clone().flat_map(on_port).collect();
        TcpListener::bind(sockets.as_slice()).map_err(|error| BackendError::System {
            what: format!("rank 0: listening on {}", self.ports_in_words()),
            why: format!(
                "{error}\nhint: give another port, as MASTER_PORT on all ranks or `torchrun \
                 --master-port`"
            ),
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

    /// Rank 0 hears from all, and tells them all cards, or why there is no meeting.
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
        let mut callers = BTreeMap::new();
        let come = self.await_callers(&mut reception, &mut callers, (limit, deadline));
        let answer = match &come {
            Ok(()) => {
                let cards = callers.values().map(|caller| caller.card.clone());
                let all: Vec<Vec<u8>> = [own.clone()].into_iter().chain(cards).collect();
                [&[CARDS], &crate::messenger::pack(&all)[..]].concat()
            }
            Err(error) => refusal(error),
        };
        let patience = match come {
            Ok(()) => deadline,
            Err(_) => Instant::now() + FAREWELL,
        };
        for (rank, caller) in &callers {
            let told = say(&caller.stream, &answer, patience);
            let told = told.map_err(|error| self.unreachable(*rank, error.to_string()));
            // Of two failures, the first is the one to tell of.
            if come.is_ok() {
                told?;
            }
        }
        come?;
        let cards = callers.into_values().map(|caller| caller.card);
        Ok([own].into_iter().chain(cards).collect())
    }

    /// Takes in callers until all ranks have come.
    fn await_callers(
        &self,
        reception: &mut Reception,
        callers: &mut BTreeMap<Rank, Caller>,
        (limit, deadline): (Duration, Instant),
    ) -> Result<(), BackendError> {
        while callers.len() + 1 < self.size as usize {
            if Instant::now() >= deadline {
                let missing = (1..self.size).filter(|rank| !callers.contains_key(rank));
                return Err(BackendError::Timeout {
                    rank: self.rank,
                    waited: limit,
                    waiting_for: format!(
                        "{} ranks to meet at {} on {} ({})",
                        self.size,
                        self.address,
                        self.ports_in_words(),
                        present(callers)
                    ),
                    missing: missing.collect(),
                });
            }
            for (rank, stream) in reception.turn(Instant::now()) {
                let heard = stream.set_nonblocking(false);
                let hello = heard.and_then(|()| hear(&stream, deadline));
                let hello = hello.map_err(|error| self.unreachable(rank, error.to_string()))?;
                let caller = Caller::new(stream, &hello)
                    .ok_or_else(|| self.invalid("what ranks say of themselves is garbled"))?;
                self.check(rank, &caller, callers).inspect_err(|error| {
                    let farewell = Instant::now() + FAREWELL;
                    _ = say(&caller.stream, &refusal(error), farewell);
                })?;
                callers.insert(rank, caller);
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Whether a caller is one of this job's other ranks, and the first that says so.
    fn check(
        &self,
        rank: Rank,
        caller: &Caller,
        callers: &BTreeMap<Rank, Caller>,
    ) -> Result<(), BackendError> {
        let (host, own) = (caller.host(), self.size);
        if caller.size != own {
            let size = caller.size;
            return Err(self.invalid(&format!(
                "WORLD_SIZE is {size} on rank {rank} (host {host}), and {own} on rank 0"
            )));
        }
        let other = callers.get(&rank).map(Caller::host);
        let other = other.or((rank == ROOT).then(|| self.address.clone()));
        match other {
            None => Ok(()),
            Some(other) => Err(self.invalid(&format!(
                "two processes say that they are {rank}, on hosts {other} and {host}"
            ))),
        }
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
        let hello = [&self.size.to_le_bytes(), own].concat();
        // Rank 0 says at the deadline who is missing.
        let patience = deadline + FAREWELL;
        let told = say(&stream, &hello, deadline).and_then(|()| hear(&stream, patience));
        let answer = told.map_err(|error| self.unreachable(ROOT, error.to_string()))?;
        match answer.split_first() {
            Some((&CARDS, packed)) => Ok(crate::messenger::unpack(packed)),
            Some((_, why)) => Err(BackendError::Aborted {
                rank: self.rank,
                reason: String::from_utf8_lossy(why).into_owned(),
            }),
            None => Err(self.invalid("rank 0 has no answer")),
        }
    }

    /// Rank 0's addresses; name servers may know them later than ranks start.
    fn resolve(&self, deadline: Instant) -> Result<Vec<SocketAddr>, BackendError> {
        loop {
            match (self.address.as_str(), 0).to_socket_addrs() {
                Ok(addresses) => {
                    let hosts: Vec<IpAddr> = addresses.map(|it| it.ip()).collect();
                    let on_port = |port| {
                        let at = |host: &IpAddr| SocketAddr::new(*host, port);
                        hosts.iter().map(at).collect::<Vec<_>>()
                    };
                    return Ok(self.ports.clone().flat_map(on_port).collect());
                }
                Err(error) if Instant::now() >= deadline => {
                    return Err(self.unreachable(ROOT, error.to_string()));
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    /// No secret: it keeps ranks of other jobs and strangers apart from these. Jobs at one place
    /// differ in their first port, though later ones may be the same.
    fn key(&self) -> Key {
        let place = self.ports.start().to_le_bytes();
        let of = |salt: u8| {
            let bytes = self.job.bytes().chain(place).chain([salt]);
            hash(bytes).to_le_bytes()
        };
        let mut key = Key::default();
        let (first, second) = key.split_at_mut(size_of::<u64>());
        first.copy_from_slice(&of(0));
        second.copy_from_slice(&of(1));
        key
    }

    fn ports_in_words(&self) -> String {
        let (first, last) = (self.ports.start(), self.ports.end());
        match first == last {
            true => format!("port {first}"),
            false => format!("one of ports {first} to {last}"),
        }
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
            call: format!("meeting at {} on {}", self.address, self.ports_in_words()),
            why: format!(
                "{why}\nhint: every process needs a RANK of its own, and all the same WORLD_SIZE"
            ),
        }
    }
}

/// A rank that has called rank 0.
struct Caller {
    stream: TcpStream,
    /// How many ranks it says there are.
    size: u32,
    card: Vec<u8>,
}

impl Caller {
    fn new(stream: TcpStream, hello: &[u8]) -> Option<Self> {
        let (size, card) = hello.split_first_chunk()?;
        Some(Self {
            stream,
            size: u32::from_le_bytes(*size),
            card: card.to_vec(),
        })
    }

    fn host(&self) -> String {
        let card = Card::decode(&self.card);
        card.map_or_else(|| "unknown".to_owned(), |card| card.host)
    }
}

/// What rank 0 answers where there will be no meeting.
fn refusal(why: &BackendError) -> Vec<u8> {
    [&[REFUSAL], why.to_string().as_bytes()].concat()
}

/// Who has come, by host.
fn present(callers: &BTreeMap<Rank, Caller>) -> String {
    let mut hosts: BTreeMap<String, Vec<Rank>> = BTreeMap::new();
    for (rank, caller) in callers {
        hosts.entry(caller.host()).or_default().push(*rank);
    }
    let of_host = |(host, ranks): (&String, &Vec<Rank>)| {
        let ranks: Vec<_> = ranks.iter().map(ToString::to_string).collect();
        format!("rank {} of host {host}", ranks.join(", "))
    };
    match hosts.is_empty() {
        true => "no other has come".to_owned(),
        false => {
            let come: Vec<_> = hosts.iter().map(of_host).collect();
            format!("{} came", come.join("; "))
        }
    }
}

fn refused(name: &str, why: String) -> BackendError {
    BackendError::System {
        what: format!("reading {name}"),
        why: format!(
            "{why}\nhint: torchrun sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; without it, \
             set all four, or none to run on this machine alone"
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
