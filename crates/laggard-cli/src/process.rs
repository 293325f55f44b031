//! This process as one of several that a launcher started: how it finds the others, over MPI or by
//! meeting where the launcher says, what it computes on, and how it ends together with them.

use crate::failure::{self, Together};
use crate::gpus::{Gpus, Seat};
use crate::launcher::Launch;
use crate::output::talk;
use anyhow::{Result, anyhow};
use laggard_backend::control::{ControlOptions, ControlPlane, WitnessProgram, part_of};
use laggard_backend::{Abort, CpuOptions, Messenger, World, messenger};
use laggard_cuda::Surround;
use laggard_measure::{Member, Places, Settings, host_name};
use laggard_mpi::{Flavor, Mpi, MpiError, WorldOptions};
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
pub(crate) const SPEAKERS_FIRST: Duration = Duration::from_secs(1);
/// How long a process that has failed may take to end.
const END_WITHIN: Duration = Duration::from_secs(2);

/// What connects this process to the others.
pub(crate) struct Process {
    connection: Connection,
    control: Arc<ControlPlane>,
}

/// What carried the first messages between processes.
enum Connection {
    Mpi(Mpi),
    Tcp,
}

/// What a rank has once all are connected.
pub(crate) struct Arrival {
    /// Its rank in its job.
    pub(crate) rank: Rank,
    places: Places,
    surround: Surround,
}

impl Process {
    /// Connects this process to those of its job's ranks, which are these of the launch. Collective
    /// over the launch.
    pub(crate) fn join(
        job: &Settings,
        ranks: Range<Rank>,
        (launch, witness): (&Launch, &str),
    ) -> Result<(Self, Arrival)> {
        let deadline = Instant::now() + job.init_timeout;
        let abort = Arc::new(Abort::default());
        let started = Alarm::set(job.init_timeout, launch);
        let (connection, messenger) = Connection::open(launch, job.init_timeout, &abort)?;
        let places = Places::exchange(&*messenger, deadline)?;
        // Jobs beside each other share hosts, but nothing else: each is a world of its own.
        let is_part = ranks.len() < launch.size as usize;
        let (places, messenger) = match is_part {
            false => (places, messenger),
            true => {
                let own = places.part(ranks.clone());
                let part = connection.part(messenger, ranks, (&places, deadline), &abort)?;
                (own, part)
            }
        };
        let options = ControlOptions {
            join: deadline.saturating_duration_since(Instant::now()),
            // Joining is collective: who cannot find this program takes part, and starts no
            // witness.
            witness: Some(WitnessProgram {
                program: std::env::current_exe().unwrap_or_default(),
                arguments: vec![witness.to_owned()],
            }),
            ..ControlOptions::new(job.timeout)
        };
        let rank = messenger.rank();
        let host = places.host(rank);
        let control = ControlPlane::join(&*messenger, host, Arc::clone(&abort), &options)?;
        // From here on every wait has a limit of its own, and names those that are missing.
        started.off();
        control.watch_parent();
        if rank == 0 || control.is_leader() || control.host_ranks().get(1) == Some(&rank) {
            control.on_silence(move |loss| talk(&format!("[rank {rank}] {loss}")));
        }
        let surround = Surround {
            messenger,
            control: Arc::clone(&control),
            abort,
        };
        let arrival = Arrival {
            rank,
            places,
            surround,
        };
        let process = Self {
            connection,
            control,
        };
        Ok((process, arrival))
    }

    /// Gives the rank its device and its world. Collective; the others are told of a failure.
    pub(crate) fn member(
        &self,
        arrival: Arrival,
        gpus: Result<Option<Gpus>>,
        (job, launch): (&Settings, &Launch),
    ) -> Result<Member> {
        let member = self.try_member(arrival, gpus, (job, launch));
        member.inspect_err(|error| {
            if !failure::is_shared(error) {
                self.control.abort(&failure::cause(error));
            }
        })
    }

