//! Host memory that several threads use at once, with every access checked at run time.
//!
//! A [`HostMemory`] hands out claims on ranges: any number of [`ReadClaim`]s, or one
//! [`WriteClaim`], per element. Claims are per range, so the buckets of one large gradient buffer
//! can be written by a backward GEMM on one queue while another range is reduced on another queue.
//! A claim that would overlap a conflicting one is refused, never waited for: it means that a token
//! is missing. This file is the only place that turns memory into slices, and the claims are what
//! makes that sound; it knows nothing of kernels, queues or ranks.
#![expect(
    unsafe_code,
    reason = "the one window through which threads see each other's memory"
)]

use crate::{BackendError, Element};
use bytemuck::{Pod, Zeroable};
use laggard_types::DataType;
use std::cell::UnsafeCell;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// One cache line, so that buffers are aligned to 64 bytes.
#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

/// Bytes of a cache line on the processors that laggard knows; only an alignment, so another value
/// costs speed and nothing else.
pub(crate) const LINE_BYTES: usize = 64;

/// Claims that a buffer has room for before its table grows.
const USUAL_CLAIMS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    range: Range<usize>,
    access: Access,
}

/// Zero-initialised, 64-byte aligned host memory of one element type. Its contents are reached
/// through [`Slice`](crate::Slice), and every access claims its range while it lasts: a safe caller
/// cannot cause a data race, only a [`BackendError::Conflict`].
pub struct HostMemory {
    lines: Box<[UnsafeCell<Line>]>,
    data_type: DataType,
    len: usize,
    claims: Mutex<Vec<Claim>>,
}

// SAFETY: the contents are reached through `ReadClaim` and `WriteClaim` alone, and the table of
// claims, guarded by its mutex, grants no write claim that overlaps any other live claim. The mutex
// also orders what one claim wrote before what the next claim on that range reads.
unsafe impl Sync for HostMemory {}

impl fmt::Debug for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostMemory({} x {})", self.len, self.data_type.name())
    }
}

impl HostMemory {
    /// Zeroed memory for `len` elements.
    ///
    /// # Errors
    /// [`BackendError::System`] if the memory cannot be had.
    pub fn zeroed(data_type: DataType, len: usize) -> Result<Arc<Self>, BackendError> {
        let refused = || BackendError::System {
            what: format!("allocating {len} elements of {}", data_type.name()),
            why: "out of memory".to_owned(),
        };
        let bytes = len
            .checked_mul(data_type.size_bytes())
            .ok_or_else(refused)?;
        let lines = bytemuck::allocation::try_zeroed_slice_box(bytes.div_ceil(LINE_BYTES))
            .map_err(|()| refused())?;
        let claims = Mutex::new(Vec::with_capacity(USUAL_CLAIMS));
        Ok(Arc::new(Self {
            lines,
            data_type,
            len,
            claims,
        }))
    }

    /// Element type.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Claims a range for reading.
    pub(crate) fn claim_read(
        self: &Arc<Self>,
        range: Range<usize>,
    ) -> Result<ReadClaim, BackendError> {
        self.claim(&range, Access::Read)?;
        Ok(ReadClaim {
            memory: Arc::clone(self),
            range,
        })
    }

    /// Claims a range for writing.
    pub(crate) fn claim_write(
        self: &Arc<Self>,
        range: Range<usize>,
    ) -> Result<WriteClaim, BackendError> {
        self.claim(&range, Access::Write)?;
        Ok(WriteClaim {
            memory: Arc::clone(self),
            range,
        })
    }

    fn claim(&self, range: &Range<usize>, access: Access) -> Result<(), BackendError> {
        if range.start > range.end || range.end > self.len {
            return Err(BackendError::OutOfBounds {
                start: range.start,
                end: range.end,
                len: self.len,
            });
        }
        if range.is_empty() {
            return Ok(());
        }
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let conflict = claims.iter().find(|held| {
            held.range.start < range.end
                && range.start < held.range.end
                && (access == Access::Write || held.access == Access::Write)
        });
        if let Some(held) = conflict {
            return Err(BackendError::Conflict {
                wanted: format!("{} of {range:?}", word(access)),
                held: format!("{} of {:?}", word(held.access), held.range),
            });
        }
        claims.push(Claim {
            range: range.clone(),
            access,
        });
        Ok(())
    }

    fn release(&self, range: &Range<usize>, access: Access) {
        if range.is_empty() {
            return;
        }
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        // Equal claims are interchangeable, so any one of them may go.
        if let Some(at) = claims
            .iter()
            .position(|c| c.access == access && c.range == *range)
        {
            claims.swap_remove(at);
        }
    }

    /// The first byte of an element. The caller has checked that `element <= len`.
    fn pointer(&self, element: usize) -> *mut u8 {
        assert!(element <= self.len);
        // `UnsafeCell` has the layout of its content, and lines follow each other without gaps.
        let base = self.lines.as_ptr().cast::<u8>().cast_mut();
        base.wrapping_add(element * self.data_type.size_bytes())
    }

    fn check_type<T: Element>(&self) {
        assert!(
            T::DATA_TYPE == self.data_type,
            "callers choose the element type by `data_type`"
        );
        assert!(size_of::<T>() == self.data_type.size_bytes());
    }
}

fn word(access: Access) -> &'static str {
    match access {
        Access::Read => "reading",
        Access::Write => "writing",
    }
}

/// Permission to read a range; given back on drop. Forgetting it keeps the memory alive, and keeps
/// writers off the range, for as long as the process lives.
pub struct ReadClaim {
    memory: Arc<HostMemory>,
    range: Range<usize>,
}

