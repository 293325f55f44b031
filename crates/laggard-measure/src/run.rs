//! A run from begin to end, all ranks being threads of this process.

use crate::crew::{Crew, Watch, execute};
use crate::job::Job;
use crate::manifest::{Findings, manifest};
use crate::rows::{Rows, sole};
use crate::{MeasureError, Settings};
use laggard_backend::threads::{ThreadOptions, worlds};
use laggard_backend::{Device, World};
use laggard_record::{Closing, Communication, RecordWriter, TimeBasis};
use laggard_types::{DeviceIdentity, FlopPerSecond, Seconds};
use std::path::PathBuf;
use std::sync::Arc;
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
    /// Arithmetic peak of one rank, as measured; the fastest class's. `None` on accelerators.
    pub measured_peak: Option<FlopPerSecond>,
}

/// Time for measuring arithmetic peaks, shared by all ranks, and the least for one.
const PEAK_TIME: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(10));

/// Runs a synthetic training job on in-process ranks and writes its record.
///
/// # Errors
/// Settings that cannot be run, before anything is written. After that the first failure of a rank,
/// with rank and operation, or of the record; the record is then closed as failed as far as it can
/// still be written.
pub fn run(settings: &Settings, hooks: &Hooks<'_>) -> Result<Summary, MeasureError> {
    run_job(&Job::new(settings)?, hooks)
}

/// Runs a synthetic training job on ranks of this process that compute and communicate as the
/// caller says, such as on GPUs: one world for each rank, in order. `communication` is what carries
/// the collectives.
///
/// # Errors
/// As [`run`]; and if there are other than one world for each rank.
pub fn run_on(
    settings: &Settings,
    worlds: Vec<World>,
    communication: Communication,
    hooks: &Hooks<'_>,
) -> Result<Summary, MeasureError> {
    let ranks = settings.ranks();
    if worlds.len() != ranks as usize {
        return Err(MeasureError::Setting {
            what: "the number of ranks",
            value: ranks.to_string(),
            why: format!("there are {} worlds", worlds.len()),
            hint: "make one for each rank".to_owned(),
        });
    }
    let devices: Vec<_> = worlds.iter().map(|it| it.device.description()).collect();
    let identities: Vec<_> = worlds.iter().map(|it| identity(&*it.device)).collect();
    let job = Job::on(settings, &devices, &identities)?;
    run_in(&job, worlds, communication, hooks)
}

/// Runs a job in a world of its own.
pub(crate) fn run_job(job: &Job, hooks: &Hooks<'_>) -> Result<Summary, MeasureError> {
    let settings = &job.settings;
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
    run_in(job, worlds, by_threads(), hooks)
}

/// Runs a job on given worlds, one per rank.
pub(crate) fn run_in(
    job: &Job,
    worlds: Vec<World>,
    communication: Communication,
    hooks: &Hooks<'_>,
) -> Result<Summary, MeasureError> {
    let peak = measured_peak(&worlds)?;
    let findings = Findings::of_process(job.settings.ranks(), peak, communication);
    let manifest = manifest(job, &findings)?;
    let writer = Arc::new(RecordWriter::create(&job.settings.record, &manifest)?);
    let rows = Rows::Writer(Arc::clone(&writer));
    let begin = Instant::now();
    let crew = Crew::whole(job);
    let watch = Watch {
        hooks,
        rows: &rows,
        crew: &crew,
    };
    let outcome = execute(job, worlds, peak, &watch);
    drop(rows);
    let closing = sole(writer, &job.settings.record)
        .and_then(|writer| writer.close(crew.status_of(&outcome), crew.steps_completed()));
    // What ended the run says more than what that did to the record.
    outcome?;
    let closing = closing?;
    Ok(Summary {
        record: job.settings.record.clone(),
        closing,
        basis: job.basis,
        elapsed: Seconds(begin.elapsed().as_secs_f64()),
        measured_peak: (!job.is_on_accelerators()).then_some(peak),
    })
}

/// Which device it is, where something tells.
pub(crate) fn identity(device: &dyn Device) -> Option<DeviceIdentity> {
    Some(device.monitor()?.identity())
}

/// Collectives of ranks that are threads of one process.
pub(crate) fn by_threads() -> Communication {
    Communication {
        backend: "threads".to_owned(),
        progress: "by a thread of each rank".to_owned(),
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

#[cfg(test)]
mod tests;
