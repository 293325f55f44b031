//! Steps as graphs: what is captured computes what it would have computed one by one, again and
//! again, in the order that its edges ask for and no other.

use super::child::in_child;
use super::speed::cublaslt;
use super::troubles::let_go;
use super::{LONG, device, launch, open, options};
use laggard_backend::{BackendError, Device, Kernel, Matrix, Slice, Task, Transpose};
use laggard_cuda::{CudaDevice, CudaOptions, GraphOperation};
use laggard_types::DataType;
use std::sync::Arc;

/// The launch of the first operation that is captured, after the stamps of the clocks and one fill
/// or sum with its stamps.
const HOLD_THE_REPLAY: &str = "launch_that_holds=36";

fn slice(device: &CudaDevice, value: f32) -> Slice {
    let buffer = device.allocate(DataType::F32, 4096).expect("a buffer");
    let slice = Slice::whole(&buffer);
    slice.write_f32(&[value; 4096]).expect("written");
    slice
}

fn task(kernel: Kernel) -> Task {
    Task {
        kernels: Arc::from([kernel]),
        work_scale: 1.0,
        extra_flop: 0,
    }
}

fn add(from: &Slice, to: &Slice) -> Task {
    task(Kernel::Add {
        from: from.clone(),
        to: to.clone(),
    })
}

fn copy(from: &Slice, to: &Slice) -> Task {
    task(Kernel::Copy {
        from: from.clone(),
        to: to.clone(),
    })
}

fn on(stream: usize, after: &[usize], task: Task) -> GraphOperation {
    GraphOperation {
        stream,
        after: after.to_vec(),
        task,
    }
}

/// Has every kernel used once: a capture loads none.
fn warm(device: &CudaDevice, operations: &[GraphOperation]) {
    let queue = device.create_queue("warm").expect("a queue");
    for operation in operations {
        let token = device
            .enqueue(&operation.task, launch(queue))
            .expect("enqueued");
        device.wait(token, LONG).expect("done");
    }
}

#[test]
fn a_replay_computes_what_the_operations_would() {
    let test = "graphs::a_replay_computes_what_the_operations_would";
    in_child(test, "", &[], || {
        let device = device();
        let [one, sum, twice, total] = [1.0, 0.0, 0.0, 0.0].map(|it| slice(&device, it));
        // sum += one; twice = sum, on another stream; twice += sum; total += twice, on a third.
        let operations = [
            on(0, &[], add(&one, &sum)),
            on(1, &[0], copy(&sum, &twice)),
            on(1, &[], add(&sum, &twice)),
            on(2, &[2], add(&twice, &total)),
        ];
        warm(&device, &operations);
        for slice in [&sum, &twice, &total] {
            slice.write_f32(&[0.0; 4096]).expect("written");
        }
        let graph = device.capture(&operations).expect("a graph");
        let all = |slice: &Slice| slice.read_f32().expect("read");
        assert_eq!(all(&total), [0.0; 4096], "a capture executes nothing");
        let queue = device.create_queue("replay").expect("a queue");
        let tokens: Vec<_> = (0..3)
            .map(|_| graph.replay(launch(queue)).expect("a replay"))
            .collect();
        device.wait(tokens[2], LONG).expect("replayed");
        assert_eq!(all(&sum), [3.0; 4096]);
        assert_eq!(all(&twice), [6.0; 4096]);
        // 2 + 4 + 6.
        assert_eq!(all(&total), [12.0; 4096]);
        let mut stamps = Vec::new();
        device.drain(queue, &mut stamps).expect("stamps");
        assert_eq!(stamps.len(), 3);
        assert!(
            stamps
                .iter()
                .all(|it| it.tag == 7 && it.stamp.start_ns <= it.stamp.end_ns)
        );
        assert!(
            stamps
                .windows(2)
                .all(|two| two[0].stamp.end_ns <= two[1].stamp.start_ns)
        );
    });
}

#[test]
fn a_graph_keeps_its_memory_until_the_last_replay_is_over() {
    let test = "graphs::a_graph_keeps_its_memory_until_the_last_replay_is_over";
    in_child(test, HOLD_THE_REPLAY, &[], || {
        let device = device();
        let kept = slice(&device, 0.0);
        let queue = device.create_queue("replay").expect("a queue");
        let token = {
            let one = slice(&device, 1.0);
            let operations = [on(0, &[], add(&one, &kept))];
            warm(&device, &operations);
            let graph = device.capture(&operations).expect("a graph");
            graph.replay(launch(queue)).expect("a replay")
        };
        // The fake device dies of memory that is freed too early.
        let_go();
        device.wait(token, LONG).expect("replayed");
        assert_eq!(kept.read_f32().expect("read"), [2.0; 4096]);
    });
}

