//! Which of NCCL's operations a call becomes, for what NCCL lacks too: blocks of different lengths,
//! gather, scatter, all-to-all, barrier. Pure: memory is named by side and element.

use laggard_backend::{Call, Slice};
use laggard_types::{DataType, Rank, ReduceOp};

/// Memory of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// What the call reads.
    Send,
    /// What the call writes.
    Recv,
    /// Memory of the communicator.
    Scratch,
}

/// The first of some elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub side: Side,
    /// Elements before it.
    pub element: usize,
}

/// One call of NCCL. Counts are in elements; peers and roots are ranks of the communicator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    AllReduce {
        send: Place,
        recv: Place,
        count: usize,
        op: ReduceOp,
    },
    /// `count` is that of one block.
    ReduceScatter {
        send: Place,
        recv: Place,
        count: usize,
        op: ReduceOp,
    },
    /// `recv` is read by the root alone.
    Reduce {
        send: Place,
        recv: Place,
        count: usize,
        op: ReduceOp,
        root: Rank,
    },
    /// `count` is that of one block.
    AllGather {
        send: Place,
        recv: Place,
        count: usize,
    },
    /// `send` is read on the root alone.
    Broadcast {
        send: Place,
        recv: Place,
        count: usize,
        root: Rank,
    },
    Send {
        from: Place,
        count: usize,
        peer: Rank,
    },
    Receive {
        to: Place,
        count: usize,
        peer: Rank,
    },
}

/// What a call becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub data_type: DataType,
    /// Elements of scratch memory that it needs.
    pub scratch: usize,
    /// Elements of `send` that are first copied to the scratch memory.
    pub staged: usize,
    /// To be done as one group.
    pub operations: Vec<Operation>,
}

/// The rank of the sender in the communicator of two ranks that carries messages between them.
const SENDER: Rank = 0;
/// The rank of the receiver there.
const RECEIVER: Rank = 1;

const SEND: Place = at(Side::Send, 0);
const RECV: Place = at(Side::Recv, 0);
const SCRATCH: Place = at(Side::Scratch, 0);

const fn at(side: Side, element: usize) -> Place {
    Place { side, element }
}

/// What a call of one of `size` ranks becomes, which has been checked. Operations on no elements
/// are left out, on all ranks alike.
pub(crate) fn lower(call: &Call, rank: Rank, size: u32) -> Plan {
    debug_assert!(size > rank);
    // NCCL's messages are never in place.
    let staged = match call {
        Call::AllToAll { send, recv, .. } if send.is_same(recv) => send.len,
        _ => 0,
    };
    let scratch = match call {
        Call::Barrier => 1,
        _ => staged,
    };
    let mut operations = operations(call, rank, staged > 0);
    operations.retain(|operation| operation.count() > 0);
    Plan {
        data_type: call.data_type().unwrap_or(DataType::I32),
        scratch,
        staged,
        operations,
    }
}

fn operations(call: &Call, rank: Rank, is_staged: bool) -> Vec<Operation> {
    match call {
        Call::AllReduce { send, op, .. } => vec![all_reduce((SEND, RECV), send.len, *op)],
        Call::Barrier => vec![all_reduce((SCRATCH, SCRATCH), 1, ReduceOp::Sum)],
        Call::ReduceScatter { op, counts, .. } => reduce_scatter(*op, counts, rank),
        Call::AllGather { counts, .. } => all_gather(counts),
        Call::Broadcast { buffer, root } => vec![Operation::Broadcast {
            send: SEND,
            recv: RECV,
            count: buffer.len,
            root: *root,
        }],
        Call::Reduce { send, op, root, .. } => vec![Operation::Reduce {
            send: SEND,
            recv: if rank == *root { RECV } else { SEND },
            count: send.len,
            op: *op,
            root: *root,
        }],
        Call::AllToAll {
            send_counts,
            recv_counts,
            ..
        } => {
            let from = if is_staged { Side::Scratch } else { Side::Send };
            let mut all = sends(from, send_counts);
            all.extend(receives(recv_counts));
            all
        }
        Call::Gather {
            send,
            recv,
            counts,
            root,
        } => gather((send, recv.as_ref()), counts, *root, rank),
        Call::Scatter {
            send,
            recv,
            counts,
            root,
        } => scatter((send.as_ref(), recv), counts, *root, rank),
        Call::Send { buffer, .. } => vec![Operation::Send {
            from: SEND,
            count: buffer.len,
            peer: RECEIVER,
        }],
        Call::Receive { buffer, .. } => vec![Operation::Receive {
            to: RECV,
            count: buffer.len,
            peer: SENDER,
        }],
    }
}

