//! The GPUs of this machine as devices of a run's ranks, connected by NCCL.

use crate::args::OnDevice;
use crate::failure::is_echo;
use crate::output::talk;
use anyhow::{Context, Result, anyhow};
use laggard_backend::control::{ControlOptions, ControlPlane};
use laggard_backend::threads::{ThreadOptions, worlds};
use laggard_backend::{Abort, Messenger, World};
use laggard_cuda::{
    CubinCache, CublasLt, CudaDevice, CudaError, CudaLibrary, CudaOptions, Gpu, Nccl, NcclOptions,
    NcclWorld, Outcome, PeakOptions, ProductEngine, Share, Surround, Surroundings, probe,
};
use laggard_measure::{Hooks, Settings, Summary, run_on};
use laggard_record::Communication;
use laggard_types::Rank;
use std::sync::Arc;
use std::time::Duration;

/// How a GPU's pace is measured: what is reckoned by it is counted in the same arithmetic, so that
/// small products do.
const PACE: PeakOptions = PeakOptions {
    edge: 256,
    products: 2,
    timeout: Duration::from_secs(60),
};

/// What ranks on GPUs need, found and loaded.
pub(crate) struct Gpus {
    pub(crate) surroundings: Surroundings,
    nccl: Result<Arc<Nccl>, CudaError>,
    /// The parts of the one GPU that ranks are confined to, in their order; empty where they are
    /// not.
    pub(crate) shares: Vec<Share>,
    /// Whether each GPU's pace is measured before anything else.
    is_paced: bool,
    engines: Vec<Arc<dyn ProductEngine>>,
    /// GPUs that this process sees.
    pub(crate) count: usize,
}

/// A rank before it has a GPU.
pub(crate) struct Seat<'a> {
    pub(crate) rank: Rank,
    /// Its position among the ranks of its host.
    pub(crate) on_host: usize,
    pub(crate) host: &'a str,
    pub(crate) surround: Surround,
}

impl Gpus {
    /// The GPUs, if ranks are to compute on them: where that is left open, if all is there.
    pub(crate) fn find(device: OnDevice) -> Result<Option<Self>> {
        Self::found(device, |gpus| gpus.nccl().map(|_| ()))
    }

    /// The same for ranks that may have one GPU in common: they can do without NCCL.
    pub(crate) fn find_shared(device: OnDevice) -> Result<Option<Self>> {
        Self::found(device, |_| Ok(()))
    }

    fn found(device: OnDevice, check: fn(&Self) -> Result<()>) -> Result<Option<Self>> {
        let surroundings = Surroundings::of_process();
        let load = |surroundings| {
            let gpus = Self::load(surroundings)?;
            check(&gpus).map(|()| gpus)
        };
        match device {
            OnDevice::Cpu => Ok(None),
            OnDevice::Gpu => load(surroundings).map(Some),
            OnDevice::Auto => {
                let found = probe(&surroundings);
                let driver = found.iter().find(|it| it.library == CudaLibrary::Driver);
                if !driver.is_some_and(|it| matches!(it.outcome, Outcome::Usable { .. })) {
                    return Ok(None);
                }
                match load(surroundings) {
                    Ok(gpus) => Ok(Some(gpus)),
                    Err(error) => {
                        talk(&format!("the GPUs are not used: {error:#}"));
                        Ok(None)
                    }
                }
            }
        }
    }

    fn load(surroundings: Surroundings) -> Result<Self> {
        let count = Gpu::count(&surroundings)?;
        // Where there is none, products are those of this program's own kernels.
        let engine = CublasLt::load(&surroundings);
        let engine = engine.ok().map(|it| it as Arc<dyn ProductEngine>);
        Ok(Self {
            nccl: Nccl::load(&surroundings),
            shares: Vec::new(),
            is_paced: false,
            engines: engine.into_iter().collect(),
            surroundings,
            count,
        })
    }

    /// NCCL, without which ranks on GPUs of their own cannot be connected.
    fn nccl(&self) -> Result<&Arc<Nccl>> {
        Ok(self.nccl.as_ref().map_err(Clone::clone)?)
    }

    /// The same, with each rank confined to a part of the one GPU.
    pub(crate) fn divided(self, shares: Vec<Share>) -> Self {
        Self { shares, ..self }
    }

    /// The same, where ranks know what arithmetic takes on their GPUs, to come late by it.
    pub(crate) fn paced(self) -> Self {
        Self {
            is_paced: true,
            ..self
        }
    }

    /// Whether NCCL connects ranks that have one GPU in common.
    pub(crate) fn lets_ranks_share(&self) -> bool {
        self.nccl
            .as_ref()
            .is_ok_and(|nccl| NcclWorld::lets_ranks_share(nccl))
    }

