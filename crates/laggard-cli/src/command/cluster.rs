//! `laggard run` under a launcher: one rank per process. Loads MPI, joins the control plane, and
//! runs this process's rank.

use crate::args::{RunArgs, WITNESS};
use crate::command::run::{code, tell, tell_compare, tell_next, watched};
use crate::gpus::{Gpus, Seat};
use crate::launcher::Launch;
use crate::output::talk;
use crate::{exit_code, failure, settings};
use anyhow::{Result, anyhow};
use laggard_backend::control::{ControlOptions, ControlPlane, WitnessProgram};
use laggard_backend::{Abort, CpuOptions, World};
use laggard_cuda::Surround;
use laggard_measure::{Member, Places, Settings, Summary, run_member};
use laggard_mpi::{Flavor, Mpi, MpiError, Place, WorldOptions};
use laggard_record::Communication;
use laggard_types::Rank;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the others may take to hear of a failure. One of them may be stopped and hear nothing.
const FAREWELL: Duration = Duration::from_millis(300);
/// How long a rank that says nothing of a failure leaves to those that do: a launcher ends all
/// ranks when the first ends in failure.
const SPEAKERS_FIRST: Duration = Duration::from_secs(1);
/// How long a process that has failed may take to end.
const END_WITHIN: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &RunArgs, launch: &Launch, quiet: bool) -> Result<u8> {
    // All ranks make the same mistake; one of them says so.
    let (gpus, jobs) = match asked(args, launch) {
        Ok(asked) => asked,
        Err(error) if launch.rank == 0 => return Err(error),
        Err(error) => {
            std::thread::sleep(SPEAKERS_FIRST);
            return Ok(failure::code(&error));
        }
    };
    let (settings, ranks) = own_job(&jobs, launch.rank)?;
    let started = Alarm::set(settings.init_timeout, launch);
    let joined = join(settings, (ranks, gpus.as_ref()), launch, quiet);
    started.off();
    let (process, member) = match joined {
        Ok(joined) => joined,
        Err(error) => end(launch.rank, true, &error, || ()),
    };
    let quiet = quiet || launch.rank != 0;
    let outcome = watched(settings.steps, args.time_limit, quiet, |hooks| {
        Ok(run_member(settings, member, hooks)?)
    });
    match outcome {
        Ok(summary) => {
            process.leave(settings.timeout);
            let told = |summary: Summary| {
                tell(settings, &summary, quiet);
                match &args.rehearsal.plan {
                    Some(_) if launch.rank == 0 => tell_compare(&args.rehearsal, &jobs),
                    Some(_) => (),
                    None => tell_next(&summary),
                }
                code(&summary)
            };
            Ok(summary.map_or(exit_code::DONE, told))
        }
        Err(error) => {
            // Only so that the others hear why; it waits for nobody.
            _ = process.control.leave(FAREWELL);
            let speaks = process.speaks(&error);
            end(launch.rank, speaks, &error, || process.end_job(&error))
        }
    }
}

/// The GPUs to compute on, if any, and the jobs to run.
fn asked(args: &RunArgs, launch: &Launch) -> Result<(Option<Gpus>, Vec<Settings>)> {
    let gpus = Gpus::find(args.device)?;
    let jobs = match &args.rehearsal.plan {
        Some(plan) => settings::of_plan(args, plan, (Some(launch), gpus.is_some()))?,
        None => {
            let count = gpus.as_ref().map(|gpus| gpus.count);
            vec![settings::of_run(args, Some(launch), count)?]
        }
    };
    Ok((gpus, jobs))
}

/// What connects this process to the others.
struct Process {
    mpi: Mpi,
    control: Arc<ControlPlane>,
}

/// The job that a rank works in, and the ranks of that job.
fn own_job(jobs: &[Settings], rank: Rank) -> Result<(&Settings, Range<Rank>)> {
    let mut first = 0;
    for job in jobs {
        let ranks = first..first + job.ranks();
        if ranks.contains(&rank) {
            return Ok((job, ranks));
        }
        first = ranks.end;
    }
    Err(anyhow!("rank {rank} has no job"))
}

fn join(
    settings: &Settings,
    (ranks, gpus): (Range<Rank>, Option<&Gpus>),
    launch: &Launch,
    quiet: bool,
) -> Result<(Process, Member)> {
    let (mpi, place) = load(launch)?;
    let deadline = Instant::now() + settings.init_timeout;
    let abort = Arc::new(Abort::default());
    let messenger = mpi.messenger(settings.init_timeout, &abort)?;
    let places = Places::exchange(&*messenger, deadline)?;
    // Jobs beside each other share hosts, but nothing else: each is a world of its own.
    let is_part = ranks.len() < place.size as usize;
    let (places, place, messenger) = match is_part {
        false => (places, place, messenger),
        true => {
            drop(messenger);
            let place = mpi.enter(ranks.clone())?;
            let messenger = mpi.messenger(settings.init_timeout, &abort)?;
            (places.part(ranks), place, messenger)
        }
    };
    let options = ControlOptions {
        join: deadline.saturating_duration_since(Instant::now()),
        // Joining is collective: who cannot find this program takes part, and starts no witness.
        witness: Some(WitnessProgram {
            program: std::env::current_exe().unwrap_or_default(),
            arguments: vec![WITNESS.to_owned()],
        }),
        ..ControlOptions::new(settings.timeout)
    };
    let rank = place.rank;
    let host = places.host(rank);
    let control = ControlPlane::join(&*messenger, host, Arc::clone(&abort), &options)?;
    control.watch_parent();
    if rank == 0 || control.is_leader() || control.host_ranks().get(1) == Some(&rank) {
        control.on_silence(move |loss| talk(&format!("[rank {rank}] {loss}")));
    }
    let seat = Seat {
        rank,
        on_host: place_on_host(&control, rank),
        host: places.host(rank),
        surround: Surround {
            messenger,
            control: Arc::clone(&control),
            abort,
        },
    };
    let (world, communication) = match gpus {
        Some(gpus) => (gpus.world(&seat, settings.timeout)?, gpus.communication()),
        None => on_processors(&mpi, seat.surround, settings, places.processor_of(rank))?,
    };
    if rank == 0 && !quiet {
        talk(&format!(
            "{} ranks over {}",
            place.size, communication.backend
        ));
    }
    let member = Member {
        world,
        control: Arc::clone(&control),
        places,
        communication,
    };
    Ok((Process { mpi, control }, member))
}

