//! Stamps of a device whose clock is far from the host's and drifts, against what they really were.

use super::child::{function_of, in_child};
use super::{LONG, device, fill, launch};
use laggard_backend::{Device, QueueId};
use laggard_cuda::CudaDevice;

/// As `Entry` of `fake_driver/clock.rs`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Entry {
    stream: u64,
    host_ns: i64,
    device_ns: i64,
}

/// What the fake driver wrote down of all stamps.
#[expect(unsafe_code, reason = "asks the fake driver")]
fn diary() -> Vec<Entry> {
    type Diary = unsafe extern "C" fn(*mut Entry, usize) -> usize;
    let mut entries = vec![
        Entry {
            stream: 0,
            host_ns: 0,
            device_ns: 0
        };
        1 << 16
    ];
    // SAFETY: the fake driver has the function with this type, and there is so much room.
    let count = unsafe {
        let diary: Diary = function_of("libcuda.so.1", "laggard_fake_cuda_diary");
        diary(entries.as_mut_ptr(), entries.len())
    };
    entries.truncate(count);
    entries
}

/// Executes fills on a queue with pauses between, and compares all their stamps with the truth. The
/// queue's stream is the latest that was made.
fn compare(device: &CudaDevice, queue: QueueId) {
    let (task, _) = fill(device, 100);
    let mut found = Vec::new();
    for _ in 0..40 {
        let mut last = None;
        for _ in 0..5 {
            last = Some(device.enqueue(&task, launch(queue)).expect("a token"));
        }
        device.wait(last.expect("a token"), LONG).expect("an end");
        let mut stamps = Vec::new();
        device.drain(queue, &mut stamps).expect("stamps");
        found.extend(
            stamps
                .iter()
                .flat_map(|it| [it.stamp.start_ns, it.stamp.end_ns]),
        );
    }
    let diary = diary();
    let latest = diary.iter().map(|it| it.stream).max();
    let truth: Vec<Entry> = diary
        .into_iter()
        .filter(|it| Some(it.stream) == latest)
        .collect();
    assert_eq!((truth.len(), found.len()), (400, 400));
    let report = device.clock();
    for (found, truth) in found.iter().zip(&truth) {
        let off = (found - truth.host_ns).abs();
        assert!(
            off <= device.clock_error_ns(),
            "off by {off} ns, {truth:?}, {report:?}"
        );
    }
    assert!(device.clock_error_ns() > 0);
    assert_eq!(report.contradictions, 0, "{report:?}");
    assert!(report.comparisons >= 40, "{report:?}");
}

#[test]
fn an_offset_and_a_drift_are_recovered_within_the_stated_bound() {
    let test = "clocks::an_offset_and_a_drift_are_recovered_within_the_stated_bound";
    let faults = "offset_ns=123000000000,drift_ppm=40,resolution_ns=32";
    in_child(test, faults, &[], || {
        let device = device();
        let queue = device.create_queue("clock").expect("a queue");
        compare(&device, queue);
        let report = device.clock();
        assert_eq!(report.resolution_ns % 32, 0, "{report:?}");
        // The bound is no excuse: it is far below what it bounds.
        let about_ns = report.offset_ns + 123_000_000_000;
        assert!(about_ns.abs() < 1_000_000_000 && report.worst_error_ns < 1_000_000_000);
    });
}

#[test]
fn so_is_a_clock_of_the_epoch_in_coarse_steps() {
    let test = "clocks::so_is_a_clock_of_the_epoch_in_coarse_steps";
    let faults = "offset_ns=1790000000000000000,drift_ppm=-95,resolution_ns=1024";
    in_child(test, faults, &[], || {
        let device = device();
        let queue = device.create_queue("clock").expect("a queue");
        compare(&device, queue);
        assert_eq!(device.clock().resolution_ns % 1024, 0);
    });
}
