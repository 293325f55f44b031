//! Streams of the fake device: each is a thread that executes in order what it is given.

use crate::graphs::Captured;
use crate::shares::Pool;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What a stream executes, or a graph again and again; a code that is not zero loses the device.
pub(crate) type Operation = Box<dyn Fn() -> i32 + Send + Sync>;

/// The code of a device that is lost, which every call then gives.
static LOST: AtomicI32 = AtomicI32::new(0);

pub(crate) fn lost() -> i32 {
    LOST.load(Ordering::SeqCst)
}

pub(crate) fn lose(code: i32) {
    // The first reason stays.
    _ = LOST.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Inbox {
    operations: VecDeque<Operation>,
    closed: bool,
}

/// One stream.
pub(crate) struct Stream {
    /// From 1, in the order of creation.
    pub(crate) number: u64,
    /// The multiprocessors that it is confined to, if it is.
    pub(crate) pool: Option<Arc<Pool>>,
    /// Its part in a capture, if it is being captured.
    pub(crate) captured: Mutex<Option<Captured>>,
    inbox: Mutex<Inbox>,
    bell: Condvar,
}

impl Stream {
    pub(crate) fn start(number: u64, pool: Option<Arc<Pool>>) -> Arc<Self> {
        let stream = Arc::new(Self {
            number,
            pool,
            captured: Mutex::default(),
            inbox: Mutex::default(),
            bell: Condvar::new(),
        });
        let of_worker = Arc::clone(&stream);
        std::thread::spawn(move || of_worker.work());
        stream
    }

    pub(crate) fn push(&self, operation: Operation) {
        if let Some(captured) = &mut *locked(&self.captured) {
            captured.add(self.number, operation);
            return;
        }
        locked(&self.inbox).operations.push_back(operation);
        self.bell.notify_all();
    }

    /// Waits while the stream is full, if it has an end.
    pub(crate) fn push_into(&self, room: Option<usize>, operation: Operation) {
        if let Some(room) = room {
            let is_full = |inbox: &mut Inbox| inbox.operations.len() >= room;
            let waited = self.bell.wait_while(locked(&self.inbox), is_full);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
        self.push(operation);
    }

    fn work(&self) {
        loop {
            let mut inbox = locked(&self.inbox);
            let operation = loop {
                if let Some(operation) = inbox.operations.pop_front() {
                    self.bell.notify_all();
                    break operation;
                }
                if inbox.closed {
                    return;
                }
                inbox = self
                    .bell
                    .wait(inbox)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            drop(inbox);
            match operation() {
                0 => {}
                code => lose(code),
            }
        }
    }

    /// Waits until everything is executed that was given so far.
    pub(crate) fn synchronize(&self) {
        let event = Arc::new(Event::default());
        let generation = event.record();
        let of_stream = Arc::clone(&event);
        self.push(Box::new(move || {
            of_stream.complete(generation);
            0
        }));
        event.wait(generation);
    }
}

/// An event: how often it was recorded, and which of these the streams have passed.
#[derive(Default)]
pub(crate) struct Event {
    /// Where in a capture it was recorded, if it was.
    pub(crate) captured: Mutex<Option<Captured>>,
    recorded: AtomicU64,
    completed: Mutex<u64>,
    bell: Condvar,
}

impl Event {
    /// Notes a recording; to be completed by the stream.
    pub(crate) fn record(&self) -> u64 {
        self.recorded.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The latest recording; zero if there is none.
    pub(crate) fn latest(&self) -> u64 {
        self.recorded.load(Ordering::SeqCst)
    }

    pub(crate) fn complete(&self, generation: u64) {
        let mut completed = locked(&self.completed);
        *completed = generation.max(*completed);
        self.bell.notify_all();
    }

    pub(crate) fn is_complete(&self, generation: u64) -> bool {
        *locked(&self.completed) >= generation
    }

    pub(crate) fn wait(&self, generation: u64) {
        let mut completed = locked(&self.completed);
        while *completed < generation {
            completed = self
                .bell
                .wait(completed)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Things that callers know by a number.
pub(crate) struct Handles<T> {
    all: Mutex<(u64, BTreeMap<u64, Arc<T>>)>,
}

impl<T> Handles<T> {
    pub(crate) const fn new() -> Self {
        Self {
            all: Mutex::new((0, BTreeMap::new())),
        }
    }

    pub(crate) fn add(&self, make: impl FnOnce(u64) -> Arc<T>) -> u64 {
        let mut all = locked(&self.all);
        all.0 += 1;
        let handle = all.0;
        all.1.insert(handle, make(handle));
        handle
    }

    pub(crate) fn get(&self, handle: u64) -> Option<Arc<T>> {
        locked(&self.all).1.get(&handle).cloned()
    }

    pub(crate) fn take(&self, handle: u64) -> Option<Arc<T>> {
        locked(&self.all).1.remove(&handle)
    }

    pub(crate) fn each(&self) -> Vec<Arc<T>> {
        locked(&self.all).1.values().cloned().collect()
    }
}

pub(crate) static STREAMS: Handles<Stream> = Handles::new();
pub(crate) static EVENTS: Handles<Event> = Handles::new();

/// Number of a new stream.
pub(crate) fn create() -> u64 {
    STREAMS.add(|number| Stream::start(number, None))
}

/// Ends a stream once it has executed all that it was given.
pub(crate) fn destroy(handle: u64) -> bool {
    let Some(stream) = STREAMS.take(handle) else {
        return false;
    };
    locked(&stream.inbox).closed = true;
    stream.bell.notify_all();
    true
}
