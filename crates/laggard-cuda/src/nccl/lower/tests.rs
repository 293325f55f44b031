use super::*;
use laggard_backend::{Buffer, HostMemory};

fn slice(len: usize) -> Slice {
    Slice::whole(&Buffer::Host(
        HostMemory::zeroed(DataType::Bf16, len).unwrap(),
    ))
}

fn operations(call: &Call, rank: Rank) -> Vec<Operation> {
    call.check(rank, 3).unwrap();
    let plan = lower(call, rank, 3);
    assert_eq!((plan.data_type, plan.scratch), (DataType::Bf16, 0));
    plan.operations
}

fn send(element: usize, count: usize, peer: Rank) -> Operation {
    let from = at(Side::Send, element);
    Operation::Send { from, count, peer }
}

fn receive(element: usize, count: usize, peer: Rank) -> Operation {
    let to = at(Side::Recv, element);
    Operation::Receive { to, count, peer }
}

#[test]
fn equal_blocks_are_one_operation() {
    let (op, counts) = (ReduceOp::Sum, vec![4; 3]);
    let call = Call::ReduceScatter {
        send: slice(12),
        recv: slice(4),
        op,
        counts: counts.clone(),
    };
    let (send, recv, count) = (SEND, RECV, 4);
    let expect = [Operation::ReduceScatter {
        send,
        recv,
        count,
        op,
    }];
    assert_eq!(operations(&call, 1), expect);
    let call = Call::AllGather {
        send: slice(4),
        recv: slice(12),
        counts,
    };
    let expect = [Operation::AllGather { send, recv, count }];
    assert_eq!(operations(&call, 1), expect);
}

#[test]
fn unequal_blocks_are_an_operation_each_and_empty_ones_none() {
    let (op, counts) = (ReduceOp::Max, vec![2, 0, 5]);
    let call = Call::ReduceScatter {
        send: slice(7),
        recv: slice(5),
        op,
        counts: counts.clone(),
    };
    let reduce = |element, count, root, recv| Operation::Reduce {
        send: at(Side::Send, element),
        recv,
        count,
        op,
        root,
    };
    // What is no root's own result is nowhere written.
    let expect = [reduce(0, 2, 0, SEND), reduce(2, 5, 2, RECV)];
    assert_eq!(operations(&call, 2), expect);
    let call = Call::AllGather {
        send: slice(2),
        recv: slice(7),
        counts,
    };
    let broadcast = |element, count, root| Operation::Broadcast {
        send: SEND,
        recv: at(Side::Recv, element),
        count,
        root,
    };
    let expect = [broadcast(0, 2, 0), broadcast(2, 5, 2)];
    assert_eq!(operations(&call, 0), expect);
}

#[test]
fn gathers_and_scatters_are_messages() {
    let (whole, own, counts, root) = (slice(6), slice(2), vec![1, 2, 3], 1);
    let gather = |send: &Slice, recv: Option<&Slice>| Call::Gather {
        send: send.clone(),
        recv: recv.cloned(),
        counts: counts.clone(),
        root,
    };
    let all = [receive(0, 1, 0), receive(1, 2, 1), receive(3, 3, 2)];
    let found = operations(&gather(&own, Some(&whole)), 1);
    assert_eq!(found, [&all[..], &[send(0, 2, 1)]].concat());
    assert_eq!(operations(&gather(&slice(3), None), 2), [send(0, 3, 1)]);
    // In place, the root has its own block already.
    let block = whole.part(1..3).unwrap();
    let found = operations(&gather(&block, Some(&whole)), 1);
    assert_eq!(found, [all[0], all[2]]);

    let scatter = |send: Option<&Slice>, recv: &Slice| Call::Scatter {
        send: send.cloned(),
        recv: recv.clone(),
        counts: counts.clone(),
        root,
    };
    let all = [send(0, 1, 0), send(1, 2, 1), send(3, 3, 2)];
    let found = operations(&scatter(Some(&whole), &own), 1);
    assert_eq!(found, [&all[..], &[receive(0, 2, 1)]].concat());
    assert_eq!(operations(&scatter(None, &slice(1)), 0), [receive(0, 1, 1)]);
    let found = operations(&scatter(Some(&whole), &block), 1);
    assert_eq!(found, [all[0], all[2]]);
}

#[test]
fn an_all_to_all_in_place_goes_by_scratch_memory() {
    let (buffer, counts) = (slice(6), vec![1, 2, 3]);
    let call = |recv: &Slice| Call::AllToAll {
        send: buffer.clone(),
        recv: recv.clone(),
        send_counts: counts.clone(),
        recv_counts: vec![2, 2, 2],
    };
    let expect = [
        send(0, 1, 0),
        send(1, 2, 1),
        send(3, 3, 2),
        receive(0, 2, 0),
        receive(2, 2, 1),
        receive(4, 2, 2),
    ];
    assert_eq!(operations(&call(&slice(6)), 0), expect);
    let plan = lower(&call(&buffer), 0, 3);
    assert_eq!((plan.scratch, plan.staged), (6, 6));
    let first = Operation::Send {
        from: SCRATCH,
        count: 1,
        peer: 0,
    };
    assert_eq!(plan.operations[0], first);
    assert_eq!(plan.operations[3..], expect[3..]);
}

#[test]
fn messages_go_between_the_two_ranks_of_a_communicator_of_their_own() {
    let buffer = slice(9);
    let call = Call::Send {
        buffer: buffer.clone(),
        to: 2,
    };
    assert_eq!(operations(&call, 0), [send(0, 9, RECEIVER)]);
    let call = Call::Receive { buffer, from: 0 };
    assert_eq!(operations(&call, 2), [receive(0, 9, SENDER)]);
}

#[test]
fn a_barrier_reduces_scratch_memory_and_nothing_moves_nothing() {
    let plan = lower(&Call::Barrier, 0, 3);
    assert_eq!((plan.scratch, plan.staged), (1, 0));
    assert_eq!(plan.operations.len(), 1);
    let none = slice(0);
    let call = Call::Broadcast {
        buffer: none,
        root: 0,
    };
    assert_eq!(operations(&call, 0), []);
}
