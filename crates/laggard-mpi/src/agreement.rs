//! Whether all ranks of a group are about to make the same call: they exchange short signatures,
//! and, where these differ or do not say enough, the calls in words. All come to the same verdict.
//! Costs a small collective per call, so it is for debugging and conformance, not for measurements.

use crate::cargo::Cargo;
use crate::group::{Group, Visit, hash};
use crate::line::Stopped;
use laggard_backend::{BackendError, Call};
use laggard_types::Rank;
use std::time::Instant;

/// Bytes of a number.
const NUMBER: usize = size_of::<u64>();

/// What a rank says about its call.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Words {
    call: String,
    /// Block lengths of an all-to-all, which differ between ranks; else empty.
    sends: Vec<u64>,
    receives: Vec<u64>,
}

impl Words {
    fn of(visit: &Visit) -> Self {
        let numbers = |counts: &[usize]| counts.iter().map(|count| *count as u64).collect();
        let (sends, receives) = match &visit.call {
            Call::AllToAll {
                send_counts,
                recv_counts,
                ..
            } => (numbers(send_counts), numbers(recv_counts)),
            _ => (Vec::new(), Vec::new()),
        };
        Self {
            call: visit.what.clone(),
            sends,
            receives,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let numbers = [self.call.len() as u64, self.sends.len() as u64];
        let numbers = numbers.iter().chain(&self.sends).chain(&self.receives);
        let mut bytes: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
        bytes.extend(self.call.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut numbers = numbers_in(bytes);
        let len = usize::try_from(numbers.next()?).ok()?;
        let blocks = usize::try_from(numbers.next()?).ok()?;
        let sends: Vec<u64> = numbers.by_ref().take(blocks).collect();
        let receives: Vec<u64> = numbers.take(blocks).collect();
        let call = bytes.get(bytes.len().checked_sub(len)?..)?;
        Some(Self {
            call: String::from_utf8_lossy(call).into_owned(),
            sends,
            receives,
        })
    }
}

/// Compares this rank's call with those of all others.
pub(crate) fn agree(visit: &Visit, deadline: Instant) -> Result<(), BackendError> {
    let group = &*visit.group;
    let is_all_to_all = matches!(visit.call, Call::AllToAll { .. });
    // All that a call says is the same on every rank; except for the blocks of an all-to-all.
    let comparable = match visit.call.data_type() {
        Some(data_type) if is_all_to_all => format!("all_to_all of {}", data_type.name()),
        _ => visit.what.clone(),
    };
    let words = Words::of(visit).encode();
    let signature = [hash(comparable.into_bytes()), words.len() as u64];
    let signature = signature.iter().flat_map(|n| n.to_le_bytes()).collect();
    let lens = vec![2 * NUMBER; group.size() as usize];
    let signatures = exchange(visit, signature, &lens, deadline)?;
    let hashes: Vec<u64> = numbers_in(&signatures).step_by(2).collect();
    if !is_all_to_all && hashes.iter().all(|hash| *hash == hashes[0]) {
        return Ok(());
    }
    let lens: Vec<usize> = numbers_in(&signatures)
        .skip(1)
        .step_by(2)
        .map(|len| len as usize)
        .collect();
    let all = exchange(visit, words, &lens, deadline)?;
    let mut rest = &all[..];
    let mut calls = Vec::with_capacity(lens.len());
    for len in &lens {
        let (words, others) = rest.split_at((*len).min(rest.len()));
        rest = others;
        calls.extend(Words::decode(words));
    }
    let Some(other) = disagreement(group.rank(), &hashes, &calls) else {
        return Ok(());
    };
    let mismatch = BackendError::Mismatch {
        rank: group.calls.job_rank(),
        call: visit.what.clone(),
        other: group.job_rank(other),
        other_call: calls[other as usize].call.clone(),
    };
    // Every member finds it by itself, so nobody needs to be told.
    group.fail(&mismatch);
    Err(mismatch)
}

fn exchange(
    visit: &Visit,
    bytes: Vec<u8>,
    lens: &[usize],
    deadline: Instant,
) -> Result<Vec<u8>, BackendError> {
    let Group {
        calls, settings, ..
    } = &*visit.group;
    let cargo = Cargo::all_bytes(bytes, lens).map_err(|why| BackendError::Invalid {
        rank: calls.rank(),
        call: visit.what.clone(),
        why,
    })?;
    let landed = calls.fly(cargo, &visit.what, settings.pace, deadline);
    let (_, cargo) = landed.map_err(|stopped: Stopped| visit.error(stopped))?;
    Ok(cargo.into_bytes())
}

fn numbers_in(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (numbers, _) = bytes.as_chunks::<NUMBER>();
    numbers.iter().map(|number| u64::from_le_bytes(*number))
}

/// The rank that `rank` names if the calls do not agree: `None` on every rank, or on none.
fn disagreement(rank: Rank, hashes: &[u64], calls: &[Words]) -> Option<Rank> {
    let me = rank as usize;
    let index = |at: usize| Rank::try_from(at).unwrap_or(0);
    if let Some(other) = hashes.iter().position(|hash| *hash != hashes[me]) {
        return Some(index(other));
    }
    for (from, sender) in calls.iter().enumerate() {
        for (to, receiver) in calls.iter().enumerate() {
            if sender.sends.get(to) != receiver.receives.get(from) {
                return Some(index(if me == from { to } else { from }));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sends: &[u64], receives: &[u64]) -> Words {
        Words {
            call: format!("all_to_all(sends {sends:?})"),
            sends: sends.to_vec(),
            receives: receives.to_vec(),
        }
    }

    #[test]
    fn words_survive_the_wire() {
        for words in [words(&[1, 2, 3], &[4, 5, u64::MAX]), words(&[], &[])] {
            assert_eq!(Words::decode(&words.encode()), Some(words));
        }
        assert_eq!(Words::decode(&[0; 7]), None);
        assert_eq!(Words::decode(&[255; 16]), None);
    }

    #[test]
    fn every_rank_names_another_that_disagrees_or_none_does() {
        let check = |hashes: &[u64], calls: &[Words], want: [Option<Rank>; 3]| {
            let found = [0, 1, 2].map(|rank| disagreement(rank, hashes, calls));
            assert_eq!(found, want);
        };
        let plain = vec![words(&[], &[]); 3];
        check(&[5, 5, 5], &plain, [None; 3]);
        check(&[5, 5, 6], &plain, [Some(2), Some(2), Some(0)]);
        let even = vec![words(&[2, 2, 2], &[2, 2, 2]); 3];
        check(&[5, 5, 5], &even, [None; 3]);
        let mut odd = even;
        odd[2] = words(&[3, 3, 3], &[2, 2, 2]);
        check(&[5, 5, 5], &odd, [Some(2), Some(2), Some(0)]);
    }
}
