//! What must fail, on every rank, with the right error, and soon.

use super::Violation;
use super::fixture::{Fixture, LONG};
use crate::{BackendError, Call, World};
use laggard_types::{DataType, ReduceOp};
use std::time::{Duration, Instant};

/// How long the present ranks wait for the missing one.
const SHORT: Duration = Duration::from_millis(200);

impl Fixture<'_> {
    fn sum(&self, data_type: DataType, len: usize) -> Result<Call, Violation> {
        let slice = self.slice(data_type, &vec![1.0; len])?;
        Ok(Call::AllReduce {
            send: slice.clone(),
            recv: slice,
            op: ReduceOp::Sum,
        })
    }

    fn is_last(&self) -> bool {
        self.rank + 1 == self.ranks
    }

    /// Makes a call that must be found to be another one than the other ranks make.
    fn mismatches(&self, call: Call) -> Result<(), Violation> {
        let case = call.to_string();
        self.fails(&case, self.call(call), |error| {
            matches!(error, BackendError::Mismatch { rank, other, .. }
                if *rank == self.rank && *other != self.rank)
        })
    }
}

pub(super) fn invalid(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    for call in invalid_calls(&f)? {
        let case = call.to_string();
        f.fails(
            &case,
            world.data.enqueue(call, f.launch(&[])),
            |error| matches!(error, BackendError::Invalid { rank, .. } if *rank == f.rank),
        )?;
    }
    // None of them has harmed the group.
    f.done(&"barrier after invalid calls", Call::Barrier)
}

fn invalid_calls(f: &Fixture<'_>) -> Result<Vec<Call>, Violation> {
    let ten = f.slice(DataType::F32, &[0.0; 10])?;
    let nine = f.slice(DataType::F32, &[0.0; 9])?;
    let doubles = f.slice(DataType::F64, &[0.0; 10])?;
    let (send, recv) = (
        f.must("slicing", ten.part(0..5))?,
        f.must("slicing", ten.part(1..6))?,
    );
    let op = ReduceOp::Sum;
    let (send_counts, recv_counts) = (vec![10; f.ranks as usize + 1], vec![]);
    let none = vec![0; f.ranks as usize];
    let ten = || ten.clone();
    Ok(vec![
        Call::AllReduce {
            send: ten(),
            recv: nine.clone(),
            op,
        },
        Call::AllReduce {
            send: ten(),
            recv: doubles,
            op,
        },
        Call::AllReduce { send, recv, op },
        Call::ReduceScatter {
            send: ten(),
            recv: nine.clone(),
            op,
            counts: none.clone(),
        },
        Call::AllGather {
            send: ten(),
            recv: nine,
            counts: vec![10],
        },
        Call::AllGather {
            send: ten(),
            recv: ten(),
            counts: vec![usize::MAX, 11],
        },
        Call::Broadcast {
            buffer: ten(),
            root: f.ranks,
        },
        Call::Reduce {
            send: ten(),
            recv: None,
            op,
            root: f.rank,
        },
        Call::Scatter {
            send: None,
            recv: ten(),
            counts: none,
            root: f.rank,
        },
        Call::Send {
            buffer: ten(),
            to: f.ranks,
        },
        Call::Receive {
            buffer: ten(),
            from: u32::MAX,
        },
        Call::AllToAll {
            send: ten(),
            recv: ten(),
            send_counts,
            recv_counts,
        },
    ])
}

pub(super) fn other_collective(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    let call = if f.is_last() {
        Call::Barrier
    } else {
        f.sum(DataType::F32, 100)?
    };
    f.mismatches(call)
}

pub(super) fn other_reduction(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    let slice = f.slice(DataType::F32, &[1.0; 100])?;
    let op = if f.is_last() {
        ReduceOp::Max
    } else {
        ReduceOp::Sum
    };
    f.mismatches(Call::AllReduce {
        send: slice.clone(),
        recv: slice.clone(),
        op,
    })?;
    f.expect(&"after a mismatch", &slice, &[1.0; 100])
}

pub(super) fn other_type(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    f.mismatches(f.sum(
        if f.is_last() {
            DataType::I32
        } else {
            DataType::F32
        },
        100,
    )?)
}

pub(super) fn other_length(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    f.mismatches(f.sum(DataType::F32, if f.is_last() { 101 } else { 100 })?)
}

pub(super) fn other_block(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    let sent = vec![if f.is_last() { 3 } else { 2 }; f.ranks as usize];
    let received = vec![2; f.ranks as usize];
    f.mismatches(Call::AllToAll {
        send: f.slice(DataType::F32, &vec![1.0; sent.iter().sum()])?,
        recv: f.slice(DataType::F32, &vec![0.0; received.iter().sum()])?,
        send_counts: sent,
        recv_counts: received,
    })
}

/// The first rank sends more than the last expects.
pub(super) fn other_message(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    let buffer = f.slice(DataType::F32, &vec![1.0; if f.rank == 0 { 11 } else { 10 }])?;
    match f.rank {
        0 => f.mismatches(Call::Send {
            buffer,
            to: f.ranks - 1,
        }),
        _ if f.is_last() => f.mismatches(Call::Receive { buffer, from: 0 }),
        _ => Ok(()),
    }
}

/// A rank that does not come is named within the deadline, and an abort then ends the waiting.
pub(super) fn missing(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    let mut pending = None;
    if !f.is_last() {
        let call = f.sum(DataType::F32, 100)?;
        let token = f.must("enqueueing", world.data.enqueue(call, f.launch(&[])))?;
        // The others arrive whenever they do; who is absent in the end is the last rank.
        let mut named = Vec::new();
        let begin = Instant::now();
        while begin.elapsed() < LONG {
            match world.device.wait(token, SHORT) {
                Err(BackendError::Timeout { rank, missing, .. }) if rank == f.rank => {
                    named = missing;
                }
                other => return Err(f.violation("missing rank", format!("ended with {other:?}"))),
            }
            if named == [f.ranks - 1] {
                break;
            }
        }
        if named != [f.ranks - 1] {
            return Err(f.violation("missing rank", format!("named {named:?}")));
        }
        pending = Some(token);
    }
    // On a queue of its own, since the first one is still waiting.
    let queue = f.must("creating a queue", world.device.create_queue("control"))?;
    let launch = crate::Launch {
        queue,
        after: &[],
        tag: 0,
    };
    let met = f.must("control", world.control.enqueue(Call::Barrier, launch))?;
    match world.device.wait(met, LONG) {
        // A rank that was told first has aborted before this one looked.
        Ok(()) | Err(BackendError::Aborted { .. }) => world.device.abort("enough"),
        Err(error) => return Err(f.violation("control", error)),
    }
    match pending {
        None => Ok(()),
        Some(token) => f.fails(&"abort", world.device.wait(token, LONG), |error| {
            matches!(error, BackendError::Aborted { .. })
        }),
    }
}

/// An abort on one rank wakes all, wherever they wait, and nothing can be done afterwards.
pub(super) fn abort(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    // A backend may say who it was before it says why.
    let is_abort = |error: &BackendError| match error {
        BackendError::Aborted { reason, .. } => reason.ends_with("had enough"),
        _ => false,
    };
    if f.is_last() {
        world.device.abort("had enough");
    } else if f.rank % 2 == 0 {
        f.fails(&"barrier", f.call(Call::Barrier), is_abort)?;
    } else {
        let split = world.data.split(Some(0), 0).map(|_| ());
        f.fails(&"split", split, is_abort)?;
    }
    f.fails(&"call after an abort", f.call(Call::Barrier), is_abort)
}
