//! MPI as a whole: loading and starting it, and making worlds of it.

use crate::abi::{self, Comm};
use crate::cargo::rank_of;
use crate::communicator::MpiCommunicator;
use crate::find::{PLUGIN_VARIABLE, plugin};
use crate::group::{Group, Settings};
use crate::library::{Failed, Library};
use crate::line::{Line, Stopped};
use crate::messenger::MpiMessenger;
use crate::wait::{Ended, Pace, wait_until};
use crate::{Flavor, MpiError};
use laggard_backend::agreement::mixed;
use laggard_backend::{
    Abort, BackendError, Communicator, CpuDevice, CpuOptions, GroupId, Messenger, RollCall, World,
};
use laggard_types::Rank;
use std::convert::Infallible;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long ranks wait for each other by default.
const USUAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the last messages may take to be delivered before MPI is finalised.
const LAST_MESSAGES: Duration = Duration::from_secs(5);

/// Environment variables in which launchers say how many ranks they start: Open MPI's `mpirun`,
/// the PMI launchers of MPICH and its kin, Slurm's `srun`.
const SIZE_VARIABLES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// This process's place among all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// This rank.
    pub rank: Rank,
    /// How many ranks there are.
    pub size: u32,
}

/// How a world is set up.
#[derive(Debug, Clone)]
pub struct WorldOptions {
    /// How long a rank waits for the others in one call before all give up.
    pub timeout: Duration,
    /// How this rank's device is set up; its rank is that of MPI. `spin` also holds for
    /// collectives.
    pub cpu: CpuOptions,
    /// For how long the device's arithmetic peak is measured, by all ranks at the same time; see
    /// [`CpuDevice::measure_peak`]. Not measured if absent.
    pub measure_peak: Option<Duration>,
    /// Whether ranks compare their calls before each one, so that a mismatch is an error on every
    /// rank instead of whatever MPI makes of it. Off by default: it adds a small collective to
    /// every call, inside its stamp.
    pub check_calls: bool,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            timeout: USUAL_TIMEOUT,
            cpu: CpuOptions::default(),
            measure_peak: None,
            check_calls: false,
        }
    }
}

/// An MPI library in this process.
///
/// MPI can be initialised once per process, and stays loaded until the process ends.
pub struct Mpi {
    flavor: Flavor,
    path: PathBuf,
    library: Arc<Library>,
    started: OnceLock<(Comm, Place)>,
    /// The ranks that this process has entered a part with.
    part: OnceLock<(Comm, Place)>,
    /// Worlds made so far; all ranks make the same ones, so that this tells them apart.
    worlds: AtomicU64,
}

impl Mpi {
    /// Loads the plugin of a flavor, and with it MPI: the file that `LAGGARD_MPI_PLUGIN` names,
    /// else `liblaggard_mpi_<flavor>.so` beside the executable or in its `../lib/laggard`.
    ///
    /// # Errors
    /// [`MpiError::NoPlugin`], [`MpiError::NotLoaded`], [`MpiError::WrongVersion`] or
    /// [`MpiError::WrongFlavor`].
    pub fn load(flavor: Flavor) -> Result<Self, MpiError> {
        let executable = std::env::current_exe().ok();
        let named = std::env::var_os(PLUGIN_VARIABLE);
        let path = plugin(flavor, named, executable.as_deref())?;
        let library = Arc::new(Library::load(flavor, &path)?);
        tracing::debug!(path = %path.display(), version = library.version(), "plugin loaded");
        Ok(Self {
            flavor,
            path,
            library,
            started: OnceLock::new(),
            part: OnceLock::new(),
            worlds: AtomicU64::new(0),
        })
    }

    /// The flavor asked for.
    pub fn flavor(&self) -> Flavor {
        self.flavor
    }

    /// The plugin's file.
    pub fn plugin_path(&self) -> &std::path::Path {
        &self.path
    }

    /// The MPI library's name and version, such as `Open MPI v4.1.4`.
    pub fn library_version(&self) -> String {
        short_version(&self.library.version())
    }