    /// The device of a rank, whose position among the ranks of its host comes with it.
    pub(crate) fn device(
        &self,
        (rank, on_host): (Rank, usize),
        abort: &Arc<Abort>,
    ) -> Result<CudaDevice> {
        let options = CudaOptions {
            // A launcher may show each rank its own GPU alone; NCCL notices GPUs that are shared.
            ordinal: on_host % self.count,
            share: self.shares.get(rank as usize).cloned(),
            rank,
            engines: self.engines.clone(),
            race_engines: true,
            ..CudaOptions::default()
        };
        let cache = CubinCache::of_user();
        let device = CudaDevice::in_world(options, &self.surroundings, cache, abort)?;
        if self.is_paced {
            device.measure_peak(&PACE)?;
        }
        for doubt in device.doubts() {
            talk(&format!("[rank {rank}] {doubt}"));
        }
        if let Some(limit) = device.mps().and_then(|client| client.thread_percentage) {
            talk(&format!(
                "[rank {rank}] MPS grants {limit} % of the GPU's threads"
            ));
        }
        Ok(device)
    }

    /// The world of a rank on its GPU. Collective.
    pub(crate) fn world(&self, seat: &Seat<'_>, timeout: Duration) -> Result<World> {
        let device = self.device((seat.rank, seat.on_host), &seat.surround.abort)?;
        let options = NcclOptions {
            timeout,
            ..NcclOptions::default()
        };
        let device = Arc::new(device);
        let world = NcclWorld::join(self.nccl()?, &device, seat.host, &seat.surround, &options);
        Ok(world?.into_world())
    }

    /// What carries the collectives, for the record.
    pub(crate) fn communication(&self) -> Communication {
        let version = self.nccl.as_ref().map(|nccl| nccl.version().to_string());
        Communication {
            backend: format!("NCCL {}", version.unwrap_or_default()),
            progress: "by kernels on streams of each GPU".to_owned(),
        }
    }

    /// Runs a job on ranks of this process, each with a GPU.
    pub(crate) fn run(&self, settings: &Settings, hooks: &Hooks<'_>) -> Result<Summary> {
        self.in_process(settings, |worlds| {
            Ok(run_on(settings, worlds, self.communication(), hooks)?)
        })
    }

    /// Does something in the worlds of ranks of this process, each with a GPU; of the job only
    /// ranks and time limits count.
    pub(crate) fn in_process<T>(
        &self,
        settings: &Settings,
        work: impl FnOnce(Vec<World>) -> Result<T>,
    ) -> Result<T> {
        let messengers = worlds(settings.ranks(), &ThreadOptions::default())?;
        let messengers = messengers.into_iter().map(|world| world.messenger);
        let joined: Vec<Result<_>> = std::thread::scope(|scope| {
            let join =
                |(rank, messenger)| scope.spawn(move || self.join(rank, messenger, settings));
            let threads: Vec<_> = (0..).zip(messengers).map(join).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .map(|it| it.unwrap_or_else(|_| Err(anyhow!("the thread of a rank panicked"))))
                .collect()
        });
        let (joined, failures): (Vec<_>, Vec<_>) = joined.into_iter().partition(Result::is_ok);
        if let Some(error) = first_cause(failures.into_iter().filter_map(Result::err)) {
            return Err(error);
        }
        let (worlds, controls): (Vec<World>, Vec<_>) = joined.into_iter().flatten().unzip();
        let outcome = work(worlds)?;
        std::thread::scope(|scope| {
            for control in &controls {
                scope.spawn(|| {
                    if let Err(error) = control.leave(settings.timeout) {
                        tracing::warn!(%error, "not all ranks left in order");
                    }
                });
            }
        });
        Ok(outcome)
    }

    fn join(
        &self,
        rank: Rank,
        messenger: Arc<dyn Messenger>,
        settings: &Settings,
    ) -> Result<(World, Arc<ControlPlane>)> {
        const HERE: &str = "this host";
        let abort: Arc<Abort> = Arc::default();
        let options = ControlOptions {
            join: settings.init_timeout,
            ..ControlOptions::new(settings.timeout)
        };
        let control = ControlPlane::join(&*messenger, HERE, Arc::clone(&abort), &options)?;
        let seat = Seat {
            rank,
            on_host: rank as usize,
            host: HERE,
            surround: Surround {
                messenger,
                control: Arc::clone(&control),
                abort,
            },
        };
        let world = self.world(&seat, settings.timeout);
        let world = world.with_context(|| format!("rank {rank} has no GPU to compute on"));
        // The others need not wait for a rank that will not come.
        let world = world.inspect_err(|error| control.abort(&format!("{error:#}")))?;
        Ok((world, control))
    }
}

/// Why ranks failed together: an error that is not the echo of another's, if there is one.
fn first_cause(mut errors: impl Iterator<Item = anyhow::Error>) -> Option<anyhow::Error> {
    let first = errors.next()?;
    if !is_echo(&first) {
        return Some(first);
    }
    Some(errors.find(|error| !is_echo(error)).unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use laggard_backend::BackendError;

    #[test]
    fn a_cause_is_told_before_its_echoes() {
        let echo = || {
            let reason = "rank 1 has no GPU".to_owned();
            let error = BackendError::Aborted { rank: 0, reason };
            anyhow!(CudaError::World(error)).context("rank 0")
        };
        let told = |errors: Vec<anyhow::Error>| {
            let first = first_cause(errors.into_iter());
            first.map(|error| error.to_string())
        };
        assert_eq!(told(vec![]), None);
        assert_eq!(told(vec![echo()]).as_deref(), Some("rank 0"));
        let errors = vec![echo(), anyhow!("no memory"), anyhow!("a later one")];
        assert_eq!(told(errors).as_deref(), Some("no memory"));
    }
}
