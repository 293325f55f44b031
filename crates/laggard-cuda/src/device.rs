//! A GPU as a device of laggard: queues are streams, tokens are events, and every piece of work is
//! between two stamps of the GPU's own timer, which `clock.rs` puts on the host's clock. The host
//! never waits for the GPU while it enqueues.
//!
//! Checked over a stand-in for the driver (`fake_driver/`), whose streams are threads and whose
//! kernels are twins; never run on a GPU yet.

mod engine;
mod events;
mod graph;
mod issue;
mod lane;
mod lower;
mod memory;
mod pace;
mod shared;
mod slots;
mod time;
mod transfers;
pub(crate) mod trouble;

pub use engine::ProductEngine;
pub use graph::{GraphOperation, StepGraph};
pub use pace::PeakOptions;

use crate::{
    ClockReport, CubinCache, CudaError, CudaIdentity, Gpu, GpuMonitor, HalfType, Module, Share,
    Surroundings, Sysfs, self_check,
};
use cudarc::driver::CudaStream;
use laggard_backend::{
    Abort, Abortable, BackendError, Buffer, Device, DeviceDescription, DeviceKind, Launch, Meeting,
    Monitor, QueueId, Slice, TaggedStamp, Task, Token,
};
use laggard_types::{ClockDomain, DataType, Rank, Stamp};
use lane::{Cargo, Lane};
use memory::CudaMemory;
pub(crate) use memory::PinnedWords;
use shared::Shared;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;
use trouble::Whose;

/// Stamps for which a queue has room between two drains before its store grows: a long step.
const USUAL_STAMPS: usize = 16_384;

/// How long a device that goes away waits for what it is at.
const LAST_WORK: Duration = Duration::from_secs(5);

/// How a GPU is set up.
#[derive(Clone)]
pub struct CudaOptions {
    /// The GPU's number, in the driver's order: among those that `CUDA_VISIBLE_DEVICES` leaves.
    pub ordinal: usize,
    /// The part of that GPU to confine all kernels to; `None` for the whole.
    pub share: Option<Share>,
    /// The rank that errors name.
    pub rank: Rank,
    /// Engines for products of half types, the preferred first; the kernels of this crate compute
    /// what they leave.
    pub engines: Vec<Arc<dyn ProductEngine>>,
    /// Whether engines race the device's own kernels first, and those that lose are done without.
    pub race_engines: bool,
    /// Whether every kernel is compared with its twin before the device is used. A tuned kernel
    /// that fails is done without; any other is an error.
    pub self_check: bool,
    /// Stamps for which there is room before the first `drain`.
    pub stamp_capacity: usize,
}

impl Default for CudaOptions {
    fn default() -> Self {
        Self {
            ordinal: 0,
            share: None,
            rank: 0,
            engines: Vec::new(),
            race_engines: false,
            self_check: true,
            stamp_capacity: USUAL_STAMPS,
        }
    }
}

/// One GPU of this machine.
///
/// A queue stops at its first failure: that work's token and all later ones of the queue carry the
/// error, and so does work elsewhere that comes after them. Where the GPU itself is lost, all
/// queues stop. Work that misses a token is not noticed, other than on a CPU device; only copies
/// from and to the host are refused while tasks use the memory.
pub struct CudaDevice {
    shared: Arc<Shared>,
    /// Where NVML is.
    surroundings: Surroundings,
}

impl CudaDevice {
    /// Opens a GPU of its own world: compiles or finds its kernels, compares them with their twins
    /// and the GPU's clock with the host's.
    ///
    /// # Errors
    /// [`BackendError::Device`], with a hint, if there is no driver, no such GPU or no compiler of
    /// kernels, or if a kernel computes something else than its twin.
    pub fn open(
        options: CudaOptions,
        surroundings: &Surroundings,
        cache: Option<CubinCache>,
    ) -> Result<Self, BackendError> {
        Self::in_world(options, surroundings, cache, &Arc::default())
    }

    /// Opens a GPU that is aborted together with whatever else listens to `abort`.
    ///
    /// # Errors
    /// As [`CudaDevice::open`].
    pub fn in_world(
        mut options: CudaOptions,
        surroundings: &Surroundings,
        cache: Option<CubinCache>,
        abort: &Arc<Abort>,
    ) -> Result<Self, BackendError> {
        let CudaOptions { ordinal, rank, .. } = options;
        let mut whose = Whose {
            rank,
            device: format!("GPU {ordinal}"),
        };
        let gpu = Gpu::confined(ordinal, options.share.clone(), surroundings, cache);
        let gpu = gpu.map_err(|error| whose.refused("opening the GPU", &error))?;
        whose.device = format!("GPU {ordinal} ({})", gpu.name());
        let (modules, doubts) = checked_modules(&gpu, options.self_check)
            .map_err(|error| whose.refused("preparing kernels", &error))?;
        if options.race_engines {
            options.engines = fastest(&gpu, &modules, options.engines)
                .map_err(|error| whose.refused("racing engines", &error))?;
        }
        let shared = Shared::new(Arc::new(gpu), whose, (modules, doubts), options, abort)?;
        let listener: Weak<Shared> = Arc::downgrade(&shared);
        abort.listen(listener);
        Ok(Self {
            shared,
            surroundings: surroundings.clone(),
        })
    }

