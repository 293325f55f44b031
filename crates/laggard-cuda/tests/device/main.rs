//! A GPU's device over a driver without a GPU: what every device must do, and what goes wrong on
//! GPUs alone. How fast anything is cannot be seen here.

mod child;
mod clocks;
mod graphs;
mod speed;
mod troubles;

use child::in_child;
use laggard_backend::conformance::check_device;
use laggard_backend::{BackendError, Device, DeviceKind, Launch, Slice, Task};
use laggard_cuda::{ComputeMode, CudaDevice, CudaOptions, PeakOptions, Surroundings};
use laggard_types::{ClockDomain, DataType};
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(120);

fn options() -> CudaOptions {
    CudaOptions {
        rank: 3,
        // What its kernels compute is checked in a test of its own.
        self_check: false,
        ..CudaOptions::default()
    }
}

fn open(options: CudaOptions) -> Result<CudaDevice, BackendError> {
    CudaDevice::open(options, &Surroundings::of_process(), None)
}

fn device() -> CudaDevice {
    open(options()).unwrap_or_else(|error| panic!("{error}"))
}

/// A task of one fill of a fresh buffer.
fn fill(device: &CudaDevice, len: usize) -> (Task, Slice) {
    let buffer = device.allocate(DataType::F32, len).expect("a buffer");
    let slice = Slice::whole(&buffer);
    let kernel = laggard_backend::Kernel::Fill {
        to: slice.clone(),
        value: 4.0,
    };
    let task = Task {
        kernels: Arc::from([kernel]),
        work_scale: 1.0,
        extra_flop: 0,
    };
    (task, slice)
}

fn launch(queue: laggard_backend::QueueId) -> Launch<'static> {
    Launch {
        queue,
        after: &[],
        tag: 7,
    }
}

#[test]
fn it_does_what_every_device_must() {
    in_child("it_does_what_every_device_must", "", &[], || {
        let open = || -> Result<Box<dyn Device>, BackendError> { Ok(Box::new(open(options())?)) };
        check_device(3, open).unwrap_or_else(|violation| panic!("{violation}"));
    });
}

#[test]
fn it_does_so_on_a_generation_without_bf16() {
    let faults = "capability_major=7,capability_minor=5";
    in_child(
        "it_does_so_on_a_generation_without_bf16",
        faults,
        &[],
        || {
            let types = device().description().computes_in;
            assert_eq!(types, [DataType::F32, DataType::F16]);
            let open =
                || -> Result<Box<dyn Device>, BackendError> { Ok(Box::new(open(options())?)) };
            check_device(3, open).unwrap_or_else(|violation| panic!("{violation}"));
        },
    );
}

#[test]
fn it_says_what_it_is() {
    in_child("it_says_what_it_is", "devices=2", &[], || {
        let device = open(CudaOptions {
            ordinal: 1,
            ..options()
        });
        let device = device.unwrap_or_else(|error| panic!("{error}"));
        let found = device.description();
        assert_eq!(
            (found.name.as_str(), found.kind),
            ("Fake GPU 1", DeviceKind::Gpu)
        );
        assert_eq!(found.memory_bytes, Some(1 << 30));
        assert_eq!(found.clock, ClockDomain::HostMonotonic);
        assert_eq!(found.measured_peak, None);
        let all = [DataType::F32, DataType::Bf16, DataType::F16];
        assert_eq!(found.computes_in, all);
        let identity = device.identity().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            (identity.ordinal, identity.pci_bus_id.as_str()),
            (1, "0000:02:00.0")
        );
        assert_eq!(identity.uuid, "GPU-a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1");
        assert_eq!((identity.capability, identity.multiprocessors), ((9, 0), 4));
        assert_eq!(identity.driver, "13.0");
        assert_eq!(identity.compute_mode, ComputeMode::Default);
        assert!(identity.memory_free_bytes <= identity.memory_bytes);
    });
}

#[test]
fn kernels_are_compared_with_their_twins_before_they_are_used() {
    let test = "kernels_are_compared_with_their_twins_before_they_are_used";
    in_child(test, "", &[], || {
        let checked = open(CudaOptions {
            self_check: true,
            ..options()
        });
        let device = checked.unwrap_or_else(|error| panic!("{error}"));
        // The fake takes no maps of matrices, as a device may refuse a tuned kernel.
        let doubts = device.doubts().join("\n");
        assert_eq!(device.doubts().len(), 2, "{doubts}");
        assert!(doubts.contains("CUDA_ERROR_INVALID_VALUE"), "{doubts}");
    });
}

#[test]
fn a_kernel_that_errs_is_done_without_if_another_does_the_same() {
    let test = "a_kernel_that_errs_is_done_without_if_another_does_the_same";
    in_child(test, "kernel_that_errs=triad", &[], || {
        let checked = open(CudaOptions {
            self_check: true,
            ..options()
        });
        let device = checked.unwrap_or_else(|error| panic!("{error}"));
        let doubts = device.doubts().join("\n");
        assert!(doubts.contains("stream bf16 is wrong"), "{doubts}");
        // Aligned addresses now take the kernels that take any.
        let queue = device.create_queue("check").expect("a queue");
        let (task, slice) = fill(&device, 1000);
        let token = device.enqueue(&task, launch(queue)).expect("a token");
        device.wait(token, LONG).expect("an end");
        assert_eq!(slice.read_f32().expect("numbers"), [4.0; 1000]);
    });
}

#[test]
fn a_kernel_that_errs_and_has_no_substitute_is_an_error() {
    let test = "a_kernel_that_errs_and_has_no_substitute_is_an_error";
    in_child(test, "kernel_that_errs=add_plain", &[], || {
        let checked = open(CudaOptions {
            self_check: true,
            ..options()
        });
        let error = checked.map(|_| ()).expect_err("a wrong kernel");
        let text = error.to_string();
        assert!(text.contains("add_plain of 1 elements"), "{text}");
        assert!(text.starts_with("rank 3: GPU 0 (Fake GPU 0)"), "{text}");
        assert!(text.contains("\nhint: nothing that it computes"), "{text}");
    });
}

#[test]
fn extra_arithmetic_needs_a_peak_that_was_measured() {
    let test = "extra_arithmetic_needs_a_peak_that_was_measured";
    in_child(test, "", &[], || {
        let device = device();
        let queue = device.create_queue("check").expect("a queue");
        let (task, _) = fill(&device, 10);
        let with_extra = |extra_flop| Task {
            extra_flop,
            ..task.clone()
        };
        let refused = device.enqueue(&with_extra(1000), launch(queue));
        assert!(
            matches!(refused, Err(BackendError::Invalid { .. })),
            "{refused:?}"
        );
        let peak = device.measure_peak(&PeakOptions {
            edge: 24,
            products: 3,
            timeout: LONG,
        });
        let peak = peak.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(device.description().measured_peak, Some(peak));
        let token = device.enqueue(&with_extra(1_000_000), launch(queue));
        device.wait(token.expect("a token"), LONG).expect("an end");
        let mut stamps = Vec::new();
        device.drain(queue, &mut stamps).expect("stamps");
        let [stamp] = stamps[..] else {
            panic!("{stamps:?}")
        };
        assert!(stamp.stamp.start_ns < stamp.stamp.end_ns);
        assert_eq!((stamp.tag, stamp.stamp.cpu_start_ns), (7, 0));
    });
}
