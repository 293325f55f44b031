//! What the driver's errors mean to who reads them.

use crate::CudaError;
use cudarc::driver::{DriverError, sys::CUresult};
use laggard_backend::BackendError;
use laggard_types::Rank;

/// Whose device it is, as errors say it.
#[derive(Debug, Clone)]
pub(crate) struct Whose {
    /// The rank.
    pub rank: Rank,
    /// The device's number and name.
    pub device: String,
}

impl Whose {
    /// The error of a call of the driver.
    pub(crate) fn failed(&self, doing: &str) -> impl Fn(DriverError) -> BackendError {
        move |error| self.error(doing, words(error), hint(error))
    }

    /// An error of this crate, in the words of backends.
    pub(crate) fn refused(&self, doing: &str, error: &CudaError) -> BackendError {
        let text = error.to_string();
        let (why, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
        self.error(doing, why.to_owned(), hint)
    }

    /// An error with its reason and what to do about it.
    pub(crate) fn error(&self, doing: &str, why: String, hint: &str) -> BackendError {
        BackendError::Device {
            rank: self.rank,
            device: self.device.clone(),
            doing: doing.to_owned(),
            why,
            hint: hint.to_owned(),
        }
    }
}

/// The driver's own name and words for an error.
pub(crate) fn words(error: DriverError) -> String {
    let name = error.error_name().map(|name| name.to_string_lossy());
    let text = error.error_string().map(|text| text.to_string_lossy());
    match (name, text) {
        (Ok(name), Ok(text)) => format!("{name}: {text}"),
        (Ok(name), Err(_)) => name.into_owned(),
        _ => format!("{:?}", error.0),
    }
}

/// Both the words and what to do about it.
pub(crate) fn words_and_hint(error: DriverError) -> String {
    match hint(error) {
        "" => words(error),
        hint => format!("{}\nhint: {hint}", words(error)),
    }
}

/// What to do about an error; empty where nothing better is known than its name. What errors mean
/// is said in cuda.h, and Xid codes in NVIDIA's "XID Errors".
pub(crate) fn hint(error: DriverError) -> &'static str {
    use CUresult as R;
    match error.0 {
        R::CUDA_ERROR_OUT_OF_MEMORY => {
            "`nvidia-smi` says who uses the device's memory; a smaller model, fewer layers or a \
             shorter --sequence-length takes less"
        }
        R::CUDA_ERROR_NO_DEVICE | R::CUDA_ERROR_INVALID_DEVICE => {
            "`nvidia-smi -L` lists the devices, and CUDA_VISIBLE_DEVICES hides them: unset it, or \
             name one that exists"
        }
        R::CUDA_ERROR_DEVICE_UNAVAILABLE => {
            "another process has it for itself, or none may use it: see the compute mode in \
             `nvidia-smi -q -d COMPUTE`"
        }
        R::CUDA_ERROR_ECC_UNCORRECTABLE => {
            "its memory is damaged: `nvidia-smi -q -d ECC,ROW_REMAPPER`; take the GPU out of use \
             until it is reset"
        }
        R::CUDA_ERROR_NVLINK_UNCORRECTABLE => "see `nvidia-smi nvlink -e`, and reset the GPU",
        R::CUDA_ERROR_SYSTEM_NOT_READY => {
            "on machines with NVSwitch, `systemctl status nvidia-fabricmanager` must be active"
        }
        R::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            "the driver's library and its kernel module differ: restart the machine, or the \
             container"
        }
        R::CUDA_ERROR_NO_BINARY_FOR_GPU
        | R::CUDA_ERROR_INVALID_IMAGE
        | R::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            "NVRTC is newer than the driver: install a driver of its version, or an older NVRTC"
        }
        R::CUDA_ERROR_ILLEGAL_ADDRESS
        | R::CUDA_ERROR_MISALIGNED_ADDRESS
        | R::CUDA_ERROR_LAUNCH_FAILED
        | R::CUDA_ERROR_HARDWARE_STACK_ERROR
        | R::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | R::CUDA_ERROR_UNKNOWN => {
            "the device is lost to this process: `dmesg | grep -i xid` says why (79: it fell off \
             the bus; 48, 63, 64, 94, 95: its memory; 13, 31: most likely a bug of laggard)"
        }
        _ => "",
    }
}

/// Whether an error stays: the context is lost, and every later call fails alike.
pub(crate) fn is_lasting(error: DriverError) -> bool {
    !matches!(
        error.0,
        CUresult::CUDA_ERROR_OUT_OF_MEMORY
            | CUresult::CUDA_ERROR_NOT_READY
            | CUresult::CUDA_ERROR_INVALID_VALUE
            | CUresult::CUDA_ERROR_NOT_FOUND
            | CUresult::CUDA_ERROR_INVALID_HANDLE
    )
}