    fn try_member(
        &self,
        arrival: Arrival,
        gpus: Result<Option<Gpus>>,
        (job, launch): (&Settings, &Launch),
    ) -> Result<Member> {
        let Arrival {
            rank,
            places,
            surround,
        } = arrival;
        let gpus = agree(&*surround.messenger, &places, gpus, job.init_timeout)?;
        let control = Arc::clone(&surround.control);
        let (world, communication) = match (gpus, &self.connection) {
            (Some(gpus), _) => {
                let seat = Seat {
                    rank,
                    on_host: place_on_host(&control, rank),
                    host: places.host(rank),
                    surround,
                };
                (gpus.world(&seat, job.timeout)?, gpus.communication())
            }
            (None, Connection::Mpi(mpi)) => {
                on_processors(mpi, surround, job, places.processor_of(rank))?
            }
            (None, Connection::Tcp) => {
                let (launcher, size) = (launch.launcher, launch.size);
                return Err(anyhow!(Together(format!(
                    "{launcher} has started {size} ranks on processors, which MPI alone connects\n\
                     hint: start them with mpirun or srun, or give --device gpu"
                ))));
            }
        };
        Ok(Member {
            world,
            control,
            places,
            communication,
        })
    }

    /// Ends in order, together with the others.
    pub(crate) fn leave(self, patience: Duration) {
        if let Err(error) = self.control.leave(patience) {
            tracing::warn!(%error, "not all ranks left in order");
        }
        if let Connection::Mpi(mpi) = self.connection
            && let Err(error) = mpi.finalize()
        {
            tracing::warn!(%error, "MPI was not finalised");
        }
    }

    /// Ends the process after a failure of the job.
    pub(crate) fn fail(&self, rank: Rank, error: &anyhow::Error) -> ! {
        // Only so that the others hear why; it waits for nobody.
        _ = self.control.leave(FAREWELL);
        // Of what all ranks know, one rank of each host tells.
        let speaks = !failure::is_shared(error) || self.control.is_first_left();
        end(rank, speaks, error, || self.end_job(error))
    }

    /// Has MPICH end the job after a loss, once those who tell of it have: its launcher waits for
    /// ranks that neither end nor answer.
    fn end_job(&self, error: &anyhow::Error) {
        let Connection::Mpi(mpi) = &self.connection else {
            return;
        };
        if mpi.flavor() == Flavor::Mpich
            && failure::is_shared(error)
            && self.control.is_first_left()
        {
            let code = i32::from(failure::code(error));
            std::thread::sleep(SPEAKERS_FIRST);
            if let Err(error) = mpi.kill_job(code) {
                tracing::warn!(%error, "the job was not ended");
            }
        }
    }
}

