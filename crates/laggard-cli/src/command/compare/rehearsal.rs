//! `laggard compare --plan`: a plan against its rehearsal.

use crate::args::{CompareArgs, Format};
use crate::failure::{BadInput, Usage};
use crate::{exit_code, input, output};
use anyhow::{Context, Result};
use laggard_analyze::{Options, analyze, kernel_seconds};
use laggard_plan::{Expected, PlanFile, PlannedJob, PlannedOption, Rehearsal, RehearsedJob};
use laggard_record::{Manifest, RankPlace, Record};
use laggard_schedule::ScheduleOrigin;
use laggard_types::format_seconds;
use std::fmt::Write;
use std::path::{Path, PathBuf};

pub(super) fn run(args: &CompareArgs, path: &Path) -> Result<u8> {
    let unusable = || format!("cannot use {}", path.display());
    let plan = PlanFile::parse(&input::text(path)?).with_context(unusable)?;
    let option = plan.option(args.option).with_context(unusable)?;
    let jobs = rehearsed(option, &args.records)?;
    let equal = match args.equal.is_empty() {
        true => None,
        false => Some(rehearsed(plan.equal_shares()?, &args.equal)?),
    };
    let rehearsal = Rehearsal::new(&plan, args.option, &jobs, equal.as_deref())?;
    let text = match args.format {
        Format::Text => page(&rehearsal),
        Format::Json => {
            serde_json::to_string_pretty(&rehearsal).context("cannot write JSON")? + "\n"
        }
        Format::Markdown => {
            let hint = "hint: use `--format text` or `--format json`";
            return Err(Usage(format!("a rehearsal has no Markdown form\n{hint}")).into());
        }
    };
    output::result(&text, &args.output)?;
    Ok(exit_code::DONE)
}

/// What the jobs of an option did, by their records in order.
fn rehearsed(option: &PlannedOption, dirs: &[PathBuf]) -> Result<Vec<RehearsedJob>> {
    option.check_runs(dirs.len())?;
    let pairs = option.jobs.iter().zip(dirs);
    pairs.map(|(job, dir)| of_record(job, dir)).collect()
}

fn of_record(job: &PlannedJob, dir: &Path) -> Result<RehearsedJob> {
    let record = Record::open(dir)?;
    let layout = job.layout();
    let ran = match &record.manifest.schedule.origin {
        ScheduleOrigin::Generated(ran) => Some(ran),
        ScheduleOrigin::Trace => None,
    };
    let different = if ran == Some(&layout) {
        ran_otherwise(job, &record.manifest)
    } else {
        let ran = ran.map_or_else(|| "none".to_owned(), ToString::to_string);
        Some(format!(
            "its layout is {ran}, the plan's {layout}, or the shares of micro-batches and layers \
             differ"
        ))
    };
    if let Some(different) = different {
        let (dir, name) = (dir.display(), &job.name);
        return Err(BadInput(format!(
            "{dir} is no rehearsal of {name}: {different}\nhint: give the records of `laggard run \
             --plan` in the order of the jobs, and --option where another one was run"
        ))
        .into());
    }
    let unreadable = || format!("cannot read what {} did", dir.display());
    let step = analyze(&record, &Options::default())
        .with_context(unreadable)?
        .step_time;
    let kernels = kernel_seconds(&record).with_context(unreadable)?;
    let mean = Expected {
        value: step.mean.value,
        low: step.mean.low,
        high: step.mean.high,
    };
    Ok(RehearsedJob::new(job, (step.median, mean), &kernels))
}

/// What a run did otherwise than was planned, if anything.
fn ran_otherwise(job: &PlannedJob, manifest: &Manifest) -> Option<String> {
    let ran = &manifest.workload;
    if ran.model != job.model {
        return Some(format!(
            "its model is {}, the plan's {}",
            ran.model, job.model
        ));
    }
    for (what, ran, planned) in [
        ("sequences have", ran.sequence_length, job.sequence_length),
        (
            "micro-batches have",
            ran.micro_batch_sequences,
            job.degrees.micro_batch,
        ),
    ] {
        if ran != planned {
            let of = if what.starts_with("seq") {
                "tokens"
            } else {
                "sequences"
            };
            return Some(format!("its {what} {ran} {of}, the plan's {planned}"));
        }
    }
    let class = |rank: &RankPlace| manifest.classes.get(rank.class as usize);
    let classes = manifest.ranks.iter().map(class);
    let mut pairs = classes.zip(job.class_of_rank()).enumerate();
    let (rank, (class, planned)) =
        pairs.find(|(_, (class, planned))| class.is_none_or(|it| it.name != *planned))?;
    let class = class.map_or("no class", |class| class.name.as_str());
    Some(format!(
        "its rank {rank} is of {class}, the plan's of {planned}"
    ))
}

fn page(rehearsal: &Rehearsal) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let mut line = |text: String| _ = writeln!(page, "{}", text.trim_end());
    line(format!("{}: predicted against measured", rehearsal.option));
    line(format!(
        "{:<54}{:>12}{:>12}{:>9}",
        "", "predicted", "measured", "error"
    ));
    for row in &rehearsal.rows {
        let class = row
            .class
            .as_deref()
            .map_or_else(String::new, |it| format!("{it}: "));
        let (name, is_time) = match row.name.strip_suffix(" [s]") {
            Some(name) => (name, true),
            None => (row.name, false),
        };
        let number = |value: f64| match is_time {
            true => format_seconds(value),
            false => format!("{value:.0}"),
        };
        let error = row.error.map_or_else(|| "-".to_owned(), per_cent);
        line(format!(
            "{:<54}{:>12}{:>12}{error:>9}",
            format!("{}, {class}{name}", row.job),
            number(row.predicted.value),
            number(row.measured.value)
        ));
    }
    if let Some(gain) = &rehearsal.gain {
        let measured = &gain.measured;
        line(format!(
            "gain over equal shares: predicted {}, measured {} [{}, {}]: {:+.1} points off",
            per_cent(gain.predicted),
            per_cent(measured.value),
            per_cent(measured.low),
            per_cent(measured.high),
            gain.points_off
        ));
    }
    page
}

fn per_cent(share: f64) -> String {
    format!("{:+.1} %", 100.0 * share)
}
