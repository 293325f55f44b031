//! Numbers in host memory that streams write and wait for: how many calls a line of calls has come
//! to, how many are done, and how many are behind it. The host reads them without asking the
//! driver.
#![expect(unsafe_code, reason = "calls the driver")]

use crate::CudaDevice;
use crate::device::PinnedWords;
use crate::nccl::RawStream;
use cudarc::driver::sys;
use laggard_backend::BackendError;
use laggard_types::Rank;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// The number of the last call that the stream has come to.
    Arrived,
    /// The number of the last call that is done.
    Done,
    /// The number of the last call of which the stream has nothing left to do.
    Left,
}

const WORDS: usize = 3;

/// The numbers of one line of calls, all 0 at first. Streams write and compare the low halves of
/// the words.
pub(crate) struct Words {
    rank: Rank,
    pinned: Arc<PinnedWords>,
}

/// `CU_STREAM_WAIT_VALUE_GEQ`, and the default of writing.
const FLAGS: u32 = 0;

impl Words {
    pub(crate) fn new(device: &CudaDevice, rank: Rank) -> Result<Self, BackendError> {
        let pinned = Arc::new(device.words(WORDS)?);
        Ok(Self { rank, pinned })
    }

    /// Has the memory live as long as the process.
    pub(crate) fn leak(&self) {
        std::mem::forget(Arc::clone(&self.pinned));
    }

    /// The number as it is now.
    pub(crate) fn get(&self, word: Word) -> u32 {
        // The high half is never written.
        self.pinned.word(word as usize).load(Ordering::Acquire) as u32
    }

    /// Changes a number from the host: lets streams go on that wait for it.
    pub(crate) fn set(&self, word: Word, number: u32) {
        let word = self.pinned.word(word as usize);
        word.store(number.into(), Ordering::Release);
    }

    /// Has a stream write a number when it comes to it.
    pub(crate) fn write(
        &self,
        stream: RawStream,
        word: Word,
        number: u32,
    ) -> Result<(), BackendError> {
        let at = self.pinned.address(word as usize);
        // SAFETY: the stream is live, and the address that of a mapped word, of which the device
        // writes the low half: it is little-endian, as are all hosts of GPUs.
        let code = unsafe { sys::cuStreamWriteValue32_v2(stream.cast(), at, number, FLAGS) };
        check(self.rank, "writing a number on a stream", code)
    }

    /// Has a stream wait until a number is at least so large, in the arithmetic of a circle.
    pub(crate) fn wait(
        &self,
        stream: RawStream,
        word: Word,
        number: u32,
    ) -> Result<(), BackendError> {
        let at = self.pinned.address(word as usize);
        // SAFETY: as in `write`.
        let code = unsafe { sys::cuStreamWaitValue32_v2(stream.cast(), at, number, FLAGS) };
        check(self.rank, "waiting for a number on a stream", code)
    }
}

/// Has a stream copy bytes from one address of the device to another. Both are of memory that the
/// caller's line of calls holds until the call is done.
pub(crate) fn copy(
    rank: Rank,
    (from, to): (u64, u64),
    bytes: usize,
    stream: RawStream,
) -> Result<(), BackendError> {
    // SAFETY: the stream is live; the driver refuses addresses that are not of its memory, and what
    // is of it lives long enough, see above.
    let code = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, stream.cast()) };
    check(rank, "copying on a stream", code)
}

fn check(rank: Rank, doing: &str, code: sys::CUresult) -> Result<(), BackendError> {
    code.result().map_err(|error| BackendError::System {
        what: format!("rank {rank}: {doing}"),
        why: error.to_string(),
    })
}
