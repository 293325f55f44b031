//! `laggard run`.

use crate::args::{RehearsalArgs, RunArgs};
use crate::command::cluster;
use crate::launcher::Launch;
use crate::output::talk;
use crate::signals::Signals;
use crate::{exit_code, progress, settings, time_limit};
use anyhow::Result;
use laggard_measure::{Hooks, Settings, Signal, Summary, run_together};
use laggard_record::{ClosingStatus, TimeBasis};
use std::path::Path;
use std::time::Instant;

pub(crate) fn run(args: &RunArgs, quiet: bool) -> Result<u8> {
    if let Some(launch) = Launch::detect() {
        return cluster::run(args, &launch, quiet);
    }
    if let Some(plan) = &args.rehearsal.plan {
        return rehearse(args, plan, quiet);
    }
    let settings = settings::of_run(args, None)?;
    let summary = execute(&settings, args.time_limit, quiet)?;
    tell(&settings, &summary, quiet);
    tell_next(&summary);
    Ok(code(&summary))
}

/// Runs the jobs of a plan at the same time.
fn rehearse(args: &RunArgs, plan: &Path, quiet: bool) -> Result<u8> {
    let jobs = settings::of_plan(args, plan, None)?;
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

/// Runs a job on ranks of this process, with progress, signals and a time limit in seconds.
pub(crate) fn execute(
    settings: &Settings,
    time_limit: Option<u64>,
    quiet: bool,
) -> Result<Summary> {
    watched(settings.steps, time_limit, quiet, |hooks| {
        Ok(laggard_measure::run(settings, hooks)?)
    })
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
        talk(&format!(
            "{} ranks, {} steps in {:.1} s ({basis}); peak of one core {:.0} GFLOP/s",
            settings.ranks(),
            summary.closing.steps_completed,
            summary.elapsed.0,
            summary.measured_peak.0 * 1e-9
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
        ClosingStatus::Interrupted { signal } if signal == "SIGTERM" => exit_code::TERMINATED,
        ClosingStatus::Interrupted { signal } if signal == time_limit::NAME => exit_code::DONE,
        ClosingStatus::Interrupted { .. } => exit_code::INTERRUPTED,
        ClosingStatus::Failed { .. } => exit_code::BACKEND,
        ClosingStatus::Finished => exit_code::DONE,
    }
}
