//! The ranks of one process on their threads, and the calling thread, which watches them, samples
//! the processors and answers signals. Knows nothing of kernels.

use crate::MeasureError;
use crate::devices::{DeviceWatch, Trends};
use crate::input::Embedding;
use crate::job::Job;
use crate::last_step::LastStep;
use crate::rank::{Outlook, RankRunner};
use crate::rows::Rows;
use crate::run::{Hooks, Signal};
use crate::team::Team;
use crate::telemetry::Sampler;
use laggard_backend::{Device, World};
use laggard_record::{ClosingStatus, RankRecorder, RecordError};
use laggard_types::{FlopPerSecond, Rank};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

/// How often the calling thread looks after the run.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// What the ranks of this process and the calling thread share.
pub(crate) struct Crew {
    /// The first of the ranks, which are consecutive.
    first: Rank,
    /// The other processes, where there are any.
    team: Option<Arc<Team>>,
    last_step: LastStep,
    /// Steps that each rank has completed.
    completed: Vec<AtomicU32>,
    /// The first failure that is not the echo of another.
    failure: Mutex<Option<MeasureError>>,
    /// The signal that ended the run.
    signal: Mutex<Option<Signal>>,
}

impl Crew {
    /// All ranks of a job.
    pub(crate) fn whole(job: &Job) -> Self {
        Self::new(job, 0..job.settings.ranks(), None)
    }

    /// One rank of several processes.
    pub(crate) fn member(job: &Job, rank: Rank, team: Arc<Team>) -> Self {
        Self::new(job, rank..rank + 1, Some(team))
    }

    fn new(job: &Job, ranks: Range<Rank>, team: Option<Arc<Team>>) -> Self {
        Self {
            first: ranks.start,
            team,
            last_step: LastStep::new(job.settings.steps),
            completed: ranks.map(|_| AtomicU32::new(0)).collect(),
            failure: Mutex::default(),
            signal: Mutex::default(),
        }
    }

    /// The one rank of this process, where there are others.
    fn only_rank(&self) -> Option<Rank> {
        self.team.as_deref().map(|_| self.first)
    }

    /// Steps that every rank of this process has completed.
    pub(crate) fn steps_completed(&self) -> u32 {
        self.completed
            .iter()
            .map(|steps| steps.load(Ordering::Acquire))
            .min()
            .unwrap_or(0)
    }

    /// Whether somebody of this process wants the run to end.
    pub(crate) fn is_asked_to_end(&self) -> bool {
        self.last_step.is_asked()
    }

    /// Ends the run after the step at hand, because of a signal to this process or another.
    fn end_by(&self, signal: Signal) {
        let mut first = self.signal.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_some() {
            return;
        }
        if let Some(team) = &self.team {
            team.ask_root_to_end(&signal.name);
        }
        first.get_or_insert(signal);
        self.last_step.ask();
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

    /// How a run with this outcome has ended.
    pub(crate) fn status_of(&self, outcome: &Result<(), MeasureError>) -> ClosingStatus {
        if let Err(error) = outcome {
            let why = error.to_string();
            return ClosingStatus::Failed { why };
        }
        let signal = self.signal.lock().unwrap_or_else(PoisonError::into_inner);
        let interrupted = |signal: &Signal| ClosingStatus::Interrupted {
            signal: signal.name.clone(),
        };
        signal.as_ref().map_or(ClosingStatus::Finished, interrupted)
    }
}

/// Runs all steps of the ranks of this process.
///
/// # Errors
/// The first failure of a rank or of the record.
pub(crate) fn execute(
    job: &Job,
    worlds: Vec<World>,
    peak: FlopPerSecond,
    watch: &Watch<'_>,
) -> Result<(), MeasureError> {
    let embedding = Embedding::new(job.settings.seed, job.shape.vocabulary, job.shape.hidden);
    let (alive, ended) = channel();
    let mut outcome: Result<(), MeasureError> = Ok(());
    let device = worlds.first().map(|world| Arc::clone(&world.device));
    let ranks = (watch.crew.first..).zip(&worlds);
    let monitors = ranks.filter_map(|(rank, world)| Some((rank, world.device.monitor()?)));
    let mut devices = DeviceWatch::start(monitors.collect());
    thread::scope(|scope| {
        let mut threads: Vec<ScopedJoinHandle<'_, ()>> = Vec::new();
        for (rank, world) in (watch.crew.first..).zip(worlds) {
            let device = Arc::clone(&world.device);
            let host = HostThread {
                job,
                rank,
                crew: watch.crew,
                trends: &devices.trends,
                embedding: embedding.clone(),
                peak,
                _alive: alive.clone(),
            };
            let spawned = watch
                .rows
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
                    watch.crew.fail(error);
                    break;
                }
            }
        }
        drop(alive);
        outcome = watch.until(&ended, job, (device.as_deref(), &devices));
    });
    let last = watch.rows.push_devices(devices.finish());
    let outcome = outcome.and_then(|()| Ok(last?));
    watch.crew.failure().map_or(outcome, Err)
}

