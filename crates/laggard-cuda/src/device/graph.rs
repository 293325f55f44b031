//! A step as one CUDA graph: its operations are captured from streams into a graph once, and the
//! graph is replayed by a single call of the driver. What a step loses to being issued operation by
//! operation is what it takes longer than its replay.
//!
//! Kernels are captured as an ordinary enqueue launches them, but for the stamps between them: a
//! replay has one before and one after. Collectives are not captured yet. Checked over the stand-in
//! for the driver, which refuses what a capture must not do; never run on a GPU yet.
#![expect(
    unsafe_code,
    reason = "the safe launch of a graph knows one stream alone"
)]

use super::lane::Cargo;
use super::lower::Step;
use super::memory::RawMemory;
use super::shared::Shared;
use super::{CudaDevice, trouble::Whose};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaEvent, CudaGraph, CudaStream, DriverError, result};
use laggard_backend::{BackendError, Launch, Task, Token};
use std::sync::{Arc, Mutex, PoisonError};

/// One operation of a step that is captured.
#[derive(Debug, Clone)]
pub struct GraphOperation {
    /// The stream that it is on, from 0; operations of a stream execute in order.
    pub stream: usize,
    /// Operations before this one, by position, that must be complete before it begins.
    pub after: Vec<usize>,
    /// What it does. Its kernels must have run on the device before: a capture compiles none.
    pub task: Task,
}

/// A step that can be replayed on any queue of its device.
#[derive(Clone)]
pub struct StepGraph {
    captured: Arc<Captured>,
    shared: Arc<Shared>,
}

/// A graph with the memory that its kernels work on.
pub(crate) struct Captured {
    /// Graphs may not be used by several threads at a time.
    graph: Mutex<OwnedGraph>,
    tasks: Vec<Task>,
    /// What each task needs beside its results.
    _scratch: Vec<Option<RawMemory>>,
    /// What was captured from: what engines need on a stream lives as long.
    _streams: Vec<Arc<CudaStream>>,
}

impl Captured {
    /// The tasks of its operations.
    pub(super) fn tasks(&self) -> &[Task] {
        &self.tasks
    }
}

struct OwnedGraph(CudaGraph);

// SAFETY: handles of graphs belong to no thread (CUDA driver API, "Graph object thread safety"),
// and the mutex around this keeps uses from overlapping.
unsafe impl Send for OwnedGraph {}

/// What is being done, in errors.
const CAPTURING: &str = "capturing a step";

impl CudaDevice {
    /// Captures operations into a graph. Nothing runs.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] for an operation that comes after a later one, that is on a stream
    /// beyond as many as there are operations, that is repeated in part, or that is made of other
    /// arithmetic than kernels; [`BackendError::Device`] if the driver refuses.
    pub fn capture(&self, operations: &[GraphOperation]) -> Result<StepGraph, BackendError> {
        let shared = &self.shared;
        for (at, operation) in operations.iter().enumerate() {
            let checked = check(operation, at, operations.len());
            checked.map_err(|why| BackendError::Invalid {
                rank: shared.whose.rank,
                call: format!("operation {at} of a graph"),
                why,
            })?;
            operation
                .task
                .check(shared.whose.rank, &shared.computes_in)?;
        }
        let streams = operations.iter().map(|it| it.stream + 1).max().unwrap_or(1);
        let streams = (0..streams).map(|_| shared.new_stream());
        let mut capture = Capture {
            shared,
            context: shared.gpu.context(),
            streams: streams.collect::<Result<_, _>>()?,
            steps: Vec::with_capacity(operations.len()),
            joined: Vec::new(),
            ends: Vec::new(),
        };
        let mut scratch = Vec::with_capacity(operations.len());
        for GraphOperation { stream, task, .. } in operations {
            // Operations of other streams run beside it.
            let memory = shared.scratch(task)?;
            let steps = shared.steps(task, memory.as_ref().map_or(0, RawMemory::address))?;
            shared.prepare(&steps, &capture.streams[*stream])?;
            capture.steps.push(steps);
            scratch.push(memory);
        }
        let graph = capture.graph(operations)?;
        Ok(StepGraph {
            captured: Arc::new(Captured {
                graph: Mutex::new(OwnedGraph(graph)),
                tasks: operations.iter().map(|it| it.task.clone()).collect(),
                _scratch: scratch,
                _streams: capture.streams,
            }),
            shared: Arc::clone(shared),
        })
    }
}