    /// Which GPU it is.
    ///
    /// # Errors
    /// [`BackendError::Device`] if the driver does not say.
    pub fn identity(&self) -> Result<CudaIdentity, BackendError> {
        let identity = self.shared.gpu.identity();
        identity.map_err(|error| self.shared.whose.refused("asking which GPU it is", &error))
    }

    /// Kernels that are done without, and why: they failed their self-check here.
    pub fn doubts(&self) -> &[String] {
        &self.shared.doubts
    }

    /// How well the GPU's clock is known on the host's.
    pub fn clock(&self) -> ClockReport {
        self.shared.clock_report()
    }

    /// Measures the arithmetic peak by products of random numbers, for the description and for
    /// [`Task::extra_flop`]. Waits until that is done.
    ///
    /// # Errors
    /// [`BackendError::Device`] if memory or time do not suffice.
    pub fn measure_peak(
        &self,
        options: &PeakOptions,
    ) -> Result<laggard_types::FlopPerSecond, BackendError> {
        pace::measure(self, options)
    }
}

/// For libraries that put work of their own on a GPU's streams.
impl CudaDevice {
    /// Makes the GPU's context the current one of the calling thread.
    ///
    /// # Errors
    /// [`BackendError::Device`] if the driver refuses.
    pub fn make_current(&self) -> Result<(), BackendError> {
        let bound = self.shared.gpu.context().bind_to_thread();
        bound.map_err(self.shared.whose.failed("making the GPU the thread's own"))
    }

    /// Enqueues one piece of work and returns its token: `body` puts onto the stream whatever runs
    /// between the two stamps, and does not wait for it. `order_after` must be complete before,
    /// failed or not. The meeting is kept until the work is complete, and with it whatever memory
    /// it holds.
    ///
    /// # Errors
    /// [`BackendError::Unknown`] for queues or tokens of others; what `body` fails with, after
    /// which the queue has stopped.
    pub fn put(
        &self,
        launch: Launch<'_>,
        order_after: Option<Token>,
        meeting: Arc<dyn Meeting>,
        body: &mut dyn FnMut(&CudaStream) -> Result<(), BackendError>,
    ) -> Result<Token, BackendError> {
        let cargo = Cargo {
            meeting: Some(meeting),
            ..Cargo::default()
        };
        self.shared.put(launch, order_after, cargo, &mut |lane, _| {
            body(&lane.stream)
        })
    }

    /// Stops a queue: the work behind a token, and all behind it, carries this error. The caller
    /// tells the other ranks; only meetings of work elsewhere that comes after are given up.
    pub fn fail(&self, token: Token, error: BackendError) {
        self.shared.fail(token, error);
    }

    /// A stream that belongs to no queue.
    ///
    /// # Errors
    /// [`BackendError::Device`] if the driver refuses.
    pub fn new_stream(&self) -> Result<Arc<CudaStream>, BackendError> {
        self.shared.new_stream()
    }

    /// The part of the GPU that kernels are confined to, if they are.
    pub fn share(&self) -> Option<&Share> {
        self.shared.gpu.share()
    }

    /// How this process is a client of NVIDIA's Multi-Process Service, if it is one.
    pub fn mps(&self) -> Option<crate::MpsClient> {
        crate::MpsClient::of_process(self.identity().ok()?.shared_by_mps)
    }

    /// The GPU itself.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.shared.gpu
    }

    /// Whose errors name rank and device.
    pub(crate) fn whose(&self) -> &Whose {
        &self.shared.whose
    }

    /// Words of host memory that streams reach, all zero.
    pub(crate) fn words(&self, count: usize) -> Result<PinnedWords, BackendError> {
        PinnedWords::new(self.shared.gpu.context(), &self.shared.whose, count)
    }

    /// The address of a slice's first element on the GPU.
    ///
    /// # Errors
    /// [`BackendError::Unknown`] if the memory is not this GPU's.
    pub fn address(&self, slice: &Slice) -> Result<u64, BackendError> {
        self.shared.address(slice)
    }
}

/// The engines that are faster than each of these kernels.
fn fastest(
    gpu: &Gpu,
    modules: &[Module],
    engines: Vec<Arc<dyn ProductEngine>>,
) -> Result<Vec<Arc<dyn ProductEngine>>, CudaError> {
    let operands = match modules.contains(&Module::Gemm(HalfType::Bf16)) {
        true => HalfType::Bf16,
        false => HalfType::F16,
    };
    let own = [Module::Gemm(operands), Module::GemmTma(operands)];
    let own: Vec<Module> = own.into_iter().filter(|it| modules.contains(it)).collect();
    let mut kept = Vec::new();
    for engine in engines {
        if gpu.prefers(&engine, operands, &own)? {
            kept.push(engine);
        }
    }
    Ok(kept)
}

