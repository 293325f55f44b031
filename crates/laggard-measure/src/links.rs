//! What the network between hosts does, probed by round trips of messages before the run.
//!
//! Up to [`ALL_PAIRS_HOSTS`] hosts, every pair is probed; of more hosts, each is probed with those
//! at distances of powers of two in a ring, so that time grows with the logarithm of their number.
//! Pairs that are probed at the same time share no machine. Knows messages only.

use crate::MeasureError;
use laggard_backend::{BackendError, Messenger, messenger};
use laggard_record::Link;
use laggard_stats::median;
use laggard_types::Rank;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Where ranks are; one entry per rank in both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostPlaces<'a> {
    /// Hosts, numbered from 0 without gaps; links name them.
    pub host_of_rank: &'a [u32],
    /// Machines: hosts of one machine share its processors and network.
    pub machine_of_rank: &'a [u32],
}

/// How much time and memory probes take.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LinkOptions {
    /// Time for one pair. A single round trip of the least size may take longer.
    pub pair_time: Duration,
    /// Messages grow until a round trip of the next size would take longer than this.
    pub longest_round_trip: Duration,
    /// The largest message.
    pub largest_bytes: u64,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            pair_time: Duration::from_millis(100),
            longest_round_trip: Duration::from_millis(20),
            largest_bytes: 64 << 20,
        }
    }
}

/// Hosts up to which every pair is probed.
const ALL_PAIRS_HOSTS: usize = 16;
/// Messages that the latency is measured with.
const SMALL_BYTES: usize = 8;
/// The latency is the best of so many round trips.
const SMALL_ROUND_TRIPS: u64 = 50;
/// Messages that a bandwidth is first measured with.
const LEAST_BYTES: u64 = 64 << 10;
/// From one size to the next.
const GROWTH: u32 = 4;
/// The bandwidth is the median of so many round trips, if there is time.
const LARGE_ROUND_TRIPS: u64 = 5;
/// No round trip is taken for shorter than this.
const CLOCK_STEP: Duration = Duration::from_nanos(1);
/// What messages are for, in errors.
const PURPOSE: &str = "probing links";

/// Probes the links between hosts: on rank 0 what was found, nothing on other ranks. Collective.
///
/// # Errors
/// [`MeasureError::Exchange`] if a rank does not answer before the deadline, or the world is
/// aborted.
pub(crate) fn probe_links(
    messenger: &dyn Messenger,
    places: HostPlaces<'_>,
    options: &LinkOptions,
    deadline: Instant,
) -> Result<Vec<Link>, MeasureError> {
    let (rank, size) = (messenger.rank(), messenger.size());
    assert_eq!(places.host_of_rank.len(), size as usize);
    assert_eq!(places.machine_of_rank.len(), size as usize);
    let failed = exchange_error(messenger);
    let hosts = representatives(places);
    let mut found: Vec<Link> = Vec::new();
    for round in rounds(&hosts) {
        // Nobody begins a round before all have ended the one before.
        messenger::gather(messenger, &[], deadline).map_err(&failed)?;
        messenger::broadcast(messenger, &[], deadline).map_err(&failed)?;
        for (from, to) in round {
            let pair = |peer| Pair {
                messenger,
                peer,
                options,
                deadline,
            };
            let (driver, echo) = (hosts[from].rank, hosts[to].rank);
            if rank == driver {
                let measured = pair(echo).drive().map_err(&failed)?;
                found.push(measured.link(hosts[from].host, hosts[to].host));
            } else if rank == echo {
                pair(driver).echo().map_err(&failed)?;
            }
        }
    }
    collect(messenger, &found, deadline)
}

/// Pairs of ranks in rounds whose pairs share no machine: all pairs of few ranks, of more those at
/// distances of powers of two in a ring. Within a pair the lower rank comes first.
pub(crate) fn disjoint_pairs(machine_of_rank: &[u32]) -> Vec<Vec<(Rank, Rank)>> {
    let host_rank = |(machine, rank): (&u32, Rank)| HostRank {
        host: rank,
        machine: *machine,
        rank,
    };
    let ranks: Vec<HostRank> = machine_of_rank.iter().zip(0..).map(host_rank).collect();
    let rounds = rounds(&ranks).into_iter();
    let of_ranks = |(from, to): (usize, usize)| (ranks[from].rank, ranks[to].rank);
    rounds
        .map(|round| round.into_iter().map(of_ranks).collect())
        .collect()
}

