//! What goes wrong on a GPU, and what is said of it: never a panic, never a wait without end.

use super::child::{function_of, in_child};
use super::{LONG, device, fill, launch, open, options};
use laggard_backend::{BackendError, Device, Launch, Slice, Task};
use laggard_cuda::{CudaDevice, CudaOptions};
use laggard_types::DataType;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// The first fill of a test: the clock takes 32 stamps, and each piece of work begins with one.
const HOLD_THE_FIRST_FILL: &str = "launch_that_holds=34";

/// Lets the launch end that holds.
#[expect(unsafe_code, reason = "asks the fake driver")]
pub(crate) fn let_go() {
    // SAFETY: the fake driver has the function with this type.
    unsafe { function_of::<extern "C" fn()>("libcuda.so.1", "laggard_fake_cuda_let_go")() };
}

fn text(result: Result<CudaDevice, BackendError>) -> String {
    result.map(|_| ()).expect_err("no such GPU").to_string()
}

#[test]
fn a_gpu_that_is_not_there() {
    in_child(
        "troubles::a_gpu_that_is_not_there",
        "devices=2",
        &[],
        || {
            let text = text(open(CudaOptions {
                ordinal: 2,
                ..options()
            }));
            for part in [
                "rank 3: GPU 2: opening the GPU",
                "no GPU 2 of 2 that are visible (CUDA_VISIBLE_DEVICES is not set)",
                "CUDA_ERROR_INVALID_DEVICE",
                "\nhint: `nvidia-smi -L` lists",
            ] {
                assert!(text.contains(part), "no `{part}` in {text}");
            }
        },
    );
}

#[test]
fn a_gpu_that_is_hidden() {
    let variables = [("CUDA_VISIBLE_DEVICES", "1")];
    let test = "troubles::a_gpu_that_is_hidden";
    in_child(test, "devices=2", &variables, || {
        assert!(open(options()).is_ok());
        let text = text(open(CudaOptions {
            ordinal: 1,
            ..options()
        }));
        let part = "no GPU 1 of 1 that are visible (CUDA_VISIBLE_DEVICES is `1`)";
        assert!(text.contains(part), "{text}");
    });
}

#[test]
fn all_gpus_are_hidden() {
    let variables = [("CUDA_VISIBLE_DEVICES", "7")];
    in_child("troubles::all_gpus_are_hidden", "", &variables, || {
        let text = text(open(options()));
        for part in [
            "no GPU 0 of 0 that are visible (CUDA_VISIBLE_DEVICES is `7`)",
            "CUDA_ERROR_NO_DEVICE",
            "\nhint: `nvidia-smi -L` lists",
        ] {
            assert!(text.contains(part), "no `{part}` in {text}");
        }
    });
}

#[test]
fn memory_that_is_not_there() {
    let test = "troubles::memory_that_is_not_there";
    in_child(test, "memory_bytes=1000000", &[], || {
        let device = device();
        let kept = device.allocate(DataType::F32, 100_000).expect("a buffer");
        let error = device
            .allocate(DataType::F32, 200_000)
            .expect_err("no room");
        let text = error.to_string();
        for part in [
            "rank 3: GPU 0 (Fake GPU 0): allocating",
            "CUDA_ERROR_OUT_OF_MEMORY",
            "free",
            "\nhint: `nvidia-smi` says who",
        ] {
            assert!(text.contains(part), "no `{part}` in {text}");
        }
        // What is given back can be had again, and the device goes on.
        drop(kept);
        assert!(device.allocate(DataType::F32, 200_000).is_ok());
    });
}

#[test]
fn the_allocation_of_scratch_that_fails_is_an_error_of_its_task() {
    let test = "troubles::the_allocation_of_scratch_that_fails_is_an_error_of_its_task";
    in_child(test, "allocation_that_fails=2", &[], || {
        let device = device();
        let queue = device.create_queue("check").expect("a queue");
        let (mut task, _) = fill(&device, 100);
        task.work_scale = 2.0;
        let error = device.enqueue(&task, launch(queue)).expect_err("no room");
        assert!(error.to_string().contains("OUT_OF_MEMORY"), "{error}");
        // It was one allocation, and neither queue nor device are harmed.
        let token = device.enqueue(&task, launch(queue)).expect("a token");
        device.wait(token, LONG).expect("an end");
    });
}

