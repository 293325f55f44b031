//! Tests of what is particular to threads.

use super::*;
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
    let waits = on_all(2, &ThreadOptions::default(), |world| {
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
        let last = stamps.last().copied().unwrap();
        assert_eq!(last.tag, 8);
        last.stamp
    });
    let wall = waits[0].end_ns - waits[0].start_ns;
    let cpu = waits[0].cpu_end_ns - waits[0].cpu_start_ns;
    assert!(wall > 0 && cpu >= 0);
    assert!(cpu * 5 < wall, "waited {wall} ns with {cpu} ns of CPU time");
}
