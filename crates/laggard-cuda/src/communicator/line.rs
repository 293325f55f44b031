//! Calls that are done one after the other: the collectives of a group, or the messages from one
//! rank to another. What streams have come to and what is done of it, and the calls whose memory is
//! still in use.

use super::group::Visit;
use super::words::{Word, Words};
use crate::CudaDevice;
use crate::nccl::RawStream;
use laggard_backend::{BackendError, Token};
use laggard_types::Rank;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A line of calls of one rank.
pub(crate) struct Line {
    words: Words,
    /// Whether streams were let go on by the host, and may touch the numbers at any time.
    is_open: AtomicBool,
    /// Held while a call is put on streams, so that numbers and the order on queues agree. A full
    /// stream makes its holder wait, which is why nothing else is behind it.
    issuing: Mutex<()>,
    state: Mutex<State>,
}

/// What has been enqueued.
#[derive(Default)]
struct State {
    /// Number of the last call.
    number: u32,
    /// The last call: the next one waits for it, also on another queue, since NCCL wants all ranks
    /// to make their calls in the same order.
    last: Option<Token>,
    /// Calls that were not done when last looked at.
    held: VecDeque<Held>,
}

/// A call that is under way.
struct Held {
    visit: Arc<Visit>,
    token: Token,
    /// When it was first seen that its stream has come to it.
    seen: Option<Instant>,
}

/// The right to put the next call on streams, and to have it made.
pub(crate) struct Turn<'a> {
    line: &'a Line,
    _issuing: MutexGuard<'a, ()>,
    /// The number of that call.
    pub number: u32,
    /// The call before it.
    pub last: Option<Token>,
}

impl Turn<'_> {
    /// The call is on its stream.
    pub(crate) fn note(&self, visit: Arc<Visit>, token: Token) {
        let mut state = self.line.state();
        state.number = self.number;
        state.last = Some(token);
        state.held.push_back(Held {
            visit,
            token,
            seen: None,
        });
    }
}

impl Line {
    pub(crate) fn new(device: &CudaDevice, rank: Rank) -> Result<Arc<Self>, BackendError> {
        Ok(Arc::new(Self {
            words: Words::new(device, rank)?,
            is_open: AtomicBool::new(false),
            issuing: Mutex::default(),
            state: Mutex::default(),
        }))
    }

    /// Waits for the calls before to be on their streams.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let issuing = self.issuing.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state();
        Turn {
            line: self,
            _issuing: issuing,
            number: state.number.wrapping_add(1),
            last: state.last,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the begin of a call on the stream of its queue.
    pub(crate) fn arrive(&self, stream: RawStream, number: u32) -> Result<(), BackendError> {
        self.words.write(stream, Word::Arrived, number)
    }

    /// Has another stream wait for the begin of a call.
    pub(crate) fn follow(&self, stream: RawStream, number: u32) -> Result<(), BackendError> {
        self.words.wait(stream, Word::Arrived, number)
    }

    /// Puts the end of a call on the stream that did it.
    pub(crate) fn complete(&self, stream: RawStream, number: u32) -> Result<(), BackendError> {
        self.words.write(stream, Word::Done, number)
    }

    /// Has the stream of a call's queue wait for its end.
    pub(crate) fn await_end(&self, stream: RawStream, number: u32) -> Result<(), BackendError> {
        self.words.wait(stream, Word::Done, number)
    }

    /// Number of the last call that its stream has come to.
    pub(crate) fn arrived(&self) -> u32 {
        self.words.get(Word::Arrived)
    }

    pub(crate) fn has_arrived(&self, number: u32) -> bool {
        is_past(self.arrived(), number)
    }

    /// Lets go of the calls that are done; the first of the others, if its stream came to it more
    /// than `limit` ago.
    pub(crate) fn look(&self, now: Instant, limit: Duration) -> Option<(Arc<Visit>, Token)> {
        let (arrived, done) = (self.arrived(), self.words.get(Word::Done));
        let mut state = self.state();
        while let Some(held) = state.held.front()
            && is_past(done, held.visit.number)
        {
            state.held.pop_front();
        }
        let first = state.held.front_mut()?;
        if !is_past(arrived, first.visit.number) {
            return None;
        }
        let seen = *first.seen.get_or_insert(now);
        let is_late = now.duration_since(seen) >= limit;
        is_late.then(|| (Arc::clone(&first.visit), first.token))
    }

    /// The first call that is not done.
    pub(crate) fn first(&self) -> Option<(Arc<Visit>, Token)> {
        let done = self.words.get(Word::Done);
        let state = self.state();
        let mut under_way = state.held.iter();
        let first = under_way.find(|held| !is_past(done, held.visit.number))?;
        Some((Arc::clone(&first.visit), first.token))
    }

    /// Lets all streams go on that wait here, now that the calls have failed. To be repeated as
    /// long as streams may still write the numbers of calls that they come to.
    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::Release);
        let number = self.state().number;
        self.words.set(Word::Arrived, number);
        self.words.set(Word::Done, number);
    }

    /// Forgets the calls, whose visits refer to the line.
    pub(crate) fn clear(&self) {
        self.state().held.clear();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let is_quiet = self.words.get(Word::Done) == self.state().number;
        if self.is_open.load(Ordering::Acquire) || !is_quiet {
            // Streams may still come to work that writes these numbers.
            self.words.leak();
        }
    }
}

/// Whether a count has come to a number, in the arithmetic of a circle.
fn is_past(count: u32, number: u32) -> bool {
    count.wrapping_sub(number).cast_signed() >= 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_round() {
        assert!(is_past(5, 5) && is_past(6, 5) && !is_past(4, 5));
        assert!(is_past(2, u32::MAX) && !is_past(u32::MAX, 2));
    }
}
