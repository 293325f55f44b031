//! `laggard run`.

use crate::args::RunArgs;
use crate::output::talk;
use crate::signals::Signals;
use crate::{exit_code, progress, settings};
use anyhow::Result;
use laggard_measure::{Hooks, Settings, Summary};
use laggard_record::{ClosingStatus, TimeBasis};

pub(crate) fn run(args: &RunArgs, quiet: bool) -> Result<u8> {
    let settings = settings::of_run(args)?;
    let summary = execute(&settings, quiet)?;
    let path = summary.record.display();
    talk(&format!(
        "record: {path}\nnext: laggard analyze {path} --html {path}.html"
    ));
    Ok(code(&summary))
}

/// Runs a job with progress and signals.
pub(crate) fn execute(settings: &Settings, quiet: bool) -> Result<Summary> {
    let signals = Signals::listen()?;
    let bar = progress::bar(settings.steps, quiet);
    let hooks = Hooks {
        stop: &|| signals.stop(),
        flush: &|| signals.flush(),
        progress: &|steps| bar.set_position(u64::from(steps)),
    };
    let summary = laggard_measure::run(settings, &hooks);
    bar.finish_and_clear();
    let summary = summary?;
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
    Ok(summary)
}

/// The exit code of a run that ended in order.
pub(crate) fn code(summary: &Summary) -> u8 {
    match &summary.closing.status {
        ClosingStatus::Interrupted { signal } if signal == "SIGTERM" => exit_code::TERMINATED,
        ClosingStatus::Interrupted { .. } => exit_code::INTERRUPTED,
        ClosingStatus::Failed { .. } => exit_code::BACKEND,
        ClosingStatus::Finished => exit_code::DONE,
    }
}
