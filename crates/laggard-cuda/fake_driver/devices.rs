//! Which devices the fake has, and what it calls its errors.
#![expect(unsafe_code, reason = "is called by C's rules")]

use crate::faults::{self, settings};
use crate::streams::STREAMS;
use crate::{
    CURRENT, ILLEGAL_ADDRESS, INVALID_CONTEXT, INVALID_HANDLE, INVALID_VALUE, NOT_FOUND, NOT_READY,
    OUT_OF_MEMORY, SUCCESS, code, put, state,
};
use std::ffi::{CStr, c_char, c_int, c_uint};

const NO_DEVICE: c_int = 100;
const INVALID_DEVICE: c_int = 101;
/// The newest CUDA that this driver says it knows.
const VERSION: c_int = 13_000;
/// The one context's handle.
const CONTEXT: usize = 0xc0;

#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: c_uint) -> c_int {
    if faults::visible_devices() == 0 {
        return NO_DEVICE;
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    // SAFETY: cuda.h's contract.
    unsafe { put(version, VERSION) }
}

/// Names of the codes that tests meet.
const ERRORS: &[(c_int, &CStr)] = &[
    (INVALID_VALUE, c"CUDA_ERROR_INVALID_VALUE"),
    (OUT_OF_MEMORY, c"CUDA_ERROR_OUT_OF_MEMORY"),
    (NO_DEVICE, c"CUDA_ERROR_NO_DEVICE"),
    (INVALID_DEVICE, c"CUDA_ERROR_INVALID_DEVICE"),
    (INVALID_CONTEXT, c"CUDA_ERROR_INVALID_CONTEXT"),
    (214, c"CUDA_ERROR_ECC_UNCORRECTABLE"),
    (INVALID_HANDLE, c"CUDA_ERROR_INVALID_HANDLE"),
    (NOT_FOUND, c"CUDA_ERROR_NOT_FOUND"),
    (NOT_READY, c"CUDA_ERROR_NOT_READY"),
    (ILLEGAL_ADDRESS, c"CUDA_ERROR_ILLEGAL_ADDRESS"),
    (716, c"CUDA_ERROR_MISALIGNED_ADDRESS"),
    (719, c"CUDA_ERROR_LAUNCH_FAILED"),
    (801, c"CUDA_ERROR_NOT_SUPPORTED"),
    (914, c"CUDA_ERROR_INVALID_RESOURCE_TYPE"),
    (915, c"CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION"),
];

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(error: c_int, name: *mut *const c_char) -> c_int {
    let known = ERRORS.iter().find(|(code, _)| *code == error);
    let text = known.map_or(c"CUDA_ERROR_UNKNOWN", |(_, name)| *name);
    // SAFETY: cuda.h's contract.
    unsafe { put(name, text.as_ptr()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(_error: c_int, text: *mut *const c_char) -> c_int {
    // SAFETY: cuda.h's contract.
    unsafe { put(text, c"an error of the fake".as_ptr()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    // SAFETY: cuda.h's contract.
    unsafe { put(count, faults::visible_devices()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    if !(0..faults::visible_devices()).contains(&ordinal) {
        return INVALID_DEVICE;
    }
    // SAFETY: cuda.h's contract.
    unsafe { put(device, ordinal) }
}

/// # Safety
/// There is room for as many bytes.
unsafe fn put_text(to: *mut c_char, room: c_int, text: &str) -> c_int {
    for (at, byte) in text.bytes().chain([0]).take(room as usize).enumerate() {
        // SAFETY: the caller says that there is room.
        unsafe { *to.add(at) = byte as c_char };
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(to: *mut c_char, room: c_int, device: c_int) -> c_int {
    let numbered = || format!("Fake GPU {}", faults::physical(device));
    let name = settings().name.clone().unwrap_or_else(numbered);
    // SAFETY: cuda.h's contract.
    unsafe { put_text(to, room, &name) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetPCIBusId(to: *mut c_char, room: c_int, device: c_int) -> c_int {
    // SAFETY: cuda.h's contract.
    unsafe {
        put_text(
            to,
            room,
            &format!("0000:{:02x}:00.0", faults::physical(device) + 1),
        )
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetUuid_v2(to: *mut [u8; 16], device: c_int) -> c_int {
    // SAFETY: cuda.h's contract.
    unsafe { put(to, [faults::physical(device) as u8 + 0xa0; 16]) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> c_int {
    // SAFETY: cuda.h's contract.
    unsafe { put(bytes, settings().memory_bytes) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut c_int,
    attribute: c_int,
    _device: c_int,
) -> c_int {
    let found = match attribute {
        // CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT and the two of the compute capability.
        16 => settings().multiprocessors as c_int,
        // CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN.
        97 => settings().shared_bytes as c_int,
        // CU_DEVICE_ATTRIBUTE_MPS_ENABLED.
        133 => settings().has_mps.into(),
        75 => settings().capability_major,
        76 => settings().capability_minor,
        _ => 0,
    };
    // SAFETY: cuda.h's contract.
    unsafe { put(value, found) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, _device: c_int) -> c_int {
    // SAFETY: cuda.h's contract.
    unsafe { put(context, CONTEXT) }
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: usize) -> c_int {
    CURRENT.set(context);
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> c_int {
    // SAFETY: cuda.h's contract.
    unsafe { put(context, CURRENT.get()) }
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> c_int {
    for stream in STREAMS.each() {
        stream.synchronize();
    }
    code(state())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetStreamPriorityRange(least: *mut c_int, most: *mut c_int) -> c_int {
    // SAFETY: cuda.h's contract.
    unsafe {
        put(least, 0);
        put(most, -5)
    }
}