    /// Initialises MPI, by the thread that will finalise it; gives this process's place. Without a
    /// launcher, it is the only rank of one.
    ///
    /// # Errors
    /// [`MpiError::WrongLauncher`] if the launcher says another number of ranks than MPI;
    /// [`MpiError::Refused`] if MPI was initialised before, or refuses.
    pub fn init(&self) -> Result<Place, MpiError> {
        let comm = self
            .library
            .init()
            .map_err(|e| self.refused("MPI_Init_thread", e))?;
        let place = self.library.adopt(comm);
        let place = place.map_err(|e| self.refused("asking for the world's size", e))?;
        let place = place_of(place);
        let launched = SIZE_VARIABLES
            .iter()
            .find_map(|name| Some((*name, std::env::var(name).ok()?)));
        check_launcher(self.flavor, place.size, launched)?;
        let _ = self.started.set((comm, place));
        Ok(place)
    }

    /// Makes some consecutive ranks a job of their own: messengers and worlds that are made from
    /// now on are between these alone, and number them from 0. Collective over these ranks, of
    /// which this process is one; each process enters one part.
    ///
    /// # Errors
    /// [`MpiError::NotInitialised`]; [`MpiError::Refused`] if MPI refuses, or this is the second
    /// part.
    pub fn enter(&self, ranks: Range<Rank>) -> Result<Place, MpiError> {
        let (comm, _) = self.started()?;
        let what = "taking a part of the ranks";
        let list: Vec<_> = ranks.map(rank_of).collect();
        let part = self.library.subset(comm, &list, 0);
        let part = part.map_err(|failed| self.refused(what, failed))?;
        let place = self.library.adopt(part);
        let place = place_of(place.map_err(|failed| self.refused(what, failed))?);
        let entered = self.part.set((part, place));
        entered.map_err(|_| MpiError::Refused {
            what: what.to_owned(),
            why: "this process has entered a part already".to_owned(),
        })?;
        Ok(place)
    }

    /// Messages between all ranks, outside of any world: what a control plane is built with.
    /// Collective.
    ///
    /// # Errors
    /// [`MpiError::NotInitialised`]; [`MpiError::World`] if a rank does not come within `timeout`.
    pub fn messenger(
        &self,
        timeout: Duration,
        abort: &Abort,
    ) -> Result<Arc<dyn Messenger>, MpiError> {
        let line = self.line(timeout, abort, "the messenger")?;
        Ok(Arc::new(MpiMessenger::new(line)))
    }

    /// What this rank sees of the job: control, data and messages over MPI, and a CPU device that
    /// is aborted together with them. Collective: every rank makes the same worlds in the same
    /// order.
    ///
    /// MPI itself carries no abort to other processes and cannot tell who is missing: `abort` must
    /// be joined with those of the other ranks, and `roll_call` must reach them. What fails on one
    /// rank alone aborts the world. After an abort, memory that MPI may still write to is leaked.
    ///
    /// # Errors
    /// [`MpiError::NotInitialised`]; [`MpiError::World`] if a rank does not come within the
    /// timeout, or the system refuses a thread or a measurement.
    pub fn world(
        &self,
        options: &WorldOptions,
        roll_call: Arc<dyn RollCall>,
        abort: Arc<Abort>,
    ) -> Result<World, MpiError> {
        let (_, Place { rank, size }) = self.started()?;
        let number = self.worlds.fetch_add(1, Ordering::SeqCst);
        let device = CpuOptions {
            rank,
            ..options.cpu.clone()
        };
        let device = Arc::new(CpuDevice::in_world(device, Arc::clone(&abort)));
        if let Some(duration) = options.measure_peak {
            device.measure_peak(duration)?;
        }
        let settings = Arc::new(Settings {
            timeout: options.timeout,
            pace: Pace {
                spin: options.cpu.spin,
                ..Pace::USUAL
            },
            check_calls: options.check_calls,
            roll_call,
            abort,
        });
        let abort = &settings.abort;
        let line = |what| self.line(options.timeout, abort, what);
        let group = |at: u64| -> Result<Box<dyn Communicator>, MpiError> {
            let lines = (line("a communicator")?, line("a communicator")?);
            let id = GroupId(mixed(&[number, at]));
            let group = Group::new(lines, (0..size).collect(), id, &settings);
            Ok(Box::new(MpiCommunicator::new(group, &device)))
        };
        Ok(World {
            control: group(0)?,
            data: group(1)?,
            messenger: Arc::new(MpiMessenger::new(line("the messenger")?)),
            device,
        })
    }

