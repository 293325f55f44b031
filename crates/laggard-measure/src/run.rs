//! A run from begin to end: ranks on their threads, and the calling thread, which watches them,
//! samples the processors and answers signals. Knows nothing of kernels.
//!
//! All ranks must agree on the last step, or somebody would wait in a collective for ever. Rank 0
//! decides at the begin of a step `s` that the run ends with it, and says so before it issues any
//! of its operations. Every step has a reduction over all ranks, which nobody leaves before rank 0
//! has come; so whoever has finished step `s` sees the decision before it would begin step `s + 1`.

use crate::input::Embedding;
use crate::job::Job;
use crate::manifest::{Findings, manifest};
use crate::rank::RankRunner;
use crate::telemetry::Sampler;
use crate::{MeasureError, Settings};
use laggard_backend::World;
use laggard_backend::threads::{ThreadOptions, worlds};
use laggard_record::{Closing, ClosingStatus, RankRecorder, RecordWriter, TimeBasis};
use laggard_types::{FlopPerSecond, Rank, Seconds};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// What the caller wants to know or to say while the job runs. All are called on the thread that
/// called [`run`], some ten times a second, never on a rank's.
pub struct Hooks<'a> {
    /// The signal that asks the run to end, if one has come. The step at hand is finished first,
    /// and the record is complete.
    pub stop: &'a dyn Fn() -> Option<Signal>,
    /// Whether someone has asked, since the last call, to write what has been recorded.
    pub flush: &'a dyn Fn() -> bool,
    /// Told how many steps are complete, whenever that has changed.
    pub progress: &'a dyn Fn(u32),
}

/// A signal that ends a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Its name, such as `SIGTERM`.
    pub name: String,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Directory of the record.
    pub record: PathBuf,
    /// How the run ended, and what it wrote.
    pub closing: Closing,
    /// Which times the run vouches for.
    pub basis: TimeBasis,
    /// Wall time from the start of the ranks to the end of the last.
    pub elapsed: Seconds,
    /// Arithmetic peak of one rank, as measured; the fastest class's.
    pub measured_peak: FlopPerSecond,
}

/// How often the calling thread looks after the run.
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// Time for measuring arithmetic peaks, shared by all ranks, and the least for one.
const PEAK_TIME: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(10));

/// Runs a synthetic training job on in-process ranks and writes its record.
///
/// # Errors
/// Settings that cannot be run, before anything is written. After that the first failure of a rank,
/// with rank and operation, or of the record; the record is then closed as failed as far as it can
/// still be written.
pub fn run(settings: &Settings, hooks: &Hooks<'_>) -> Result<Summary, MeasureError> {
    let job = Job::new(settings)?;
    let ranks = settings.ranks();
    let options = ThreadOptions {
        timeout: settings.timeout,
        bind_cpus: job.bound_processors(),
        // The threads of a rank share one processor: a spinning one would take it from another.
        spin: Duration::ZERO,
        measure_peak: Some((PEAK_TIME.0 / ranks).max(PEAK_TIME.1)),
    };
    let worlds =
        worlds(ranks, &options).map_err(|source| MeasureError::Start { rank: 0, source })?;
    run_in(&job, worlds, hooks)
}

/// Runs a job on given worlds, one per rank.
pub(crate) fn run_in(
    job: &Job,
    worlds: Vec<World>,
    hooks: &Hooks<'_>,
) -> Result<Summary, MeasureError> {
    let peak = measured_peak(&worlds)?;
    let manifest = manifest(job, &Findings::of_threads(job.settings.ranks(), peak))?;
    let writer = RecordWriter::create(&job.settings.record, &manifest)?;
    let begin = Instant::now();
    let shared = Shared::new(job);
    let status = match execute(
        job,
        worlds,
        peak,
        &Watch {
            hooks,
            writer: &writer,
            shared: &shared,
        },
    ) {
        Ok(()) => shared.status(),
        Err(error) => {
            let status = ClosingStatus::Failed {
                why: error.to_string(),
            };
            if let Err(unwritten) = writer.close(status, shared.steps_completed()) {
                tracing::warn!(%unwritten, "the record could not be closed");
            }
            return Err(error);
        }
    };
    let closing = writer.close(status, shared.steps_completed())?;
    Ok(Summary {
        record: job.settings.record.clone(),
        closing,
        basis: job.basis,
        elapsed: Seconds(begin.elapsed().as_secs_f64()),
        measured_peak: peak,
    })
}

/// What ranks and the calling thread share.
struct Shared {
    /// The step that is not begun any more.
    end: AtomicU32,
    /// Whether rank 0 shall end the run.
    stop: AtomicBool,
    /// Steps that each rank has completed.
    completed: Vec<AtomicU32>,
    /// The first failure that is not the echo of another.
    failure: Mutex<Option<MeasureError>>,
    /// The signal that ended the run.
    signal: Mutex<Option<Signal>>,
}

impl Shared {
    fn new(job: &Job) -> Self {
        Self {
            end: AtomicU32::new(job.settings.steps),
            stop: AtomicBool::new(false),
            completed: (0..job.settings.ranks())
                .map(|_| AtomicU32::new(0))
                .collect(),
            failure: Mutex::default(),
            signal: Mutex::default(),
        }
    }

    /// Steps that every rank has completed.
    fn steps_completed(&self) -> u32 {
        self.completed
            .iter()
            .map(|steps| steps.load(Ordering::Acquire))
            .min()
            .unwrap_or(0)
    }

    fn fail(&self, error: MeasureError) {
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(MeasureError::is_echo) {
            *first = Some(error);
        }
    }