#[test]
fn the_host_copies_nothing_that_a_replay_uses() {
    let test = "graphs::the_host_copies_nothing_that_a_replay_uses";
    in_child(test, HOLD_THE_REPLAY, &[], || {
        let device = device();
        let [from, to] = [slice(&device, 1.0), slice(&device, 0.0)];
        let operations = [on(0, &[], add(&from, &to))];
        warm(&device, &operations);
        let graph = device.capture(&operations).expect("a graph");
        let queue = device.create_queue("replay").expect("a queue");
        let token = graph.replay(launch(queue)).expect("a replay");
        let is_refused = |copied: Result<(), BackendError>| {
            assert!(
                matches!(copied, Err(BackendError::Conflict { .. })),
                "{copied:?}"
            );
        };
        is_refused(to.read_f32().map(|_| ()));
        is_refused(from.write_f32(&[0.0; 4096]));
        assert_eq!(from.read_f32().expect("both read"), [1.0; 4096]);
        let_go();
        device.wait(token, LONG).expect("replayed");
        assert_eq!(to.read_f32().expect("read"), [2.0; 4096]);
    });
}

#[test]
fn norms_on_two_streams_have_memory_for_their_sums() {
    let test = "graphs::norms_on_two_streams_have_memory_for_their_sums";
    in_child(test, "", &[], || {
        let device = device();
        let one = || {
            let buffer = device.allocate(DataType::F32, 1).expect("a buffer");
            Slice::whole(&buffer)
        };
        let norm = |from: &Slice, to: &Slice| {
            task(Kernel::SquaredNorm {
                from: from.clone(),
                to: to.clone(),
                accumulate: false,
            })
        };
        let [ones, threes] = [1.0, 3.0].map(|it| slice(&device, it));
        let [small, large] = [one(), one()];
        let operations = [
            on(0, &[], norm(&ones, &small)),
            on(1, &[], norm(&threes, &large)),
        ];
        warm(&device, &operations);
        let graph = device.capture(&operations).expect("a graph");
        for to in [&small, &large] {
            to.write_f32(&[0.0]).expect("written");
        }
        let queue = device.create_queue("replay").expect("a queue");
        for _ in 0..20 {
            let token = graph.replay(launch(queue)).expect("a replay");
            device.wait(token, LONG).expect("replayed");
            assert_eq!(small.read_f32().expect("read"), [4096.0]);
            assert_eq!(large.read_f32().expect("read"), [9.0 * 4096.0]);
        }
    });
}

/// A product of an engine takes memory of the engine's, which is made before a capture and lives as
/// long as the graph.
#[test]
fn what_an_engine_needs_is_there_before_a_capture() {
    let test = "graphs::what_an_engine_needs_is_there_before_a_capture";
    in_child(test, "", &[], || {
        let device = open(CudaOptions {
            engines: vec![cublaslt()],
            ..options()
        });
        let device = device.unwrap_or_else(|error| panic!("{error}"));
        let matrix = || {
            let buffer = device.allocate(DataType::Bf16, 64).expect("a buffer");
            Matrix {
                slice: Slice::whole(&buffer),
                rows: 8,
                columns: 8,
                row_stride: 8,
            }
        };
        let product = task(Kernel::Gemm {
            a: matrix(),
            transpose_a: Transpose::No,
            b: matrix(),
            transpose_b: Transpose::No,
            c: matrix(),
            scale: 1.0,
            accumulate: false,
        });
        let operations = [on(0, &[], product.clone()), on(1, &[], product)];
        warm(&device, &operations);
        let free = || device.identity().expect("an identity").memory_free_bytes;
        let before = free();
        let mut graph = device.capture(&operations).expect("a graph");
        let after = free();
        assert!(after < before, "{after} {before}");
        // What is made for the next one takes the place of what the last one had.
        for _ in 0..3 {
            drop(graph);
            graph = device.capture(&operations).expect("a graph");
            assert_eq!(free(), after);
        }
    });
}

#[test]
fn what_cannot_be_captured_is_refused() {
    in_child(
        "graphs::what_cannot_be_captured_is_refused",
        "",
        &[],
        || {
            let device = device();
            let [from, to] = [slice(&device, 1.0), slice(&device, 0.0)];
            let refused = |operation: GraphOperation, expect: &str| {
                let error = device.capture(&[operation]).err().expect("refused");
                assert!(matches!(error, BackendError::Invalid { .. }), "{error}");
                assert!(error.to_string().contains(expect), "{error}");
            };
            refused(on(0, &[0], add(&from, &to)), "it comes after operation 0");
            refused(on(usize::MAX, &[], add(&from, &to)), "is on stream");
            let scaled = Task {
                work_scale: 1.5,
                ..add(&from, &to)
            };
            refused(on(0, &[], scaled), "emulated work is not captured");
            // A device that refused is as good as before.
            let operations = [on(0, &[], add(&from, &to))];
            warm(&device, &operations);
            device.capture(&operations).expect("a graph");
        },
    );
}
