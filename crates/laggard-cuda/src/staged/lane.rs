//! A line of calls, which are done one after the other: collectives of a group, or messages to or
//! from one rank. Each is on the stream of its queue, where it waits until the lane's thread has
//! done it on the host.

use super::Office;
use super::call::{on, sides};
use super::room::{Room, Span};
use crate::communicator::{Word, Words};
use cudarc::driver::CudaStream;
use laggard_backend::{
    Abort, BackendError, Buffer, Call, Communicator, Device, HostMemory, Launch, Meeting, QueueId,
    Slice, Token,
};
use laggard_types::{DataType, Rank};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Whose calls they are; ranks are those of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Route {
    Collectives,
    To(Rank),
    From(Rank),
}

/// First and longest sleep between two looks at whether a stream has come to its call.
const FIRST_PAUSE: Duration = Duration::from_micros(10);
const LONGEST_PAUSE: Duration = Duration::from_micros(200);

/// Bytes that rooms are multiples of; also what the parts of a room begin at multiples of.
const STEP_BYTES: usize = 256;

/// Why a rank gives up when its communicator goes away before its calls are done.
const DROPPED: &str = "its communicator was dropped";

/// One lane.
pub(super) struct Lane {
    office: Arc<Office>,
    group: Arc<dyn Communicator>,
    /// The host's queue that calls are done on.
    queue: QueueId,
    words: Words,
    state: Mutex<State>,
    jobs: Mutex<Jobs>,
    bell: Condvar,
    worker: Mutex<Option<JoinHandle<()>>>,
}

/// What has been enqueued.
#[derive(Default)]
struct State {
    /// Number of the last call.
    number: u32,
    /// The last call, which the next one waits for, also on another queue.
    last: Option<Token>,
    /// Rooms by size. What has become too small stays: the driver may wait for the whole device
    /// before it frees memory, and another rank's stream there may wait for this rank.
    rooms: Vec<Arc<Room>>,
    /// Calls that streams may still have something to do of, which is with their memory, also where
    /// a call has failed.
    under_way: VecDeque<Arc<Visit>>,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    is_at_work: bool,
    is_closed: bool,
}

/// A call that the lane's thread is to do.
struct Job {
    visit: Arc<Visit>,
    token: Token,
}

/// One rank at one call. Refers to no device, so that the one that it is under way on can end.
struct Visit {
    rank: Rank,
    number: u32,
    call: Call,
    what: String,
    room: Arc<Room>,
    read: Option<Span>,
    written: Option<Span>,
    host: Arc<dyn Device>,
    abort: Arc<Abort>,
    /// The call on the host, once it is under way.
    on_host: Mutex<Option<Token>>,
}

impl Meeting for Visit {
    fn missing(&self) -> (String, Vec<Rank>) {
        let token = *self.on_host.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = token.map(|token| self.host.wait(token, Duration::ZERO));
        match waited {
            Some(Err(BackendError::Timeout { missing, .. })) => (self.what.clone(), missing),
            _ => (self.what.clone(), Vec::new()),
        }
    }

    fn give_up(&self, why: &str) {
        self.abort
            .abort(&format!("rank {} gave up: {why}", self.rank));
    }
}

