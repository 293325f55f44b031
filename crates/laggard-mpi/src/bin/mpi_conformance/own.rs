//! What is particular to processes, beside what every backend must do.

use laggard_backend::conformance::{Check, Violation};
use laggard_backend::{BackendError, Buffer, Call, Launch, QueueId, Slice, Token, World};
use laggard_types::{DataType, ReduceOp};
use std::fmt::Display;
use std::time::Duration;

/// Longer than anything that works takes.
const LONG: Duration = Duration::from_secs(120);

/// Checks beside those of the suite.
pub(crate) const CHECKS: &[Check] = &[Check {
    name: "a failure of one rank reaches all",
    least_ranks: 2,
    body: failure_of_one,
}];

fn violation(world: &World, case: &str, why: impl Display) -> Violation {
    Violation {
        rank: world.data.rank(),
        case: case.to_owned(),
        why: why.to_string(),
    }
}

fn is_last(world: &World) -> bool {
    world.data.rank() + 1 == world.data.size()
}

fn slice(world: &World, len: usize) -> Result<Slice, BackendError> {
    let buffer: Buffer = world.device.allocate(DataType::F32, len)?;
    Ok(Slice::whole(&buffer))
}

fn sum(slice: &Slice) -> Call {
    Call::AllReduce {
        send: slice.clone(),
        recv: slice.clone(),
        op: ReduceOp::Sum,
    }
}

fn launch(queue: QueueId, after: &[Token]) -> Launch<'_> {
    Launch {
        queue,
        after,
        tag: 0,
    }
}

/// The last rank cannot make a call, because other work uses its memory; the others then do not
/// wait for the deadline.
fn failure_of_one(world: &World) -> Result<(), Violation> {
    let case = "one rank cannot make a call";
    let outcome = || -> Result<_, BackendError> {
        let queue = world.device.create_queue("call")?;
        let slice = slice(world, 1000)?;
        // Held for as long as the call is tried.
        let _claim = is_last(world).then(|| slice.claim_write()).transpose()?;
        let token = world.data.enqueue(sum(&slice), launch(queue, &[]))?;
        Ok(world.device.wait(token, LONG))
    };
    let outcome = outcome().map_err(|error| violation(world, case, error))?;
    match outcome {
        Err(BackendError::Conflict { .. }) if is_last(world) => Ok(()),
        Err(BackendError::Aborted { reason, .. })
            if !is_last(world) && reason.contains("overlaps") =>
        {
            Ok(())
        }
        other => Err(violation(world, case, format!("ended with {other:?}"))),
    }
}
