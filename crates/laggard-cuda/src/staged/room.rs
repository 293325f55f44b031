//! Host memory that calls of one line go through: what they read first, then what they write.
#![expect(unsafe_code, reason = "gives addresses to the driver")]

use crate::device::PinnedWords;
use crate::device::trouble::Whose;
use cudarc::driver::{CudaStream, result};
use laggard_backend::BackendError;
use std::sync::Arc;

/// Pinned host memory, of which the device and the host use a part by turns: one call of a line
/// comes after the other, and within a call numbers in memory say whose turn it is.
pub(super) struct Room {
    words: PinnedWords,
    bytes: usize,
}

/// Some bytes of a room and as many of the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// First byte in the room.
    pub offset: usize,
    /// How many.
    pub bytes: usize,
    /// Where they are on the device.
    pub address: u64,
}

impl Room {
    /// Has `words` of at least so many bytes.
    pub(super) fn new(words: PinnedWords, bytes: usize) -> Arc<Self> {
        Arc::new(Self { words, bytes })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn at(&self, span: Span) -> *mut u8 {
        assert!(span.offset + span.bytes <= self.bytes, "a span of the room");
        self.words.as_ptr().wrapping_add(span.offset)
    }

    /// Has a stream copy from the device. The call keeps the room until that is done.
    pub(super) fn fetch(
        &self,
        span: Span,
        stream: &CudaStream,
        whose: &Whose,
    ) -> Result<(), BackendError> {
        // SAFETY: the bytes are within the room, which outlives the copy, as does the memory of the
        // device; the host does not look before the stream says that it is over.
        let copied = unsafe {
            let to = std::slice::from_raw_parts_mut(self.at(span), span.bytes);
            result::memcpy_dtoh_async(to, span.address, stream.cu_stream())
        };
        copied.map_err(whose.failed("copying to the host"))
    }

    /// Has a stream copy to the device. The call keeps the room until that is done.
    pub(super) fn bring(
        &self,
        span: Span,
        stream: &CudaStream,
        whose: &Whose,
    ) -> Result<(), BackendError> {
        // SAFETY: as above; the host does not write once it has let the stream go on.
        let copied = unsafe {
            let from = std::slice::from_raw_parts(self.at(span), span.bytes);
            result::memcpy_htod_async(span.address, from, stream.cu_stream())
        };
        copied.map_err(whose.failed("copying to the device"))
    }

    /// Reads what a stream has fetched. It is the host's turn.
    pub(super) fn read(&self, span: Span, to: &mut [u8]) {
        assert_eq!(span.bytes, to.len());
        // SAFETY: the bytes are within the room and were written by the copy, which is over.
        unsafe {
            to.as_mut_ptr()
                .copy_from_nonoverlapping(self.at(span), span.bytes)
        };
    }

    /// Writes what a stream will bring. It is the host's turn.
    pub(super) fn write(&self, span: Span, from: &[u8]) {
        assert_eq!(span.bytes, from.len());
        // SAFETY: the bytes are within the room, and the stream waits.
        unsafe {
            self.at(span)
                .copy_from_nonoverlapping(from.as_ptr(), span.bytes)
        };
    }
}