    fn failure(&self) -> Option<MeasureError> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn status(&self) -> ClosingStatus {
        let signal = self
            .signal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        signal.map_or(ClosingStatus::Finished, |signal| {
            ClosingStatus::Interrupted {
                signal: signal.name,
            }
        })
    }
}

/// The best of all ranks' peaks: ranks run on equal processors, and noise only lowers it.
fn measured_peak(worlds: &[World]) -> Result<FlopPerSecond, MeasureError> {
    let peaks = worlds
        .iter()
        .filter_map(|world| world.device.description().measured_peak);
    let best = peaks.map(|peak| peak.0).fold(0.0, f64::max);
    if best > 0.0 {
        return Ok(FlopPerSecond(best));
    }
    laggard_backend::measure_peak(PEAK_TIME.0)
        .map_err(|source| MeasureError::Start { rank: 0, source })
}

fn execute(
    job: &Job,
    worlds: Vec<World>,
    peak: FlopPerSecond,
    watch: &Watch<'_>,
) -> Result<(), MeasureError> {
    let embedding = Embedding::new(job.settings.seed, job.shape.vocabulary, job.shape.hidden);
    let (alive, ended) = channel();
    let mut outcome = Ok(());
    thread::scope(|scope| {
        let mut threads: Vec<ScopedJoinHandle<'_, ()>> = Vec::new();
        for (rank, world) in (0..).zip(worlds) {
            let device = Arc::clone(&world.device);
            let host = HostThread {
                job,
                rank,
                shared: watch.shared,
                embedding: embedding.clone(),
                peak,
                _alive: alive.clone(),
            };
            let spawned = watch
                .writer
                .recorder(rank)
                .map_err(MeasureError::from)
                .and_then(|it| {
                    thread::Builder::new()
                        .name(format!("r{rank}-host"))
                        .spawn_scoped(scope, move || host.run(world, it))
                        .map_err(|error| MeasureError::System {
                            what: format!("starting the thread of rank {rank}"),
                            why: error.to_string(),
                        })
                });
            match spawned {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    device.abort(&error.to_string());
                    watch.shared.fail(error);
                    break;
                }
            }
        }
        drop(alive);
        outcome = watch.until(&ended, job);
    });
    watch.shared.failure().map_or(outcome, Err)
}

/// What a rank's host thread needs.
struct HostThread<'a> {
    job: &'a Job,
    rank: Rank,
    shared: &'a Shared,
    embedding: Embedding,
    peak: FlopPerSecond,
    /// Never sent to: all ranks have ended when all of these are gone.
    _alive: Sender<()>,
}

impl HostThread<'_> {
    /// Runs the rank. Whatever ends it early ends all others too.
    fn run(self, world: World, recorder: RankRecorder) {
        let device = Arc::clone(&world.device);
        let rank = self.rank;
        let outcome = catch_unwind(AssertUnwindSafe(|| self.steps(world, recorder)));
        let error = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => MeasureError::Panicked {
                rank,
                message: message_of(panic.as_ref()),
            },
        };
        let reason = error.to_string();
        self.shared.fail(error);
        device.abort(&reason);
    }

    fn steps(&self, world: World, mut recorder: RankRecorder) -> Result<(), MeasureError> {
        let (rank, shared) = (self.rank, self.shared);
        let embedding = self.embedding.clone();
        let mut runner = RankRunner::start(self.job, rank, world, embedding, self.peak)?;
        for step in 0.. {
            if rank == 0 && shared.stop.load(Ordering::Acquire) {
                shared.end.fetch_min(step + 1, Ordering::AcqRel);
            }
            if step >= shared.end.load(Ordering::Acquire) {
                break;
            }
            runner.step(step, &mut recorder)?;
            shared.completed[rank as usize].store(step + 1, Ordering::Release);
        }
        Ok(())
    }
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
        .to_owned()
}

/// What the calling thread does while ranks run.
struct Watch<'a> {
    hooks: &'a Hooks<'a>,
    writer: &'a RecordWriter,
    shared: &'a Shared,
}

impl Watch<'_> {
    /// Watches until all ranks have ended.
    fn until(&self, ended: &Receiver<()>, job: &Job) -> Result<(), MeasureError> {
        let mut sampler = Sampler::new(job);
        let mut outcome = Ok(());
        let mut told = 0;
        loop {
            let is_over = ended.recv_timeout(WATCH_EVERY) == Err(RecvTimeoutError::Disconnected);
            if outcome.is_ok() {
                outcome = self.look(&mut sampler);
            }
            let completed = self.shared.steps_completed();
            if completed != told {
                (self.hooks.progress)(completed);
                told = completed;
            }
            if is_over {
                return outcome;
            }
        }
    }

    /// One look. A record that cannot be written ends the run at the next step, on all ranks.
    fn look(&self, sampler: &mut Sampler) -> Result<(), MeasureError> {
        let written = self.record(sampler);
        if written.is_err() {
            self.shared.stop.store(true, Ordering::Release);
        }
        if let Some(signal) = (self.hooks.stop)() {
            let mut first = self
                .shared
                .signal
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(signal);
            self.shared.stop.store(true, Ordering::Release);
        }
        Ok(written?)
    }

    fn record(&self, sampler: &mut Sampler) -> Result<(), laggard_record::RecordError> {
        let rows = sampler.sample();
        if !rows.is_empty() {
            self.writer.push_telemetry(rows)?;
        }
        if (self.hooks.flush)() {
            self.writer.flush()?;
        }
        self.writer.check()
    }
}

#[cfg(test)]
mod tests;
