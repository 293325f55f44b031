//! Collectives of ranks on one GPU that go through the host.

use crate::{LONG, shares};
use laggard_backend::conformance::{CHECKS, Launcher, Violation};
use laggard_backend::{Abort, BackendError, Call, Launch, Slice, Token, World};
use laggard_cuda::{CudaDevice, CudaOptions, Share, Surroundings, staged_worlds};
use laggard_types::{DataType, ReduceOp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Ranks on equal parts of one GPU, or all on the whole of it.
struct Ranks {
    are_confined: bool,
    timeout: Duration,
}

impl Ranks {
    fn worlds(&self, ranks: u32) -> Vec<World> {
        let shares: Vec<Option<Share>> = match self.are_confined {
            true => shares(&vec![1.0; ranks as usize])
                .into_iter()
                .map(Some)
                .collect(),
            false => vec![None; ranks as usize],
        };
        let abort: Arc<Abort> = Arc::default();
        let device = |(rank, share)| {
            let options = CudaOptions {
                rank,
                share,
                self_check: false,
                ..CudaOptions::default()
            };
            let device = CudaDevice::in_world(options, &Surroundings::of_process(), None, &abort);
            Arc::new(device.unwrap_or_else(|error| panic!("{error}")))
        };
        let devices: Vec<_> = (0..).zip(shares).map(device).collect();
        staged_worlds(&devices, &abort, self.timeout).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Has every rank of so many do something.
    fn each<T: Send>(&self, ranks: u32, body: &(dyn Fn(World) -> T + Sync)) -> Vec<T> {
        let worlds = self.worlds(ranks);
        std::thread::scope(|scope| {
            let threads = worlds
                .into_iter()
                .map(|world| scope.spawn(move || body(world)));
            let threads: Vec<_> = threads.collect();
            let ended = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"));
            ended.collect()
        })
    }
}

impl Launcher for Ranks {
    fn run(
        &self,
        ranks: u32,
        body: &(dyn Fn(&World) -> Result<(), Violation> + Sync),
    ) -> Result<(), Violation> {
        self.each(ranks, &|world| body(&world))
            .into_iter()
            .collect()
    }
}

/// The whole suite, over worlds of every size.
pub(crate) fn conforms() {
    for (are_confined, sizes) in [(true, 1..=4), (false, 2..=2)] {
        let ranks = Ranks {
            are_confined,
            timeout: LONG,
        };
        for size in sizes {
            for check in CHECKS.iter().filter(|check| check.least_ranks <= size) {
                let outcome = ranks.run(size, &check.body);
                outcome.unwrap_or_else(|violation| {
                    panic!("{} over {size} ranks: {violation}", check.name)
                });
            }
        }
    }
}

fn sum(world: &World) -> Result<Token, BackendError> {
    let buffer = world.device.allocate(DataType::F32, 1000)?;
    let slice = Slice::whole(&buffer);
    let call = Call::AllReduce {
        send: slice.clone(),
        recv: slice,
        op: ReduceOp::Sum,
    };
    let launch = Launch {
        queue: world.device.create_queue("test")?,
        after: &[],
        tag: 0,
    };
    world.data.enqueue(call, launch)
}

/// One rank of three does not come.
pub(crate) fn missing_rank() {
    let ranks = Ranks {
        are_confined: true,
        timeout: Duration::from_millis(300),
    };
    let ends = ranks.each(3, &|world| {
        if world.data.rank() == 1 {
            // Its world lives on, and does nothing.
            return (world, Ok(()));
        }
        let outcome = sum(&world).and_then(|token| world.device.wait(token, LONG));
        (world, outcome)
    });
    for (world, end) in ends {
        match (world.data.rank(), end) {
            (1, end) => assert_eq!(end, Ok(())),
            (
                rank,
                Err(BackendError::Timeout {
                    rank: own,
                    missing,
                    waiting_for,
                    ..
                }),
            ) => {
                assert_eq!((own, &missing[..]), (rank, &[1][..]));
                assert!(
                    waiting_for.starts_with("all_reduce(sum, 1000 x f32)"),
                    "{waiting_for}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A rank's calls need more room while another waits for it, over a driver that waits for all
/// streams before it frees memory.
pub(crate) fn growing_room() {
    let ranks = Ranks {
        are_confined: true,
        timeout: Duration::from_secs(20),
    };
    let is_at_work = AtomicBool::new(false);
    let ends = ranks.each(2, &|world| {
        let device = Arc::clone(&world.device);
        let queue = device.create_queue("test").expect("a queue");
        let calls = [10, 100_000].map(|len| {
            let slice = Slice::whole(&device.allocate(DataType::F32, len).expect("a buffer"));
            Call::AllReduce {
                send: slice.clone(),
                recv: slice,
                op: ReduceOp::Sum,
            }
        });
        let launch = Launch {
            queue,
            after: &[],
            tag: 0,
        };
        // Kept, since giving memory back is a wait here, too.
        let [small, large] = &calls;
        let token = world.data.enqueue(small.clone(), launch)?;
        device.wait(token, LONG)?;
        let token = if world.data.rank() == 1 {
            let token = world.data.enqueue(large.clone(), launch)?;
            while device.at_work().is_empty() {
                std::thread::yield_now();
            }
            is_at_work.store(true, Ordering::SeqCst);
            token
        } else {
            while !is_at_work.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            world.data.enqueue(large.clone(), launch)?
        };
        device.wait(token, LONG)?;
        Ok::<_, BackendError>((world, calls))
    });
    for end in ends {
        assert_eq!(end.map(|_| ()), Ok(()));
    }
}

/// A rank's world goes away while its call waits for another rank, which must not wait on.
pub(crate) fn dropped_at_work() {
    let ranks = Ranks {
        are_confined: true,
        timeout: LONG,
    };
    let ends = ranks.each(2, &|world| {
        if world.data.rank() == 1 {
            let token = sum(&world).expect("a token");
            while world.device.at_work().is_empty() {
                std::thread::yield_now();
            }
            let device = Arc::clone(&world.device);
            drop(world);
            return device.wait(token, LONG);
        }
        // Waits for a message that will never come.
        let buffer = world.device.allocate(DataType::F32, 10).expect("a buffer");
        let call = Call::Receive {
            buffer: Slice::whole(&buffer),
            from: 1,
        };
        let launch = Launch {
            queue: world.device.create_queue("test").expect("a queue"),
            after: &[],
            tag: 0,
        };
        let token = world.data.enqueue(call, launch).expect("a token");
        world.device.wait(token, LONG)
    });
    for end in ends {
        let Err(BackendError::Aborted { reason, .. }) = &end else {
            panic!("{end:?}");
        };
        assert!(
            reason.contains("rank 1 gave up: its communicator was dropped"),
            "{reason}"
        );
    }
}
