//! The fake device's clock: the host's, with an offset, a drift and a resolution; and a diary of
//! all stamps, by which tests know when they really were made.

use crate::faults::settings;
use nix::time::{ClockId, clock_gettime};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A stamp as it really was.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Entry {
    /// The stream's number.
    pub(crate) stream: u64,
    /// The host's monotonic clock.
    pub(crate) host_ns: i64,
    /// What the device's clock said.
    pub(crate) device_ns: i64,
}

static DIARY: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

fn host_ns() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a monotonic clock");
    now.tv_sec() * 1_000_000_000 + now.tv_nsec()
}

/// Reads the device's clock on a stream.
pub(crate) fn stamp(stream: u64) -> i64 {
    static START: OnceLock<i64> = OnceLock::new();
    let start = *START.get_or_init(host_ns);
    let settings = settings();
    let host = host_ns();
    let elapsed = host - start;
    let gained = (elapsed as f64 * settings.drift_ppm * 1e-6) as i64;
    let exact = host + settings.offset_ns + gained;
    let device_ns = exact - exact.rem_euclid(settings.resolution_ns);
    let mut diary = DIARY.lock().unwrap_or_else(PoisonError::into_inner);
    diary.push(Entry {
        stream,
        host_ns: host,
        device_ns,
    });
    device_ns
}

/// The stamps so far.
pub(crate) fn diary() -> Vec<Entry> {
    DIARY.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