/// The rank that speaks for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HostRank {
    host: u32,
    machine: u32,
    rank: Rank,
}

/// The lowest rank of each host, in order of host.
fn representatives(places: HostPlaces<'_>) -> Vec<HostRank> {
    let mut first: BTreeMap<u32, HostRank> = BTreeMap::new();
    let machines = places.machine_of_rank;
    for (rank, (&host, &machine)) in (0..).zip(places.host_of_rank.iter().zip(machines)) {
        first.entry(host).or_insert(HostRank {
            host,
            machine,
            rank,
        });
    }
    first.into_values().collect()
}

/// Pairs that are probed at the same time.
#[derive(Default)]
struct Round {
    machines: BTreeSet<u32>,
    pairs: Vec<(usize, usize)>,
}

/// Pairs of hosts, by position, in rounds whose pairs share no machine; within a pair the lower
/// position comes first.
fn rounds(hosts: &[HostRank]) -> Vec<Vec<(usize, usize)>> {
    let mut rounds: Vec<Round> = Vec::new();
    for pair in pairs(hosts.len()) {
        let machines = BTreeSet::from([hosts[pair.0].machine, hosts[pair.1].machine]);
        let free = rounds
            .iter()
            .position(|round| round.machines.is_disjoint(&machines));
        let index = free.unwrap_or(rounds.len());
        if free.is_none() {
            rounds.push(Round::default());
        }
        rounds[index].machines.extend(machines);
        rounds[index].pairs.push(pair);
    }
    rounds.into_iter().map(|round| round.pairs).collect()
}

fn pairs(hosts: usize) -> Vec<(usize, usize)> {
    let all = |hosts: usize| (0..hosts).flat_map(move |to| (0..to).map(move |from| (from, to)));
    if hosts <= ALL_PAIRS_HOSTS {
        let mut pairs: Vec<_> = all(hosts).collect();
        // Pairs that differ by the same bits share no host: they fit into one round.
        pairs.sort_by_key(|(from, to)| from ^ to);
        return pairs;
    }
    let distances = (0..).map(|bit| 1 << bit);
    let distances = distances.take_while(|distance| 2 * distance <= hosts);
    let ring = distances.flat_map(|distance| {
        (0..hosts).map(move |from| {
            let to = (from + distance) % hosts;
            (distance, from.min(to), from.max(to))
        })
    });
    let distinct: BTreeSet<_> = ring.collect();
    distinct
        .into_iter()
        .map(|(_, from, to)| (from, to))
        .collect()
}

/// What a pair's round trips came to.
struct Measured {
    latency: Duration,
    bytes: u64,
    bandwidth_bytes_per_s: f64,
}

impl Measured {
    fn link(&self, from_host: u32, to_host: u32) -> Link {
        Link {
            from_host,
            to_host,
            latency_ns: i64::try_from(self.latency.as_nanos()).unwrap_or(i64::MAX),
            bytes: self.bytes,
            bandwidth_bytes_per_s: self.bandwidth_bytes_per_s,
        }
    }
}

/// One side of a pair.
struct Pair<'a> {
    messenger: &'a dyn Messenger,
    peer: Rank,
    options: &'a LinkOptions,
    deadline: Instant,
}

/// What the driver announces: the size of messages and how many follow; none is the end.
type Announcement = [u64; 2];
const ANNOUNCEMENT_BYTES: usize = size_of::<Announcement>();

