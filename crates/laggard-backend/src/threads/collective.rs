//! The collectives themselves. All have one shape: every rank lays out its memory, all meet, each
//! does its share straight on the others' memory without any copy between, all meet again.

use super::group::{Group, Visit};
use super::post::{Access, Contribution, Own, Post, Source, contribute};
use super::reduce::Reduce;
use crate::buffer::with_element;
use crate::cpu::clock::Reading;
use crate::cpu::queue::{Meeting, Work};
use crate::memory::Scratch;
use crate::{BackendError, Call, Element};
use laggard_types::{Rank, ReduceOp, Stamp};
use std::ops::Range;
use std::sync::{Arc, RwLockReadGuard};

/// Partial sums that are worked on at once: they stay in the nearest data cache, of which current
/// cores have at least 32 KiB.
const PARTIAL_SUM_BYTES: usize = 16 * 1024;

type Posts<'a> = [RwLockReadGuard<'a, Option<Post>>];

/// A collective, as work of a queue; `number` counts the collectives of this rank in the group.
pub(super) struct CollectiveWork {
    pub visit: Arc<Visit>,
    pub number: u64,
}

impl Work for CollectiveWork {
    fn run(&mut self, scratch: &mut Scratch) -> Result<Stamp, BackendError> {
        let Visit { group, rank, call } = &*self.visit;
        let (rank, size) = (*rank, group.size());
        let Contribution { post, mut own } = contribute(call, self.number, rank, size)?;
        let staged_bytes = own
            .staged
            .as_ref()
            .map_or(0, |slice| slice.len * slice.data_type().size_bytes());
        scratch.reserve(staged_bytes.max(PARTIAL_SUM_BYTES));
        // On every way out, the peers' posts must be released before the own one is withdrawn, and
        // locals drop in reverse order.
        let published = group.publish(rank, post);
        let mut posts = Vec::with_capacity(size as usize);
        let mut blocks = Vec::with_capacity(size as usize);

        let begin = Reading::begin()?;
        group.meet(rank, call)?;
        for peer in 0..size {
            posts.push(
                group
                    .post(peer, self.number)
                    .ok_or_else(|| withdrawn(group, rank, peer))?,
            );
        }
        let agreement = agreement(group, rank, &posts);
        match (&agreement, &**call) {
            (Ok(()), Call::Barrier) => {
                let stamp = begin.end()?;
                published.leave();
                return Ok(stamp);
            }
            (Ok(()), _) => share(call, rank, &posts, &mut own, (&mut blocks, scratch)),
            (Err(_), _) => {}
        }
        drop(blocks);
        drop(posts);
        group.meet(rank, call)?;
        drop(published);
        if let (Ok(()), Some(slice)) = (&agreement, &own.staged) {
            slice
                .claim_write()?
                .bytes_mut()
                .copy_from_slice(scratch.typed(staged_bytes));
        }
        let stamp = begin.end()?;
        agreement.map(|()| stamp)
    }

    fn meeting(&self) -> Option<Arc<dyn Meeting>> {
        let meeting: Arc<Visit> = Arc::clone(&self.visit);
        Some(meeting)
    }
}

/// A peer can only have withdrawn its post because the group has failed.
fn withdrawn(group: &Group, rank: Rank, peer: Rank) -> BackendError {
    group
        .check(rank)
        .err()
        .unwrap_or_else(|| BackendError::Aborted {
            rank: group.world_rank(rank),
            reason: format!("rank {} left during a call", group.world_rank(peer)),
        })
}

/// Whether all ranks make the same call. All come to the same verdict.
fn agreement(group: &Group, rank: Rank, posts: &Posts<'_>) -> Result<(), BackendError> {
    let calls = || {
        (0..).zip(
            posts
                .iter()
                .flat_map(|post| post.as_ref())
                .map(|p| &*p.call),
        )
    };
    let Some((_, mine)) = calls().nth(rank as usize) else {
        return Ok(());
    };
    let mismatch = |(other, call): (Rank, &Call)| {
        Err(BackendError::Mismatch {
            rank: group.world_rank(rank),
            call: mine.to_string(),
            other: group.world_rank(other),
            other_call: call.to_string(),
        })
    };
    if let Some(other) = calls().find(|(_, call)| !call.agrees_with(mine)) {
        return mismatch(other);
    }
    if matches!(mine, Call::AllToAll { .. }) {
        for (from, sent) in calls() {
            if let Some((to, call)) = calls().find(|(to, call)| !sent.pairs_with(from, call, *to)) {
                return mismatch(if rank == from {
                    (to, call)
                } else {
                    (from, sent)
                });
            }
        }
    }
    Ok(())
}

