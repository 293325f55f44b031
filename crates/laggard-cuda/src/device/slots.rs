//! Where stamps are written: triples of words in host memory that the device reaches, one per piece
//! of work.

use super::memory::PinnedWords;
use super::trouble::Whose;
use cudarc::driver::CudaContext;
use laggard_backend::BackendError;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// Pieces of work for which there is room before more is allocated: those between two drains of a
/// long step.
const CHUNK: usize = 4096;
/// Begin, end, and cycles that were spent spinning.
const WORDS: usize = 3;

/// A triple of words. Zero is no time: the device's clock began long ago.
#[derive(Clone)]
pub(crate) struct Slot {
    chunk: Arc<PinnedWords>,
    at: usize,
}

impl Slot {
    fn word(&self, index: usize) -> Option<i64> {
        let value = self.chunk.word(self.at * WORDS + index);
        let value = value.load(Ordering::Acquire) as i64;
        (value != 0).then_some(value)
    }

    /// When the work began, on the device's clock; `None` if it has not.
    pub(super) fn begin_ns(&self) -> Option<i64> {
        self.word(0)
    }

    /// When it ended.
    pub(super) fn end_ns(&self) -> Option<i64> {
        self.word(1)
    }

    /// Cycles that the last spinning took.
    pub(super) fn cycles(&self) -> Option<i64> {
        self.word(2)
    }

    /// Where the device writes the begin, the end and the cycles.
    pub(super) fn addresses(&self) -> [u64; WORDS] {
        [0, 1, 2].map(|index| self.chunk.address(self.at * WORDS + index))
    }
}

/// Slots that are free, and the memory that they are in.
pub(crate) struct Slots {
    context: Arc<CudaContext>,
    whose: Whose,
    free: Mutex<Vec<Slot>>,
}

impl Slots {
    pub(super) fn new(context: &Arc<CudaContext>, whose: &Whose) -> Result<Self, BackendError> {
        let slots = Self {
            context: Arc::clone(context),
            whose: whose.clone(),
            free: Mutex::new(Vec::new()),
        };
        let first = slots.take()?;
        slots.give_back(first);
        Ok(slots)
    }

    /// A slot whose words are zero.
    pub(super) fn take(&self) -> Result<Slot, BackendError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.is_empty() {
            let words = PinnedWords::new(&self.context, &self.whose, CHUNK * WORDS)?;
            let chunk = Arc::new(words);
            let slots = (0..CHUNK).rev().map(|at| Slot {
                chunk: Arc::clone(&chunk),
                at,
            });
            free.extend(slots);
        }
        let slot = free.pop().ok_or_else(|| {
            let why = "there is none left".to_owned();
            self.whose.error("taking room for a stamp", why, "")
        })?;
        for index in 0..WORDS {
            let word = slot.chunk.word(slot.at * WORDS + index);
            word.store(0, Ordering::Release);
        }
        Ok(slot)
    }

    /// Gives a slot back that no kernel will write any more.
    pub(super) fn give_back(&self, slot: Slot) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(slot);
    }
}
