//! Ranks that are threads of one process, each with a GPU of its own and NCCL between them.

use laggard_backend::control::{ControlOptions, ControlPlane};
use laggard_backend::threads::{ThreadOptions, worlds};
use laggard_backend::{Abort, BackendError, Messenger, World};
use laggard_cuda::{
    CudaDevice, CudaError, CudaOptions, Nccl, NcclOptions, NcclWorld, PeakOptions, Surround,
    Surroundings,
};
use laggard_types::Rank;
use std::sync::Arc;
use std::time::Duration;

/// How such ranks are set up.
pub(crate) struct LocalOptions {
    /// How each device is set up; rank `i` has the GPU of number `ordinal + i`.
    pub(crate) device: CudaOptions,
    /// How collectives behave.
    pub(crate) nccl: NcclOptions,
    /// How each device's arithmetic peak is measured.
    pub(crate) peak: PeakOptions,
    /// Where CUDA's libraries are.
    pub(crate) surroundings: Surroundings,
}

/// The ranks of this process.
pub(crate) struct LocalRanks {
    worlds: Vec<World>,
    controls: Vec<Arc<ControlPlane>>,
}

impl LocalRanks {
    /// Opens a GPU for each of so many ranks and connects them.
    ///
    /// # Errors
    /// What the first rank fails with: [`CudaError::World`] with a hint if there is no such GPU,
    /// and as [`NcclWorld::join`].
    pub(crate) fn join(
        ranks: u32,
        nccl: &Arc<Nccl>,
        options: &LocalOptions,
    ) -> Result<Self, CudaError> {
        let messengers = worlds(ranks, &ThreadOptions::default())?;
        let messengers = messengers.into_iter().map(|world| world.messenger);
        let joined: Vec<Result<_, CudaError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..)
                .zip(messengers)
                .map(|(rank, messenger)| {
                    scope.spawn(move || join_one(rank, messenger, nccl, options))
                })
                .collect();
            let panicked = |_| {
                Err(CudaError::World(BackendError::System {
                    what: "starting a rank".to_owned(),
                    why: "it panicked".to_owned(),
                }))
            };
            let ended = threads.into_iter().map(|thread| thread.join());
            ended.map(|it| it.unwrap_or_else(panicked)).collect()
        });
        let all: Result<Vec<_>, CudaError> = joined.into_iter().collect();
        let (worlds, controls) = all?.into_iter().unzip();
        Ok(Self { worlds, controls })
    }

    /// What the ranks see, in order; once.
    pub(crate) fn take_worlds(&mut self) -> Vec<World> {
        std::mem::take(&mut self.worlds)
    }

    /// Ends the connections in order, once nobody uses the worlds any more.
    ///
    /// # Errors
    /// [`BackendError::Aborted`] if the ranks were aborted.
    pub(crate) fn leave(self, limit: Duration) -> Result<(), BackendError> {
        drop(self.worlds);
        std::thread::scope(|scope| {
            let leave = |control: Arc<ControlPlane>| scope.spawn(move || control.leave(limit));
            let threads: Vec<_> = self.controls.into_iter().map(leave).collect();
            let ended = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or(Ok(())));
            ended.collect()
        })
    }
}

fn join_one(
    rank: Rank,
    messenger: Arc<dyn Messenger>,
    nccl: &Arc<Nccl>,
    options: &LocalOptions,
) -> Result<(World, Arc<ControlPlane>), CudaError> {
    let abort: Arc<Abort> = Arc::default();
    let patience = ControlOptions::new(options.nccl.timeout);
    let control = ControlPlane::join(&*messenger, HOST, Arc::clone(&abort), &patience)?;
    // Who fails on its own must not leave the others waiting.
    let told = |error: CudaError| {
        control.abort(&error.to_string());
        error
    };
    let device = CudaOptions {
        rank,
        ordinal: options.device.ordinal + rank as usize,
        ..options.device.clone()
    };
    let device = CudaDevice::in_world(device, &options.surroundings, None, &abort);
    let device = Arc::new(device.map_err(|error| told(error.into()))?);
    let measured = device.measure_peak(&options.peak);
    measured.map_err(|error| told(error.into()))?;
    let surround = Surround {
        messenger,
        control: Arc::clone(&control),
        abort,
    };
    let world = NcclWorld::join(nccl, &device, HOST, &surround, &options.nccl);
    Ok((world.map_err(told)?.into_world(), control))
}

/// All of these ranks are on one host, whatever it is called.
const HOST: &str = "this host";
