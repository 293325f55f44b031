//! Streams that are captured into graphs, and graphs that are replayed: an operation on a captured
//! stream becomes a node that comes after the one before it and after whatever the stream waited
//! for. A replay executes the nodes of each stream on a thread of its own, held back by these edges
//! alone, so that a missing one shows.
#![expect(unsafe_code, reason = "is called by C's rules")]

use crate::streams::{Event, Handles, Operation, Stream, lost};
use crate::{INVALID_HANDLE, INVALID_VALUE, SUCCESS, code, put, state, stream};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{c_int, c_ulonglong};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Codes of cuda.h.
const UNSUPPORTED: c_int = 900;
const INVALIDATED: c_int = 901;
const UNMATCHED: c_int = 903;
const UNJOINED: c_int = 904;
const ISOLATION: c_int = 905;
const CAPTURED_EVENT: c_int = 907;

static GRAPHS: Handles<Graph> = Handles::new();
static EXECUTABLES: Handles<Graph> = Handles::new();

thread_local! {
    /// Captures that this thread has begun and not ended.
    static CAPTURES: Cell<u32> = const { Cell::new(0) };
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A capture, while it is under way and after.
pub(crate) struct Capture {
    /// The stream that it began on.
    origin: u64,
    nodes: Mutex<Vec<Node>>,
    /// Every stream that took part.
    streams: Mutex<Vec<Arc<Stream>>>,
    is_invalid: Mutex<bool>,
}

struct Node {
    stream: u64,
    operation: Operation,
    after: Vec<usize>,
}

/// A stream's part in a capture: which nodes its next one comes after.
#[derive(Clone)]
pub(crate) struct Captured {
    capture: Arc<Capture>,
    tail: BTreeSet<usize>,
}

/// Nodes with edges.
pub(crate) struct Graph {
    capture: Arc<Capture>,
}

impl Captured {
    /// Makes an operation a node.
    pub(crate) fn add(&mut self, stream: u64, operation: Operation) {
        let mut nodes = locked(&self.capture.nodes);
        let after = self.tail.iter().copied().collect();
        self.tail = BTreeSet::from([nodes.len()]);
        nodes.push(Node {
            stream,
            operation,
            after,
        });
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.capture, &other.capture)
    }
}

/// Lets a stream wait for an event, if one of them is captured; whether that was so.
pub(crate) fn wait(stream: &Arc<Stream>, event: &Event) -> Result<bool, c_int> {
    let mut own = locked(&stream.captured);
    let other = locked(&event.captured).clone();
    match (&mut *own, other) {
        (None, None) => Ok(false),
        (Some(own), Some(other)) if own.is_same(&other) => {
            own.tail.extend(other.tail);
            Ok(true)
        }
        (own @ None, Some(other)) => {
            locked(&other.capture.streams).push(Arc::clone(stream));
            *own = Some(other);
            Ok(true)
        }
        // Of work that is not in the capture, or is in another.
        (Some(own), _) => {
            *locked(&own.capture.is_invalid) = true;
            Err(ISOLATION)
        }
    }
}

/// Notes where a stream is, if it is captured; whether that was so.
pub(crate) fn record(stream: &Stream, event: &Event) -> bool {
    let own = locked(&stream.captured).clone();
    let is_captured = own.is_some();
    *locked(&event.captured) = own;
    is_captured
}

/// Refuses to look at an event that is part of a capture.
pub(crate) fn query(event: &Event) -> Result<(), c_int> {
    match &*locked(&event.captured) {
        Some(_) => Err(CAPTURED_EVENT),
        None => Ok(()),
    }
}

/// Refuses to wait for a stream of which nothing is executed.
pub(crate) fn refuse_if_captured(stream: &Stream) -> Result<(), c_int> {
    match &*locked(&stream.captured) {
        Some(_) => Err(UNSUPPORTED),
        None => Ok(()),
    }
}