impl Connection {
    /// Connects all processes of a launch, over MPI if the launcher starts it and it is here.
    fn open(launch: &Launch, limit: Duration, abort: &Abort) -> Result<(Self, Arc<dyn Messenger>)> {
        let mut first = None;
        for flavor in &launch.flavors {
            match Mpi::load(*flavor) {
                Ok(mpi) => {
                    mpi.init()?;
                    let messenger = mpi.messenger(limit, abort)?;
                    return Ok((Self::Mpi(mpi), messenger));
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        if let Some(meeting) = &launch.meeting {
            return Ok((Self::Tcp, meeting.meet(&host_name(), limit, abort)?));
        }
        let (launcher, size) = (launch.launcher, launch.size);
        let words =
            format!("{launcher} has started {size} processes, which cannot find each other");
        let error = first.map_or_else(|| anyhow!("no MPI is known"), |e: MpiError| anyhow!(e));
        Err(error.context(words))
    }

    /// Messages between some of the ranks alone.
    fn part(
        &self,
        whole: Arc<dyn Messenger>,
        ranks: Range<Rank>,
        (places, deadline): (&Places, Instant),
        abort: &Abort,
    ) -> Result<Arc<dyn Messenger>> {
        match self {
            Self::Mpi(mpi) => {
                drop(whole);
                mpi.enter(ranks)?;
                let limit = deadline.saturating_duration_since(Instant::now());
                Ok(mpi.messenger(limit, abort)?)
            }
            Self::Tcp => {
                let host = places.host(whole.rank());
                Ok(part_of(&*whole, ranks, host, abort, deadline)?)
            }
        }
    }
}

/// Has all ranks compute on devices of one kind: gives this rank's GPUs, if they are to be those.
/// Collective.
fn agree(
    messenger: &dyn Messenger,
    places: &Places,
    gpus: Result<Option<Gpus>>,
    limit: Duration,
) -> Result<Option<Gpus>> {
    let own = match &gpus {
        Ok(Some(_)) => GPUS.to_owned(),
        Ok(None) => PROCESSORS.to_owned(),
        Err(error) => format!("{TROUBLE}{}", failure::cause(error)),
    };
    let deadline = Instant::now() + limit;
    let all = messenger::all_gather(messenger, own.as_bytes(), deadline)?;
    let all: Vec<_> = all.iter().map(|it| String::from_utf8_lossy(it)).collect();
    let rank = messenger.rank();
    let disagreement = disagreement(&all, |rank| places.host(rank).to_owned());
    let name = || format!("rank {rank} on host {}", places.host(rank));
    match (gpus, disagreement) {
        // Of those with the same trouble, the first tells.
        (Err(error), _) if all.iter().position(|it| *it == own) == Some(rank as usize) => {
            Err(error.context(format!("{} has no GPU to compute on", name())))
        }
        (_, Some(words)) => Err(anyhow!(Together(words))),
        (gpus, None) => gpus,
    }
}

/// What ranks tell each other of their devices; trouble is followed by its words.
const GPUS: &str = "G";
const PROCESSORS: &str = "P";
const TROUBLE: char = '!';

/// Why ranks that say this of their devices cannot run a job together.
fn disagreement(all: &[impl AsRef<str>], host: impl Fn(Rank) -> String) -> Option<String> {
    let said = || {
        (0..)
            .zip(all)
            .map(|(rank, it): (Rank, _)| (rank, it.as_ref()))
    };
    let name = |rank: Rank| format!("rank {rank} on host {}", host(rank));
    let trouble = |(rank, it): (Rank, &str)| {
        let words = it.strip_prefix(TROUBLE)?;
        Some(format!("{} has no GPU to compute on: {words}", name(rank)))
    };
    let first = |kind: &str| said().find(|(_, it)| *it == kind).map(|(rank, _)| rank);
    let mixed = || {
        let (gpu, processor) = first(GPUS).zip(first(PROCESSORS))?;
        Some(format!(
            "{} would compute on a GPU, and {} on processors\n\
             hint: --device gpu says what is missing there; --device cpu takes processors",
            name(gpu),
            name(processor)
        ))
    };
    said().find_map(trouble).or_else(mixed)
}

/// A rank's position among those of its host, which is the number of its GPU. What launchers say
/// (`LOCAL_RANK` and its like) counts anew for each of several launches on one host.
fn place_on_host(control: &ControlPlane, rank: Rank) -> usize {
    let own = control.host_ranks().iter().position(|it| *it == rank);
    own.unwrap_or(0)
}

/// A world of processors, connected by MPI.
fn on_processors(
    mpi: &Mpi,
    surround: Surround,
    job: &Settings,
    bind_cpu: Option<u32>,
) -> Result<(World, Communication)> {
    // The world makes a messenger of its own.
    drop(surround.messenger);
    let options = WorldOptions {
        timeout: job.timeout,
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

/// Ends the process after a failure. Others may be gone, so nothing that needs them is waited for.
#[expect(
    clippy::exit,
    reason = "threads may wait in MPI for ranks that are gone"
)]
pub(crate) fn end(rank: Rank, speaks: bool, error: &anyhow::Error, last: impl FnOnce()) -> ! {
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
        let off = Arc::new(AtomicBool::new(launch.flavors.is_empty()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_on_devices_of_two_kinds_are_explained() {
        let check = |all: &[&str], expect: &[&str]| {
            let words = disagreement(all, |rank| format!("h{rank}"));
            assert_eq!(words.is_some(), !expect.is_empty(), "{words:?}");
            for part in expect {
                assert!(
                    words.as_ref().is_some_and(|it| it.contains(part)),
                    "{words:?}"
                );
            }
        };
        check(&[GPUS, GPUS], &[]);
        check(&[PROCESSORS, PROCESSORS, PROCESSORS], &[]);
        check(
            &[GPUS, GPUS, PROCESSORS, GPUS],
            &[
                "rank 0 on host h0 would compute on a GPU",
                "rank 2 on host h2 on processors",
            ],
        );
        check(
            &[PROCESSORS, GPUS],
            &["rank 1 on host h1 would", "rank 0 on host h0 on"],
        );
        check(
            &[GPUS, "!no driver", "!no driver"],
            &["rank 1 on host h1 has no GPU to compute on: no driver"],
        );
        check(&["!no driver"], &["rank 0 on host h0"]);
    }
}