/// Whether an operation can be part of a graph.
fn check(operation: &GraphOperation, at: usize, operations: usize) -> Result<(), String> {
    let stream = operation.stream;
    if stream >= operations {
        return Err(format!(
            "it is on stream {stream} of {operations} operations"
        ));
    }
    if let Some(later) = operation.after.iter().find(|before| **before >= at) {
        return Err(format!("it comes after operation {later}"));
    }
    let task = &operation.task;
    if task.work_scale > 1.0 || task.extra_flop > 0 {
        return Err("emulated work is not captured".to_owned());
    }
    Ok(())
}

impl StepGraph {
    /// Enqueues one replay, under one stamp.
    ///
    /// # Errors
    /// [`BackendError::Unknown`] for queues or tokens of others, [`BackendError::Device`] if the
    /// driver refuses.
    pub fn replay(&self, launch: Launch<'_>) -> Result<Token, BackendError> {
        let cargo = Cargo {
            graph: Some(Arc::clone(&self.captured)),
            ..Cargo::default()
        };
        self.shared.put(launch, None, cargo, &mut |lane, _| {
            let graph = self.captured.graph.lock();
            let graph = graph.unwrap_or_else(PoisonError::into_inner);
            // SAFETY: graph and stream are of one context, live for as long as this call, and the
            // lock keeps other threads from the graph; the cargo keeps its memory until the replay
            // is complete.
            let launched =
                unsafe { result::graph::launch(graph.0.cu_graph_exec(), lane.stream.cu_stream()) };
            launched.map_err(|error| failed(&self.shared.whose, "replaying a step", error))
        })
    }
}

fn failed(whose: &Whose, doing: &'static str, error: DriverError) -> BackendError {
    whose.failed(doing)(error)
}

/// A capture under way: streams that are in it, and the ends of operations so far.
struct Capture<'a> {
    shared: &'a Arc<Shared>,
    context: &'a Arc<CudaContext>,
    streams: Vec<Arc<CudaStream>>,
    /// The launches of each operation.
    steps: Vec<Vec<Step>>,
    /// Streams beside the first that are in the capture by now.
    joined: Vec<usize>,
    /// The end of each operation, which those on other streams wait for.
    ends: Vec<CudaEvent>,
}

impl Capture<'_> {
    fn graph(&mut self, operations: &[GraphOperation]) -> Result<CudaGraph, BackendError> {
        // Other threads of the process go on as they like.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let first = Arc::clone(&self.streams[0]);
        first
            .begin_capture(mode)
            .map_err(|error| self.failed(error))?;
        let captured = self.operations(operations);
        // A capture that failed is ended as well, or its stream could not go away.
        let ended = first.end_capture(CUgraphInstantiate_flags(0));
        captured?;
        let graph = ended.map_err(|error| self.failed(error))?;
        graph.ok_or_else(|| {
            let why = "the driver made no graph of it".to_owned();
            self.shared.whose.error(CAPTURING, why, "")
        })
    }

    fn operations(&mut self, operations: &[GraphOperation]) -> Result<(), BackendError> {
        let begin = self.mark(0)?;
        for (at, operation) in operations.iter().enumerate() {
            let stream = Arc::clone(&self.streams[operation.stream]);
            if operation.stream > 0 && !self.joined.contains(&operation.stream) {
                stream.wait(&begin).map_err(|error| self.failed(error))?;
                self.joined.push(operation.stream);
            }
            let elsewhere = |at: &&usize| operations[**at].stream != operation.stream;
            for before in operation.after.iter().filter(elsewhere) {
                let end = &self.ends[*before];
                stream.wait(end).map_err(|error| self.failed(error))?;
            }
            self.shared.launch_all(&self.steps[at], &stream)?;
            let end = self.mark(operation.stream)?;
            self.ends.push(end);
        }
        // What was forked has to be joined again.
        for at in self.joined.clone() {
            let end = self.mark(at)?;
            let joined = self.streams[0].wait(&end);
            joined.map_err(|error| self.failed(error))?;
            self.ends.push(end);
        }
        Ok(())
    }

    /// Marks where a stream is now.
    fn mark(&self, stream: usize) -> Result<CudaEvent, BackendError> {
        let event = self.context.new_event(None);
        let event = event.map_err(|error| self.failed(error))?;
        let recorded = event.record(&self.streams[stream]);
        recorded.map_err(|error| self.failed(error))?;
        Ok(event)
    }

    fn failed(&self, error: DriverError) -> BackendError {
        failed(&self.shared.whose, CAPTURING, error)
    }
}