impl ReadClaim {
    /// The first byte, for code that this claim is handed to as long as it lives.
    pub fn as_ptr(&self) -> *const u8 {
        self.memory.pointer(self.range.start)
    }

    pub(crate) fn slice<T: Element>(&self) -> &[T] {
        self.memory.check_type::<T>();
        let pointer = self.memory.pointer(self.range.start).cast::<T>();
        // SAFETY: the range is within the memory (checked when it was claimed), elements are
        // aligned since the base is aligned to a line, every bit pattern is a `T` (`Pod`) and the
        // memory is initialised. Until this claim drops, which the lifetime of the slice
        // forbids, no write claim overlaps the range.
        unsafe { std::slice::from_raw_parts(pointer, self.range.len()) }
    }

    /// The bytes of the elements.
    pub fn bytes(&self) -> &[u8] {
        let len = self.range.len() * self.memory.data_type.size_bytes();
        // SAFETY: as in `slice`; these are the bytes of the same elements.
        unsafe { std::slice::from_raw_parts(self.memory.pointer(self.range.start), len) }
    }
}

impl Drop for ReadClaim {
    fn drop(&mut self) {
        self.memory.release(&self.range, Access::Read);
    }
}

/// Permission to read and write a range; given back on drop. Forgetting it keeps the memory alive,
/// and everybody off the range, for as long as the process lives.
pub struct WriteClaim {
    memory: Arc<HostMemory>,
    range: Range<usize>,
}

impl WriteClaim {
    /// The first byte, for code that this claim is handed to as long as it lives.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory.pointer(self.range.start)
    }

    pub(crate) fn slice<T: Element>(&self) -> &[T] {
        self.memory.check_type::<T>();
        let pointer = self.memory.pointer(self.range.start).cast::<T>();
        // SAFETY: bounds, alignment and initialisation as in `ReadClaim::slice`. No other claim
        // overlaps the range, and `&self` keeps `slice_mut` of this one away.
        unsafe { std::slice::from_raw_parts(pointer, self.range.len()) }
    }

    /// Element type.
    pub fn data_type(&self) -> DataType {
        self.memory.data_type
    }

    pub(crate) fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        self.memory.check_type::<T>();
        let pointer = self.memory.pointer(self.range.start).cast::<T>();
        // SAFETY: bounds, alignment and initialisation as in `ReadClaim::slice`. No other claim
        // overlaps the range, `&mut self` makes this the only slice of this claim, and the memory
        // is inside `UnsafeCell`s.
        unsafe { std::slice::from_raw_parts_mut(pointer, self.range.len()) }
    }

    /// The bytes of the elements.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.range.len() * self.memory.data_type.size_bytes();
        // SAFETY: as in `slice_mut`; these are the bytes of the same elements, and any bytes are
        // valid elements.
        unsafe { std::slice::from_raw_parts_mut(self.memory.pointer(self.range.start), len) }
    }
}

impl Drop for WriteClaim {
    fn drop(&mut self) {
        self.memory.release(&self.range, Access::Write);
    }
}

/// Aligned memory of one thread, for partial sums and for results that go nowhere. It keeps its
/// contents and only grows.
#[derive(Default)]
pub struct Scratch {
    lines: Vec<Line>,
}

impl Scratch {
    /// Grows to at least `bytes`, so that using them later does not allocate in a timed region.
    pub fn reserve(&mut self, bytes: usize) {
        let lines = bytes.div_ceil(LINE_BYTES);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line::zeroed());
        }
    }

    /// The first `len` bytes; grows to have as many.
    pub fn bytes(&mut self, len: usize) -> &mut [u8] {
        self.typed(len)
    }

    /// The first `len` elements; grows to have as many.
    pub(crate) fn typed<T: Pod>(&mut self, len: usize) -> &mut [T] {
        self.reserve(len * size_of::<T>());
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_conflict_only_where_they_overlap() {
        let memory = HostMemory::zeroed(DataType::F32, 100).unwrap();
        let mut first = memory.claim_write(0..50).unwrap();
        let second = memory.claim_write(50..100).unwrap();
        first.slice_mut::<f32>().fill(1.0);
        assert!(second.slice::<f32>().iter().all(|x| *x == 0.0));
        assert!(matches!(
            memory.claim_read(49..51),
            Err(BackendError::Conflict { .. })
        ));
        drop(first);
        let a = memory.claim_read(0..50).unwrap();
        let b = memory.claim_read(0..50).unwrap();
        assert!(memory.claim_write(10..11).is_err());
        drop(a);
        assert!(memory.claim_write(10..11).is_err(), "one reader is left");
        assert_eq!(b.slice::<f32>(), [1.0; 50]);
        drop(b);
        assert!(memory.claim_write(10..11).is_ok());
    }

    #[test]
    fn memory_is_aligned_and_bounded() {
        let memory = HostMemory::zeroed(DataType::Bf16, 33).unwrap();
        let claim = memory.claim_read(0..33).unwrap();
        assert_eq!(claim.bytes().as_ptr() as usize % LINE_BYTES, 0);
        assert_eq!(claim.bytes().len(), 66);
        assert!(matches!(
            memory.claim_read(30..34),
            Err(BackendError::OutOfBounds { .. })
        ));
        assert!(HostMemory::zeroed(DataType::F64, usize::MAX / 2).is_err());
    }

    #[test]
    fn empty_ranges_claim_nothing() {
        let memory = HostMemory::zeroed(DataType::I64, 4).unwrap();
        let _all = memory.claim_write(0..4).unwrap();
        assert!(memory.claim_write(2..2).is_ok());
        let none = HostMemory::zeroed(DataType::I64, 0).unwrap();
        assert!(none.claim_read(0..0).unwrap().slice::<i64>().is_empty());
    }
}