impl Pair<'_> {
    /// Measures, against a peer in [`Pair::echo`].
    fn drive(&self) -> Result<Measured, BackendError> {
        let begin = Instant::now();
        let latency = self.latency()?;
        let (bytes, times) = self.large(begin)?;
        self.announce([0, 0])?;
        Ok(Measured {
            latency,
            bytes,
            bandwidth_bytes_per_s: bandwidth(bytes, &times),
        })
    }

    /// Sends back what the peer sends, until it ends.
    fn echo(&self) -> Result<(), BackendError> {
        let mut message = Vec::new();
        loop {
            let mut announcement = [0; ANNOUNCEMENT_BYTES];
            self.messenger
                .receive(self.peer, &mut announcement, self.deadline)?;
            let [bytes, count] = unpack(&announcement);
            if count == 0 {
                return Ok(());
            }
            message.resize(bytes as usize, 1);
            for _ in 0..count {
                self.messenger
                    .receive(self.peer, &mut message, self.deadline)?;
                self.messenger.send(self.peer, &message, self.deadline)?;
            }
        }
    }

    /// Half the best round trip of small messages.
    fn latency(&self) -> Result<Duration, BackendError> {
        let mut message = vec![1; SMALL_BYTES];
        let first = self.round_trips(&mut message, 1)?[0];
        // The large messages have the greater part of the time.
        let count = affordable(self.options.pair_time / 4, first).clamp(1, SMALL_ROUND_TRIPS);
        let times = self.round_trips(&mut message, count)?;
        Ok(times.into_iter().fold(first, Duration::min) / 2)
    }

    /// Round trips of the largest messages that there is time for, and their size.
    fn large(&self, begin: Instant) -> Result<(u64, Vec<Duration>), BackendError> {
        let left = || self.options.pair_time.saturating_sub(begin.elapsed());
        let largest = self.options.largest_bytes.max(1);
        let mut bytes = LEAST_BYTES.min(largest);
        loop {
            let mut message = vec![1; bytes as usize];
            let mut times = self.round_trips(&mut message, 1)?;
            if times[0] <= left() {
                // The first one of a size may have had memory to set up.
                times = self.round_trips(&mut message, 1)?;
            }
            let next = bytes.saturating_mul(u64::from(GROWTH));
            let longest = self.options.longest_round_trip.min(left());
            if next > largest || times[0] * GROWTH > longest {
                let more = affordable(left(), times[0]).min(LARGE_ROUND_TRIPS - 1);
                times.extend(self.round_trips(&mut message, more)?);
                return Ok((bytes, times));
            }
            bytes = next;
        }
    }

    fn round_trips(&self, message: &mut [u8], count: u64) -> Result<Vec<Duration>, BackendError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        self.announce([message.len() as u64, count])?;
        let times = (0..count).map(|_| {
            let begin = Instant::now();
            self.messenger.send(self.peer, message, self.deadline)?;
            self.messenger.receive(self.peer, message, self.deadline)?;
            Ok(begin.elapsed())
        });
        times.collect()
    }

    fn announce(&self, announcement: Announcement) -> Result<(), BackendError> {
        let [bytes, count] = announcement.map(u64::to_le_bytes);
        let message = [bytes, count].concat();
        self.messenger.send(self.peer, &message, self.deadline)
    }
}

fn unpack(message: &[u8; ANNOUNCEMENT_BYTES]) -> Announcement {
    let (bytes, count) = message.split_at(ANNOUNCEMENT_BYTES / 2);
    [bytes, count].map(|part| part.try_into().map_or(0, u64::from_le_bytes))
}

/// Bytes per second one way, from the median of at least one round trip.
fn bandwidth(bytes: u64, round_trips: &[Duration]) -> f64 {
    let seconds: Vec<f64> = round_trips.iter().map(Duration::as_secs_f64).collect();
    let round_trip = median(&seconds).unwrap_or_default();
    2.0 * bytes as f64 / round_trip.max(CLOCK_STEP.as_secs_f64())
}

/// How many round trips of this length fit into a time.
fn affordable(time: Duration, round_trip: Duration) -> u64 {
    (time.as_nanos() / round_trip.max(CLOCK_STEP).as_nanos()) as u64
}

/// Brings the links that ranks have found to rank 0.
fn collect(
    messenger: &dyn Messenger,
    found: &[Link],
    deadline: Instant,
) -> Result<Vec<Link>, MeasureError> {
    let own = serde_json::to_vec(found).map_err(|error| unreadable(&error))?;
    let all = messenger::gather(messenger, &own, deadline).map_err(exchange_error(messenger))?;
    let mut links = Vec::new();
    for bytes in all.unwrap_or_default() {
        let part: Vec<Link> = serde_json::from_slice(&bytes).map_err(|e| unreadable(&e))?;
        links.extend(part);
    }
    links.sort_by_key(|link| (link.from_host, link.to_host));
    Ok(links)
}

fn exchange_error(messenger: &dyn Messenger) -> impl Fn(BackendError) -> MeasureError {
    let rank = messenger.rank();
    move |source| MeasureError::Exchange {
        rank,
        what: PURPOSE,
        source,
    }
}

fn unreadable(error: &serde_json::Error) -> MeasureError {
    MeasureError::System {
        what: PURPOSE.to_owned(),
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