    /// Finalises MPI; collective. Returns `false` without doing so if operations were given up: it
    /// would wait for ranks that may be gone, and over UCX sometimes for ever even if none is. The
    /// process then simply ends.
    ///
    /// # Errors
    /// [`MpiError::InUse`] while worlds or messengers live; [`MpiError::Refused`] if MPI refuses.
    pub fn finalize(self) -> Result<bool, MpiError> {
        if self.started.get().is_none() || self.library.abandoned() > 0 {
            return Ok(false);
        }
        let in_use = || self.library.communicators().load(Ordering::SeqCst);
        let deadline = Instant::now() + LAST_MESSAGES;
        let free = wait_until(Pace::USUAL, deadline, || {
            Ok::<_, Infallible>((in_use() == 0).then_some(()))
        });
        if free == Ok(Ended::Late) {
            let communicators = in_use();
            return Err(MpiError::InUse { communicators });
        }
        if let Some((part, _)) = self.part.get() {
            self.library.free(*part);
        }
        self.library
            .finalize()
            .map_err(|e| self.refused("MPI_Finalize", e))?;
        Ok(true)
    }

    /// Has MPI end all processes of the job at once, this one included: the last resort when ranks
    /// cannot be reached any more. Returns only if MPI refuses.
    ///
    /// # Errors
    /// [`MpiError::NotInitialised`], [`MpiError::Refused`].
    pub fn kill_job(&self, exit_code: i32) -> Result<(), MpiError> {
        let whole = self.started.get().ok_or(MpiError::NotInitialised)?;
        let killed = self.library.abort(whole.0, exit_code);
        killed.map_err(|e| self.refused("MPI_Abort", e))
    }

    /// The ranks of this process's job: the part that it has entered, else all.
    fn started(&self) -> Result<(Comm, Place), MpiError> {
        let job = self.part.get().or(self.started.get());
        job.copied().ok_or(MpiError::NotInitialised)
    }

    fn line(&self, timeout: Duration, abort: &Abort, what: &str) -> Result<Arc<Line>, MpiError> {
        let (comm, Place { rank, .. }) = self.started()?;
        let deadline = Instant::now() + timeout;
        let line = Line::duplicate(&self.library, (comm, rank), abort, deadline, || Ok(()));
        line.map_err(|stopped| match stopped {
            Stopped::Failed(error) => MpiError::World(error),
            Stopped::Late | Stopped::Truncated => MpiError::World(BackendError::Timeout {
                rank,
                waited: timeout,
                waiting_for: what.to_owned(),
                missing: Vec::new(),
            }),
        })
    }

    fn refused(&self, what: &str, failed: Failed) -> MpiError {
        MpiError::Refused {
            what: what.to_owned(),
            why: self.library.explain(failed),
        }
    }
}

fn place_of(place: abi::Place) -> Place {
    let number = |n| u32::try_from(n).unwrap_or(0);
    Place {
        rank: number(place.rank),
        size: number(place.size),
    }
}

/// Libraries describe themselves at length: only their name and version are of use here.
fn short_version(described: &str) -> String {
    let line = described.lines().next().unwrap_or_default();
    let name = line.split(',').next().unwrap_or_default();
    let words = name.split_whitespace().filter(|word| *word != "Version:");
    words.collect::<Vec<_>>().join(" ")
}

/// Whether MPI and the launcher agree on the number of ranks. Under the launcher of another MPI,
/// every process believes to be alone.
fn check_launcher(
    flavor: Flavor,
    size: u32,
    launched: Option<(&str, String)>,
) -> Result<(), MpiError> {
    match launched {
        Some((variable, wanted)) if wanted != size.to_string() => Err(MpiError::WrongLauncher {
            flavor,
            size,
            variable: variable.to_owned(),
            wanted,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_name_and_a_number() {
        let open_mpi = "Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4";
        assert_eq!(short_version(open_mpi), "Open MPI v4.1.4");
        let mpich = "MPICH Version:\t4.0.2\nMPICH Release date:\tThu Apr  7";
        assert_eq!(short_version(mpich), "MPICH 4.0.2");
    }

    #[test]
    fn the_launcher_of_another_mpi_is_refused() {
        let check = |launched: Option<&str>| {
            let launched = launched.map(|size| ("PMI_SIZE", size.to_owned()));
            check_launcher(Flavor::OpenMpi, 1, launched)
        };
        assert_eq!(check(None), Ok(()));
        assert_eq!(check(Some("1")), Ok(()));
        let error = check(Some("4")).unwrap_err().to_string();
        assert!(
            error.contains("Open MPI sees 1 ranks, and PMI_SIZE says 4"),
            "{error}"
        );
    }
}
