//! Several jobs at the same time in one process, each in a world of its own: the pools of a
//! partitioned cluster, or jobs that are compared. They share nothing but the processors.

use crate::job::Job;
use crate::place::Neighbours;
use crate::run::{Hooks, Signal, Summary, run_job};
use crate::turns::Turn;
use crate::{MeasureError, Settings};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often the calling thread asks its hooks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs jobs at the same time, and gives their summaries in the same order. Each rank has a
/// processor of its own where there are enough for all. `hooks` hold for all of them; progress is
/// that of the job that has come least far.
///
/// # Errors
/// As [`crate::run`], of the first job that cannot be or fails; the others end after the step at
/// hand, with complete records.
pub fn run_together(jobs: &[Settings], hooks: &Hooks<'_>) -> Result<Vec<Summary>, MeasureError> {
    let all: u32 = jobs
        .iter()
        .map(Settings::ranks)
        .fold(0, u32::saturating_add);
    let mut before = 0_u32;
    let mut ready = Vec::new();
    for settings in jobs {
        let ranks = settings.ranks();
        let after = all.saturating_sub(before).saturating_sub(ranks);
        ready.push(Job::beside(settings, Neighbours { before, after })?);
        before = before.saturating_add(ranks);
    }
    run_all(&ready, hooks)
}

/// The same, but the jobs take turns of a few steps, in which each has all processors as if it ran
/// alone. While others have theirs, its clock stands still, so that the steps of its record have no
/// gaps; what is read of processors meanwhile keeps the machine's time. What
/// slows the machine down for a while slows all of them alike: their steps can be compared.
///
/// # Errors
/// As [`run_together`].
pub fn run_in_turns(jobs: &[Settings], hooks: &Hooks<'_>) -> Result<Vec<Summary>, MeasureError> {
    let turns = Turn::of_jobs(jobs.iter().map(Settings::ranks));
    let ready = jobs.iter().zip(turns).map(|(settings, turn)| {
        let mut job = Job::new(settings)?;
        job.turn = Some(turn);
        Ok(job)
    });
    run_all(&ready.collect::<Result<Vec<Job>, MeasureError>>()?, hooks)
}

fn run_all(ready: &[Job], hooks: &Hooks<'_>) -> Result<Vec<Summary>, MeasureError> {
    let shared = &Shared::new(ready.len());
    thread::scope(|scope| {
        let spawned: Vec<_> = (0..)
            .zip(ready)
            .map(|(number, job)| {
                let run = move || shared.run(number, job);
                thread::Builder::new()
                    .name(format!("job-{number}"))
                    .spawn_scoped(scope, run)
                    .map_err(|error| MeasureError::System {
                        what: "starting the thread of a job".to_owned(),
                        why: error.to_string(),
                    })
            })
            .collect();
        if spawned.iter().any(Result::is_err) {
            shared.end("the failure of another job");
        }
        let is_running = || spawned.iter().flatten().any(|thread| !thread.is_finished());
        while is_running() {
            shared.look(hooks);
            thread::sleep(LOOK_EVERY);
        }
        let outcome = |spawned: Result<thread::ScopedJoinHandle<'_, _>, MeasureError>| {
            spawned?.join().unwrap_or_else(|_| {
                Err(MeasureError::System {
                    what: "running a job".to_owned(),
                    why: "its thread panicked".to_owned(),
                })
            })
        };
        let outcomes: Vec<_> = spawned.into_iter().map(outcome).collect();
        outcomes.into_iter().collect()
    })
}

/// What the jobs' threads and the calling thread tell each other.
struct Shared {
    stop: Mutex<Option<Signal>>,
    /// Flushes asked for so far, and those that each job has made.
    flushes: AtomicU32,
    flushed: Vec<AtomicU32>,
    /// Steps that each job has completed.
    completed: Vec<AtomicU32>,
}

impl Shared {
    fn new(jobs: usize) -> Self {
        let zeros = || (0..jobs).map(|_| AtomicU32::new(0)).collect();
        Self {
            stop: Mutex::default(),
            flushes: AtomicU32::new(0),
            flushed: zeros(),
            completed: zeros(),
        }
    }