/// This rank's share of the work, between the two meetings.
fn share<'a>(
    call: &Call,
    rank: Rank,
    posts: &'a Posts<'_>,
    own: &mut Own,
    (blocks, scratch): (&mut Vec<Access<'a>>, &mut Scratch),
) {
    let me = rank as usize;
    let post = |peer: usize| posts.get(peer).and_then(|post| post.as_ref());
    // Every rank begins with itself, so that not all read the same memory at once.
    let peers = || {
        (me..posts.len())
            .chain(0..me)
            .filter_map(|peer| Some((peer, post(peer)?)))
    };
    match call {
        Call::AllReduce { send, op, .. }
        | Call::Reduce { send, op, .. }
        | Call::ReduceScatter { send, op, .. } => {
            // In the order of ranks, so that the result is the same on every run.
            blocks.extend(
                posts
                    .iter()
                    .flat_map(|post| post.as_ref())
                    .map(|p| p.access(me)),
            );
            with_element!(send.data_type(), T => reduce_block::<T>(*op, blocks, scratch));
        }
        Call::AllGather { .. } => {
            for (peer, post) in peers() {
                fill(own, peer, post.source_bytes(0));
            }
        }
        Call::AllToAll {
            recv_counts, recv, ..
        } => {
            let size = recv.data_type().size_bytes();
            if own.staged.is_some() {
                let mut rest = scratch.typed::<u8>(recv.len * size);
                for (peer, count) in recv_counts.iter().enumerate() {
                    let (part, behind) = rest.split_at_mut(count * size);
                    part.copy_from_slice(post(peer).map_or(&[], |post| post.source_bytes(me)));
                    rest = behind;
                }
            } else {
                for (peer, post) in peers() {
                    fill(own, peer, post.source_bytes(me));
                }
            }
        }
        Call::Broadcast { root, .. } if rank != *root => {
            fill(
                own,
                0,
                post(*root as usize).map_or(&[], |post| post.source_bytes(0)),
            );
        }
        Call::Scatter { root, .. } => {
            fill(
                own,
                0,
                post(*root as usize).map_or(&[], |post| post.source_bytes(me)),
            );
        }
        Call::Gather { root, .. } => {
            let target = post(*root as usize).and_then(|post| post.target_block(me));
            if let (Some(mut target), Some(send)) = (target, &own.send) {
                target.bytes_mut().copy_from_slice(send.bytes());
            }
        }
        Call::Broadcast { .. } | Call::Send { .. } | Call::Receive { .. } | Call::Barrier => {}
    }
}

fn fill(own: &mut Own, at: usize, from: &[u8]) {
    if let Some(claim) = own.receive.get_mut(at).and_then(Option::as_mut) {
        claim.bytes_mut().copy_from_slice(from);
    }
}

/// Reduces one block of all ranks and writes it wherever it belongs.
fn reduce_block<T: Reduce>(op: ReduceOp, blocks: &mut [Access<'_>], scratch: &mut Scratch) {
    let step = PARTIAL_SUM_BYTES / size_of::<T::Sum>();
    let ranks = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
    let Some(len) = blocks.first().map(|block| block.elements::<T>().len()) else {
        return;
    };
    for start in (0..len).step_by(step) {
        let range = start..len.min(start + step);
        let sums = scratch.typed::<T::Sum>(range.len());

        match &*blocks {
            [] => {}
            [one] => T::load(part(one, &range), sums),
            [a, b, others @ ..] => {
                T::pair(op, part(a, &range), part(b, &range), sums);
                for other in others {
                    T::fold(op, part(other, &range), sums);
                }
            }
        }
        T::finish(op, ranks, sums);
        for block in blocks.iter_mut() {
            if let Some(to) = block.elements_mut::<T>() {
                T::store(sums, &mut to[range.clone()]);
            }
        }
    }
}

fn part<'a, T: Element>(block: &'a Access<'_>, range: &Range<usize>) -> &'a [T] {
    &block.elements()[range.clone()]
}

impl Access<'_> {
    fn elements<T: Element>(&self) -> &[T] {
        match &self.source {
            Source::Read(claim) => claim.slice(),
            Source::Write(claim) => claim.slice(),
        }
    }

    /// Where the result goes in this rank's memory, if anywhere.
    fn elements_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        match (&mut self.target, &mut self.source) {
            (Some(claim), _) | (None, Source::Write(claim)) => Some(claim.slice_mut()),
            (None, Source::Read(_)) => None,
        }
    }
}
