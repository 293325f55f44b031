//! Words of host memory that streams write and wait for.

use super::faults::settings;
use super::{INVALID_VALUE, code, memory, state, stream};
use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Time between two looks at a word: whoever changes it rings no bell.
const BETWEEN_LOOKS: Duration = Duration::from_micros(20);

/// Where a word of memory really is.
fn word(address: u64) -> Result<usize, c_int> {
    let at = memory::reach(address, size_of::<u32>());
    at.map(|at| at as usize).ok_or(INVALID_VALUE)
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWriteValue32_v2(
    handle: usize,
    address: u64,
    value: u32,
    flags: c_uint,
) -> c_int {
    code(state().and_then(|()| {
        let address = word(address)?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        stream(handle)?.push_into(
            settings().stream_room,
            Box::new(move || {
                // SAFETY: it was allocated; who frees it before is at fault.
                let word = unsafe { &*(address as *const AtomicU32) };
                word.store(value, Ordering::SeqCst);
                0
            }),
        );
        Ok(())
    }))
}

/// Waits for at least the value, in the arithmetic of a circle (`CU_STREAM_WAIT_VALUE_GEQ`).
#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitValue32_v2(
    handle: usize,
    address: u64,
    value: u32,
    flags: c_uint,
) -> c_int {
    code(state().and_then(|()| {
        let address = word(address)?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        stream(handle)?.push_into(
            settings().stream_room,
            Box::new(move || {
                // SAFETY: as above.
                let word = unsafe { &*(address as *const AtomicU32) };
                while word
                    .load(Ordering::SeqCst)
                    .wrapping_sub(value)
                    .cast_signed()
                    < 0
                {
                    std::thread::sleep(BETWEEN_LOOKS);
                }
                0
            }),
        );
        Ok(())
    }))
}