fn all_reduce((send, recv): (Place, Place), count: usize, op: ReduceOp) -> Operation {
    Operation::AllReduce {
        send,
        recv,
        count,
        op,
    }
}

impl Operation {
    fn count(&self) -> usize {
        match self {
            Self::AllReduce { count, .. }
            | Self::ReduceScatter { count, .. }
            | Self::Reduce { count, .. }
            | Self::AllGather { count, .. }
            | Self::Broadcast { count, .. }
            | Self::Send { count, .. }
            | Self::Receive { count, .. } => *count,
        }
    }
}

/// One operation for equal blocks, else one reduction per block.
fn reduce_scatter(op: ReduceOp, counts: &[usize], rank: Rank) -> Vec<Operation> {
    if let Some(count) = equal(counts) {
        return vec![Operation::ReduceScatter {
            send: SEND,
            recv: RECV,
            count,
            op,
        }];
    }
    let reduce = |(root, start, count)| Operation::Reduce {
        send: at(Side::Send, start),
        recv: if root == rank {
            RECV
        } else {
            at(Side::Send, start)
        },
        count,
        op,
        root,
    };
    blocks(counts).map(reduce).collect()
}

/// One operation for equal blocks, else one broadcast per block.
fn all_gather(counts: &[usize]) -> Vec<Operation> {
    if let Some(count) = equal(counts) {
        return vec![Operation::AllGather {
            send: SEND,
            recv: RECV,
            count,
        }];
    }
    let broadcast = |(root, start, count)| Operation::Broadcast {
        send: SEND,
        recv: at(Side::Recv, start),
        count,
        root,
    };
    blocks(counts).map(broadcast).collect()
}

fn gather(
    (send, recv): (&Slice, Option<&Slice>),
    counts: &[usize],
    root: Rank,
    rank: Rank,
) -> Vec<Operation> {
    let send_own = Operation::Send {
        from: SEND,
        count: send.len,
        peer: root,
    };
    let Some(recv) = recv.filter(|_| rank == root) else {
        return vec![send_own];
    };
    let mut all = receives(counts);
    if own_block(recv, counts, rank).is_some_and(|block| send.is_same(&block)) {
        all.retain(
            |operation| !matches!(operation, Operation::Receive { peer, .. } if *peer == rank),
        );
    } else {
        all.push(send_own);
    }
    all
}

fn scatter(
    (send, recv): (Option<&Slice>, &Slice),
    counts: &[usize],
    root: Rank,
    rank: Rank,
) -> Vec<Operation> {
    let receive_own = Operation::Receive {
        to: RECV,
        count: recv.len,
        peer: root,
    };
    let Some(send) = send.filter(|_| rank == root) else {
        return vec![receive_own];
    };
    let mut all = sends(Side::Send, counts);
    if own_block(send, counts, rank).is_some_and(|block| recv.is_same(&block)) {
        all.retain(|operation| !matches!(operation, Operation::Send { peer, .. } if *peer == rank));
    } else {
        all.push(receive_own);
    }
    all
}

/// Sends of all blocks of `side`, one to each rank.
fn sends(side: Side, counts: &[usize]) -> Vec<Operation> {
    let send = |(peer, start, count)| Operation::Send {
        from: at(side, start),
        count,
        peer,
    };
    blocks(counts).map(send).collect()
}

/// Receives of all blocks, one from each rank.
fn receives(counts: &[usize]) -> Vec<Operation> {
    let receive = |(peer, start, count)| Operation::Receive {
        to: at(Side::Recv, start),
        count,
        peer,
    };
    blocks(counts).map(receive).collect()
}

/// Rank, first element and length of each block.
fn blocks(counts: &[usize]) -> impl Iterator<Item = (Rank, usize, usize)> {
    let mut start = 0;
    (0..).zip(counts).map(move |(rank, count)| {
        let block = (rank, start, *count);
        start += count;
        block
    })
}

/// The length of all blocks, if they have the same.
fn equal(counts: &[usize]) -> Option<usize> {
    let first = counts.first()?;
    counts.iter().all(|count| count == first).then_some(*first)
}

/// The block of `whole` that belongs to a rank.
fn own_block(whole: &Slice, counts: &[usize], rank: Rank) -> Option<Slice> {
    let (_, start, count) = blocks(counts).nth(rank as usize)?;
    whole.part(start..start + count).ok()
}

#[cfg(test)]
mod tests;
