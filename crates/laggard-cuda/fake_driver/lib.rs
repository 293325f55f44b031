//! A CUDA driver and an NVRTC without a GPU, for tests: put before the real ones as `libcuda.so.1`
//! and `libnvrtc.so.12`. Streams are threads that execute in order, kernels are their twins on the
//! CPU, and memory is reached by the device alone. What hardware leaves to chance can be asked for:
//! see `faults.rs`. It says nothing of how long anything takes on a GPU.
#![expect(unsafe_code, reason = "is called by C's rules")]

mod clock;
mod devices;
mod faults;
mod graphs;
mod kernels;
mod memory;
mod nvrtc;
mod shares;
mod streams;
mod words;

use clock::Entry;
use faults::settings;
use kernels::{Function, Image, Launch};
use shares::Extent;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use streams::{EVENTS, Event, Handles, STREAMS, Stream, lost};

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
const OUT_OF_MEMORY: c_int = 2;
const INVALID_CONTEXT: c_int = 201;
const INVALID_HANDLE: c_int = 400;
const NOT_FOUND: c_int = 500;
const NOT_READY: c_int = 600;
const ILLEGAL_ADDRESS: c_int = 700;
const OUT_OF_RESOURCES: c_int = 701;

static MODULES: Handles<Image> = Handles::new();
static FUNCTIONS: Handles<Function> = Handles::new();

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// What every call says first: that the device is lost, or that no context is bound.
fn state() -> Result<(), c_int> {
    match (lost(), CURRENT.get()) {
        (0, 0) => Err(INVALID_CONTEXT),
        (0, _) => Ok(()),
        (code, _) => Err(code),
    }
}

fn code(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(SUCCESS)
}

/// # Safety
/// The address must be that of a `T`.
unsafe fn put<T>(to: *mut T, value: T) -> c_int {
    // SAFETY: the caller says so.
    unsafe { to.write(value) };
    SUCCESS
}

fn stream(handle: usize) -> Result<Arc<Stream>, c_int> {
    static DEFAULT: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let handle = match handle {
        0 => *DEFAULT.get_or_init(streams::create),
        handle => handle as u64,
    };
    STREAMS.get(handle).ok_or(INVALID_HANDLE)
}

