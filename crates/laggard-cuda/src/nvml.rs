//! NVML, the driver's management library, loaded while the program runs: what state a GPU is in.
//! Reads and never sets anything, and uses no profiling counters, so that DCGM can run beside it.
//! What cannot be read is [`NotVisible`] and never taken for good. Checked over a stand-in for
//! NVML; never run on a GPU yet.
#![expect(unsafe_code, reason = "calls NVML's C functions")]

mod events;
mod gpu;
mod reading;
mod state;

pub use events::{XidEvent, XidWatch};
pub use reading::{GpuFacts, GpuProcess, GpuReading, NotVisible, NvLink, PcieLink, RemappedRows};

use crate::library::{self, Loaded, SUCCESS, text_at};
use crate::{CudaError, CudaLibrary, Surroundings};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::Arc;

/// `nvmlDevice_t`.
pub(crate) type RawDevice = *mut c_void;

/// `nvmlReturn_t` of nvml.h, as far as it makes a difference here.
mod code {
    use std::ffi::c_int;

    pub(super) const NOT_SUPPORTED: c_int = 3;
    pub(super) const NO_PERMISSION: c_int = 4;
    pub(super) const NOT_FOUND: c_int = 6;
    pub(super) const INSUFFICIENT_SIZE: c_int = 7;
    pub(super) const TIMEOUT: c_int = 10;
    pub(super) const FUNCTION_NOT_FOUND: c_int = 13;
    pub(super) const GPU_IS_LOST: c_int = 15;
}

/// An initialised NVML.
pub struct Nvml {
    loaded: Loaded,
}

/// One GPU, as NVML sees it.
#[derive(Clone)]
pub struct NvmlGpu {
    nvml: Arc<Nvml>,
    raw: RawDevice,
}

// SAFETY: NVML's handles belong to no thread, and its functions may be called from any.
unsafe impl Send for NvmlGpu {}
// SAFETY: as above.
unsafe impl Sync for NvmlGpu {}

impl Nvml {
    /// Loads and initialises NVML.
    ///
    /// # Errors
    /// [`CudaError::NotFound`], [`CudaError::NotLoaded`], or [`CudaError::Call`] where there is no
    /// driver under it.
    pub fn load(surroundings: &Surroundings) -> Result<Arc<Self>, CudaError> {
        let mut failure = None;
        for loaded in library::open_all(CudaLibrary::Nvml, surroundings)? {
            let nvml = Self { loaded };
            match nvml.initialise() {
                Ok(()) => return Ok(Arc::new(nvml)),
                Err(error) => {
                    failure = failure.or(Some(error));
                    // It has nothing to give back.
                    std::mem::forget(nvml);
                }
            }
        }
        Err(failure.unwrap_or(CudaError::NotFound {
            library: CudaLibrary::Nvml,
        }))
    }

    fn initialise(&self) -> Result<(), CudaError> {
        // SAFETY: nvml.h declares it so.
        let code = unsafe {
            let initialise: unsafe extern "C" fn() -> c_int =
                self.loaded.function("nvmlInit_v2")?;
            initialise()
        };
        self.check("nvmlInit_v2", code)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        self.loaded.path()
    }

    /// All GPUs that the driver shows, whatever `CUDA_VISIBLE_DEVICES` says.
    ///
    /// # Errors
    /// [`CudaError::Call`] if NVML fails.
    pub fn gpus(self: &Arc<Self>) -> Result<Vec<NvmlGpu>, CudaError> {
        let mut count: c_uint = 0;
        // SAFETY: nvml.h declares it so; the address is that of an integer.
        let code = unsafe {
            let call: unsafe extern "C" fn(*mut c_uint) -> c_int =
                self.loaded.function("nvmlDeviceGetCount_v2")?;
            call(&raw mut count)
        };
        self.check("nvmlDeviceGetCount_v2", code)?;
        (0..count).map(|index| self.at(index)).collect()
    }

    fn at(self: &Arc<Self>, index: c_uint) -> Result<NvmlGpu, CudaError> {
        let mut raw: RawDevice = std::ptr::null_mut();
        // SAFETY: nvml.h declares it so; the address is that of a handle.
        let code = unsafe {
            let call: unsafe extern "C" fn(c_uint, *mut RawDevice) -> c_int =
                self.loaded.function("nvmlDeviceGetHandleByIndex_v2")?;
            call(index, &raw mut raw)
        };
        self.check("nvmlDeviceGetHandleByIndex_v2", code)?;
        Ok(NvmlGpu {
            nvml: Arc::clone(self),
            raw,
        })
    }

    /// The GPU of a PCI address such as `0000:1b:00.0`: how a device of the driver's is found here,
    /// whose numbers may be others. `None` if there is none.
    ///
    /// # Errors
    /// [`CudaError::Call`] if NVML fails.
    pub fn gpu_at(self: &Arc<Self>, pci: &str) -> Result<Option<NvmlGpu>, CudaError> {
        let Ok(text) = CString::new(pci) else {
            return Ok(None);
        };
        let mut raw: RawDevice = std::ptr::null_mut();
        // SAFETY: nvml.h declares it so; the addresses are those of a text and of a handle.
        let code = unsafe {
            let call: unsafe extern "C" fn(*const c_char, *mut RawDevice) -> c_int =
                self.loaded.function("nvmlDeviceGetHandleByPciBusId_v2")?;
            call(text.as_ptr(), &raw mut raw)
        };
        if code == code::NOT_FOUND {
            return Ok(None);
        }
        self.check("nvmlDeviceGetHandleByPciBusId_v2", code)?;
        Ok(Some(NvmlGpu {
            nvml: Arc::clone(self),
            raw,
        }))
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<(), CudaError> {
        self.loaded.check(call, code, |code| self.words(code))
    }

    /// NVML's words for a code.
    fn words(&self, code: c_int) -> Option<String> {
        // SAFETY: nvml.h declares it so, and it gives a static text.
        unsafe {
            let call: unsafe extern "C" fn(c_int) -> *const c_char =
                self.loaded.function("nvmlErrorString").ok()?;
            text_at(call(code))
        }
    }

    /// Why something is not visible, from the code of the call that was to read it.
    fn judge(&self, code: c_int) -> Result<(), NotVisible> {
        match code {
            SUCCESS => Ok(()),
            code::NOT_SUPPORTED => Err(NotVisible::NotSupported),
            code::NO_PERMISSION => Err(NotVisible::NoPermission),
            code::FUNCTION_NOT_FOUND => Err(NotVisible::NoFunction),
            code::GPU_IS_LOST => Err(NotVisible::Lost),
            code => Err(NotVisible::Failed {
                why: self.words(code).unwrap_or_else(|| format!("code {code}")),
            }),
        }
    }
}

impl Drop for Nvml {
    fn drop(&mut self) {
        // SAFETY: nvml.h declares it so; handles hold the library, so that none is used any more.
        unsafe {
            if let Ok(end) = self
                .loaded
                .function::<unsafe extern "C" fn() -> c_int>("nvmlShutdown")
            {
                end();
            }
        }
    }
}
