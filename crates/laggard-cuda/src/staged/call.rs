//! What a call reads and writes on its rank, and the same call on other memory.

use laggard_backend::{Call, Slice};
use laggard_types::Rank;

/// What a call reads and what it writes, on a rank of its group.
pub(super) fn sides(call: &Call, rank: Rank) -> (Option<&Slice>, Option<&Slice>) {
    match call {
        Call::AllReduce { send, recv, .. }
        | Call::ReduceScatter { send, recv, .. }
        | Call::AllGather { send, recv, .. }
        | Call::AllToAll { send, recv, .. } => (Some(send), Some(recv)),
        Call::Broadcast { buffer, root } if *root == rank => (Some(buffer), None),
        Call::Broadcast { buffer, .. } | Call::Receive { buffer, .. } => (None, Some(buffer)),
        Call::Send { buffer, .. } => (Some(buffer), None),
        Call::Reduce { send, recv, .. } | Call::Gather { send, recv, .. } => {
            (Some(send), recv.as_ref())
        }
        Call::Scatter { send, recv, .. } => (send.as_ref(), Some(recv)),
        Call::Barrier => (None, None),
    }
}

/// The call with other memory for what it reads and writes, where it does.
pub(super) fn on(call: &Call, read: Option<Slice>, written: Option<Slice>) -> Call {
    let mut call = call.clone();
    let put = |slot: &mut Slice, slice: Option<Slice>| {
        if let Some(slice) = slice {
            *slot = slice;
        }
    };
    match &mut call {
        Call::AllReduce { send, recv, .. }
        | Call::ReduceScatter { send, recv, .. }
        | Call::AllGather { send, recv, .. }
        | Call::AllToAll { send, recv, .. } => {
            put(send, read);
            put(recv, written);
        }
        Call::Broadcast { buffer, .. }
        | Call::Send { buffer, .. }
        | Call::Receive { buffer, .. } => put(buffer, read.or(written)),
        Call::Reduce { send, recv, .. } | Call::Gather { send, recv, .. } => {
            put(send, read);
            *recv = written;
        }
        Call::Scatter { send, recv, .. } => {
            *send = read;
            put(recv, written);
        }
        Call::Barrier => {}
    }
    call
}