fn event(handle: usize) -> Result<Arc<Event>, c_int> {
    EVENTS.get(handle as u64).ok_or(INVALID_HANDLE)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut usize, _flags: c_uint) -> c_int {
    // SAFETY: cuda.h's contract.
    unsafe { cuStreamCreateWithPriority(stream, 0, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreateWithPriority(
    stream: *mut usize,
    _flags: c_uint,
    _priority: c_int,
) -> c_int {
    if let Err(code) = state() {
        return code;
    }
    // SAFETY: cuda.h's contract.
    unsafe { put(stream, streams::create() as usize) }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: usize) -> c_int {
    if streams::destroy(stream as u64) {
        SUCCESS
    } else {
        INVALID_HANDLE
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(handle: usize) -> c_int {
    code(stream(handle).and_then(|stream| {
        graphs::refuse_if_captured(&stream)?;
        stream.synchronize();
        state()
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(handle: usize, waited: usize, _flags: c_uint) -> c_int {
    code(state().and_then(|()| {
        let event = event(waited)?;
        let stream = stream(handle)?;
        if graphs::wait(&stream, &event)? {
            return Ok(());
        }
        let generation = event.latest();
        stream.push(Box::new(move || {
            event.wait(generation);
            0
        }));
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut usize, _flags: c_uint) -> c_int {
    if let Err(code) = state() {
        return code;
    }
    // SAFETY: cuda.h's contract.
    unsafe { put(event, EVENTS.add(|_| Arc::default()) as usize) }
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(recorded: usize, handle: usize) -> c_int {
    code(state().and_then(|()| {
        let event = event(recorded)?;
        let stream = stream(handle)?;
        if graphs::record(&stream, &event) {
            return Ok(());
        }
        let generation = event.record();
        stream.push(Box::new(move || {
            event.complete(generation);
            0
        }));
        Ok(())
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(queried: usize) -> c_int {
    code(state().and_then(|()| {
        let event = event(queried)?;
        graphs::query(&event)?;
        match event.is_complete(event.latest()) {
            true => Ok(()),
            false => Err(NOT_READY),
        }
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(waited: usize) -> c_int {
    code(event(waited).and_then(|event| {
        event.wait(event.latest());
        state()
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: usize) -> c_int {
    match EVENTS.take(event as u64) {
        Some(_) => SUCCESS,
        None => INVALID_HANDLE,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    let bytes = settings().memory_bytes;
    // SAFETY: cuda.h's contract.
    unsafe {
        put(free, bytes - memory::used_bytes());
        put(total, bytes)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_int {
    static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
    if let Err(code) = state().and_then(|()| graphs::refuse_in_capture()) {
        return code;
    }
    let number = ALLOCATIONS.fetch_add(1, Ordering::SeqCst) + 1;
    if bytes == 0 {
        return INVALID_VALUE;
    }
    if settings().allocation_that_fails == Some(number) {
        return OUT_OF_MEMORY;
    }
    match memory::allocate(bytes, settings().memory_bytes) {
        // SAFETY: cuda.h's contract.
        Some(at) => unsafe { put(address, at) },
        None => OUT_OF_MEMORY,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    wait_for_all();
    if memory::free(address) {
        SUCCESS
    } else {
        INVALID_VALUE
    }
}

/// Waits for all streams where a test wants a driver that does so before it frees memory.
fn wait_for_all() {
    if settings().frees_wait {
        STREAMS
            .each()
            .iter()
            .for_each(|stream| stream.synchronize());
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostAlloc(at: *mut u64, bytes: usize, _flags: c_uint) -> c_int {
    if let Err(code) = state() {
        return code;
    }
    // SAFETY: cuda.h's contract.
    unsafe { put(at, memory::allocate_pinned(bytes)) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(at: u64) -> c_int {
    wait_for_all();
    if memory::free_pinned(at) {
        SUCCESS
    } else {
        INVALID_VALUE
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostGetDevicePointer_v2(
    address: *mut u64,
    at: u64,
    _flags: c_uint,
) -> c_int {
    // SAFETY: cuda.h's contract.
    unsafe { put(address, at) }
}

/// Puts a copy on a stream; an end that is the host's own is where it says.
fn copy(to: (u64, bool), from: (u64, bool), bytes: usize, handle: usize) -> c_int {
    let reach = move |(address, is_device): (u64, bool)| match is_device {
        true => memory::reach(address, bytes),
        false => Some(address as *mut u8),
    };
    code(state().and_then(|()| {
        stream(handle)?.push(Box::new(move || {
            let (Some(to), Some(from)) = (reach(to), reach(from)) else {
                return ILLEGAL_ADDRESS;
            };
            // SAFETY: device memory is within its allocation, and callers answer for the host's.
            unsafe { std::ptr::copy(from, to, bytes) };
            0
        }));
        Ok(())
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) -> c_int {
    copy((to, true), (from, false), bytes, stream)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) -> c_int {
    copy((to, false), (from, true), bytes, stream)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) -> c_int {
    copy((to, true), (from, true), bytes, stream)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: u64, value: u8, bytes: usize, handle: usize) -> c_int {
    code(state().and_then(|()| {
        stream(handle)?.push(Box::new(move || {
            let Some(to) = memory::reach(to, bytes) else {
                return ILLEGAL_ADDRESS;
            };
            // SAFETY: that many bytes are within an allocation.
            unsafe { to.write_bytes(value, bytes) };
            0
        }));
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(module: *mut usize, image: *const c_char) -> c_int {
    // SAFETY: the fake compiler's images are texts.
    let text = unsafe { CStr::from_ptr(image) }.to_string_lossy();
    let handle = MODULES.add(|_| Arc::new(Image::of(&text)));
    // SAFETY: cuda.h's contract.
    unsafe { put(module, handle as usize) }
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(_module: usize) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(
    function: *mut usize,
    module: usize,
    name: *const c_char,
) -> c_int {
    // SAFETY: cuda.h's contract.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    let found = MODULES.get(module as u64).and_then(|it| it.function(&name));
    match found {
        // SAFETY: cuda.h's contract.
        Some(found) => unsafe { put(function, FUNCTIONS.add(|_| Arc::new(found)) as usize) },
        None => NOT_FOUND,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(_function: usize, _attribute: c_int, _value: c_int) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    blocks: c_uint,
    _blocks_y: c_uint,
    _blocks_z: c_uint,
    _threads: c_uint,
    _threads_y: c_uint,
    _threads_z: c_uint,
    shared_bytes: c_uint,
    handle: usize,
    arguments: *const *const c_void,
    _extra: *const *const c_void,
) -> c_int {
    static LAUNCHES: AtomicU64 = AtomicU64::new(0);
    code(state().and_then(|()| {
        let stream = stream(handle)?;
        let function = FUNCTIONS.get(function as u64).ok_or(INVALID_HANDLE)?;
        // SAFETY: cuda.h's contract.
        let launch = unsafe { Launch::new((*function).clone(), arguments, stream.number)? };
        let number = Some(LAUNCHES.fetch_add(1, Ordering::SeqCst) + 1);
        if number == settings().launch_that_is_refused {
            return Err(OUT_OF_RESOURCES);
        }
        let extent = Extent {
            blocks,
            shared_bytes,
        };
        let of_worker = Arc::clone(&stream);
        stream.push(Box::new(move || {
            if number == settings().launch_that_holds {
                faults::hold();
            }
            if number == settings().launch_that_breaks {
                return settings().breaks_with;
            }
            shares::execute(&of_worker, extent, || launch.execute())
        }));
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchHostFunc(
    handle: usize,
    function: unsafe extern "C" fn(*mut c_void),
    argument: usize,
) -> c_int {
    code(state().and_then(|()| {
        stream(handle)?.push(Box::new(move || {
            // SAFETY: cuda.h's contract: the function and what its argument names last.
            unsafe { function(argument as *mut c_void) };
            0
        }));
        Ok(())
    }))
}

/// Where so many bytes of the fake device's memory really are, or null: for other fakes that work
/// on a stream of this one, by way of `cuLaunchHostFunc`.
#[unsafe(no_mangle)]
extern "C" fn laggard_fake_cuda_reach(address: u64, bytes: usize) -> *mut u8 {
    memory::reach(address, bytes).unwrap_or(std::ptr::null_mut())
}

/// Copies the diary of stamps, as much as there is room for, and says how long it is.
///
/// # Safety
/// There is room for so many entries.
#[unsafe(no_mangle)]
unsafe extern "C" fn laggard_fake_cuda_diary(to: *mut Entry, room: usize) -> usize {
    let diary = clock::diary();
    for (at, entry) in diary.iter().take(room).enumerate() {
        // SAFETY: the caller says that there is room.
        unsafe { to.add(at).write(*entry) };
    }
    diary.len()
}

/// Ends the launch that a test wanted to hold.
#[unsafe(no_mangle)]
extern "C" fn laggard_fake_cuda_let_go() {
    faults::let_go();
}

/// Streams that there are.
#[unsafe(no_mangle)]
extern "C" fn laggard_fake_cuda_streams() -> usize {
    STREAMS.each().len()
}

/// Loses the device at this moment, with a code, as an Xid does.
#[unsafe(no_mangle)]
extern "C" fn laggard_fake_cuda_lose(code: c_int) {
    streams::lose(code);
}

/// Maps of matrices are taken, and their kernels are not: see `kernels.rs`.
#[unsafe(no_mangle)]
extern "C" fn cuTensorMapEncodeTiled() -> c_int {
    SUCCESS
}
