//! What the parts of a device share: its queues and what becomes of tokens on them.

use super::CudaOptions;
use super::events::{EventPool, Mark, Sleeps};
use super::lane::{Lane, RawStamp};
use super::lower::element_type;
use super::memory::CudaMemory;
use super::pace::Pace;
use super::slots::Slots;
use super::time::Time;
use super::transfers::Transfers;
use super::trouble::{Whose, hint, is_lasting, words};
use crate::{ClockReport, Gpu, Module};
use cudarc::driver::{CudaStream, DriverError};
use laggard_backend::{Abort, Abortable, BackendError, Buffer, QueueId, Slice, Token};
use laggard_types::DataType;
use std::any::Any;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

/// What a copy does to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// A device without its life.
pub(crate) struct Shared {
    pub gpu: Arc<Gpu>,
    pub whose: Whose,
    pub options: CudaOptions,
    /// The kernels that can be believed here.
    pub modules: Vec<Module>,
    pub doubts: Vec<String>,
    pub computes_in: Vec<DataType>,
    pub events: Arc<EventPool>,
    pub slots: Slots,
    pub transfers: Transfers,
    pub lanes: RwLock<Vec<Arc<Lane>>>,
    pub pace: OnceLock<Pace>,
    pub abort: Weak<Abort>,
    /// Why nothing is begun any more.
    over: OnceLock<BackendError>,
    time: Mutex<Time>,
}

impl Shared {
    pub(super) fn new(
        gpu: Arc<Gpu>,
        whose: Whose,
        (modules, doubts): (Vec<Module>, Vec<String>),
        options: CudaOptions,
        abort: &Arc<Abort>,
    ) -> Result<Arc<Self>, BackendError> {
        let context = Arc::clone(gpu.context());
        let time = Time::new(&gpu, &whose)?;
        let has = |data_type: &DataType| {
            let element = element_type(*data_type);
            element.is_some_and(|element| modules.contains(&Module::Plain(element)))
        };
        let computes_in = [DataType::F32, DataType::Bf16, DataType::F16];
        Ok(Arc::new(Self {
            computes_in: computes_in.into_iter().filter(has).collect(),
            events: EventPool::new(&context, &whose),
            slots: Slots::new(&context, &whose)?,
            transfers: Transfers::new(&gpu, &whose)?,
            lanes: RwLock::default(),
            pace: OnceLock::new(),
            abort: Arc::downgrade(abort),
            over: OnceLock::new(),
            time: Mutex::new(time),
            gpu,
            whose,
            modules,
            doubts,
            options,
        }))
    }

    pub(super) fn new_stream(&self) -> Result<Arc<CudaStream>, BackendError> {
        let stream = self.gpu.new_stream(None);
        stream.map_err(self.whose.failed("making a stream"))
    }

