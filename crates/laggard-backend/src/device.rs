//! The seam to whatever executes work: a CPU core here, a GPU later.
//!
//! Work is enqueued on queues (streams) after tokens and returns tokens. A queue executes in order;
//! work on different queues runs concurrently and is ordered by tokens alone. Each piece of work
//! leaves a [`Stamp`] on the queue's own clock, fetched later by [`Device::drain`]: nothing inside
//! the timed path allocates, locks against another rank, or reads more than the two stamps.

use crate::{BackendError, Buffer, Kernel, Monitor};
use laggard_types::{ClockDomain, DataType, FlopPerSecond, Stamp};
use std::sync::Arc;
use std::time::Duration;

/// A queue of one device; executes what is enqueued in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueId(pub u32);

/// The completion of one enqueued piece of work: queue and position on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// The queue that the work is on.
    pub queue: QueueId,
    /// Its position on the queue, from 1; a token is complete when the queue has passed it.
    pub position: u64,
}

/// Where and after what a piece of work runs, and what its stamp is labelled with.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The queue.
    pub queue: QueueId,
    /// Work on any queue of this device that must be complete before this begins.
    pub after: &'a [Token],
    /// The caller's label of the stamp; returned by `drain` untouched.
    pub tag: u64,
}

/// Kernels that run back to back under one stamp: one operation of a schedule.
#[derive(Debug, Clone)]
pub struct Task {
    /// The kernels, in order.
    pub kernels: Arc<[Kernel]>,
    /// How much of the arithmetic is done, 1 = once; less than once is refused. 1.5 does everything
    /// once and half of it again with results that go nowhere; this is how a slower class or a slow
    /// rank is emulated, by real arithmetic and never by sleeping.
    pub work_scale: f64,
    /// Real arithmetic (as FMA loop, on the executing thread) added after the kernels, in FLOP.
    pub extra_flop: u64,
}

/// One stamp with the tag of its launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaggedStamp {
    /// The tag given at the launch.
    pub tag: u64,
    /// When the work ran.
    pub stamp: Stamp,
}

/// What executes kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Processors of a host.
    Cpu,
    /// A graphics processor.
    Gpu,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceDescription {
    /// Product name, as the system reports it.
    pub name: String,
    /// What executes its kernels.
    pub kind: DeviceKind,
    /// What its kernels compute in, the widest first.
    pub computes_in: Vec<DataType>,
    /// Bytes of its own memory; `None` where it uses the host's.
    pub memory_bytes: Option<u64>,
    /// Clock of this device's stamps.
    pub clock: ClockDomain,
    /// Arithmetic peak measured on this very device, if it has been.
    pub measured_peak: Option<FlopPerSecond>,
    /// The processor that the device's queues are bound to, where they are.
    pub bound_cpu: Option<u32>,
}

/// Executes kernels on queues.
pub trait Device: Send + Sync {
    /// What this device is.
    fn description(&self) -> DeviceDescription;

    /// What tells of this device's state beside its work; `None` where nothing does.
    fn monitor(&self) -> Option<Box<dyn Monitor>> {
        None
    }

    /// A zeroed buffer of `len` elements.
    ///
    /// # Errors
    /// If the memory cannot be had.
    fn allocate(&self, data_type: DataType, len: usize) -> Result<Buffer, BackendError>;

    /// A new queue. `name` is for logs and thread names.
    ///
    /// # Errors
    /// If the system refuses a thread or stream.
    fn create_queue(&self, name: &str) -> Result<QueueId, BackendError>;

    /// Enqueues a task and returns at once.
    ///
    /// # Errors
    /// If a queue, token or buffer is not of this device, or shapes do not fit.
    fn enqueue(&self, task: &Task, launch: Launch<'_>) -> Result<Token, BackendError>;

    /// Whether the work behind a token is complete.
    ///
    /// # Errors
    /// If the work failed, or the token is not of this device.
    fn poll(&self, token: Token) -> Result<bool, BackendError>;

    /// Waits until the work behind a token is complete, at most `deadline`.
    ///
    /// # Errors
    /// [`BackendError::Timeout`], naming who is missing where a collective was waited for, or the
    /// error of the work itself.
    fn wait(&self, token: Token, deadline: Duration) -> Result<(), BackendError>;

    /// Moves the stamps of completed work of one queue to `into`, oldest first.
    ///
    /// # Errors
    /// If the queue is not of this device.
    fn drain(&self, queue: QueueId, into: &mut Vec<TaggedStamp>) -> Result<(), BackendError>;

    /// No stamp drained so far lies farther from its true time on [`DeviceDescription::clock`] than
    /// this, nanoseconds; 0 where the clock itself is read, as a processor does.
    fn clock_error_ns(&self) -> i64 {
        0
    }

    /// Tags of the work that is being executed at this moment, in the order of queues: what a rank
    /// that hangs was at.
    fn at_work(&self) -> Vec<u64>;

    /// Gives up all work, here and on every rank of the world: all waits return
    /// [`BackendError::Aborted`] soon.
    fn abort(&self, reason: &str);
}