/// The modules that a device needs, those that failed being left out; and why they did.
fn checked_modules(gpu: &Gpu, check: bool) -> Result<(Vec<Module>, Vec<String>), CudaError> {
    let mut modules = Vec::new();
    let mut doubts = Vec::new();
    for module in Module::all_on(gpu.place().architecture) {
        match module {
            // No kernel of a step is one of these yet.
            Module::Norm(_) | Module::GemmFp8 => continue,
            // Never to be used unchecked.
            Module::GemmTma(_) if !check => continue,
            _ => {}
        }
        let checked = match check {
            true => self_check(gpu, module),
            false => gpu.load(module),
        };
        match checked {
            Ok(()) => modules.push(module),
            Err(error) if module.has_substitute() => {
                tracing::warn!(%module, %error, "a kernel is done without");
                doubts.push(format!("{module} is done without: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    // The tuned ones first.
    modules.sort_by_key(|module| !matches!(module, Module::GemmTma(_)));
    Ok((modules, doubts))
}

impl Device for CudaDevice {
    fn description(&self) -> DeviceDescription {
        let shared = &self.shared;
        DeviceDescription {
            name: shared.gpu.name().to_owned(),
            kind: DeviceKind::Gpu,
            computes_in: shared.computes_in.clone(),
            memory_bytes: shared.gpu.memory_bytes(),
            // Stamps are on the host's clock by the time they are drained.
            clock: ClockDomain::HostMonotonic,
            measured_peak: shared.pace.get().map(|pace| pace.peak),
            bound_cpu: None,
        }
    }

    fn monitor(&self) -> Option<Box<dyn Monitor>> {
        let identity = self.identity();
        let identity = identity.inspect_err(|error| tracing::warn!(%error, "nothing is watched"));
        let monitor = GpuMonitor::of(identity.ok()?, &self.surroundings, Sysfs::default());
        Some(Box::new(monitor))
    }

    fn allocate(&self, data_type: DataType, len: usize) -> Result<Buffer, BackendError> {
        let memory = CudaMemory::zeroed(&self.shared, data_type, len)?;
        Ok(Buffer::Device(Arc::new(memory)))
    }

    fn create_queue(&self, name: &str) -> Result<QueueId, BackendError> {
        let shared = &self.shared;
        let mut lanes = shared.lanes.write().unwrap_or_else(PoisonError::into_inner);
        let id = QueueId(u32::try_from(lanes.len()).unwrap_or(u32::MAX));
        tracing::debug!(rank = shared.whose.rank, name, id = id.0, "a stream");
        let lane = Lane::new(id, shared.new_stream()?, shared.options.stamp_capacity);
        lanes.push(Arc::new(lane));
        Ok(id)
    }

    fn enqueue(&self, task: &Task, launch: Launch<'_>) -> Result<Token, BackendError> {
        let shared = &self.shared;
        task.check(shared.whose.rank, &shared.computes_in)?;
        shared.enqueue(task, launch)
    }

    fn poll(&self, token: Token) -> Result<bool, BackendError> {
        self.shared.poll(token)
    }

    fn wait(&self, token: Token, deadline: Duration) -> Result<(), BackendError> {
        self.shared.wait(token, deadline)
    }

    /// Begin and end of work on the GPU, on the host's monotonic clock; how wrong they can be is in
    /// [`CudaDevice::clock`]. No processor's time is spent on it.
    fn drain(&self, queue: QueueId, into: &mut Vec<TaggedStamp>) -> Result<(), BackendError> {
        let raw = self.shared.drain(queue)?;
        let mut clock = self.shared.clock();
        if let Some(last) = raw.last() {
            clock.cover(last.end_ns);
        }
        into.extend(raw.into_iter().map(|raw| TaggedStamp {
            tag: raw.tag,
            stamp: Stamp {
                start_ns: clock.host(raw.begin_ns),
                end_ns: clock.host(raw.end_ns),
                cpu_start_ns: 0,
                cpu_end_ns: 0,
            },
        }));
        Ok(())
    }

    fn clock_error_ns(&self) -> i64 {
        self.clock().worst_error_ns
    }

    fn at_work(&self) -> Vec<u64> {
        self.shared.at_work()
    }

    fn abort(&self, reason: &str) {
        match self.shared.abort.upgrade() {
            Some(abort) => abort.abort(reason),
            None => Abortable::abort(&*self.shared, reason),
        }
    }
}

impl Drop for CudaDevice {
    /// Waits a little for what is under way. What does not end by then keeps its memory for ever.
    fn drop(&mut self) {
        self.shared.close(LAST_WORK);
    }
}
