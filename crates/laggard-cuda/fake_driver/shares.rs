//! Green contexts of the fake: parts of its multiprocessors that streams are confined to. A kernel
//! with more blocks than its part has multiprocessors takes as many turns there as it would, and
//! blocks that leave no room for others wait until their part has some.
#![expect(unsafe_code, reason = "is called by C's rules")]

use crate::faults::settings;
use crate::streams::{self, Handles, STREAMS, Stream};
use crate::{INVALID_HANDLE, INVALID_VALUE, SUCCESS, code, put, state};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::time::Instant;

const INVALID_RESOURCE_TYPE: c_int = 914;
const INVALID_RESOURCE_CONFIGURATION: c_int = 915;
const NOT_SUPPORTED: c_int = 801;
/// `CU_DEV_RESOURCE_TYPE_SM`.
const KIND: c_uint = 1;
/// The flag that every green context must be made with, and the one of every stream in it.
const DEFAULT_STREAM: c_uint = 1;
const NON_BLOCKING: c_uint = 1;

/// `CUdevResource`: what the header calls padding is the driver's own.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Resource {
    kind: c_uint,
    /// Whether a device or a context told of it: nothing else can be split.
    is_told: c_uint,
    first: c_uint,
    own: [u8; 84],
    count: c_uint,
    least: c_uint,
    multiple: c_uint,
    rest: [u8; 36],
}

/// Multiprocessors of a context.
pub(crate) struct Pool {
    resource: Resource,
    free: Mutex<u32>,
    bell: Condvar,
}

impl Pool {
    fn of(resource: Resource) -> Arc<Self> {
        Arc::new(Self {
            resource,
            free: Mutex::new(resource.count),
            bell: Condvar::new(),
        })
    }

    /// Waits until so many are free, and has them until what is given is dropped.
    fn take(&self, count: u32) -> Held<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = self.bell.wait_while(free, |free| *free < count);
        *enough.unwrap_or_else(PoisonError::into_inner) -= count;
        Held { pool: self, count }
    }
}

struct Held<'a> {
    pool: &'a Pool,
    count: u32,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self
            .pool
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner) += self.count;
        self.pool.bell.notify_all();
    }
}

static GREENS: Handles<Pool> = Handles::new();
static DESCRIPTIONS: Handles<Resource> = Handles::new();
static WHOLE: LazyLock<Arc<Pool>> = LazyLock::new(|| Pool::of(whole()));
/// Launches by the size of the part that they are confined to; 0 for none.
static LAUNCHES: Mutex<BTreeMap<u32, u64>> = Mutex::new(BTreeMap::new());
/// Held by kernels where a test wants streams of parts to take turns.
static TURN: Mutex<()> = Mutex::new(());

fn whole() -> Resource {
    let (least, multiple) = match settings().capability_major {
        ..=6 => (1, 1),
        7 => (2, 2),
        8 => (4, 2),
        9.. => (8, 8),
    };
    Resource {
        kind: KIND,
        is_told: 1,
        first: 0,
        own: [0; 84],
        count: settings().multiprocessors,
        least,
        multiple,
        rest: [0; 36],
    }
}

/// How many blocks a kernel has, and how much shared memory each.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) blocks: u32,
    pub(crate) shared_bytes: u32,
}

/// Executes a kernel in the part of its stream, as long as it would take there.
pub(crate) fn execute(stream: &Stream, extent: Extent, kernel: impl FnOnce() -> i32) -> i32 {
    let pool = stream.pool.as_ref().unwrap_or(&WHOLE);
    let confined = stream.pool.as_ref().map_or(0, |it| it.resource.count);
    let mut launches = LAUNCHES.lock().unwrap_or_else(PoisonError::into_inner);
    *launches.entry(confined).or_default() += 1;
    drop(launches);
    let takes_turns = settings().parts_take_turns && confined > 0;
    let turn = takes_turns.then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
    // Two blocks fit one multiprocessor, unless each wants more than half of its memory.
    let is_alone = extent.shared_bytes > settings().shared_bytes / 2;
    let needed = if is_alone { extent.blocks } else { 0 };
    let held = pool.take(needed.min(pool.resource.count));
    let begin = Instant::now();
    let code = kernel();
    let turns = |count: u32| f64::from(extent.blocks.div_ceil(count.max(1)).max(1));
    let slower = turns(pool.resource.count) / turns(WHOLE.resource.count);
    std::thread::sleep(begin.elapsed().mul_f64(slower - 1.0));
    drop(held);
    drop(turn);
    code
}