#[test]
fn scratch_that_becomes_too_small_is_not_freed_under_way() {
    let test = "troubles::scratch_that_becomes_too_small_is_not_freed_under_way";
    // Two stamps and two fills, and then the first stamp of the one that holds.
    in_child(test, "frees_wait=true,launch_that_holds=38", &[], || {
        let device = Arc::new(device());
        let [held, queue] = ["held", "check"].map(|it| device.create_queue(it).expect("a queue"));
        let repeated = |len| {
            let (task, _) = fill(&device, len);
            Task {
                work_scale: 2.0,
                ..task
            }
        };
        let [small, large] = [100, 10_000].map(repeated);
        let token = device.enqueue(&small, launch(queue)).expect("a token");
        device.wait(token, LONG).expect("an end");
        let (task, _slice) = fill(&device, 100);
        let last = device.enqueue(&task, launch(held)).expect("a token");
        let (tell, told) = channel();
        let of_thread = Arc::clone(&device);
        std::thread::spawn(move || {
            let token = of_thread.enqueue(&large, launch(queue));
            let end = token.and_then(|token| of_thread.wait(token, LONG));
            tell.send((end, large)).expect("the test");
        });
        // The driver waits for all streams before it frees memory, and one of them holds.
        let (end, _task) = told.recv_timeout(LONG).expect("an end");
        end.expect("a success");
        let_go();
        device.wait(last, LONG).expect("an end");
    });
}

#[test]
fn a_device_that_is_lost() {
    let test = "troubles::a_device_that_is_lost";
    // Besides the stamps of the clocks, each piece of work is three launches.
    in_child(test, "launch_that_breaks=100,breaks_with=214", &[], || {
        let device = device();
        let queues = ["a", "b"].map(|name| device.create_queue(name).expect("a queue"));
        let (task, slice) = fill(&device, 100);
        // One after the other, so that the last comes after the launch that breaks.
        let mut last = Vec::new();
        for at in 0..50 {
            let launch = Launch {
                after: &last,
                ..launch(queues[at % 2])
            };
            match device.enqueue(&task, launch) {
                Ok(token) => last = vec![token],
                Err(error) => assert!(matches!(error, BackendError::Device { .. }), "{error}"),
            }
        }
        let error = device.wait(last[0], LONG).expect_err("a lost device");
        let text = error.to_string();
        for part in [
            "rank 3: GPU 0 (Fake GPU 0)",
            "ECC_UNCORRECTABLE",
            "\nhint: its memory is",
        ] {
            assert!(text.contains(part), "no `{part}` in {text}");
        }
        // Everything says so, at once.
        let again = device.enqueue(&task, launch(queues[0]));
        let again = again.and_then(|token| device.wait(token, LONG));
        assert!(
            matches!(again, Err(BackendError::Device { .. })),
            "{again:?}"
        );
        assert!(slice.read_f32().is_err());
        assert!(device.allocate(DataType::F32, 1).is_err());
        // What was stamped before is not lost.
        let mut stamps = Vec::new();
        for queue in queues {
            device.drain(queue, &mut stamps).expect("stamps");
        }
        assert!(stamps.len() < 50);
        drop(device);
    });
}

