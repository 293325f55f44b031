//! Messages between pairs of ranks, one pair at a time on each machine: what a single link or host
//! does, which a collective over all of them hides.

use super::seat::Seat;
use crate::links::disjoint_pairs;
use laggard_backend::{BackendError, Call, Slice, messenger};
use laggard_record::PairSamples;
use laggard_types::{DataType, Rank};
use std::time::Instant;

/// Messages that are timed in each direction, and those before them.
const MESSAGES: usize = 7;
const WARM_UP: usize = 2;

/// What a rank saw of a message, on the common clock: when it was ready, and when it was done.
pub(super) type Seen = [i64; 2];

/// One direction of a pair, as one of its ranks saw it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Half {
    pub from: Rank,
    pub to: Rank,
    pub seen: Vec<Seen>,
}

/// Elements of a message of so many bytes, as near as they come.
fn elements((data_type, bytes): (DataType, u64)) -> usize {
    let size = data_type.size_bytes() as u64;
    usize::try_from((bytes / size).max(1)).unwrap_or(usize::MAX)
}

/// Probes the pairs that this rank is in, while others probe theirs, and says whether rank 0 was
/// asked to end before all were probed. Collective.
pub(super) fn probe(
    seat: &mut Seat<'_>,
    (data_type, bytes): (DataType, u64),
    machine_of_rank: &[u32],
    is_asked_to_end: &dyn Fn() -> bool,
) -> Result<(Vec<Half>, bool), BackendError> {
    let me = seat.world.data.rank();
    let len = elements((data_type, bytes));
    let allocate = |len| Ok(Slice::whole(&seat.world.device.allocate(data_type, len)?));
    let buffers = (allocate(len)?, allocate(1)?);
    let mut halves = Vec::new();
    for round in disjoint_pairs(machine_of_rank) {
        // Nobody begins a round before all have ended the one before.
        let deadline = Instant::now() + seat.timeout;
        messenger::all_gather(&*seat.world.messenger, &[], deadline)?;
        if seat.agree(u64::from(is_asked_to_end()))? != 0 {
            return Ok((halves, true));
        }
        for (from, to) in round {
            if me != from && me != to {
                continue;
            }
            for (from, to) in [(from, to), (to, from)] {
                let seen = one_way(seat, (from, to), &buffers)?;
                halves.push(Half { from, to, seen });
            }
        }
    }
    Ok((halves, false))
}

/// Messages in one direction. The receiver says first that it is ready, so that nobody's lateness
/// counts.
fn one_way(
    seat: &mut Seat<'_>,
    (from, to): (Rank, Rank),
    (message, word): &(Slice, Slice),
) -> Result<Vec<Seen>, BackendError> {
    let is_sender = seat.world.data.rank() == from;
    let mut seen = Vec::with_capacity(MESSAGES);
    for number in 0..WARM_UP + MESSAGES {
        let (word, message) = (word.clone(), message.clone());
        let both = match is_sender {
            true => [
                Call::Receive {
                    buffer: word,
                    from: to,
                },
                Call::Send {
                    buffer: message,
                    to,
                },
            ],
            false => [
                Call::Send {
                    buffer: word,
                    to: from,
                },
                Call::Receive {
                    buffer: message,
                    from,
                },
            ],
        };
        seat.once(&both[0])?;
        let interval = seat.once(&both[1])?;
        if number >= WARM_UP {
            seen.push(interval);
        }
    }
    Ok(seen)
}

/// From what both ranks of each direction saw, on one clock, to what messages took.
pub(super) fn joined(halves: &[Half], message: (DataType, u64)) -> Vec<PairSamples> {
    let bytes = (elements(message) * message.0.size_bytes()) as u64;
    let mut pairs = Vec::new();
    for (at, half) in halves.iter().enumerate() {
        let is_same = |other: &&Half| (other.from, other.to) == (half.from, half.to);
        let Some(other) = halves[at + 1..].iter().find(is_same) else {
            continue;
        };
        let seconds = half.seen.iter().zip(&other.seen).map(|(a, b)| {
            let ready = a[0].max(b[0]);
            (a[1].max(b[1]) - ready).max(1) as f64 * 1e-9
        });
        pairs.push(PairSamples {
            from: half.from,
            to: half.to,
            bytes,
            seconds: seconds.collect(),
        });
    }
    pairs.sort_by_key(|pair| (pair.from, pair.to));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_takes_from_when_both_are_ready_until_both_are_done() {
        let half = |from, to, seen: &[Seen]| Half {
            from,
            to,
            seen: seen.to_vec(),
        };
        let halves = [
            half(0, 1, &[[100, 700]]),
            half(1, 0, &[[0, 50]]),
            half(0, 1, &[[200, 650]]),
            half(1, 0, &[[10, 40]]),
            // Its other end was not heard of.
            half(2, 0, &[[1, 2]]),
        ];
        let found: Vec<_> = joined(&halves, (DataType::F32, 11))
            .into_iter()
            .map(|pair| {
                let ns = (pair.seconds[0] * 1e9).round() as i64;
                (pair.from, pair.to, pair.bytes, ns)
            })
            .collect();
        // Of 11 bytes, two elements are sent.
        assert_eq!(found, [(0, 1, 8, 500), (1, 0, 8, 40)]);
        let least = joined(&halves, (DataType::F32, 1));
        assert_eq!(least[0].bytes, 4);
    }
}