    fn run(&self, number: usize, job: &Job) -> Result<Summary, MeasureError> {
        let stop = || {
            self.stop
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        };
        let flush = || {
            let asked = self.flushes.load(Ordering::Relaxed);
            self.flushed[number].swap(asked, Ordering::Relaxed) != asked
        };
        let hooks = Hooks {
            stop: &stop,
            flush: &flush,
            progress: &|steps| self.completed[number].store(steps, Ordering::Relaxed),
        };
        let outcome = run_job(job, &hooks);
        if let Some(turn) = &job.turn {
            turn.close();
        }
        if outcome.is_err() {
            self.end("the failure of another job");
        }
        outcome
    }

    fn end(&self, why: &str) {
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        stop.get_or_insert_with(|| Signal {
            name: why.to_owned(),
        });
    }

    fn look(&self, hooks: &Hooks<'_>) {
        if let Some(signal) = (hooks.stop)() {
            self.end(&signal.name);
        }
        if (hooks.flush)() {
            self.flushes.fetch_add(1, Ordering::Relaxed);
        }
        let steps = self.completed.iter().map(|it| it.load(Ordering::Relaxed));
        (hooks.progress)(steps.min().unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use laggard_record::{ClosingStatus, Record};

    const QUIET: Hooks<'static> = Hooks {
        stop: &|| None,
        flush: &|| false,
        progress: &|_| (),
    };

    #[test]
    fn each_job_has_a_world_and_a_record_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let job = |name: &str, ranks, steps| Settings {
            record: folder.path().join(name),
            ..testing::settings(ranks, steps)
        };
        let jobs = [job("a", 1, 6), job("b", 1, 4)];
        let summaries = run_together(&jobs, &QUIET).unwrap();
        for (summary, settings) in summaries.iter().zip(&jobs) {
            assert_eq!(summary.closing.status, ClosingStatus::Finished);
            assert_eq!(summary.closing.steps_completed, settings.steps);
            assert_eq!(summary.basis, summaries[0].basis);
            let record = Record::open(&settings.record).unwrap();
            assert_eq!(record.manifest.ranks.len(), settings.ranks() as usize);
        }
        let cpus = |at: usize| {
            let record = Record::open(&jobs[at].record).unwrap();
            let ranks = record.manifest.ranks.clone();
            ranks.into_iter().flat_map(|it| it.cpus).collect::<Vec<_>>()
        };
        assert!(cpus(0).iter().all(|cpu| !cpus(1).contains(cpu)));
    }

    #[test]
    fn in_turns_every_job_runs_as_if_alone() {
        let folder = tempfile::tempdir().unwrap();
        let job = |name: &str, ranks, steps| Settings {
            record: folder.path().join(name),
            ..testing::settings(ranks, steps)
        };
        let alone = Job::new(&job("alone", 1, 6)).unwrap();
        let jobs = [job("a", 1, 6), job("b", 1, 9)];
        let summaries = run_in_turns(&jobs, &QUIET).unwrap();
        let mut cpus = Vec::new();
        for (summary, settings) in summaries.iter().zip(&jobs) {
            assert_eq!(summary.closing.steps_completed, settings.steps);
            assert_eq!(summary.basis, alone.basis);
            let record = Record::open(&settings.record).unwrap();
            cpus.push(record.manifest.ranks[0].cpus.clone());
        }
        assert_eq!(cpus[0], cpus[1]);
        let bad = Settings {
            steps: 0,
            ..job("c", 1, 1)
        };
        assert!(run_in_turns(&[job("d", 1, 2), bad], &QUIET).is_err());
    }

    #[test]
    fn a_job_that_cannot_be_keeps_all_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let good = Settings {
            record: folder.path().join("good"),
            ..testing::settings(1, 2)
        };
        let bad = Settings {
            steps: 0,
            record: folder.path().join("bad"),
            ..good.clone()
        };
        assert!(run_together(&[good, bad], &QUIET).is_err());
        assert!(!folder.path().join("good").exists());
    }

    #[test]
    fn a_signal_ends_all_jobs() {
        let folder = tempfile::tempdir().unwrap();
        let job = |name: &str| Settings {
            record: folder.path().join(name),
            ..testing::settings(1, 1_000_000)
        };
        let hooks = Hooks {
            stop: &|| {
                Some(Signal {
                    name: "SIGINT".to_owned(),
                })
            },
            ..QUIET
        };
        for summary in run_together(&[job("a"), job("b")], &hooks).unwrap() {
            let signal = "SIGINT".to_owned();
            assert_eq!(
                summary.closing.status,
                ClosingStatus::Interrupted { signal }
            );
        }
    }
}
