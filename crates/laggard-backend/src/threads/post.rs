//! What one rank lays out for the others during a call: claims on its own memory, cut into blocks
//! such that block `i` is touched by rank `i` alone. Peers then work directly on each other's
//! memory, and the claims keep that free of races.

use crate::call::block;
use crate::memory::{LINE_BYTES, ReadClaim, WriteClaim};
use crate::{BackendError, Call, Slice};
use laggard_types::Rank;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A block of memory as peers see it.
pub(super) enum Block {
    /// To be read, by anyone.
    Read(ReadClaim),
    /// To be read and written by one rank. The lock is never contended: it is there so that the
    /// compiler sees what the cut into blocks guarantees.
    Write(Mutex<WriteClaim>),
}

/// What the peers see.
pub(super) struct Post {
    /// Which of the group's calls this is.
    pub number: u64,
    pub call: Arc<Call>,
    /// What they read: per rank, or one block for all.
    pub source: Vec<Block>,
    /// What they write: per rank.
    pub target: Vec<Option<Mutex<WriteClaim>>>,
}

/// What stays with the rank itself.
#[derive(Default)]
pub(super) struct Own {
    /// What it writes to others.
    pub send: Option<ReadClaim>,
    /// What it fills from others: per rank, or one block. `None` where that is in place already.
    pub receive: Vec<Option<WriteClaim>>,
    /// The memory to be filled when all peers are done with it.
    pub staged: Option<Slice>,
}

/// One rank's block of a reduction, locked for the time of the work.
pub(super) struct Access<'a> {
    pub source: Source<'a>,
    pub target: Option<MutexGuard<'a, WriteClaim>>,
}

pub(super) enum Source<'a> {
    Read(&'a ReadClaim),
    Write(MutexGuard<'a, WriteClaim>),
}

/// What a rank contributes to a call before it meets the others.
pub(super) struct Contribution {
    pub post: Post,
    pub own: Own,
}

impl Post {
    /// Block `at` of the source and, where peers write, of the target.
    pub(super) fn access(&self, at: usize) -> Access<'_> {
        let source = match &self.source[at] {
            Block::Read(claim) => Source::Read(claim),
            Block::Write(claim) => Source::Write(lock(claim)),
        };
        Access {
            source,
            target: self.target_block(at),
        }
    }

    /// Block `at` of the target, where there is one.
    pub(super) fn target_block(&self, at: usize) -> Option<MutexGuard<'_, WriteClaim>> {
        self.target.get(at).and_then(Option::as_ref).map(lock)
    }

    /// The bytes of block `at` of a source that is only read.
    pub(super) fn source_bytes(&self, at: usize) -> &[u8] {
        match &self.source[at] {
            Block::Read(claim) => claim.bytes(),
            Block::Write(_) => &[],
        }
    }
}

/// Claims what the call needs of this rank's memory.
pub(super) fn contribute(
    call: &Arc<Call>,
    number: u64,
    rank: Rank,
    size: u32,
) -> Result<Contribution, BackendError> {
    let post = Post {
        number,
        call: Arc::clone(call),
        source: Vec::new(),
        target: Vec::new(),
    };
    let mut c = Contribution {
        post,
        own: Own::default(),
    };
    match &**call {
        Call::AllReduce { send, recv, .. } => {
            lay_out_reduction(&mut c.post, send, Some(recv), size)?;
        }
        Call::Reduce {
            send, recv, root, ..
        } => {
            let recv = recv.as_ref().filter(|_| rank == *root);
            lay_out_reduction(&mut c.post, send, recv, size)?;
        }
        Call::ReduceScatter {
            send, recv, counts, ..
        } => {
            lay_out_reduce_scatter(&mut c.post, (send, recv), counts, rank)?;
        }
        Call::AllGather { send, recv, counts } => {
            c.post.source.push(Block::Read(send.claim_read()?));
            let in_place = send.is_same(&block(recv, counts, rank));
            c.own.receive = write_blocks(recv, counts, in_place.then_some(rank))?;
        }
        Call::Broadcast { buffer, root } if rank == *root => {
            c.post.source.push(Block::Read(buffer.claim_read()?));
        }
        Call::Broadcast { buffer, .. } => c.own.receive.push(Some(buffer.claim_write()?)),
        Call::AllToAll {
            send,
            recv,
            send_counts,
            recv_counts,
        } => {
            c.post.source = read_blocks(send, send_counts)?;
            if send.is_same(recv) {
                c.own.staged = Some(recv.clone());
            } else {
                c.own.receive = write_blocks(recv, recv_counts, None)?;
            }
        }
        Call::Gather {
            send,
            recv,
            counts,
            root,
        } => {
            let recv = recv.as_ref().filter(|_| rank == *root);
            lay_out_gather(&mut c, (send, recv), counts, rank)?;
        }
        Call::Scatter {
            send,
            recv,
            counts,
            root,
        } => {
            let send = send.as_ref().filter(|_| rank == *root);
            lay_out_scatter(&mut c, (send, recv), counts, rank)?;
        }
        Call::Send { .. } | Call::Receive { .. } | Call::Barrier => {}
    }
    Ok(c)
}

