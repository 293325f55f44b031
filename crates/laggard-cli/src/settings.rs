//! From what was typed to what is run.

use crate::args::{Rates, RunArgs};
use crate::failure::Usage;
use crate::launcher::Launch;
use anyhow::Result;
use laggard_measure::{ClassShare, MeasureError, Settings};
use laggard_schedule::{Layout, LayoutError};
use laggard_specs::{RateBasis, SpecsError, Tables};
use laggard_types::parse_bytes;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ranks of a run that says nothing: one per processor, and no more than show a picture.
const RANKS_MAX: usize = 4;

/// Settings of `laggard run`, for the processes of a launch or for ranks of this process.
pub(crate) fn of_run(args: &RunArgs, launch: Option<&Launch>) -> Result<Settings> {
    let tables = Tables::builtin()?;
    let model = tables
        .model(&args.model)
        .map_err(|error| naming_all(error.into(), &tables))?
        .clone();
    let basis = match args.rates {
        Rates::Measured => RateBasis::Measured,
        Rates::Peak => RateBasis::Peak,
    };
    let classes = match &args.classes {
        Some(text) => ClassShare::parse_list(text, &tables, basis)
            .map_err(|error| naming_all(error, &tables))?,
        None => Vec::new(),
    };
    let ranks = ranks(args, &classes, launch)?;
    let record = args
        .output
        .clone()
        .unwrap_or_else(|| free_name(Path::new(".")));
    let mut settings = Settings::new(model, ranks, record);
    settings.layout = layout(args, ranks)?;
    settings.classes = classes;
    settings.steps = args.steps;
    settings.seed = args.seed;
    settings.timeout = Duration::from_secs(args.timeout);
    settings.init_timeout = init_timeout(args, launch);
    settings.scratch.clone_from(&args.scratch);
    settings.emulate_hosts = args.emulate_hosts.unwrap_or(1);
    settings.command_line = std::env::args().collect();
    if let Some(length) = args.sequence_length {
        settings.sequence_length = length;
    }
    for fault in &args.inject {
        settings.faults.push(fault.parse()?);
    }
    Ok(settings)
}

/// Puts every name that is known into the hint about an unknown one: this binary has no other place
/// that lists them.
fn naming_all(error: MeasureError, tables: &Tables) -> MeasureError {
    let MeasureError::Specs(SpecsError::UnknownName { kind, name, hint }) = error else {
        return error;
    };
    let (order, names): (_, Vec<&str>) = if kind == "model" {
        let mut models: Vec<_> = tables.models().iter().collect();
        models.sort_by_key(|model| model.parameters());
        let names = models.iter().map(|model| model.id.as_str());
        (", smallest first", names.collect())
    } else {
        let classes = tables.accelerators().iter();
        ("", classes.map(|class| class.id.as_str()).collect())
    };
    // Close names are kept; a command that this binary does not have is not.
    let close = hint.lines().filter(|line| !line.contains("laggard specs"));
    let mut lines: Vec<String> = close.map(str::to_owned).collect();
    lines.push(format!("hint: known{order}: {}", names.join(", ")));
    let hint = lines.join("\n");
    MeasureError::Specs(SpecsError::UnknownName { kind, name, hint })
}

/// The number of ranks that the options agree on.
fn ranks(args: &RunArgs, classes: &[ClassShare], launch: Option<&Launch>) -> Result<u32> {
    let layout = args
        .layout
        .as_deref()
        .map(Layout::parse_degrees)
        .transpose();
    let layout = layout.map_err(MeasureError::from)?;
    let from_classes = (!classes.is_empty()).then(|| {
        classes
            .iter()
            .fold(0, |sum: u32, c| sum.saturating_add(c.ranks))
    });
    if let (Some(layout), Some(text)) = (layout, &args.layout) {
        let given = args.ranks.or(from_classes);
        if let Some(ranks) = given.filter(|ranks| *ranks != layout) {
            let error = LayoutError::WrongWorldSize {
                layout: text.clone(),
                needed: layout,
                ranks,
            };
            return Err(MeasureError::from(error).into());
        }
    }
    if let Some(launch) = launch {
        let given = args.ranks.or(layout).or(from_classes);
        if given.is_some_and(|ranks| ranks != launch.size) || args.emulate_hosts.is_some() {
            let (launcher, size) = (launch.launcher, launch.size);
            return Err(Usage(format!(
                "{launcher} has started {size} ranks on hosts of their own\n\
                 hint: leave out --ranks and --emulate-hosts, or give --layout and --classes for \
                 {size} ranks"
            ))
            .into());
        }
        return Ok(launch.size);
    }
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    let default = processors.min(RANKS_MAX) as u32;
    let ranks = args.ranks.or(layout).or(from_classes).unwrap_or(default);
    // Checked here already because a layout lists its ranks.
    let most = Settings::MOST_RANKS;
    if !(1..=most).contains(&ranks) {
        let hint = format!("hint: give a number of ranks from 1 to {most}");
        return Err(Usage(format!(
            "the number of ranks is {ranks}: too few or too many\n{hint}"
        ))
        .into());
    }
    Ok(ranks)
}

/// Ranks that start within one more second.
const RANKS_PER_SECOND: u64 = 64;

/// How long the ranks of a launch wait for each other at first.
pub(crate) fn init_timeout(args: &RunArgs, launch: Option<&Launch>) -> Duration {
    let ranks = launch.map_or(1, |launch| u64::from(launch.size));
    let usual = Settings::DEFAULT_TIMEOUT.as_secs() + ranks / RANKS_PER_SECOND;
    Duration::from_secs(args.init_timeout.unwrap_or(usual))
}

fn layout(args: &RunArgs, ranks: u32) -> Result<Layout> {
    let usage = |what: &str, text: &str| {
        Usage(format!(
            "cannot read {what} `{text}`\nhint: give one whole number, or one per rank"
        ))
    };
    let shares: Result<Vec<u32>, Usage> = args
        .micro_batches
        .split(',')
        .map(|share| {
            share
                .trim()
                .parse()
                .map_err(|_| usage("--micro-batches", share))
        })
        .collect();
    let shares = match shares?[..] {
        [share] => vec![share; ranks as usize],
        ref shares => shares.to_vec(),
    };
    let bucket_bytes = parse_bytes(&args.bucket_bytes)
        .map_err(|error| Usage(format!("--bucket-bytes: {error}\nhint: for example `1M`")))?;
    if bucket_bytes == 0 {
        let hint = "hint: for example `--bucket-bytes 1M`";
        return Err(Usage(format!("--bucket-bytes is 0: no gradient fits\n{hint}")).into());
    }
    Ok(Layout {
        data_parallel: ranks,
        micro_batches: shares,
        bucket_bytes,
        overlap: !args.no_overlap,
    })
}

/// The first of `laggard-run-1`, `laggard-run-2`, ... that is not there yet.
pub(crate) fn free_name(folder: &Path) -> PathBuf {
    let mut number = 1;
    loop {
        let path = folder.join(format!("laggard-run-{number}"));
        if !path.exists() {
            return path
                .strip_prefix(".")
                .map(Path::to_path_buf)
                .unwrap_or(path);
        }
        number += 1;
    }
}
