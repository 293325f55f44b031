//! One queue of a device: a stream, the work on it that is not known to be complete, and the first
//! failure, at which the queue stops. Nothing here waits for the device.

use super::events::Mark;
use super::graph::Captured;
use super::memory::RawMemory;
use super::slots::Slot;
use cudarc::driver::{CudaStream, DriverError};
use laggard_backend::{BackendError, Meeting, QueueId, Task, Token};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a piece of work is made of, kept until it is complete: its memory is in use until then.
#[derive(Default)]
pub(crate) struct Cargo {
    pub task: Option<Task>,
    /// Where results go that nobody reads.
    #[expect(dead_code, reason = "held and not looked at")]
    pub scratch: Option<Arc<RawMemory>>,
    /// The step that it replays, if it does.
    pub graph: Option<Arc<Captured>>,
    /// Where it meets other ranks, if it does.
    pub meeting: Option<Arc<dyn Meeting>>,
}

/// Work that was put on the stream.
pub(crate) struct Flight {
    pub tag: u64,
    /// What it inherits failures from.
    pub after: Vec<Token>,
    pub cargo: Cargo,
    pub slot: Slot,
    pub end: Arc<Mark>,
}

/// Begin and end of complete work, on the device's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawStamp {
    pub tag: u64,
    pub begin_ns: i64,
    pub end_ns: i64,
}

/// What a stream may still come to, of which nobody hears any more, and where it is stamped.
pub(super) type Wreck = (Cargo, Option<Slot>);

#[derive(Default)]
struct State {
    /// Tokens given out.
    submitted: u64,
    /// Work that is complete, from the first on.
    complete: u64,
    /// What follows it, up to the first failure or the last token.
    flights: VecDeque<Flight>,
    failure: Option<(u64, BackendError)>,
    stamps: Vec<RawStamp>,
    /// What was put on the stream in part, or after a failure: its memory may be in use for ever.
    wrecks: Vec<Wreck>,
}

/// A queue.
pub(crate) struct Lane {
    pub id: QueueId,
    pub stream: Arc<CudaStream>,
    /// Held while something is put on the stream, so that tokens and the stream agree. A full
    /// stream makes its holder wait, which is why nothing else is behind it.
    issuing: Mutex<()>,
    state: Mutex<State>,
    /// Where repetitions write to. One after the other, so that all work here can have the same. It
    /// grows, and what has become too small stays: the driver may wait for the whole device before
    /// it frees memory, and work there may wait for what comes next here.
    scratch: Mutex<Vec<Arc<RawMemory>>>,
}

/// Why an answer cannot be had: the device failed while it was asked.
pub(crate) type Asked<T> = Result<T, DriverError>;

impl Lane {
    pub(super) fn new(id: QueueId, stream: Arc<CudaStream>, stamp_capacity: usize) -> Self {
        Self {
            id,
            stream,
            issuing: Mutex::new(()),
            state: Mutex::new(State {
                stamps: Vec::with_capacity(stamp_capacity),
                ..State::default()
            }),
            scratch: Mutex::default(),
        }
    }