    pub(super) fn clock(&self) -> MutexGuard<'_, Time> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clock_report(&self) -> ClockReport {
        self.clock().report()
    }

    /// Where the first element of a slice is.
    pub(super) fn address(self: &Arc<Self>, slice: &Slice) -> Result<u64, BackendError> {
        let unknown = || BackendError::Unknown {
            what: format!(
                "memory {:?}, which is not {}'s",
                slice.buffer, self.whose.device
            ),
        };
        let Buffer::Device(memory) = &slice.buffer else {
            return Err(unknown());
        };
        let memory: &dyn Any = &**memory;
        match memory.downcast_ref::<CudaMemory>() {
            Some(memory) if memory.is_of(self) => Ok(memory.address(slice.offset)),
            _ => Err(unknown()),
        }
    }

    /// Refuses a copy while a task uses the same elements.
    pub(super) fn expect_unused(
        &self,
        memory: &CudaMemory,
        range: &Range<usize>,
        wanted: Use,
    ) -> Result<(), BackendError> {
        let mut held = None;
        let touches = |slice: &Slice| {
            let Buffer::Device(other) = &slice.buffer else {
                return false;
            };
            let other: &dyn Any = &**other;
            let is_same = other
                .downcast_ref::<CudaMemory>()
                .is_some_and(|other| std::ptr::eq(other, memory));
            let used = slice.range();
            is_same && used.start.max(range.start) < used.end.min(range.end)
        };
        for lane in self.all_lanes() {
            self.catch_up(&lane);
            lane.open_tasks(|task| {
                for kernel in task.kernels.iter() {
                    if kernel.writes().any(touches) {
                        held = Some("writing");
                    } else if wanted == Use::Write && kernel.reads().any(touches) {
                        held = held.or(Some("reading"));
                    }
                }
            });
        }
        let Some(held) = held else { return Ok(()) };
        let wanted = match wanted {
            Use::Read => "reading",
            Use::Write => "writing",
        };
        Err(BackendError::Conflict {
            wanted: format!("{wanted} of {range:?} by the host"),
            held: format!("{held} of some of it"),
        })
    }

    pub(super) fn all_lanes(&self) -> Vec<Arc<Lane>> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        lanes.clone()
    }

    pub(super) fn lane(&self, id: QueueId) -> Result<Arc<Lane>, BackendError> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        let lane = usize::try_from(id.0).ok().and_then(|at| lanes.get(at));
        lane.cloned().ok_or_else(|| BackendError::Unknown {
            what: format!("queue {}", id.0),
        })
    }

    pub(super) fn lane_of(&self, token: Token) -> Result<Arc<Lane>, BackendError> {
        let lane = self.lane(token.queue)?;
        if !lane.knows(token.position) {
            let what = format!("token {} of queue {}", token.position, token.queue.0);
            return Err(BackendError::Unknown { what });
        }
        Ok(lane)
    }

    /// Why nothing can be begun any more, if that is so.
    pub(super) fn is_over(&self) -> Option<BackendError> {
        self.over.get().cloned()
    }

    /// The failure that a token carries by now.
    pub(super) fn failure_of(&self, token: Token) -> Option<BackendError> {
        let lane = self.lane(token.queue).ok()?;
        lane.failure(token.position)
    }

    /// The ends of work that other work waits for.
    pub(super) fn ends(&self, tokens: impl Iterator<Item = Token>) -> Vec<Arc<Mark>> {
        let end = |token: Token| self.lane(token.queue).ok()?.end(token.position);
        tokens.filter_map(end).collect()
    }

    /// Finds out what is complete on a queue; a device that does not answer is lost.
    pub(super) fn catch_up(&self, lane: &Lane) {
        let bound = self.gpu.context().bind_to_thread();
        let asked = bound.and_then(|()| lane.catch_up(|slot| self.slots.give_back(slot)));
        match asked {
            Ok(done) => drop(done),
            Err(error) => self.is_lost("executing work", error),
        }
    }

    /// Notes an error of the driver that no later call will be without.
    pub(super) fn is_lost(&self, doing: &str, error: DriverError) {
        if is_lasting(error) {
            self.stop(self.whose.error(doing, words(error), hint(error)));
        }
    }

    /// Stops all queues at what is not complete.
    fn stop(&self, error: BackendError) {
        if self.over.set(error.clone()).is_err() {
            return;
        }
        for lane in self.all_lanes() {
            for meeting in lane.fail(None, error.clone()) {
                meeting.give_up(&error.to_string());
            }
        }
    }

    /// Stops a queue at a token, and whatever comes after it elsewhere. The caller tells the other
    /// ranks of the queue's own meetings.
    pub(super) fn fail(&self, token: Token, error: BackendError) {
        if let Ok(lane) = self.lane(token.queue) {
            lane.fail(Some(token.position), error);
            self.spread();
        }
    }

    /// Lets work fail that comes after failed work, until nothing more follows from it.
    pub(super) fn spread(&self) {
        let lanes = self.all_lanes();
        loop {
            let mut has_spread = false;
            for lane in &lanes {
                let inherited = lane.inherited(|token| self.failure_of(token));
                if let Some((position, error)) = inherited {
                    has_spread = true;
                    for meeting in lane.fail(Some(position), error.clone()) {
                        meeting.give_up(&error.to_string());
                    }
                }
            }
            if !has_spread {
                return;
            }
        }
    }

    pub(super) fn poll(&self, token: Token) -> Result<bool, BackendError> {
        let lane = self.lane_of(token)?;
        if lane.failure(token.position).is_none() {
            self.catch_up(&lane);
        }
        match lane.failure(token.position) {
            Some(error) => Err(error),
            None => Ok(lane.is_complete(token.position)),
        }
    }

    pub(super) fn wait(&self, token: Token, limit: Duration) -> Result<(), BackendError> {
        let mut sleeps = Sleeps::within(limit);
        while !self.poll(token)? {
            if !sleeps.again() {
                return Err(self.too_late(token, limit));
            }
        }
        Ok(())
    }

    fn too_late(&self, token: Token, waited: Duration) -> BackendError {
        let meeting = self.lane(token.queue).ok().and_then(|lane| lane.meeting());
        // It may have to ask other processes, which takes time; the queue goes on meanwhile.
        let (waiting_for, missing) = match meeting {
            Some(meeting) => meeting.missing(),
            None => {
                let Token { queue, position } = token;
                let device = &self.whose.device;
                let words = format!("work {position} of queue {} on {device}", queue.0);
                (words, Vec::new())
            }
        };
        BackendError::Timeout {
            rank: self.whose.rank,
            waited,
            waiting_for,
            missing,
        }
    }

    pub(super) fn drain(&self, queue: QueueId) -> Result<Vec<RawStamp>, BackendError> {
        let lane = self.lane(queue)?;
        self.catch_up(&lane);
        let mut stamps = Vec::new();
        lane.take_stamps(&mut stamps);
        Ok(stamps)
    }

    pub(super) fn at_work(&self) -> Vec<u64> {
        let lanes = self.all_lanes();
        lanes.iter().filter_map(|lane| lane.at_work()).collect()
    }

    /// Ends all queues; what is under way is waited for a little, and its memory is leaked if it
    /// does not end: a kernel may still write there.
    pub(super) fn close(&self, limit: Duration) {
        let why = "its device was dropped".to_owned();
        let error = BackendError::Aborted {
            rank: self.whose.rank,
            reason: why,
        };
        let lanes = self.all_lanes();
        if lanes.iter().any(|lane| lane.meeting().is_some()) {
            // Nobody comes any more, and what waits for others must not wait on.
            self.stop(error.clone());
        }
        let mut sleeps = Sleeps::within(limit);
        let is_idle = || {
            lanes.iter().for_each(|lane| self.catch_up(lane));
            lanes.iter().all(|lane| lane.is_empty())
        };
        let is_lost = || matches!(self.over.get(), Some(BackendError::Device { .. }));
        while !is_idle() && !is_lost() && sleeps.again() {}
        self.stop(error);
        for lane in lanes {
            let (flights, wrecks) = lane.take_all();
            if !flights.is_empty() || !wrecks.is_empty() {
                let rank = self.whose.rank;
                tracing::debug!(
                    rank,
                    queue = lane.id.0,
                    "work that did not end is left behind"
                );
                std::mem::forget((flights, wrecks));
            }
        }
    }
}

impl Abortable for Shared {
    fn abort(&self, reason: &str) {
        // What is complete by now stays complete.
        self.all_lanes().iter().for_each(|lane| self.catch_up(lane));
        self.stop(BackendError::Aborted {
            rank: self.whose.rank,
            reason: reason.to_owned(),
        });
    }
}
