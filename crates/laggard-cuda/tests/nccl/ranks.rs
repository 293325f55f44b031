//! Worlds whose ranks are threads of this process, each with a stand-in for a GPU of its own.

use crate::fakes;
use laggard_backend::conformance::{Launcher, Violation};
use laggard_backend::control::{ControlOptions, ControlPlane};
use laggard_backend::threads::{ThreadOptions, worlds};
use laggard_backend::{Abort, BackendError, Messenger, World};
use laggard_cuda::{
    CudaDevice, CudaError, CudaOptions, Nccl, NcclOptions, NcclWorld, Surround, Surroundings,
};
use laggard_types::Rank;
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything takes here.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Ranks and what they use.
pub(crate) struct Ranks {
    pub options: NcclOptions,
    /// The GPU of each rank, by turns.
    pub gpus: Vec<usize>,
    /// NCCL of each rank, by turns.
    pub nccls: Vec<Arc<Nccl>>,
}

/// One rank before it has joined.
pub(crate) struct Candidate {
    pub rank: Rank,
    pub nccl: Arc<Nccl>,
    pub device: Arc<CudaDevice>,
    pub surround: Surround,
}

impl Ranks {
    /// Ranks with a GPU each, and one NCCL for all.
    pub(crate) fn new(options: NcclOptions) -> Self {
        let nccl = Nccl::load(&fakes::surroundings(false)).unwrap();
        Self {
            options,
            gpus: (0..4).collect(),
            nccls: vec![nccl],
        }
    }

    /// Has every rank of so many try to join, and then do something.
    pub(crate) fn each<T: Send>(
        &self,
        ranks: u32,
        body: &(dyn Fn(&Candidate, &NcclOptions) -> T + Sync),
    ) -> Vec<T> {
        let messengers = worlds(ranks, &ThreadOptions::default()).unwrap();
        let messengers = messengers.into_iter().map(|world| world.messenger);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..)
                .zip(messengers)
                .map(|(rank, messenger)| scope.spawn(move || self.one(rank, messenger, body)))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|it| it.expect("no panic")).collect()
        })
    }

    /// Has one rank try to join the others of a messenger, and then do something.
    pub(crate) fn one<T>(
        &self,
        rank: Rank,
        messenger: Arc<dyn Messenger>,
        body: &(dyn Fn(&Candidate, &NcclOptions) -> T + Sync),
    ) -> T {
        let abort: Arc<Abort> = Arc::default();
        let options = ControlOptions::new(LONG);
        let control = ControlPlane::join(&*messenger, "here", Arc::clone(&abort), &options);
        let control = control.unwrap();
        let device = CudaOptions {
            rank,
            ordinal: self.gpus[rank as usize % self.gpus.len()],
            self_check: false,
            ..CudaOptions::default()
        };
        let surroundings: Surroundings = fakes::surroundings(false);
        let device = CudaDevice::in_world(device, &surroundings, None, &abort).unwrap();
        let candidate = Candidate {
            rank,
            nccl: Arc::clone(&self.nccls[rank as usize % self.nccls.len()]),
            device: Arc::new(device),
            surround: Surround {
                messenger,
                control: Arc::clone(&control),
                abort,
            },
        };
        let outcome = body(&candidate, &self.options);
        drop(candidate);
        match control.leave(LONG) {
            Ok(()) | Err(BackendError::Aborted { .. }) => outcome,
            Err(error) => panic!("rank {rank} leaves: {error}"),
        }
    }
}

impl Candidate {
    /// Joins the others.
    pub(crate) fn join(&self, options: &NcclOptions) -> Result<NcclWorld, CudaError> {
        NcclWorld::join(&self.nccl, &self.device, "here", &self.surround, options)
    }
}

impl Launcher for Ranks {
    fn run(
        &self,
        ranks: u32,
        body: &(dyn Fn(&World) -> Result<(), Violation> + Sync),
    ) -> Result<(), Violation> {
        let outcomes = self.each(ranks, &|candidate, options| {
            let world = candidate.join(options).unwrap().into_world();
            body(&world)
        });
        outcomes.into_iter().collect()
    }
}
