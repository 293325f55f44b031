//! What is particular to processes, beside what every backend must do.

use laggard_backend::conformance::{Check, Violation};
use laggard_backend::{
    BackendError, Buffer, Call, Device, Launch, QueueId, Slice, Task, Token, World,
};
use laggard_types::{DataType, ReduceOp};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything that works takes.
const LONG: Duration = Duration::from_secs(120);

/// Arithmetic that keeps a rank busy while the others wait, in FLOP: some tenth of a second.
const BUSY_FLOP: u64 = 3_000_000_000;

/// What a waiting thread may use of its processor. It looks about every 0.1 ms.
const CPU_PER_WALL: f64 = 0.2;

/// Checks beside those of the suite.
pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "waiting costs little",
        least_ranks: 2,
        body: waiting,
    },
    Check {
        name: "a failure of one rank reaches all",
        least_ranks: 2,
        body: failure_of_one,
    },
];

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

fn busy(device: &dyn Device, queue: QueueId) -> Result<Token, BackendError> {
    let task = Task {
        kernels: Arc::from([]),
        work_scale: 1.0,
        extra_flop: BUSY_FLOP,
    };
    device.enqueue(&task, launch(queue, &[]))
}

/// All but the last rank wait for the last, and use little CPU time meanwhile.
fn waiting(world: &World) -> Result<(), Violation> {
    let case = "waiting for the last rank";
    let stamps = || -> Result<_, BackendError> {
        let queue = world.device.create_queue("wait")?;
        let slice = slice(world, 1000)?;
        let mut after = Vec::new();
        if is_last(world) {
            after.push(busy(&*world.device, queue)?);
        }
        let token = world.data.enqueue(sum(&slice), launch(queue, &after))?;
        world.device.wait(token, LONG)?;
        let mut stamps = Vec::new();
        world.device.drain(queue, &mut stamps)?;
        Ok(stamps)
    };
    let stamps = stamps().map_err(|error| violation(world, case, error))?;
    let stamp = stamps.last().map(|tagged| tagged.stamp).unwrap_or_default();
    let wall_ns = (stamp.end_ns - stamp.start_ns) as f64;
    let cpu_ns = (stamp.cpu_end_ns - stamp.cpu_start_ns) as f64;
    if is_last(world) || cpu_ns < CPU_PER_WALL * wall_ns {
        return Ok(());
    }
    let why = format!("{cpu_ns} ns of CPU time in {wall_ns} ns");
    Err(violation(world, case, why))
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