    /// Memory of at least so many bytes where results go that nobody reads; `None` for no bytes.
    pub(super) fn scratch(
        &self,
        bytes: usize,
        make: impl FnOnce(usize) -> Result<RawMemory, BackendError>,
    ) -> Result<Option<Arc<RawMemory>>, BackendError> {
        if bytes == 0 {
            return Ok(None);
        }
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let old = scratch.last();
        if let Some(old) = old.filter(|old| old.bytes() >= bytes) {
            return Ok(Some(Arc::clone(old)));
        }
        // Twice as much, so that all together are no more than twice the last.
        let least = old.map_or(0, |old| 2 * old.bytes());
        let new = Arc::new(make(bytes.max(least))?);
        scratch.push(Arc::clone(&new));
        Ok(Some(new))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to put something on the stream.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.issuing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a token was ever given out.
    pub(super) fn knows(&self, position: u64) -> bool {
        position > 0 && position <= self.state().submitted
    }

    /// The failure at or before a position.
    pub(super) fn failure(&self, position: u64) -> Option<BackendError> {
        match &self.state().failure {
            Some((at, error)) if position >= *at => Some(error.clone()),
            _ => None,
        }
    }

    /// The end of the work at a position; `None` if it is complete or was never on the stream.
    pub(super) fn end(&self, position: u64) -> Option<Arc<Mark>> {
        let state = self.state();
        let at = position.checked_sub(state.complete + 1)?;
        let flight = state.flights.get(usize::try_from(at).ok()?)?;
        Some(Arc::clone(&flight.end))
    }

    /// A token for work that has been put on the stream.
    pub(super) fn take_off(&self, flight: Flight) -> Token {
        let mut state = self.state();
        state.submitted += 1;
        // An abort may have come in between: what follows it is forgotten, but not its memory.
        let is_failed = state.failure.is_some();
        if is_failed {
            state.wrecks.push((flight.cargo, Some(flight.slot)));
        } else {
            state.flights.push_back(flight);
        }
        Token {
            queue: self.id,
            position: state.submitted,
        }
    }

    /// A token for work that fails before it begins.
    pub(super) fn refuse(&self, error: BackendError) -> Token {
        let mut state = self.state();
        state.submitted += 1;
        let position = state.submitted;
        state.failure.get_or_insert((position, error));
        Token {
            queue: self.id,
            position,
        }
    }

    /// Stops at the next token, since something was put on the stream in part.
    pub(super) fn wreck(&self, cargo: Cargo, error: BackendError) {
        let mut state = self.state();
        state.wrecks.push((cargo, None));
        let next = state.submitted + 1;
        state.failure.get_or_insert((next, error));
    }

    /// Stops at a position, or at the first work that is not complete. Gives the meetings that will
    /// not be kept behind it.
    pub(super) fn fail(&self, position: Option<u64>, error: BackendError) -> Vec<Arc<dyn Meeting>> {
        let mut state = self.state();
        let at = position.unwrap_or(0).max(state.complete + 1);
        match &state.failure {
            Some((before, _)) if *before <= at => return Vec::new(),
            _ => state.failure = Some((at, error)),
        }
        let first = usize::try_from(at - state.complete - 1).unwrap_or(usize::MAX);
        let behind = state.flights.iter().skip(first);
        behind.filter_map(|it| it.cargo.meeting.clone()).collect()
    }

    /// Finds out what is complete by now. What is dropped of it is returned, since freeing memory
    /// takes time that nobody should wait for behind a lock.
    pub(super) fn catch_up(&self, give_back: impl Fn(Slot)) -> Asked<Vec<Cargo>> {
        let mut done = Vec::new();
        let mut state = self.state();
        while let Some(first) = state.flights.front() {
            if !first.end.is_passed()? {
                break;
            }
            let Some(flight) = state.flights.pop_front() else {
                break;
            };
            state.complete += 1;
            let failed_at = state.failure.as_ref().map(|(at, _)| *at);
            let is_good = failed_at.is_none_or(|at| state.complete < at);
            if let (true, Some(begin_ns), Some(end_ns)) =
                (is_good, flight.slot.begin_ns(), flight.slot.end_ns())
            {
                state.stamps.push(RawStamp {
                    tag: flight.tag,
                    begin_ns,
                    end_ns,
                });
            }
            give_back(flight.slot);
            done.push(flight.cargo);
        }
        Ok(done)
    }

    /// Whether the work at a position is complete, as far as was found out.
    pub(super) fn is_complete(&self, position: u64) -> bool {
        self.state().complete >= position
    }

    /// Where the first work that is not complete meets others.
    pub(super) fn meeting(&self) -> Option<Arc<dyn Meeting>> {
        let state = self.state();
        state
            .flights
            .front()
            .and_then(|it| it.cargo.meeting.clone())
    }

    /// Stamps of complete work, oldest first, once.
    pub(super) fn take_stamps(&self, into: &mut Vec<RawStamp>) {
        into.append(&mut self.state().stamps);
    }

    /// Tag of the work that has begun and not ended.
    pub(super) fn at_work(&self) -> Option<u64> {
        let state = self.state();
        let open = state.flights.iter().find(|it| it.slot.end_ns().is_none());
        open.filter(|it| it.slot.begin_ns().is_some())
            .map(|it| it.tag)
    }

    /// The first failure among what work here comes after, and where that work is: it fails too.
    pub(super) fn inherited(
        &self,
        failure_of: impl Fn(Token) -> Option<BackendError>,
    ) -> Option<(u64, BackendError)> {
        // Copied, since asking locks other queues.
        let open: Vec<(u64, Vec<Token>)> = {
            let state = self.state();
            let positions = state.complete + 1..;
            let limit = state.failure.as_ref().map_or(u64::MAX, |(at, _)| *at);
            let open = positions.zip(&state.flights);
            open.take_while(|(position, _)| *position < limit)
                .map(|(position, it)| (position, it.after.clone()))
                .collect()
        };
        open.into_iter().find_map(|(position, after)| {
            let error = after.into_iter().find_map(&failure_of)?;
            Some((position, error))
        })
    }

    /// Looks at all tasks that are not known to be complete, those of replays among them.
    pub(super) fn open_tasks(&self, mut look: impl FnMut(&Task)) {
        let state = self.state();
        for Flight { cargo, .. } in &state.flights {
            let captured = cargo.graph.iter().flat_map(|graph| graph.tasks());
            cargo.task.iter().chain(captured).for_each(&mut look);
        }
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.state().flights.is_empty()
    }

    /// What work here holds, complete or not; to be dropped or leaked by the caller.
    pub(super) fn take_all(&self) -> (Vec<Flight>, Vec<Wreck>) {
        let mut state = self.state();
        (
            state.flights.drain(..).collect(),
            std::mem::take(&mut state.wrecks),
        )
    }
}
