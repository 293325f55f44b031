//! Ranks on parts of one GPU, over a driver without a GPU: how it is divided, that everything of a
//! device stays in its part, that ranks which only take turns are found out, and the conformance
//! suite with collectives that go through the host. How fast anything is cannot be seen here.

#[path = "../device/child.rs"]
mod child;
mod staged;

use child::{function_of, in_child};
use laggard_backend::conformance::check_device;
use laggard_backend::{BackendError, Device, Kernel, Launch, Slice, Task};
use laggard_cuda::{
    Concurrency, ConcurrencyOptions, CudaDevice, CudaError, CudaOptions, PeakOptions, Share,
    Sharing, Surroundings, concurrency,
};
use laggard_types::DataType;
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(120);

/// An H200 as far as its multiprocessors go.
const HOPPER: &str = "multiprocessors=132";

fn divide(weights: &[f64]) -> Result<Vec<Share>, CudaError> {
    Share::divide(0, weights, &Surroundings::of_process())
}

fn shares(weights: &[f64]) -> Vec<Share> {
    divide(weights).unwrap_or_else(|error| panic!("{error}"))
}

fn open(share: Option<Share>) -> Result<CudaDevice, BackendError> {
    let options = CudaOptions {
        share,
        // What its kernels compute is checked elsewhere.
        self_check: false,
        ..CudaOptions::default()
    };
    CudaDevice::open(options, &Surroundings::of_process(), None)
}

fn device(share: Option<Share>) -> Arc<CudaDevice> {
    Arc::new(open(share).unwrap_or_else(|error| panic!("{error}")))
}

/// Launches of the fake that were confined to a part of so many multiprocessors; of 0, those that
/// were not.
#[expect(unsafe_code, reason = "asks the fake driver")]
fn launches(multiprocessors: u32) -> u64 {
    // SAFETY: the fake declares it so.
    let of: extern "C" fn(u32) -> u64 =
        unsafe { function_of("libcuda.so.1", "laggard_fake_cuda_launches") };
    of(multiprocessors)
}

#[test]
fn a_gpu_is_divided_by_weights() {
    in_child("a_gpu_is_divided_by_weights", HOPPER, &[], || {
        let parts = |weights: &[f64]| -> Vec<u32> {
            let shares = shares(weights);
            assert!(shares.iter().all(|it| (it.of(), it.ordinal()) == (132, 0)));
            shares.iter().map(Share::multiprocessors).collect()
        };
        assert_eq!(parts(&[1.0, 0.5]), [80, 40]);
        assert_eq!(parts(&[0.45, 1.0, 0.45]), [24, 56, 24]);
        assert_eq!(parts(&[1.0; 16]), [8; 16]);
        let shares = shares(&[1.0, 0.5]);
        assert_eq!(shares[1].to_string(), "green context of 40 of 132 SMs");
        assert_eq!(shares[1].siblings(), 2);
        let error = divide(&[1.0; 17]).unwrap_err().to_string();
        let expect = "GPU 0 is not divided: it has 132 multiprocessors, which make no 17 parts";
        assert!(
            error.starts_with(expect) && error.contains("\nhint: "),
            "{error}"
        );
    });
}

#[test]
fn a_part_is_what_the_driver_made_of_it() {
    let faults = "multiprocessors=132,parts_are_larger_by=2";
    in_child("a_part_is_what_the_driver_made_of_it", faults, &[], || {
        assert_eq!(shares(&[1.0])[0].multiprocessors(), 130);
    });
}

#[test]
fn older_generations_are_divided_in_smaller_steps() {
    let test = "older_generations_are_divided_in_smaller_steps";
    let faults = "multiprocessors=108,capability_major=8,capability_minor=0";
    in_child(test, faults, &[], || {
        let counts: Vec<u32> = shares(&[3.0, 1.0])
            .iter()
            .map(Share::multiprocessors)
            .collect();
        assert_eq!(counts, [78, 26]);
    });
}

#[test]
fn a_driver_that_does_not_divide_says_so() {
    let faults = "multiprocessors=132,has_green_contexts=false";
    in_child("a_driver_that_does_not_divide_says_so", faults, &[], || {
        let error = divide(&[1.0, 1.0]).unwrap_err();
        assert!(
            matches!(error, CudaError::Undivided { ordinal: 0, .. }),
            "{error}"
        );
        assert!(
            error.to_string().contains("CUDA_ERROR_NOT_SUPPORTED"),
            "{error}"
        );
        // The GPU as a whole works as before.
        device(None);
    });
}

