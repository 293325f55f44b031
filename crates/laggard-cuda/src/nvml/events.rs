//! Xid events: what the driver reports of a GPU that went wrong, as it happens and without
//! privileges. What happened before the watch began is in the kernel's log alone.

use super::{NotVisible, Nvml, NvmlGpu, RawDevice, code};
use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::sync::Arc;

/// An Xid event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XidEvent {
    /// Position of the GPU among those that are watched.
    pub gpu: usize,
    /// The number; NVIDIA's "XID Errors" says what each means.
    pub xid: u64,
}

/// Notices Xid events of some GPUs.
pub struct XidWatch {
    nvml: Arc<Nvml>,
    set: *mut c_void,
    gpus: Vec<NvmlGpu>,
}

// SAFETY: NVML's event sets belong to no thread; `&mut` keeps two from waiting at once.
unsafe impl Send for XidWatch {}

/// `nvmlEventData_t`.
#[repr(C)]
struct RawEvent {
    device: RawDevice,
    kind: c_ulonglong,
    data: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// `nvmlEventTypeXidCriticalError`.
const XID: c_ulonglong = 0x8;

/// Most events taken at once: a GPU that reports without end must not keep its watcher.
const MOST_EVENTS: usize = 256;

impl XidWatch {
    /// Begins to watch.
    ///
    /// # Errors
    /// [`NotVisible`] where the driver or a GPU does not report them.
    pub fn begin(nvml: &Arc<Nvml>, gpus: Vec<NvmlGpu>) -> Result<Self, NotVisible> {
        type Create = unsafe extern "C" fn(*mut *mut c_void) -> c_int;
        type Register = unsafe extern "C" fn(RawDevice, c_ulonglong, *mut c_void) -> c_int;
        let mut set: *mut c_void = std::ptr::null_mut();
        // SAFETY: nvml.h declares both so; the address is that of a handle.
        unsafe {
            let absent = |_| NotVisible::NoFunction;
            let create: Create = nvml.loaded.function("nvmlEventSetCreate").map_err(absent)?;
            let register: Register = nvml
                .loaded
                .function("nvmlDeviceRegisterEvents")
                .map_err(absent)?;
            nvml.judge(create(&raw mut set))?;
            let watch = Self {
                nvml: Arc::clone(nvml),
                set,
                gpus,
            };
            for gpu in &watch.gpus {
                nvml.judge(register(gpu.raw, XID, set))?;
            }
            Ok(watch)
        }
    }

    /// The events since the last call. Does not wait.
    ///
    /// # Errors
    /// [`NotVisible`] if NVML fails before any event has come; otherwise the next call says so.
    pub fn take(&mut self) -> Result<Vec<XidEvent>, NotVisible> {
        let mut events = Vec::new();
        while events.len() < MOST_EVENTS {
            let event = match self.next() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                // A GPU that is lost says why just before.
                Err(_) if !events.is_empty() => break,
                Err(error) => return Err(error),
            };
            let gpu = self.gpus.iter().position(|gpu| gpu.raw == event.device);
            if let Some(gpu) = gpu.filter(|_| event.kind == XID) {
                events.push(XidEvent {
                    gpu,
                    xid: event.data,
                });
            }
        }
        Ok(events)
    }

    /// The next event of any kind, if one has come.
    fn next(&mut self) -> Result<Option<RawEvent>, NotVisible> {
        type Wait = unsafe extern "C" fn(*mut c_void, *mut RawEvent, c_uint) -> c_int;
        let mut event = RawEvent {
            device: std::ptr::null_mut(),
            kind: 0,
            data: 0,
            gpu_instance: 0,
            compute_instance: 0,
        };
        // SAFETY: nvml.h declares it so; the set is live, the address that of an event.
        let code = unsafe {
            let wait = self.nvml.loaded.function("nvmlEventSetWait_v2");
            let wait: Wait = wait.map_err(|_| NotVisible::NoFunction)?;
            wait(self.set, &raw mut event, 0)
        };
        if code == code::TIMEOUT {
            return Ok(None);
        }
        self.nvml.judge(code)?;
        Ok(Some(event))
    }
}

impl Drop for XidWatch {
    fn drop(&mut self) {
        type Free = unsafe extern "C" fn(*mut c_void) -> c_int;
        // SAFETY: nvml.h declares it so; the set is live, and nobody uses it any more.
        unsafe {
            if let Ok(free) = self.nvml.loaded.function::<Free>("nvmlEventSetFree") {
                free(self.set);
            }
        }
    }
}
