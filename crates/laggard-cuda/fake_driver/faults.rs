//! What a test can ask the fake driver for, through the environment: `LAGGARD_FAKE_CUDA` holds
//! `name=value` pairs, separated by commas.

use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

/// How the fake behaves.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The allocation of device memory that fails, from 1.
    pub(crate) allocation_that_fails: Option<u64>,
    /// The launch after which the device is lost, from 1.
    pub(crate) launch_that_breaks: Option<u64>,
    /// The code that a lost device gives.
    pub(crate) breaks_with: i32,
    /// The launch that does not end before the test lets it, from 1.
    pub(crate) launch_that_holds: Option<u64>,
    /// The launch that is refused for want of something, from 1.
    pub(crate) launch_that_is_refused: Option<u64>,
    /// How much a stream holds before whoever has it write or wait for a number waits.
    pub(crate) stream_room: Option<usize>,
    /// Whether memory is freed only once all streams have done what they were given.
    pub(crate) frees_wait: bool,
    /// Kernels of this name compute nonsense.
    pub(crate) kernel_that_errs: Option<String>,
    /// Device time minus the host's monotonic clock, at the start.
    pub(crate) offset_ns: i64,
    /// How much faster the device's clock runs, in millionths.
    pub(crate) drift_ppm: f64,
    /// Steps of the device's clock.
    pub(crate) resolution_ns: i64,
    /// Devices that there are, before `CUDA_VISIBLE_DEVICES`.
    pub(crate) devices: i32,
    /// Bytes of a device's memory.
    pub(crate) memory_bytes: usize,
    /// Name of every device; absent for one with its number.
    pub(crate) name: Option<String>,
    /// How long a cycle of a device's clock takes.
    pub(crate) cycle_ns: u64,
    /// Multiprocessors of a device.
    pub(crate) multiprocessors: u32,
    /// Most shared memory of a block.
    pub(crate) shared_bytes: u32,
    /// Whether processes share devices by way of a server.
    pub(crate) has_mps: bool,
    /// Whether devices can be divided.
    pub(crate) has_green_contexts: bool,
    /// How many multiprocessors more than asked for a part has.
    pub(crate) parts_are_larger_by: u32,
    /// Whether kernels on parts of a device take turns, as on one that is shared in time.
    pub(crate) parts_take_turns: bool,
    /// Major compute capability.
    pub(crate) capability_major: i32,
    /// Minor compute capability.
    pub(crate) capability_minor: i32,
}

const VARIABLE: &str = "LAGGARD_FAKE_CUDA";

pub(crate) fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        let value = |name: &str| {
            let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            let mut found = pairs.filter(|(key, _)| *key == name);
            found.next().map(|(_, value)| value.to_owned())
        };
        fn number<T: std::str::FromStr>(text: Option<String>) -> Option<T> {
            text.and_then(|text| text.parse().ok())
        }
        Settings {
            allocation_that_fails: number(value("allocation_that_fails")),
            launch_that_breaks: number(value("launch_that_breaks")),
            breaks_with: number(value("breaks_with")).unwrap_or(719),
            launch_that_holds: number(value("launch_that_holds")),
            launch_that_is_refused: number(value("launch_that_is_refused")),
            stream_room: number(value("stream_room")),
            frees_wait: number(value("frees_wait")).unwrap_or(false),
            kernel_that_errs: value("kernel_that_errs"),
            offset_ns: number(value("offset_ns")).unwrap_or(0),
            drift_ppm: number(value("drift_ppm")).unwrap_or(0.0),
            resolution_ns: number(value("resolution_ns")).unwrap_or(32),
            devices: number(value("devices")).unwrap_or(1),
            memory_bytes: number(value("memory_bytes")).unwrap_or(1 << 30),
            name: value("name"),
            cycle_ns: number(value("cycle_ns")).unwrap_or(1),
            multiprocessors: number(value("multiprocessors")).unwrap_or(4),
            shared_bytes: number(value("shared_bytes")).unwrap_or(200_000),
            has_mps: number(value("has_mps")).unwrap_or(false),
            has_green_contexts: number(value("has_green_contexts")).unwrap_or(true),
            parts_are_larger_by: number(value("parts_are_larger_by")).unwrap_or(0),
            parts_take_turns: number(value("parts_take_turns")).unwrap_or(false),
            capability_major: number(value("capability_major")).unwrap_or(9),
            capability_minor: number(value("capability_minor")).unwrap_or(0),
        }
    })
}

/// Devices that are left by `CUDA_VISIBLE_DEVICES`, as the real driver counts them: up to the first
/// entry that names none.
pub(crate) fn visible_devices() -> i32 {
    let all = settings().devices;
    let Ok(visible) = std::env::var("CUDA_VISIBLE_DEVICES") else {
        return all;
    };
    let exists = |entry: &&str| {
        entry
            .trim()
            .parse()
            .is_ok_and(|at: i32| (0..all).contains(&at))
    };
    visible.split(',').take_while(exists).count() as i32
}

/// The device that is visible as this one.
pub(crate) fn physical(device: i32) -> i32 {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    let entry = visible.split(',').nth(device.unsigned_abs() as usize);
    entry
        .and_then(|it| it.trim().parse().ok())
        .unwrap_or(device)
}

static IS_LET_GO: Mutex<bool> = Mutex::new(false);
static BELL: Condvar = Condvar::new();

/// Waits until the test lets go.
pub(crate) fn hold() {
    let is_let_go = IS_LET_GO.lock().unwrap_or_else(PoisonError::into_inner);
    let until = BELL.wait_while(is_let_go, |is_let_go| !*is_let_go);
    drop(until.unwrap_or_else(PoisonError::into_inner));
}

/// Ends the launch that holds.
pub(crate) fn let_go() {
    *IS_LET_GO.lock().unwrap_or_else(PoisonError::into_inner) = true;
    BELL.notify_all();
}
