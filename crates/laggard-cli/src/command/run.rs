//! `laggard run`.

use crate::args::{OnDevice, RehearsalArgs, RunArgs};
use crate::command::cluster;
use crate::failure::Usage;
use crate::gpus::Gpus;
use crate::launcher::Launch;
use crate::output::talk;
use crate::signals::Signals;
use crate::{exit_code, one_gpu, progress, settings, time_limit};
use anyhow::Result;
use laggard_measure::{Hooks, Settings, Signal, Summary, run_together};
use laggard_record::{ClosingStatus, TimeBasis};
use std::path::Path;
use std::time::Instant;

pub(crate) fn run(args: &RunArgs, quiet: bool) -> Result<u8> {
    if let Some(launch) = Launch::detect()? {
        return cluster::run(args, &launch, quiet);
    }
    if let Some(plan) = &args.rehearsal.plan {
        return rehearse(args, plan, quiet);
    }
    let (settings, summary) = measure(args, quiet)?;
    tell(&settings, &summary, quiet);
    tell_next(&summary);
    Ok(code(&summary))
}

/// Runs the jobs of a plan at the same time.
fn rehearse(args: &RunArgs, plan: &Path, quiet: bool) -> Result<u8> {
    if args.device == OnDevice::Gpu {
        let hint = "hint: start a rank for each GPU with mpirun or srun, or give --device cpu";
        let what = "the jobs of a plan run on the GPUs of ranks that a launcher has started";
        return Err(Usage(format!("{what}\n{hint}")).into());
    }
    let jobs = settings::of_plan(args, plan, (None, false))?;
    let summaries = watched(args.steps, args.time_limit, quiet, |hooks| {
        Ok(run_together(&jobs, hooks)?)
    })?;
    for (settings, summary) in jobs.iter().zip(&summaries) {
        tell(settings, summary, quiet);
    }
    tell_compare(&args.rehearsal, &jobs);
    Ok(summaries.iter().map(code).max().unwrap_or(exit_code::DONE))
}

/// Says where the records of a rehearsal are, and what to type next.
pub(crate) fn tell_compare(asked: &RehearsalArgs, jobs: &[Settings]) {
    let Some(plan) = &asked.plan else { return };
    let paths: Vec<String> = jobs
        .iter()
        .map(|job| job.record.display().to_string())
        .collect();
    let paths = paths.join(" ");
    let number = asked.option.map(|number| format!("--option {number} "));
    talk(&format!(
        "record: {paths}\nnext: laggard compare --plan {} {}{paths}",
        plan.display(),
        number.unwrap_or_default()
    ));
}

/// Runs the job that is asked for on ranks of this process, with progress, signals and a time
/// limit.
pub(crate) fn measure(args: &RunArgs, quiet: bool) -> Result<(Settings, Summary)> {
    let gpus = match args.allow_shared_gpu {
        true => Gpus::find_shared(args.device)?,
        false => Gpus::find(args.device)?,
    };
    let mut settings = settings::of_run(args, None, gpus.as_ref().map(|gpus| gpus.count))?;
    let summary = watched(settings.steps, args.time_limit, quiet, |hooks| match gpus {
        Some(gpus) if one_gpu::is_meant(&settings, &gpus) => {
            one_gpu::run(gpus, &mut settings, hooks)
        }
        Some(gpus) => gpus.run(&settings, hooks),
        None => Ok(laggard_measure::run(&settings, hooks)?),
    })?;
    Ok((settings, summary))
}

/// Runs a job with progress, signals and a time limit.
pub(crate) fn watched<T>(
    steps: u32,
    time_limit: Option<u64>,
    quiet: bool,
    run: impl FnOnce(&Hooks<'_>) -> Result<T>,
) -> Result<T> {
    let signals = Signals::listen()?;
    let end = time_limit::end(time_limit);
    let is_over = || end.is_some_and(|end| Instant::now() >= end);
    let over = || {
        is_over().then(|| Signal {
            name: time_limit::NAME.to_owned(),
        })
    };
    let bar = progress::bar(steps, quiet);
    let outcome = run(&Hooks {
        stop: &|| signals.stop().or_else(over),
        flush: &|| signals.flush(),
        progress: &|steps| bar.set_position(u64::from(steps)),
    });
    bar.finish_and_clear();
    outcome
}

/// Says what came of a run.
pub(crate) fn tell(settings: &Settings, summary: &Summary, quiet: bool) {
    if !quiet {
        let basis = match summary.basis {
            TimeBasis::Wall => "wall clock",
            TimeBasis::Virtual => "virtual clock: more ranks than processors",
        };
        let peak = summary.measured_peak.map(|peak| peak.0 * 1e-9);
        let peak = peak.map(|peak| format!("; peak of one core {peak:.0} GFLOP/s"));
        talk(&format!(
            "{} ranks, {} steps in {:.1} s ({basis}){}",
            settings.ranks(),
            summary.closing.steps_completed,
            summary.elapsed.0,
            peak.unwrap_or_default()
        ));
    }
    if let ClosingStatus::Interrupted { signal } = &summary.closing.status {
        talk(&format!(
            "ended early by {signal}; the record is complete up to there"
        ));
    }
}

/// Says where the record is, and what to type next.
pub(crate) fn tell_next(summary: &Summary) {
    let path = summary.record.display();
    talk(&format!(
        "record: {path}\nnext: laggard analyze {path} --html {path}.html"
    ));
}

/// The exit code of a run that ended in order.
pub(crate) fn code(summary: &Summary) -> u8 {
    match &summary.closing.status {
        ClosingStatus::Interrupted { signal } if signal == time_limit::NAME => exit_code::DONE,
        ClosingStatus::Interrupted { signal } => exit_code::by_signal(signal),
        ClosingStatus::Failed { .. } => exit_code::BACKEND,
        ClosingStatus::Finished => exit_code::DONE,
    }
}
