//! Runs the conformance suite of `laggard-backend` over MPI, one process per rank:
//!
//! ```text
//! mpirun -n 4 mpi_conformance openmpi
//! ```
//!
//! Every rank that passed says `rank R conforms` on stdout. Exits with 1 if one saw a violation, 2
//! if there is no MPI to run it on. What launchers make of a success is up to them: checks give up
//! operations, MPI cannot be finalised after that, and a process that ends without counts as lost.

mod own;

use laggard_backend::conformance::{CHECKS, Launcher, Violation};
use laggard_backend::control::{ControlOptions, ControlPlane};
use laggard_backend::{Abort, BackendError, Messenger, RollCall, World, messenger};
use laggard_mpi::{Flavor, Mpi, MpiError, Place, WorldOptions};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long ranks wait for each other between two checks: longer than any check takes.
const LONG: Duration = Duration::from_secs(180);

/// All ranks are on this machine.
const HOST: &str = "here";

/// Worlds over MPI, for the conformance suite.
struct Processes {
    mpi: Mpi,
    place: Place,
    /// Belongs to no world, so that it outlives all aborts.
    messenger: Arc<dyn Messenger>,
}

impl Processes {
    fn new(flavor: Flavor) -> Result<Self, MpiError> {
        let mpi = Mpi::load(flavor)?;
        let place = mpi.init()?;
        let messenger = mpi.messenger(LONG, &Abort::default())?;
        Ok(Self {
            mpi,
            place,
            messenger,
        })
    }

    /// Runs a check in a world of its own, with a control plane of its own.
    fn check(&self, body: &dyn Fn(&World) -> Result<(), Violation>) -> Result<(), Violation> {
        let abort: Arc<Abort> = Arc::default();
        let options = ControlOptions::new(LONG);
        let control = ControlPlane::join(&*self.messenger, HOST, Arc::clone(&abort), &options)
            .map_err(|error| self.violation("joining the control plane", error))?;
        let roll_call: Arc<dyn RollCall> = Arc::clone(&control) as _;
        let options = WorldOptions {
            check_calls: true,
            ..WorldOptions::default()
        };
        let world = self.mpi.world(&options, roll_call, abort);
        let world = world.map_err(|error| self.violation("making a world", error))?;
        let outcome = body(&world);
        drop(world);
        match control.leave(LONG) {
            // Checks abort their worlds.
            Ok(()) | Err(BackendError::Aborted { .. }) => outcome,
            Err(error) => outcome.and(Err(self.violation("leaving the control plane", error))),
        }
    }

    fn violation(&self, case: &str, why: impl ToString) -> Violation {
        Violation {
            rank: self.place.rank,
            case: case.to_owned(),
            why: why.to_string(),
        }
    }
}

impl Launcher for Processes {
    fn run(
        &self,
        _ranks: u32,
        body: &(dyn Fn(&World) -> Result<(), Violation> + Sync),
    ) -> Result<(), Violation> {
        let own = self.check(body);
        // All ranks stop at the same check, or none does.
        let text = own
            .as_ref()
            .err()
            .map_or(String::new(), ToString::to_string);
        let deadline = Instant::now() + LONG;
        let all = messenger::all_gather(&*self.messenger, text.as_bytes(), deadline)
            .map_err(|error| self.violation("between checks", error))?;
        own?;
        match all.iter().find(|text| !text.is_empty()) {
            Some(text) => Err(self.violation("elsewhere", String::from_utf8_lossy(text))),
            None => Ok(()),
        }
    }
}

/// Runs every check that there are enough ranks for; all ranks stop at the same one.
#[expect(clippy::print_stderr, reason = "says how far it is")]
fn run_checks(processes: &Processes) -> Result<(), Violation> {
    let Place { rank, size } = processes.place;
    let checks = CHECKS.iter().chain(own::CHECKS);
    for check in checks.filter(|check| check.least_ranks <= size) {
        if rank == 0 {
            eprintln!("{} over {size} ranks", check.name);
        }
        processes.run(size, &check.body)?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result")]
fn run(flavor: Flavor) -> Result<Result<(), Violation>, MpiError> {
    let processes = Processes::new(flavor)?;
    let outcome = run_checks(&processes);
    if outcome.is_ok() {
        println!("rank {} conforms", processes.place.rank);
        // The first to end may be the end of all.
        let deadline = Instant::now() + LONG;
        let _ = messenger::all_gather(&*processes.messenger, &[], deadline);
    }
    let Processes { mpi, messenger, .. } = processes;
    drop(messenger);
    mpi.finalize()?;
    Ok(outcome)
}

#[expect(clippy::print_stderr, reason = "a test program says why it fails")]
fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let Some(flavor) = Flavor::ALL.into_iter().find(|flavor| flavor.id() == wanted) else {
        eprintln!("usage: mpi_conformance openmpi|mpich");
        return ExitCode::from(2);
    };
    match run(flavor) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(violation)) => {
            eprintln!("{violation}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