#[test]
fn everything_of_a_device_stays_in_its_part() {
    let test = "everything_of_a_device_stays_in_its_part";
    in_child(test, HOPPER, &[], || {
        let share = shares(&[1.0, 0.5])[1].clone();
        let device = CudaDevice::open(
            CudaOptions {
                share: Some(share),
                ..CudaOptions::default()
            },
            &Surroundings::of_process(),
            None,
        );
        let device = device.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(device.share().map(Share::multiprocessors), Some(40));
        // The self-check alone launches every kernel; the rest are those of a step and of a peak.
        let buffer = device.allocate(DataType::F32, 1000).expect("a buffer");
        let to = Slice::whole(&buffer);
        let task = Task {
            kernels: Arc::from([Kernel::Fill {
                to: to.clone(),
                value: 4.0,
            }]),
            work_scale: 2.0,
            extra_flop: 0,
        };
        let queue = device.create_queue("check").expect("a queue");
        let launch = Launch {
            queue,
            after: &[],
            tag: 0,
        };
        let token = device.enqueue(&task, launch).expect("a token");
        device.wait(token, LONG).expect("an end");
        device.drain(queue, &mut Vec::new()).expect("stamps");
        assert_eq!(to.read_f32().expect("numbers"), [4.0; 1000]);
        let peak = PeakOptions {
            edge: 24,
            products: 2,
            timeout: LONG,
        };
        device.measure_peak(&peak).expect("a peak");
        assert!(launches(40) > 100, "{}", launches(40));
        assert_eq!(launches(0), 0, "launches outside of the part");
        // Half of the memory for each, and the identity of the whole.
        assert_eq!(device.description().memory_bytes, Some(1 << 29));
        assert_eq!(device.identity().expect("an identity").multiprocessors, 132);
    });
}

#[test]
fn a_part_does_what_every_device_must() {
    in_child("a_part_does_what_every_device_must", HOPPER, &[], || {
        let share = shares(&[1.0, 1.0])[0].clone();
        let open = || -> Result<Box<dyn Device>, BackendError> {
            Ok(Box::new(open(Some(share.clone()))?))
        };
        check_device(0, open).unwrap_or_else(|violation| panic!("{violation}"));
    });
}