/// A rank's position among those of its host.
fn place_on_host(control: &ControlPlane, rank: Rank) -> usize {
    let own = control.host_ranks().iter().position(|it| *it == rank);
    own.unwrap_or(0)
}

/// A world of processors, connected by MPI.
fn on_processors(
    mpi: &Mpi,
    surround: Surround,
    settings: &Settings,
    bind_cpu: Option<u32>,
) -> Result<(World, Communication)> {
    // The world makes a messenger of its own.
    drop(surround.messenger);
    let options = WorldOptions {
        timeout: settings.timeout,
        cpu: CpuOptions {
            bind_cpu,
            ..CpuOptions::default()
        },
        ..WorldOptions::default()
    };
    let communication = Communication {
        backend: mpi.library_version(),
        progress: "polled by a communication thread of each rank".to_owned(),
    };
    let world = mpi.world(&options, surround.control, surround.abort)?;
    Ok((world, communication))
}

/// Loads and starts the MPI that the launcher speaks.
fn load(launch: &Launch) -> Result<(Mpi, Place)> {
    let mut first = None;
    for flavor in &launch.flavors {
        match Mpi::load(*flavor) {
            Ok(mpi) => {
                let place = mpi.init()?;
                return Ok((mpi, place));
            }
            Err(error) => first = first.or(Some(error)),
        }
    }
    let (launcher, size) = (launch.launcher, launch.size);
    let words = format!("{launcher} has started {size} processes, which cannot find each other");
    let error = first.map_or_else(|| anyhow!("no MPI is known"), |e: MpiError| anyhow!(e));
    Err(error.context(words))
}

impl Process {
    /// Whether this rank tells of an error: of what all ranks know, one rank of each host does.
    fn speaks(&self, error: &anyhow::Error) -> bool {
        !failure::is_shared(error) || self.control.is_first_left()
    }

    /// Has MPICH end the job after a loss, once those who tell of it have: its launcher waits for
    /// ranks that neither end nor answer.
    fn end_job(&self, error: &anyhow::Error) {
        if self.mpi.flavor() == Flavor::Mpich
            && failure::is_shared(error)
            && self.control.is_first_left()
        {
            let code = i32::from(failure::code(error));
            std::thread::sleep(SPEAKERS_FIRST);
            if let Err(error) = self.mpi.kill_job(code) {
                tracing::warn!(%error, "the job was not ended");
            }
        }
    }

    /// Ends in order, together with the others.
    fn leave(self, patience: Duration) {
        if let Err(error) = self.control.leave(patience) {
            tracing::warn!(%error, "not all ranks left in order");
        }
        if let Err(error) = self.mpi.finalize() {
            tracing::warn!(%error, "MPI was not finalised");
        }
    }
}

/// Ends the process after a failure. Others may be gone, so nothing that needs them is waited for.
#[expect(
    clippy::exit,
    reason = "threads may wait in MPI for ranks that are gone"
)]
fn end(rank: Rank, speaks: bool, error: &anyhow::Error, last: impl FnOnce()) -> ! {
    let code = failure::code(error);
    if speaks {
        talk(&format!("[rank {rank}] {}", failure::message(error)));
    } else {
        std::thread::sleep(SPEAKERS_FIRST);
    }
    // What MPI does when a process ends must not keep it from ending.
    std::thread::spawn(|| {
        std::thread::sleep(END_WITHIN);
        std::process::abort();
    });
    last();
    std::process::exit(i32::from(code))
}

/// Ends the process if the ranks do not find each other in time: MPI itself would wait for ever.
struct Alarm(Arc<AtomicBool>);

impl Alarm {
    fn set(patience: Duration, launch: &Launch) -> Self {
        let off = Arc::new(AtomicBool::new(false));
        let (is_off, rank, size) = (Arc::clone(&off), launch.rank, launch.size);
        std::thread::spawn(move || {
            std::thread::sleep(patience);
            if !is_off.load(Ordering::Acquire) {
                let error = anyhow!(
                    "not all of the {size} ranks have started within {} s\n\
                     hint: raise --init-timeout, or see which process or host hangs",
                    patience.as_secs()
                );
                end(rank, true, &error.context(failure::NotStarted), || ());
            }
        });
        Self(off)
    }

    fn off(self) {
        self.0.store(true, Ordering::Release);
    }
}
