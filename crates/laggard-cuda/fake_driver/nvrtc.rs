//! A fake NVRTC: what it makes of a source is its name and its options, which is all that the fake
//! driver has to know to execute the twins of its kernels.
#![expect(unsafe_code, reason = "is called by C's rules")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};

struct Program {
    name: String,
    made: Option<CString>,
}

/// The generations that are said to be supported.
const GENERATIONS: [c_int; 8] = [75, 80, 86, 89, 90, 100, 103, 120];

#[unsafe(no_mangle)]
unsafe extern "C" fn nvrtcVersion(major: *mut c_int, minor: *mut c_int) -> c_int {
    // SAFETY: callers give addresses of integers.
    unsafe {
        *major = 12;
        *minor = 9;
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvrtcGetNumSupportedArchs(count: *mut c_int) -> c_int {
    // SAFETY: callers give the address of an integer.
    unsafe { *count = GENERATIONS.len() as c_int };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvrtcGetSupportedArchs(to: *mut c_int) -> c_int {
    for (at, generation) in GENERATIONS.into_iter().enumerate() {
        // SAFETY: callers give room for as many as the call above says.
        unsafe { *to.add(at) = generation };
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvrtcCreateProgram(
    program: *mut *mut c_void,
    _text: *const c_char,
    name: *const c_char,
    _headers: c_int,
    _texts: *const *const c_char,
    _names: *const *const c_char,
) -> c_int {
    // SAFETY: callers give a text that ends with a zero, and the address of a handle.
    unsafe {
        let name = CStr::from_ptr(name).to_string_lossy().into_owned();
        let made = None;
        *program = Box::into_raw(Box::new(Program { name, made })).cast();
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvrtcCompileProgram(
    program: *mut c_void,
    count: c_int,
    options: *const *const c_char,
) -> c_int {
    // SAFETY: the handle is one of above; there are as many options as are said.
    unsafe {
        let program = &mut *program.cast::<Program>();
        let options = (0..count as usize).map(|at| CStr::from_ptr(*options.add(at)));
        let options: Vec<_> = options.map(CStr::to_string_lossy).collect();
        let text = format!("{}\n{}", program.name, options.join("\n"));
        program.made = CString::new(text).ok();
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvrtcGetProgramLogSize(_program: *mut c_void, size: *mut usize) -> c_int {
    // SAFETY: callers give the address of a size.
    unsafe { *size = 1 };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvrtcGetProgramLog(_program: *mut c_void, to: *mut c_char) -> c_int {
    // SAFETY: callers give room for the one byte that was said.
    unsafe { *to = 0 };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvrtcGetCUBINSize(program: *mut c_void, size: *mut usize) -> c_int {
    // SAFETY: the handle is one of above, the other address that of a size.
    unsafe {
        let made = &(*program.cast::<Program>()).made;
        *size = made
            .as_ref()
            .map_or(0, |made| made.as_bytes_with_nul().len());
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvrtcGetCUBIN(program: *mut c_void, to: *mut c_char) -> c_int {
    // SAFETY: the handle is one of above, and callers give as much room as was said.
    unsafe {
        if let Some(made) = &(*program.cast::<Program>()).made {
            let bytes = made.as_bytes_with_nul();
            std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), to, bytes.len());
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvrtcDestroyProgram(program: *mut *mut c_void) -> c_int {
    // SAFETY: the handle is one of above, and is not used again.
    drop(unsafe { Box::from_raw((*program).cast::<Program>()) });
    0
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetErrorString(_code: c_int) -> *const c_char {
    c"an error of the fake".as_ptr()
}