impl Lane {
    /// A lane and its thread.
    pub(super) fn start(
        office: &Arc<Office>,
        group: &Arc<dyn Communicator>,
        route: Route,
    ) -> Result<Arc<Self>, BackendError> {
        let name = match route {
            Route::Collectives => "collectives".to_owned(),
            Route::To(rank) => format!("to {rank}"),
            Route::From(rank) => format!("from {rank}"),
        };
        let lane = Arc::new(Self {
            office: Arc::clone(office),
            group: Arc::clone(group),
            queue: office.host.create_queue(&name)?,
            words: Words::new(&office.device, office.rank)?,
            state: Mutex::default(),
            jobs: Mutex::default(),
            bell: Condvar::new(),
            worker: Mutex::default(),
        });
        let of_thread = Arc::clone(&lane);
        let thread = std::thread::Builder::new().name(format!("r{}-staged", office.rank));
        let thread = thread.spawn(move || of_thread.work());
        let thread = thread.map_err(|error| BackendError::System {
            what: "starting a thread".to_owned(),
            why: error.to_string(),
        })?;
        *lane.worker.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(lane)
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enqueues a call that has been checked. What goes wrong from here on is the token's error.
    pub(super) fn enqueue(&self, call: Call, launch: Launch<'_>) -> Result<Token, BackendError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.number.wrapping_add(1);
        self.forget_those_left(&mut state);
        let visit = Arc::new(self.visit(call, number, &mut state)?);
        let meeting: Arc<dyn Meeting> = Arc::clone(&visit) as Arc<dyn Meeting>;
        let mut outcome = Ok(());
        let device = &self.office.device;
        let token = device.put(launch, state.last, meeting, &mut |stream| {
            outcome = self.put(&visit, stream);
            Ok(())
        })?;
        state.number = number;
        state.last = Some(token);
        state.under_way.push_back(Arc::clone(&visit));
        let mut jobs = self.jobs();
        jobs.waiting.push_back(Job { visit, token });
        drop(jobs);
        drop(state);
        self.bell.notify_all();
        if let Err(error) = outcome {
            device.fail(token, error);
            self.office.abort.abort("a call could not be enqueued");
        }
        Ok(token)
    }

    /// Puts a call on the stream of its queue.
    fn put(&self, visit: &Visit, stream: &CudaStream) -> Result<(), BackendError> {
        let whose = self.office.device.whose();
        let raw = stream.cu_stream().cast();
        // What is to be written as well: a call that fails leaves it as it was.
        for span in visit.read.iter().chain(&visit.written) {
            visit.room.fetch(*span, stream, whose)?;
        }
        self.words.write(raw, Word::Arrived, visit.number)?;
        self.words.wait(raw, Word::Done, visit.number)?;
        if let Some(span) = visit.written {
            visit.room.bring(span, stream, whose)?;
        }
        self.words.write(raw, Word::Left, visit.number)
    }

    /// Lets go of calls that streams have left behind.
    fn forget_those_left(&self, state: &mut State) {
        let left = self.words.get(Word::Left);
        let is_left = |visit: &Visit| left.wrapping_sub(visit.number).cast_signed() >= 0;
        while state.under_way.front().is_some_and(|it| is_left(it)) {
            state.under_way.pop_front();
        }
    }

    /// Prepares a call.
    fn visit(&self, call: Call, number: u32, state: &mut State) -> Result<Visit, BackendError> {
        let device = &self.office.device;
        let (read, written) = sides(&call, self.group.rank());
        let mut end = 0;
        let mut span = |slice: Option<&Slice>| -> Result<Option<Span>, BackendError> {
            let Some(slice) = slice.filter(|slice| slice.len > 0) else {
                return Ok(None);
            };
            let offset = end;
            let bytes = slice.len * slice.data_type().size_bytes();
            end += bytes.next_multiple_of(STEP_BYTES);
            Ok(Some(Span {
                offset,
                bytes,
                address: device.address(slice)?,
            }))
        };
        let (read, written) = (span(read)?, span(written)?);
        Ok(Visit {
            rank: self.office.rank,
            number,
            what: call.to_string(),
            room: self.room(end, state)?,
            read,
            written,
            host: Arc::clone(&self.office.host),
            abort: Arc::clone(&self.office.abort),
            on_host: Mutex::default(),
            call,
        })
    }

    /// Room for so many bytes.
    fn room(&self, bytes: usize, state: &mut State) -> Result<Arc<Room>, BackendError> {
        if let Some(room) = state.rooms.last().filter(|room| room.bytes() >= bytes) {
            return Ok(Arc::clone(room));
        }
        let bytes = bytes.max(STEP_BYTES).next_power_of_two();
        let words = self.office.device.words(bytes / size_of::<u64>())?;
        let room = Room::new(words, bytes);
        state.rooms.push(Arc::clone(&room));
        Ok(room)
    }

    /// Ends the lane: nobody will enqueue calls any more.
    pub(super) fn close(&self) {
        let mut jobs = self.jobs();
        jobs.is_closed = true;
        let is_idle = jobs.waiting.is_empty() && !jobs.is_at_work;
        drop(jobs);
        self.bell.notify_all();
        if !is_idle {
            let rank = self.office.rank;
            self.office
                .abort
                .abort(&format!("rank {rank} gave up: {DROPPED}"));
        }
        let worker = self
            .worker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if worker.is_some_and(|worker| worker.join().is_err()) {
            tracing::error!("a thread of staged calls panicked");
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let mut state = std::mem::take(state.unwrap_or_else(PoisonError::into_inner));
        self.forget_those_left(&mut state);
        if !state.under_way.is_empty() {
            // Streams may still come to work on this memory.
            self.words.leak();
            std::mem::forget(state.under_way);
        }
    }
}

/// The lane's thread.
impl Lane {
    fn work(&self) {
        let mut memory = Memory::default();
        while let Some(job) = self.next() {
            let outcome = self.carry_out(&job, &mut memory);
            // Who hears of the end may close the lane at once, which must not seem to be at work.
            self.jobs().is_at_work = false;
            if let Err(error) = outcome {
                tracing::debug!(rank = self.office.rank, %error, "a call failed");
                self.office.device.fail(job.token, error);
            }
            self.words.set(Word::Done, job.visit.number);
        }
    }

    /// The next call; `None` once there will be no more.
    fn next(&self) -> Option<Job> {
        let jobs = self.jobs();
        let is_idle = |jobs: &mut Jobs| jobs.waiting.is_empty() && !jobs.is_closed;
        let jobs = self.bell.wait_while(jobs, is_idle);
        let mut jobs = jobs.unwrap_or_else(PoisonError::into_inner);
        let job = jobs.waiting.pop_front()?;
        jobs.is_at_work = true;
        Some(job)
    }

    /// Does a call on the host once its stream has come to it.
    fn carry_out(&self, job: &Job, memory: &mut Memory) -> Result<(), BackendError> {
        let visit = &*job.visit;
        if !self.has_arrived(visit.number) {
            // The device has stopped everything by itself.
            return Ok(());
        }
        let (from, to) = sides(&visit.call, self.group.rank());
        let read = memory.slice(Side::Read, from)?;
        let written = memory.slice(Side::Written, to)?;
        if let Some((span, slice)) = visit.read.zip(read.as_ref()) {
            visit.room.read(span, slice.claim_write()?.bytes_mut());
        }
        let call = on(&visit.call, read, written.clone());
        let launch = Launch {
            queue: self.queue,
            after: &[],
            tag: 0,
        };
        let token = self.group.enqueue(call, launch)?;
        *visit.on_host.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        // The host's group has the time limit, and knows who is missing.
        self.office.host.wait(token, Duration::MAX)?;
        if let Some((span, slice)) = visit.written.zip(written) {
            visit.room.write(span, slice.claim_read()?.bytes());
        }
        Ok(())
    }

    /// Waits until a stream has come to its call; false if that is of no use any more.
    fn has_arrived(&self, number: u32) -> bool {
        let mut pause = FIRST_PAUSE;
        while self
            .words
            .get(Word::Arrived)
            .wrapping_sub(number)
            .cast_signed()
            < 0
        {
            if self.office.is_over() {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        !self.office.is_over()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Read,
    Written,
}

/// The host's memory of a lane, which grows.
#[derive(Default)]
struct Memory {
    buffers: Vec<(Side, DataType, Buffer)>,
}

impl Memory {
    /// Memory for what is in a slice of the device.
    fn slice(&mut self, side: Side, of: Option<&Slice>) -> Result<Option<Slice>, BackendError> {
        let Some(of) = of else { return Ok(None) };
        let data_type = of.data_type();
        let is_it = |it: &&(Side, DataType, Buffer)| (it.0, it.1) == (side, data_type);
        let known = self.buffers.iter().find(is_it);
        let known = known.map(|(_, _, buffer)| buffer.clone());
        let buffer = match known.filter(|buffer| buffer.len() >= of.len) {
            Some(buffer) => buffer,
            None => {
                let buffer = Buffer::Host(HostMemory::zeroed(data_type, of.len)?);
                self.buffers.retain(|it| !is_it(&it));
                self.buffers.push((side, data_type, buffer.clone()));
                buffer
            }
        };
        Slice::new(&buffer, 0..of.len).map(Some)
    }
}
