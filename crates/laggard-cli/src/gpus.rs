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
    NcclWorld, Outcome, ProductEngine, Surround, Surroundings, probe,
};
use laggard_measure::{Hooks, Settings, Summary, run_on};
use laggard_record::Communication;
use laggard_types::Rank;
use std::sync::Arc;
use std::time::Duration;

/// What ranks on GPUs need, found and loaded.
pub(crate) struct Gpus {
    surroundings: Surroundings,
    nccl: Arc<Nccl>,
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
        let surroundings = Surroundings::of_process();
        match device {
            OnDevice::Cpu => Ok(None),
            OnDevice::Gpu => Self::load(surroundings).map(Some),
            OnDevice::Auto => {
                let found = probe(&surroundings);
                let driver = found.iter().find(|it| it.library == CudaLibrary::Driver);
                if !driver.is_some_and(|it| matches!(it.outcome, Outcome::Usable { .. })) {
                    return Ok(None);
                }
                match Self::load(surroundings) {
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
            nccl: Nccl::load(&surroundings)?,
            engines: engine.into_iter().collect(),
            surroundings,
            count,
        })
    }

    /// The world of a rank on its GPU. Collective.
    pub(crate) fn world(&self, seat: &Seat<'_>, timeout: Duration) -> Result<World> {
        let options = CudaOptions {
            // A launcher may show each rank its own GPU alone; NCCL notices GPUs that are shared.
            ordinal: seat.on_host % self.count,
            rank: seat.rank,
            engines: self.engines.clone(),
            race_engines: true,
            ..CudaOptions::default()
        };
        let cache = CubinCache::of_user();
        let device =
            CudaDevice::in_world(options, &self.surroundings, cache, &seat.surround.abort)?;
        for doubt in device.doubts() {
            talk(&format!("[rank {}] {doubt}", seat.rank));
        }
        let options = NcclOptions {
            timeout,
            ..NcclOptions::default()
        };
        let device = Arc::new(device);
        let world = NcclWorld::join(&self.nccl, &device, seat.host, &seat.surround, &options);
        Ok(world?.into_world())
    }

    /// What carries the collectives, for the record.
    pub(crate) fn communication(&self) -> Communication {
        Communication {
            backend: format!("NCCL {}", self.nccl.version()),
            progress: "by kernels on streams of each GPU".to_owned(),
        }
    }

    /// Runs a job on ranks of this process, each with a GPU.
    pub(crate) fn run(&self, settings: &Settings, hooks: &Hooks<'_>) -> Result<Summary> {
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
        let summary = run_on(settings, worlds, self.communication(), hooks)?;
        std::thread::scope(|scope| {
            for control in &controls {
                scope.spawn(|| {
                    if let Err(error) = control.leave(settings.timeout) {
                        tracing::warn!(%error, "not all ranks left in order");
                    }
                });
            }
        });
        Ok(summary)
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