#[test]
fn waiting_ends_with_its_deadline_and_says_what_the_device_is_at() {
    let test = "troubles::waiting_ends_with_its_deadline_and_says_what_the_device_is_at";
    in_child(test, HOLD_THE_FIRST_FILL, &[], || {
        let device = device();
        let [queue, other] = ["a", "b"].map(|name| device.create_queue(name).expect("a queue"));
        let (task, slice) = fill(&device, 100);
        let token = device.enqueue(&task, launch(queue)).expect("a token");
        let after = [token];
        let behind = Launch {
            queue: other,
            after: &after,
            tag: 8,
        };
        let behind = device.enqueue(&task, behind).expect("a token");
        let late = device.wait(behind, Duration::from_millis(50));
        let Err(BackendError::Timeout {
            rank, waiting_for, ..
        }) = &late
        else {
            panic!("{late:?}")
        };
        assert_eq!(
            (*rank, waiting_for.as_str()),
            (3, "work 1 of queue 1 on GPU 0 (Fake GPU 0)")
        );
        assert_eq!(device.poll(token), Ok(false));
        assert_eq!(device.at_work(), [7], "the other queue waits");
        // The host may not touch what a kernel uses.
        let conflict = slice.read_f32();
        assert!(
            matches!(conflict, Err(BackendError::Conflict { .. })),
            "{conflict:?}"
        );
        let conflict = slice.write_f32(&[0.0; 100]);
        assert!(
            matches!(conflict, Err(BackendError::Conflict { .. })),
            "{conflict:?}"
        );
        // Beside it, it may.
        let beside = Slice::whole(&device.allocate(DataType::F32, 3).expect("a buffer"));
        assert_eq!(beside.read_f32(), Ok(vec![0.0; 3]));
        let_go();
        device.wait(behind, LONG).expect("an end");
        assert!(device.at_work().is_empty());
        assert_eq!(slice.read_f32(), Ok(vec![4.0; 100]));
    });
}

#[test]
fn an_abort_ends_waiting_and_leaves_work_to_its_end() {
    let test = "troubles::an_abort_ends_waiting_and_leaves_work_to_its_end";
    in_child(test, HOLD_THE_FIRST_FILL, &[], || {
        let device = device();
        let queue = device.create_queue("a").expect("a queue");
        let (task, slice) = fill(&device, 100);
        let token = device.enqueue(&task, launch(queue)).expect("a token");
        // The memory is kept by the work alone, which writes it after this.
        drop((task, slice));
        device.abort("had enough");
        let ended = device.wait(token, LONG);
        let want = BackendError::Aborted {
            rank: 3,
            reason: "had enough".to_owned(),
        };
        assert_eq!(ended, Err(want));
        let_go();
        // An access to memory that was freed would lose the device, and this would say so.
        drop(device);
        let fresh = super::device();
        assert!(fresh.allocate(DataType::F32, 10).is_ok());
    });
}

#[test]
fn memory_of_others_is_refused() {
    in_child("troubles::memory_of_others_is_refused", "", &[], || {
        let (one, two) = (device(), device());
        let queue = one.create_queue("a").expect("a queue");
        let (task, slice) = fill(&two, 10);
        let refused = one.enqueue(&task, launch(queue));
        assert!(
            matches!(refused, Err(BackendError::Unknown { .. })),
            "{refused:?}"
        );
        assert!(matches!(
            slice.claim_read().map(|_| ()),
            Err(BackendError::NotOnHost { .. })
        ));
    });
}

#[test]
fn failures_follow_tokens_and_no_others() {
    let test = "troubles::failures_follow_tokens_and_no_others";
    in_child(test, HOLD_THE_FIRST_FILL, &[], || {
        let device = device();
        let [one, two, three] = ["a", "b", "c"].map(|name| device.create_queue(name).expect(name));
        let (task, _) = fill(&device, 10);
        let enqueue = |queue, after: &[laggard_backend::Token]| {
            let launch = Launch {
                queue,
                after,
                tag: 1,
            };
            device.enqueue(&task, launch).expect("a token")
        };
        let first = enqueue(one, &[]);
        let apart = enqueue(three, &[]);
        let behind = enqueue(two, &[first]);
        let far_behind = enqueue(three, &[behind]);
        let why = BackendError::Unknown {
            what: "why".to_owned(),
        };
        device.fail(first, why.clone());
        for token in [
            first,
            behind,
            far_behind,
            enqueue(one, &[]),
            enqueue(two, &[]),
        ] {
            assert_eq!(device.wait(token, LONG), Err(why.clone()), "{token:?}");
        }
        // Work that comes after failed work is never begun.
        let late = enqueue(device.create_queue("d").expect("d"), &[behind]);
        assert_eq!(device.poll(late), Err(why));
        assert_eq!(device.wait(apart, LONG), Ok(()));
        let_go();
        let free = enqueue(device.create_queue("e").expect("e"), &[apart]);
        assert_eq!(device.wait(free, LONG), Ok(()));
    });
}