/// Refuses calls that the thread of a capture must not make, such as allocating memory.
pub(crate) fn refuse_in_capture() -> Result<(), c_int> {
    match CAPTURES.get() {
        0 => Ok(()),
        _ => Err(UNSUPPORTED),
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(handle: usize, _mode: c_int) -> c_int {
    code(state().and_then(|()| {
        let stream = stream(handle)?;
        let mut captured = locked(&stream.captured);
        if captured.is_some() {
            return Err(INVALID_VALUE);
        }
        let capture = Arc::new(Capture {
            origin: stream.number,
            nodes: Mutex::default(),
            streams: Mutex::new(vec![Arc::clone(&stream)]),
            is_invalid: Mutex::default(),
        });
        *captured = Some(Captured {
            capture,
            tail: BTreeSet::new(),
        });
        CAPTURES.set(CAPTURES.get() + 1);
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamEndCapture(handle: usize, graph: *mut usize) -> c_int {
    // SAFETY: cuda.h's contract.
    unsafe { put(graph, 0) };
    code(state().and_then(|()| {
        let captured = locked(&stream(handle)?.captured).clone();
        let Captured { capture, tail } = captured.ok_or(UNMATCHED)?;
        if capture.origin != handle as u64 {
            return Err(UNMATCHED);
        }
        CAPTURES.set(CAPTURES.get().saturating_sub(1));
        let mut is_joined = true;
        for stream in locked(&capture.streams).drain(..) {
            let other = locked(&stream.captured).take();
            let own = other.map_or(BTreeSet::new(), |other| other.tail);
            is_joined &= own.iter().all(|node| capture.is_before(*node, &tail));
        }
        if *locked(&capture.is_invalid) {
            return Err(INVALIDATED);
        }
        if !is_joined {
            return Err(UNJOINED);
        }
        let handle = GRAPHS.add(|_| Arc::new(Graph { capture }));
        // SAFETY: cuda.h's contract.
        unsafe { put(graph, handle as usize) };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiateWithFlags(
    executable: *mut usize,
    graph: usize,
    _flags: c_ulonglong,
) -> c_int {
    code(state().and_then(|()| {
        let graph = GRAPHS.get(graph as u64).ok_or(INVALID_HANDLE)?;
        let capture = Arc::clone(&graph.capture);
        let handle = EXECUTABLES.add(|_| Arc::new(Graph { capture }));
        // SAFETY: cuda.h's contract.
        unsafe { put(executable, handle as usize) };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(executable: usize, handle: usize) -> c_int {
    code(state().and_then(|()| {
        let graph = EXECUTABLES.get(executable as u64).ok_or(INVALID_HANDLE)?;
        stream(handle)?.push(Box::new(move || graph.capture.replay()));
        Ok(())
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(executable: usize) -> c_int {
    match EXECUTABLES.take(executable as u64) {
        Some(_) => SUCCESS,
        None => INVALID_HANDLE,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: usize) -> c_int {
    match GRAPHS.take(graph as u64) {
        Some(_) => SUCCESS,
        None => INVALID_HANDLE,
    }
}

/// What a replay has come to.
struct Done {
    nodes: Vec<bool>,
    code: c_int,
}

impl Capture {
    /// Whether a node is one of these, or they come after it.
    fn is_before(&self, node: usize, these: &BTreeSet<usize>) -> bool {
        let nodes = locked(&self.nodes);
        let mut open: Vec<usize> = these.iter().copied().collect();
        let mut seen = BTreeSet::new();
        while let Some(at) = open.pop() {
            if at == node {
                return true;
            }
            if seen.insert(at) {
                open.extend(&nodes[at].after);
            }
        }
        false
    }

    /// Executes all nodes; a code that is not zero is how the device died of it.
    fn replay(&self) -> c_int {
        let nodes = locked(&self.nodes);
        let streams: BTreeSet<u64> = nodes.iter().map(|node| node.stream).collect();
        let done = Mutex::new(Done {
            nodes: vec![false; nodes.len()],
            code: lost(),
        });
        let bell = Condvar::new();
        let nodes = &*nodes;
        std::thread::scope(|scope| {
            // The last stream begins first: nothing but edges says otherwise.
            for stream in streams.into_iter().rev() {
                let (done, bell) = (&done, &bell);
                scope.spawn(move || {
                    let own = nodes
                        .iter()
                        .enumerate()
                        .filter(|(_, it)| it.stream == stream);
                    for (at, node) in own {
                        let is_held = |done: &mut Done| {
                            done.code == 0 && node.after.iter().any(|before| !done.nodes[*before])
                        };
                        let held = bell.wait_while(locked(done), is_held);
                        let code = held.unwrap_or_else(PoisonError::into_inner).code;
                        let code = if code == 0 { (node.operation)() } else { code };
                        let mut done = locked(done);
                        done.nodes[at] = true;
                        done.code = if done.code == 0 { code } else { done.code };
                        bell.notify_all();
                    }
                });
            }
        });
        locked(&done).code
    }
}
