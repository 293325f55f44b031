//! Tests of what is particular to threads.

use super::*;
use crate::conformance::{Launcher, Violation, check_all};
use crate::{Buffer, Slice};
use laggard_types::{DataType, ReduceOp};

const LONG: Duration = Duration::from_secs(60);

/// Runs a body on every rank at once and returns what each found.
fn on_all<T: Send>(
    ranks: u32,
    options: &ThreadOptions,
    body: impl Fn(World) -> T + Sync,
) -> Vec<T> {
    let worlds = worlds(ranks, options).unwrap();
    let body = &body;
    std::thread::scope(|scope| {
        let threads: Vec<_> = worlds
            .into_iter()
            .map(|world| scope.spawn(move || body(world)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn f32s(world: &World, values: &[f32]) -> Slice {
    let buffer: Buffer = world.device.allocate(DataType::F32, values.len()).unwrap();
    let slice = Slice::whole(&buffer);
    slice.write_f32(values).unwrap();
    slice
}

#[test]
fn stamps_of_a_waiting_rank_hold_no_cpu_time() {
    let stamps = on_all(2, &ThreadOptions::default(), |world| {
        let queue = world.device.create_queue("comm").unwrap();
        let launch = Launch {
            queue,
            after: &[],
            tag: 7,
        };
        let slice = f32s(&world, &[1.0; 1000]);
        let mut after = Vec::new();
        if world.data.rank() == 1 {
            let task = crate::Task {
                kernels: Arc::from([]),
                work_scale: 1.0,
                extra_flop: 3_000_000_000,
            };
            after.push(world.device.enqueue(&task, launch).unwrap());
        }
        let call = Call::AllReduce {
            send: slice.clone(),
            recv: slice,
            op: ReduceOp::Sum,
        };
        let launch = Launch {
            queue,
            after: &after,
            tag: 8,
        };
        let token = world.data.enqueue(call, launch).unwrap();
        world.device.wait(token, LONG).unwrap();
        let mut stamps = Vec::new();
        world.device.drain(queue, &mut stamps).unwrap();
        assert_eq!(stamps.last().unwrap().tag, 8);
        stamps
    });
    let cpu = |rank: usize| {
        let stamp = stamps[rank][0].stamp;
        assert!(stamp.start_ns < stamp.end_ns);
        stamp.cpu_end_ns - stamp.cpu_start_ns
    };
    // Against CPU time of the same run, so that no other load of the machine counts.
    let (waited, worked) = (cpu(0), cpu(1));
    assert!(
        waited >= 0 && waited * 5 < worked,
        "{waited} ns of CPU time while the other worked {worked} ns"
    );
}

/// Worlds of threads, for the conformance suite.
struct Threads;

impl Launcher for Threads {
    fn run(
        &self,
        ranks: u32,
        body: &(dyn Fn(&World) -> Result<(), Violation> + Sync),
    ) -> Result<(), Violation> {
        on_all(ranks, &ThreadOptions::default(), |world| body(&world))
            .into_iter()
            .collect()
    }
}

#[test]
fn conforms_over_1_rank() {
    check_all(&Threads, 1).unwrap();
}

#[test]
fn conforms_over_2_ranks() {
    check_all(&Threads, 2).unwrap();
}

#[test]
fn conforms_over_3_ranks() {
    check_all(&Threads, 3).unwrap();
}

#[test]
fn conforms_over_4_ranks() {
    check_all(&Threads, 4).unwrap();
}

#[test]
fn conforms_over_7_ranks() {
    check_all(&Threads, 7).unwrap();
}

fn launch(queue: crate::QueueId) -> Launch<'static> {
    Launch {
        queue,
        after: &[],
        tag: 0,
    }
}

#[test]
fn a_group_gives_up_on_its_own_after_its_timeout() {
    let options = ThreadOptions {
        timeout: Duration::from_millis(50),
        ..Default::default()
    };
    let wait = |world: World| {
        let queue = world.device.create_queue("comm").unwrap();
        // Rank 1 stays, but never comes.
        let outcome = match world.data.rank() {
            1 => Ok(()),
            _ => world
                .data
                .enqueue(Call::Barrier, launch(queue))
                .and_then(|token| world.device.wait(token, LONG)),
        };
        (world, outcome)
    };
    let outcomes = on_all(3, &options, wait);
    for (_, outcome) in outcomes.iter().filter(|(world, _)| world.data.rank() != 1) {
        match outcome {
            Err(BackendError::Timeout {
                missing,
                waiting_for,
                ..
            }) => {
                assert!(missing.contains(&1), "{missing:?}");
                assert_eq!(waiting_for, "barrier()");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_rank_that_fails_alone_or_leaves_wakes_the_others() {
    let outcomes = on_all(2, &ThreadOptions::default(), |world| {
        let queue = world.device.create_queue("comm").unwrap();
        let slice = f32s(&world, &[1.0; 8]);
        let call = || Call::Broadcast {
            buffer: slice.clone(),
            root: 0,
        };
        // The claim of rank 1 makes its call fail before it meets the other.
        let held = (world.data.rank() == 1).then(|| slice.claim_read().unwrap());
        let token = world.data.enqueue(call(), launch(queue)).unwrap();
        let outcome = world.device.wait(token, LONG);
        drop(held);
        outcome
    });
    let Err(BackendError::Aborted { reason, .. }) = &outcomes[0] else {
        panic!("{outcomes:?}");
    };
    assert!(
        reason.starts_with("rank 1 gave up: ") && reason.contains("hint"),
        "{reason}"
    );
    assert!(
        matches!(outcomes[1], Err(BackendError::Conflict { .. })),
        "{outcomes:?}"
    );

    let outcomes = on_all(2, &ThreadOptions::default(), |world| {
        let queue = world.device.create_queue("comm").unwrap();
        let call = match world.data.rank() {
            0 => Call::Barrier,
            // Waits for a message that is never sent, and leaves without waiting for it.
            _ => Call::Receive {
                buffer: f32s(&world, &[0.0]),
                from: 0,
            },
        };
        let token = world.data.enqueue(call, launch(queue)).unwrap();
        if world.data.rank() == 0 {
            world.device.wait(token, LONG)
        } else {
            Ok(())
        }
    });
    assert!(
        matches!(&outcomes[0], Err(BackendError::Aborted { reason, .. })
        if reason == "rank 1 gave up: its device was dropped")
    );
}

#[test]
fn calls_of_one_group_meet_in_order_on_any_queues() {
    let sums = on_all(2, &ThreadOptions::default(), |world| {
        let queues = ["a", "b", "c"].map(|name| world.device.create_queue(name).unwrap());
        let slice = f32s(&world, &[1.0; 8]);
        let rank = world.data.rank() as usize;
        let mut last = None;
        for at in 0..60 {
            // Each rank spreads its calls over the queues in its own way.
            let queue = queues[(at * (rank + 1) + rank) % 3];
            let (send, recv) = (slice.clone(), slice.clone());
            let op = if at % 20 == 0 {
                ReduceOp::Sum
            } else {
                ReduceOp::Max
            };
            let call = Call::AllReduce { send, recv, op };
            last = Some(world.data.enqueue(call, launch(queue)).unwrap());
        }
        world.device.wait(last.unwrap(), LONG).unwrap();
        slice.read_f32().unwrap()
    });
    assert_eq!(sums, [[8.0; 8]; 2]);
}

#[test]
fn no_ranks_make_no_world() {
    assert!(matches!(
        worlds(0, &ThreadOptions::default()),
        Err(BackendError::Invalid { .. })
    ));
}
