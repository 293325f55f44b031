//! The CPU as a device: each queue is a worker thread that executes kernels on one core.

pub(crate) mod clock;
mod elementwise;
mod execute;
pub(crate) mod gemm;
mod peak;
pub(crate) mod queue;
#[cfg(test)]
mod tests;

pub use clock::{Reading, monotonic_ns};
pub use execute::Repeats;
pub use peak::{burn, measure_peak};
pub use queue::{Meeting, Work};

use crate::gate::Abort;
use crate::{
    BackendError, Buffer, Device, DeviceDescription, DeviceKind, HostMemory, Launch, QueueId,
    TaggedStamp, Task, Token,
};
use execute::TaskWork;
use laggard_types::{ClockDomain, DataType, FlopPerSecond, Rank};
use queue::{Dependency, Job, Queue, QueueSettings};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Stamps for which a queue has room between two drains before its store grows (between two pieces
/// of work, never inside a timed part): a long step of a large model.
const USUAL_STAMPS: usize = 16_384;

/// What kernels here compute in.
const COMPUTES_IN: &[DataType] = &[DataType::F32];

/// How a CPU device is set up.
#[derive(Debug, Clone)]
pub struct CpuOptions {
    /// Product name; what the system reports if absent.
    pub name: Option<String>,
    /// The rank that errors name.
    pub rank: Rank,
    /// The processor that each queue's thread binds itself to.
    pub bind_cpu: Option<u32>,
    /// How long a waiting thread looks again before it sleeps. Zero, the default, is right unless
    /// each rank has a core to itself; then some microseconds lower the latency of collectives.
    /// Spinning counts as CPU time of the waiting rank.
    pub spin: Duration,
    /// Stamps for which there is room before the first `drain`.
    pub stamp_capacity: usize,
}

impl Default for CpuOptions {
    fn default() -> Self {
        Self {
            name: None,
            rank: 0,
            bind_cpu: None,
            spin: Duration::ZERO,
            stamp_capacity: USUAL_STAMPS,
        }
    }
}

/// A device whose queues are threads of this process. Kernels are vectorised for the processor that
/// is found at run time; buffers are host memory, and any [`HostMemory`] of the process will do.
///
/// A queue stops at its first failure: that work's token and all later ones of the queue carry the
/// error, and so does work elsewhere that comes after them.
pub struct CpuDevice {
    options: CpuOptions,
    measured_peak: OnceLock<FlopPerSecond>,
    queues: RwLock<Vec<Lane>>,
    abort: Arc<Abort>,
}

struct Lane {
    queue: Arc<Queue>,
    worker: Option<JoinHandle<()>>,
}

impl CpuDevice {
    /// A device of its own world.
    pub fn new(options: CpuOptions) -> Self {
        Self::in_world(options, Arc::default())
    }

    /// A device that is aborted together with whatever else listens to `abort`.
    pub fn in_world(options: CpuOptions, abort: Arc<Abort>) -> Self {
        Self {
            options,
            measured_peak: OnceLock::new(),
            queues: RwLock::default(),
            abort,
        }
    }

    /// Measures the arithmetic peak of this device as [`measure_peak`] does, on the processor that
    /// the device is bound to. The first measurement is also kept for the description.
    ///
    /// # Errors
    /// [`BackendError::System`] if the system refuses a thread, the binding or a clock.
    pub fn measure_peak(&self, duration: Duration) -> Result<FlopPerSecond, BackendError> {
        let bind_cpu = self.options.bind_cpu;
        let peak = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("laggard-peak".to_owned())
                .spawn_scoped(scope, || {
                    bind_thread(bind_cpu).and_then(|()| measure_peak(duration))
                })
                .map_err(|e| no_thread(&e))?
                .join()
                .map_err(|_| no_thread(&"it panicked"))?
        })?;
        Ok(*self.measured_peak.get_or_init(|| peak))
    }

    /// Enqueues work of any kind; `order_after` must be complete before, failed or not. This is how
    /// a backend puts its calls on queues.
    ///
    /// # Errors
    /// [`BackendError::Unknown`] if a queue or token is not of this device.
    pub fn submit(
        &self,
        work: Box<dyn Work>,
        launch: Launch<'_>,
        order_after: Option<Token>,
    ) -> Result<Token, BackendError> {
        let queue = self.queue(launch.queue)?;
        let inherits = launch.after.iter().map(|token| (token, true));
        let ordered = order_after.iter().map(|token| (token, false));
        let after = inherits
            .chain(ordered)
            .filter(|(token, inherits)| *inherits || token.queue != launch.queue)
            .map(|(token, inherits_failure)| {
                let queue = self.queue_of(*token)?;
                Ok(Dependency {
                    queue,
                    position: token.position,
                    inherits_failure,
                })
            })
            .collect::<Result<_, BackendError>>()?;
        Ok(queue.submit(Job {
            work,
            after,
            tag: launch.tag,
        }))
    }

    fn queue(&self, id: QueueId) -> Result<Arc<Queue>, BackendError> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let lane = usize::try_from(id.0).ok().and_then(|at| queues.get(at));
        lane.map(|lane| Arc::clone(&lane.queue))
            .ok_or_else(|| BackendError::Unknown {
                what: format!("queue {}", id.0),
            })
    }

    fn queue_of(&self, token: Token) -> Result<Arc<Queue>, BackendError> {
        let queue = self.queue(token.queue)?;
        if !queue.knows(token.position) {
            let what = format!("token {} of queue {}", token.position, token.queue.0);
            return Err(BackendError::Unknown { what });
        }
        Ok(queue)
    }
}