/// Launches that were confined to a part of this size; of 0, those that were not.
#[unsafe(no_mangle)]
extern "C" fn laggard_fake_cuda_launches(multiprocessors: c_uint) -> u64 {
    let launches = LAUNCHES.lock().unwrap_or_else(PoisonError::into_inner);
    launches.get(&multiprocessors).copied().unwrap_or(0)
}

fn known(kind: c_uint) -> Result<(), c_int> {
    match (settings().has_green_contexts, kind) {
        (false, _) => Err(NOT_SUPPORTED),
        (true, KIND) => Ok(()),
        _ => Err(INVALID_RESOURCE_TYPE),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetDevResource(
    _device: c_int,
    resource: *mut Resource,
    kind: c_uint,
) -> c_int {
    // SAFETY: cuda.h's contract.
    code(known(kind).map(|()| _ = unsafe { put(resource, whole()) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevSmResourceSplitByCount(
    parts: *mut Resource,
    groups: *mut c_uint,
    from: *const Resource,
    rest: *mut Resource,
    flags: c_uint,
    wanted: c_uint,
) -> c_int {
    // SAFETY: cuda.h's contract.
    let (from, room) = unsafe { (*from, *groups) };
    if flags != 0 || room == 0 {
        return INVALID_VALUE;
    }
    if from.is_told == 0 {
        return INVALID_RESOURCE_TYPE;
    }
    let count = wanted.max(from.least).next_multiple_of(from.multiple);
    let count = count + settings().parts_are_larger_by;
    let Some(left) = from.count.checked_sub(count) else {
        return INVALID_RESOURCE_CONFIGURATION;
    };
    let part = |first, count| Resource {
        is_told: 0,
        first,
        count,
        ..from
    };
    // SAFETY: cuda.h's contract.
    unsafe {
        put(groups, 1);
        put(rest, part(from.first + count, left));
        put(parts, part(from.first, count))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevResourceGenerateDesc(
    description: *mut usize,
    resources: *const Resource,
    count: c_uint,
) -> c_int {
    if count != 1 {
        return INVALID_VALUE;
    }
    // SAFETY: cuda.h's contract.
    let resource = unsafe { *resources };
    if resource.count == 0 {
        return INVALID_RESOURCE_CONFIGURATION;
    }
    let handle = DESCRIPTIONS.add(|_| Arc::new(resource));
    // SAFETY: cuda.h's contract.
    unsafe { put(description, handle as usize) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGreenCtxCreate(
    green: *mut usize,
    description: usize,
    _device: c_int,
    flags: c_uint,
) -> c_int {
    if flags != DEFAULT_STREAM {
        return INVALID_VALUE;
    }
    let Some(resource) = DESCRIPTIONS.take(description as u64) else {
        return INVALID_HANDLE;
    };
    let handle = GREENS.add(|_| Pool::of(*resource));
    // SAFETY: cuda.h's contract.
    unsafe { put(green, handle as usize) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGreenCtxGetDevResource(
    green: usize,
    resource: *mut Resource,
    kind: c_uint,
) -> c_int {
    code(known(kind).and_then(|()| {
        let pool = GREENS.get(green as u64).ok_or(INVALID_HANDLE)?;
        let told = Resource {
            is_told: 1,
            ..pool.resource
        };
        // SAFETY: cuda.h's contract.
        unsafe { put(resource, told) };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGreenCtxStreamCreate(
    stream: *mut usize,
    green: usize,
    flags: c_uint,
    _priority: c_int,
) -> c_int {
    code(state().and_then(|()| {
        let pool = GREENS.get(green as u64).ok_or(INVALID_HANDLE)?;
        if flags != NON_BLOCKING {
            return Err(INVALID_VALUE);
        }
        let handle = STREAMS.add(|number| streams::Stream::start(number, Some(pool)));
        // SAFETY: cuda.h's contract.
        unsafe { put(stream, handle as usize) };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuGreenCtxDestroy(green: usize) -> c_int {
    match GREENS.take(green as u64) {
        Some(_) => SUCCESS,
        None => INVALID_HANDLE,
    }
}