/// Every rank reduces one chunk; chunks are whole cache lines, so that no line has two writers.
fn lay_out_reduction(
    post: &mut Post,
    send: &Slice,
    recv: Option<&Slice>,
    size: u32,
) -> Result<(), BackendError> {
    let counts = chunks(send, size);
    match recv {
        Some(recv) if recv.is_same(send) => {
            post.source = write_blocks(recv, &counts, None)?
                .into_iter()
                .flatten()
                .map(|claim| Block::Write(Mutex::new(claim)))
                .collect();
        }
        Some(recv) => {
            post.source = read_blocks(send, &counts)?;
            let blocks = write_blocks(recv, &counts, None)?;
            post.target = blocks.into_iter().map(|b| b.map(Mutex::new)).collect();
        }
        None => post.source = read_blocks(send, &counts)?,
    }
    Ok(())
}

fn lay_out_reduce_scatter(
    post: &mut Post,
    (send, recv): (&Slice, &Slice),
    counts: &[usize],
    rank: Rank,
) -> Result<(), BackendError> {
    let in_place = recv.is_same(&block(send, counts, rank));
    for peer in (0..).take(counts.len()) {
        let part = block(send, counts, peer);
        post.source.push(if in_place && peer == rank {
            Block::Write(Mutex::new(part.claim_write()?))
        } else {
            Block::Read(part.claim_read()?)
        });
        let is_target = !in_place && peer == rank;
        post.target.push(if is_target {
            Some(Mutex::new(recv.claim_write()?))
        } else {
            None
        });
    }
    Ok(())
}

/// Every rank writes its block to the root, which alone has a `recv` here.
fn lay_out_gather(
    c: &mut Contribution,
    (send, recv): (&Slice, Option<&Slice>),
    counts: &[usize],
    rank: Rank,
) -> Result<(), BackendError> {
    let in_place = recv.is_some_and(|recv| send.is_same(&block(recv, counts, rank)));
    if let Some(recv) = recv {
        let blocks = write_blocks(recv, counts, in_place.then_some(rank))?;
        c.post.target = blocks.into_iter().map(|b| b.map(Mutex::new)).collect();
    }
    c.own.send = if in_place {
        None
    } else {
        Some(send.claim_read()?)
    };
    Ok(())
}

/// Every rank reads its block from the root, which alone has a `send` here.
fn lay_out_scatter(
    c: &mut Contribution,
    (send, recv): (Option<&Slice>, &Slice),
    counts: &[usize],
    rank: Rank,
) -> Result<(), BackendError> {
    if let Some(send) = send {
        c.post.source = read_blocks(send, counts)?;
    }
    let in_place = send.is_some_and(|send| recv.is_same(&block(send, counts, rank)));
    c.own.receive.push(if in_place {
        None
    } else {
        Some(recv.claim_write()?)
    });
    Ok(())
}

/// Lengths of the chunks of a slice, one per rank; the last ones may be short or empty.
fn chunks(slice: &Slice, size: u32) -> Vec<usize> {
    let line = LINE_BYTES / slice.data_type().size_bytes();
    let usual = slice.len.div_ceil(size as usize).next_multiple_of(line);
    let mut left = slice.len;
    (0..size)
        .map(|_| {
            let chunk = usual.min(left);
            left -= chunk;
            chunk
        })
        .collect()
}

fn read_blocks(whole: &Slice, counts: &[usize]) -> Result<Vec<Block>, BackendError> {
    (0..)
        .take(counts.len())
        .map(|rank| Ok(Block::Read(block(whole, counts, rank).claim_read()?)))
        .collect()
}

fn write_blocks(
    whole: &Slice,
    counts: &[usize],
    but: Option<Rank>,
) -> Result<Vec<Option<WriteClaim>>, BackendError> {
    (0..)
        .take(counts.len())
        .map(|rank| match but {
            Some(but) if but == rank => Ok(None),
            _ => Ok(Some(block(whole, counts, rank).claim_write()?)),
        })
        .collect()
}

fn lock(claim: &Mutex<WriteClaim>) -> MutexGuard<'_, WriteClaim> {
    claim.lock().unwrap_or_else(PoisonError::into_inner)
}
