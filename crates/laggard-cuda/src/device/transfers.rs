//! Copies between host and device, on a stream of their own, through host memory that the device
//! reaches. Whoever copies waits, but no longer than a copy takes on a device that works.
#![expect(unsafe_code, reason = "gives addresses to the driver")]

use super::events::settle;
use super::memory::PinnedWords;
use super::trouble::Whose;
use crate::Gpu;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result};
use laggard_backend::BackendError;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Words of host memory that a copy goes through: 4 MiB, a few of which hide the calls' own time.
const WORDS: usize = 1 << 19;
const STAGED_BYTES: usize = WORDS * size_of::<u64>();
/// A device that takes longer for so few bytes is lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// The way between host and device.
pub(crate) struct Transfers {
    whose: Whose,
    lane: Mutex<Lane>,
}

struct Lane {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    event: CudaEvent,
    /// Never freed once a copy was given up, since that may still arrive.
    staging: ManuallyDrop<PinnedWords>,
    is_stuck: bool,
}

impl Drop for Lane {
    fn drop(&mut self) {
        if !self.is_stuck {
            // SAFETY: it is not used after this, and no copy is under way.
            unsafe { ManuallyDrop::drop(&mut self.staging) };
        }
    }
}

impl Transfers {
    pub(super) fn new(gpu: &Gpu, whose: &Whose) -> Result<Self, BackendError> {
        let context = gpu.context();
        let failed = whose.failed("making a stream for copies");
        Ok(Self {
            whose: whose.clone(),
            lane: Mutex::new(Lane {
                context: Arc::clone(context),
                stream: gpu.new_stream(None).map_err(&failed)?,
                event: context.new_event(None).map_err(&failed)?,
                staging: ManuallyDrop::new(PinnedWords::new(context, whose, WORDS)?),
                is_stuck: false,
            }),
        })
    }

    /// Makes memory of the device zero.
    pub(super) fn clear(&self, address: u64, bytes: usize) -> Result<(), BackendError> {
        if bytes == 0 {
            return Ok(());
        }
        let mut lane = self.lane();
        self.run(&mut lane, "clearing memory", |lane| {
            // SAFETY: the memory is as long, and alive until this is complete.
            unsafe { result::memset_d8_async(address, 0, bytes, lane.stream.cu_stream()) }
        })
    }

    /// Copies from the device. The memory there is as long as `to`.
    pub(super) fn copy_out(&self, address: u64, to: &mut [u8]) -> Result<(), BackendError> {
        let mut lane = self.lane();
        let parts = (address..).step_by(STAGED_BYTES);
        for (address, part) in parts.zip(to.chunks_mut(STAGED_BYTES)) {
            self.run(&mut lane, "copying from the device", |lane| {
                // SAFETY: both memories are as long, and alive until this is complete; nobody else
                // uses the staging memory while the lane is locked.
                unsafe {
                    let staged = std::slice::from_raw_parts_mut(lane.staging.as_ptr(), part.len());
                    result::memcpy_dtoh_async(staged, address, lane.stream.cu_stream())
                }
            })?;
            // SAFETY: the copy is complete, and the staging memory was initialised by it.
            unsafe {
                lane.staging
                    .as_ptr()
                    .copy_to_nonoverlapping(part.as_mut_ptr(), part.len())
            };
        }
        Ok(())
    }

    /// Copies to the device. The memory there is as long as `from`.
    pub(super) fn copy_in(&self, address: u64, from: &[u8]) -> Result<(), BackendError> {
        let mut lane = self.lane();
        let parts = (address..).step_by(STAGED_BYTES);
        for (address, part) in parts.zip(from.chunks(STAGED_BYTES)) {
            self.run(&mut lane, "copying to the device", |lane| {
                // SAFETY: both memories are as long, and alive until this is complete; nobody else
                // uses the staging memory while the lane is locked.
                unsafe {
                    lane.staging
                        .as_ptr()
                        .copy_from_nonoverlapping(part.as_ptr(), part.len());
                    let staged = std::slice::from_raw_parts(lane.staging.as_ptr(), part.len());
                    result::memcpy_htod_async(address, staged, lane.stream.cu_stream())
                }
            })?;
        }
        Ok(())
    }

    fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something on the stream and waits until it is complete.
    fn run(
        &self,
        lane: &mut Lane,
        doing: &str,
        start: impl FnOnce(&Lane) -> Result<(), DriverError>,
    ) -> Result<(), BackendError> {
        if lane.is_stuck {
            let why = "an earlier copy never came to its end".to_owned();
            return Err(self.whose.error(doing, why, ""));
        }
        let failed = self.whose.failed(doing);
        lane.context.bind_to_thread().map_err(&failed)?;
        let started = start(lane).and_then(|()| lane.event.record(&lane.stream));
        started.map_err(&failed)?;
        match settle(&lane.event, PATIENCE) {
            Ok(true) => Ok(()),
            Ok(false) => {
                lane.is_stuck = true;
                let why = format!("not complete after {PATIENCE:?}");
                let hint = "the device hangs: see `dmesg | grep -i xid` and `nvidia-smi`";
                Err(self.whose.error(doing, why, hint))
            }
            Err(error) => Err(failed(error)),
        }
    }
}