/// What a rank's host thread needs.
struct HostThread<'a> {
    job: &'a Job,
    rank: Rank,
    crew: &'a Crew,
    trends: &'a Trends,
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
        if let Some(turn) = &self.job.turn {
            turn.leaves(!matches!(outcome, Ok(Ok(()))));
        }
        let error = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => MeasureError::Panicked {
                rank,
                message: message_of(panic.as_ref()),
            },
        };
        let reason = error.to_string();
        self.crew.fail(error);
        device.abort(&reason);
    }

    fn steps(&self, world: World, mut recorder: RankRecorder) -> Result<(), MeasureError> {
        let (rank, crew) = (self.rank, self.crew);
        let embedding = self.embedding.clone();
        let mut runner = RankRunner::start(self.job, rank, world, embedding, self.peak)?;
        if let Some(limit) = self.job.settings.soak {
            runner.soak(limit, &|| match crew.is_asked_to_end() {
                true => Outlook::EndOfRun,
                false if self.trends.is_steady(rank) => Outlook::Steady,
                false => Outlook::NotSteady,
            })?;
        }
        let team = crew.team.as_deref();
        for step in 0.. {
            let patience = team.map(|team| (team, self.job.settings.timeout));
            if !crew.last_step.begins(rank, step, patience)? {
                break;
            }
            if let Some(team) = team {
                team.is_in(step);
            }
            let turn = self.job.turn.as_ref();
            let still_ns = turn.map_or(0, |turn| turn.begins(step));
            runner.step(step, still_ns, &mut recorder)?;
            if let Some(turn) = turn {
                turn.ends(step);
            }
            crew.completed[(rank - crew.first) as usize].store(step + 1, Ordering::Release);
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
pub(crate) struct Watch<'a> {
    pub hooks: &'a Hooks<'a>,
    pub rows: &'a Rows,
    pub crew: &'a Crew,
}

impl Watch<'_> {
    /// Watches until all ranks have ended.
    fn until(
        &self,
        ended: &Receiver<()>,
        job: &Job,
        (device, devices): (Option<&dyn Device>, &DeviceWatch),
    ) -> Result<(), MeasureError> {
        let mut sampler = Sampler::new(job, self.crew.only_rank());
        let mut outcome = Ok(());
        let mut told = 0;
        loop {
            let is_over = ended.recv_timeout(WATCH_EVERY) == Err(RecvTimeoutError::Disconnected);
            if outcome.is_ok() {
                outcome = self.look(&mut sampler, devices);
            }
            if let (Some(team), Some(device)) = (&self.crew.team, device) {
                team.is_at(device);
            }
            let completed = self.crew.steps_completed();
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
    fn look(&self, sampler: &mut Sampler, devices: &DeviceWatch) -> Result<(), MeasureError> {
        let written = self.record(sampler, devices);
        if let Err(error) = &written {
            self.crew.last_step.ask();
            if let Some(team) = &self.crew.team {
                team.ask_root_to_end(&error.to_string());
            }
        }
        if let Some(signal) = (self.hooks.stop)() {
            self.crew.end_by(signal);
        }
        if let Some(team) = &self.crew.team {
            if let Some(end) = team.told_end()? {
                self.crew.last_step.set(end);
                team.has_heard_end()?;
            }
            if let Some(name) = team.asked_to_end() {
                self.crew.end_by(Signal { name });
            }
        }
        Ok(written?)
    }

    fn record(&self, sampler: &mut Sampler, devices: &DeviceWatch) -> Result<(), RecordError> {
        let rows = sampler.sample();
        if !rows.is_empty() {
            self.rows.push_telemetry(rows)?;
        }
        let readings = devices.take();
        if !readings.is_empty() {
            self.rows.push_devices(readings)?;
        }
        if (self.hooks.flush)() {
            self.rows.flush()?;
        }
        self.rows.check()
    }
}
