//! Whether all ranks of a group are about to make the same call: they exchange short signatures,
//! and, where these differ or do not say enough, the calls in words. All come to the same verdict.
//! Costs a small collective per call, so it is for debugging and conformance, not for measurements.

use crate::cargo::Cargo;
use crate::group::{Group, Visit};
use crate::line::Stopped;
use laggard_backend::agreement::{CallWords, disagreement, signature};
use laggard_backend::{BackendError, Call};
use std::time::Instant;

/// Bytes of a number.
const NUMBER: usize = size_of::<u64>();

/// Compares this rank's call with those of all others.
pub(crate) fn agree(visit: &Visit, deadline: Instant) -> Result<(), BackendError> {
    let group = &*visit.group;
    let is_all_to_all = matches!(visit.call, Call::AllToAll { .. });
    let words = CallWords::of(&visit.call).encode();
    let signature = [signature(&visit.call), words.len() as u64];
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
        calls.extend(CallWords::decode(words));
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