#[test]
fn a_limit_of_the_service_is_told() {
    let test = "a_limit_of_the_service_is_told";
    let limit = [("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "37.5")];
    in_child(test, "has_mps=true", &limit, || {
        let client = device(None).mps().expect("a client");
        assert_eq!(client.thread_percentage, Some(37.5));
    });
}

/// What is said of how the GPU can be shared.
fn sharing() -> String {
    let found = Sharing::of(0, &Surroundings::of_process());
    found.unwrap_or_else(|error| panic!("{error}")).to_string()
}

#[test]
fn how_a_gpu_can_be_shared_is_told() {
    let test = "how_a_gpu_can_be_shared_is_told";
    in_child(test, HOPPER, &[], || {
        let expect = "green contexts of 8 or more of 132 SMs in steps of 8";
        assert_eq!(sharing(), expect);
        // Nobody has taken anything of the GPU for that.
        assert_eq!(launches(0), 0);
        let absent = Sharing::of(1, &Surroundings::of_process()).unwrap_err();
        assert!(absent.to_string().contains("INVALID_DEVICE"), "{absent}");
    });
}

#[test]
fn what_keeps_a_gpu_from_being_shared_is_told() {
    let test = "what_keeps_a_gpu_from_being_shared_is_told";
    let limit = [("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "25")];
    in_child(
        test,
        "has_green_contexts=false,has_mps=true",
        &limit,
        || {
            let said = sharing();
            let begin = "no green contexts (asking for its parts: CUDA_ERROR_NOT_SUPPORTED";
            assert!(said.starts_with(begin), "{said}");
            assert!(said.ends_with("); MPS with 25 % of its threads"), "{said}");
        },
    );
}

#[test]
fn a_limit_without_the_service_is_none() {
    let test = "a_limit_without_the_service_is_none";
    let limit = [("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "37.5")];
    in_child(test, "", &limit, || assert_eq!(device(None).mps(), None));
}

fn meet(devices: &[Arc<CudaDevice>], limit_cycles: u64) -> Concurrency {
    let options = ConcurrencyOptions {
        rounds: 20,
        limit_cycles,
        timeout: LONG,
    };
    concurrency(devices, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// A minute of the fake's cycles: a machine with other work may be slow.
const PATIENT: u64 = 60_000_000_000;
/// A millisecond: what is to fail need not take long.
const QUICK: u64 = 1_000_000;

#[test]
fn parts_run_at_the_same_time() {
    in_child("parts_run_at_the_same_time", HOPPER, &[], || {
        let devices: Vec<_> = shares(&[1.0, 0.5, 0.5])
            .into_iter()
            .map(|share| device(Some(share)))
            .collect();
        match meet(&devices, PATIENT) {
            Concurrency::Shown { overlap_ns } => assert!(overlap_ns > 0),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn ranks_on_the_whole_gpu_are_found_to_take_turns() {
    let test = "ranks_on_the_whole_gpu_are_found_to_take_turns";
    in_child(test, HOPPER, &[], || {
        let found = meet(&[device(None), device(None)], QUICK);
        let Concurrency::NotShown { why } = found else {
            panic!("{found:?}");
        };
        assert!(
            why.contains("times instead of 20 within 1000000 cycles"),
            "{why}"
        );
    });
}

#[test]
fn parts_that_take_turns_are_found_out() {
    let faults = "multiprocessors=132,parts_take_turns=true";
    in_child("parts_that_take_turns_are_found_out", faults, &[], || {
        let devices: Vec<_> = shares(&[1.0, 1.0])
            .into_iter()
            .map(|share| device(Some(share)))
            .collect();
        let found = meet(&devices, QUICK);
        assert!(matches!(found, Concurrency::NotShown { .. }), "{found:?}");
    });
}

#[test]
fn a_launch_that_fails_leaves_the_words_to_those_that_run() {
    let test = "a_launch_that_fails_leaves_the_words_to_those_that_run";
    // Of the stamps of two clocks, a kernel alone on each part, and then one on both.
    let faults = "multiprocessors=132,launch_that_is_refused=68";
    in_child(test, faults, &[], || {
        let devices: Vec<_> = shares(&[1.0, 1.0])
            .into_iter()
            .map(|share| device(Some(share)))
            .collect();
        let options = ConcurrencyOptions {
            rounds: 20,
            // A second of the fake's, in which the first kernel asks for the other.
            limit_cycles: 1_000_000_000,
            timeout: LONG,
        };
        let error = concurrency(&devices, &options).expect_err("a launch that is refused");
        assert!(error.to_string().contains("launching a kernel"), "{error}");
        // Comes to its part only when that kernel is over, which must not have lost the device.
        let found = meet(&devices[..1], PATIENT);
        assert!(matches!(found, Concurrency::Shown { .. }), "{found:?}");
    });
}

/// Streams of the fake.
#[expect(unsafe_code, reason = "asks the fake driver")]
fn streams() -> usize {
    // SAFETY: the fake declares it so.
    let count: extern "C" fn() -> usize =
        unsafe { function_of("libcuda.so.1", "laggard_fake_cuda_streams") };
    count()
}

#[test]
fn streams_of_a_part_go_with_their_users() {
    in_child("streams_of_a_part_go_with_their_users", HOPPER, &[], || {
        let device = device(Some(shares(&[1.0])[0].clone()));
        let met = || {
            let found = meet(std::slice::from_ref(&device), PATIENT);
            assert!(matches!(found, Concurrency::Shown { .. }), "{found:?}");
            streams()
        };
        let first = met();
        assert_eq!([met(), met()], [first; 2]);
    });
}

#[test]
fn staged_calls_conform() {
    in_child("staged_calls_conform", HOPPER, &[], staged::conforms);
}

#[test]
fn a_rank_that_stays_away_is_named() {
    in_child(
        "a_rank_that_stays_away_is_named",
        HOPPER,
        &[],
        staged::missing_rank,
    );
}

#[test]
fn a_rank_that_needs_more_room_waits_for_nobody() {
    let test = "a_rank_that_needs_more_room_waits_for_nobody";
    let faults = "multiprocessors=132,frees_wait=true";
    in_child(test, faults, &[], staged::growing_room);
}

#[test]
fn a_world_that_is_dropped_at_work_ends_the_others() {
    let test = "a_world_that_is_dropped_at_work_ends_the_others";
    in_child(test, HOPPER, &[], staged::dropped_at_work);
}