impl Device for CpuDevice {
    fn description(&self) -> DeviceDescription {
        DeviceDescription {
            name: self.options.name.clone().unwrap_or_else(processor_name),
            kind: DeviceKind::Cpu,
            computes_in: COMPUTES_IN.to_vec(),
            memory_bytes: None,
            clock: ClockDomain::HostMonotonic,
            measured_peak: self.measured_peak.get().copied(),
            bound_cpu: self.options.bind_cpu,
        }
    }

    fn allocate(&self, data_type: DataType, len: usize) -> Result<Buffer, BackendError> {
        Ok(Buffer::Host(HostMemory::zeroed(data_type, len)?))
    }

    fn create_queue(&self, name: &str) -> Result<QueueId, BackendError> {
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        let id = QueueId(u32::try_from(queues.len()).map_err(|_| no_thread(&"too many"))?);
        let queue = Arc::new(Queue::new(QueueSettings {
            id,
            rank: self.options.rank,
            spin: self.options.spin,
            stamp_capacity: self.options.stamp_capacity,
        }));
        let (started, start) = mpsc::channel();
        let bind_cpu = self.options.bind_cpu;
        let of_worker = Arc::clone(&queue);
        let worker = std::thread::Builder::new()
            .name(format!("r{}-{name}", self.options.rank))
            .spawn(move || {
                let bound = bind_thread(bind_cpu);
                let is_bound = bound.is_ok();
                if started.send(bound).is_ok() && is_bound {
                    of_worker.work();
                }
            })
            .map_err(|e| no_thread(&e))?;
        start.recv().map_err(|e| no_thread(&e))??;
        let listener: Weak<Queue> = Arc::downgrade(&queue);
        self.abort.listen(listener);
        queues.push(Lane {
            queue,
            worker: Some(worker),
        });
        Ok(id)
    }

    fn enqueue(&self, task: &Task, launch: Launch<'_>) -> Result<Token, BackendError> {
        task.check(self.options.rank, COMPUTES_IN)?;
        self.submit(Box::new(TaskWork::new(task.clone())), launch, None)
    }

    fn poll(&self, token: Token) -> Result<bool, BackendError> {
        self.queue_of(token)?.poll(token.position)
    }

    fn wait(&self, token: Token, deadline: Duration) -> Result<(), BackendError> {
        self.queue_of(token)?.wait(token.position, deadline)
    }

    fn drain(&self, queue: QueueId, into: &mut Vec<TaggedStamp>) -> Result<(), BackendError> {
        self.queue(queue)?.drain(into);
        Ok(())
    }

    fn at_work(&self) -> Vec<u64> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        queues
            .iter()
            .filter_map(|lane| lane.queue.at_work())
            .collect()
    }

    fn abort(&self, reason: &str) {
        self.abort.abort(reason);
    }
}

impl Drop for CpuDevice {
    /// Ends the workers after the work that they are at; what is enqueued behind it is not done.
    fn drop(&mut self) {
        let queues = self
            .queues
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for lane in queues.iter() {
            lane.queue.close();
        }
        for lane in queues.iter_mut() {
            if lane
                .worker
                .take()
                .is_some_and(|worker| worker.join().is_err())
            {
                tracing::error!(rank = self.options.rank, "a queue's thread panicked");
            }
        }
    }
}

fn no_thread(why: &dyn std::fmt::Display) -> BackendError {
    BackendError::System {
        what: "starting a thread".to_owned(),
        why: why.to_string(),
    }
}

/// Binds the calling thread to a processor; to none in particular if absent.
///
/// # Errors
/// [`BackendError::System`] if the system refuses, or does not let threads choose.
#[cfg(target_os = "linux")]
pub fn bind_thread(cpu: Option<u32>) -> Result<(), BackendError> {
    use nix::sched::{CpuSet, sched_setaffinity};
    use nix::unistd::Pid;

    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    usize::try_from(cpu)
        .map_err(|_| nix::errno::Errno::EINVAL)
        .and_then(|cpu| set.set(cpu))
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|e| BackendError::System {
            what: format!("binding a thread to processor {cpu}"),
            why: e.to_string(),
        })
}

/// Binds the calling thread to a processor; to none in particular if absent.
///
/// # Errors
/// [`BackendError::System`] if the system refuses, or does not let threads choose.
#[cfg(not(target_os = "linux"))]
pub fn bind_thread(cpu: Option<u32>) -> Result<(), BackendError> {
    match cpu {
        None => Ok(()),
        Some(cpu) => Err(BackendError::System {
            what: format!("binding a thread to processor {cpu}"),
            why: "only Linux lets a thread choose".to_owned(),
        }),
    }
}

/// The product name of this machine's processor, else its architecture.
pub fn processor_name() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|info| {
            let line = info.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}
