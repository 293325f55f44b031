//! Memory of a device, and host memory that a device reaches.
#![expect(unsafe_code, reason = "takes and gives back memory of the driver")]

use super::shared::{Shared, Use};
use super::trouble::{Whose, hint, words};
use cudarc::driver::{CudaContext, result, sys};
use laggard_backend::{BackendError, DeviceMemory};
use laggard_types::{DataType, format_bytes};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Device memory without a type.
pub(crate) struct RawMemory {
    context: Arc<CudaContext>,
    address: u64,
    bytes: usize,
}

impl RawMemory {
    /// Uninitialised memory; none is taken for no bytes.
    pub(crate) fn new(
        context: &Arc<CudaContext>,
        whose: &Whose,
        bytes: usize,
    ) -> Result<Self, BackendError> {
        let doing = format!("allocating {}", format_bytes(bytes as u64));
        context.bind_to_thread().map_err(whose.failed(&doing))?;
        let address = match bytes {
            0 => 0,
            // SAFETY: a context is current; the address is freed once, on drop.
            bytes => unsafe { result::malloc_sync(bytes) }.map_err(|error| {
                let mut why = words(error);
                if let Ok((free, total)) = context.mem_get_info() {
                    let [free, total] = [free, total].map(|bytes| format_bytes(bytes as u64));
                    why += &format!(", with {free} of {total} free");
                }
                whose.error(&doing, why, hint(error))
            })?,
        };
        Ok(Self {
            context: Arc::clone(context),
            address,
            bytes,
        })
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for RawMemory {
    fn drop(&mut self) {
        if self.address == 0 {
            return;
        }
        // SAFETY: it came from `malloc_sync`, and whatever used it is complete: work keeps the
        // memory that it uses until then.
        let freed = self
            .context
            .bind_to_thread()
            .and_then(|()| unsafe { result::free_sync(self.address) });
        if let Err(error) = freed {
            tracing::debug!(address = self.address, "memory was not freed: {error}");
        }
    }
}

/// A buffer of a device.
pub(crate) struct CudaMemory {
    raw: RawMemory,
    data_type: DataType,
    len: usize,
    shared: Arc<Shared>,
}

impl CudaMemory {
    pub(super) fn zeroed(
        shared: &Arc<Shared>,
        data_type: DataType,
        len: usize,
    ) -> Result<Self, BackendError> {
        let bytes = len.checked_mul(data_type.size_bytes()).ok_or_else(|| {
            let doing = format!("allocating {len} elements of {}", data_type.name());
            let why = "more than there are addresses".to_owned();
            shared.whose.error(&doing, why, "")
        })?;
        let raw = RawMemory::new(shared.gpu.context(), &shared.whose, bytes)?;
        shared.transfers.clear(raw.address(), bytes)?;
        Ok(Self {
            raw,
            data_type,
            len,
            shared: Arc::clone(shared),
        })
    }

    /// Whether it is memory of a device.
    pub(super) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// Address of an element.
    pub(super) fn address(&self, element: usize) -> u64 {
        self.raw.address() + (element * self.data_type.size_bytes()) as u64
    }

    /// Checks a copy of elements from or to so many bytes; gives the address of the first.
    fn at(&self, range: &Range<usize>, bytes: usize) -> Result<u64, BackendError> {
        let fits = range.start <= range.end && range.end <= self.len;
        if !fits || bytes != range.len() * self.data_type.size_bytes() {
            return Err(BackendError::OutOfBounds {
                start: range.start,
                end: range.end,
                len: self.len,
            });
        }
        Ok(self.address(range.start))
    }
}

impl fmt::Debug for CudaMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = &self.shared.whose.device;
        write!(f, "{} x {} of {device}", self.len, self.data_type.name())
    }
}

impl DeviceMemory for CudaMemory {
    fn data_type(&self) -> DataType {
        self.data_type
    }

    fn len(&self) -> usize {
        self.len
    }

    fn copy_out(&self, range: Range<usize>, to: &mut [u8]) -> Result<(), BackendError> {
        let address = self.at(&range, to.len())?;
        self.shared.expect_unused(self, &range, Use::Read)?;
        self.shared.transfers.copy_out(address, to)
    }

    fn copy_in(&self, range: Range<usize>, from: &[u8]) -> Result<(), BackendError> {
        let address = self.at(&range, from.len())?;
        self.shared.expect_unused(self, &range, Use::Write)?;
        self.shared.transfers.copy_in(address, from)
    }
}

/// Words of host memory that kernels write, and the host reads while they may.
pub(crate) struct PinnedWords {
    context: Arc<CudaContext>,
    words: NonNull<AtomicU64>,
    count: usize,
    address: u64,
}

// SAFETY: the words are atomics, and nothing else of it changes.
unsafe impl Send for PinnedWords {}
// SAFETY: as above.
unsafe impl Sync for PinnedWords {}

impl PinnedWords {
    /// Words that are zero.
    pub(crate) fn new(
        context: &Arc<CudaContext>,
        whose: &Whose,
        count: usize,
    ) -> Result<Self, BackendError> {
        let failed = whose.failed("allocating host memory for the device");
        context.bind_to_thread().map_err(&failed)?;
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: a context is current; the memory is freed once, on drop.
        let memory = unsafe { result::malloc_host(count * size_of::<u64>(), flags) };
        let memory = memory.map_err(&failed)?;
        let words = NonNull::new(memory.cast::<AtomicU64>()).ok_or_else(|| {
            let why = "the driver gave no address".to_owned();
            whose.error("allocating host memory for the device", why, "")
        })?;
        let mut address = 0;
        // SAFETY: the memory was just allocated by the driver, with this mapping.
        let mapped = unsafe { sys::cuMemHostGetDevicePointer_v2(&raw mut address, memory, 0) };
        mapped.result().map_err(&failed)?;
        for at in 0..count {
            // SAFETY: there are so many words, aligned to pages, and nobody else knows of them.
            unsafe { words.add(at).write(AtomicU64::new(0)) };
        }
        Ok(Self {
            context: Arc::clone(context),
            words,
            count,
            address,
        })
    }

    /// A word.
    ///
    /// # Panics
    /// If there is none of this number.
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < self.count);
        // SAFETY: the word is within the memory and was initialised; a kernel writes it as a whole,
        // as an atomic store of the host's does.
        unsafe { self.words.add(at).as_ref() }
    }

    /// The first byte, for copies that the caller waits for.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.words.as_ptr().cast()
    }

    /// Where the device finds a word.
    pub(crate) fn address(&self, at: usize) -> u64 {
        assert!(at < self.count);
        self.address + (at * size_of::<u64>()) as u64
    }
}

impl Drop for PinnedWords {
    fn drop(&mut self) {
        // SAFETY: it came from `malloc_host`, and whatever writes to it is complete.
        let freed = self
            .context
            .bind_to_thread()
            .and_then(|()| unsafe { result::free_host(self.words.as_ptr().cast()) });
        if let Err(error) = freed {
            tracing::debug!("host memory was not freed: {error}");
        }
    }
}
