//! The jobs of a plan as settings of runs.

use super::{around, basis, known_model, naming_all, record};
use crate::args::RunArgs;
use crate::failure::Usage;
use crate::input;
use crate::launcher::Launch;
use anyhow::{Context, Result};
use laggard_measure::{ClassShare, Settings};
use laggard_plan::{PlanFile, PlannedJob, PlannedOption};
use laggard_specs::Tables;
use std::collections::BTreeMap;
use std::path::Path;

/// Settings of the jobs of `laggard run --plan`, in the order in which they take ranks.
pub(crate) fn of_plan(
    args: &RunArgs,
    path: &Path,
    (launch, on_gpus): (Option<&Launch>, bool),
) -> Result<Vec<Settings>> {
    let unusable = || format!("cannot use {}", path.display());
    let plan = PlanFile::parse(&input::text(path)?).with_context(unusable)?;
    let option = plan.option(args.rehearsal.option).with_context(unusable)?;
    let jobs = jobs(option, args.rehearsal.job.as_deref())?;
    if let Some((job, why)) = jobs.iter().find_map(|job| Some((job, job.unrehearsed()?))) {
        let hint = "hint: choose another part of the plan with --option or --job, or plan with \
                    another --framework";
        return Err(Usage(format!("{} cannot be rehearsed: {why}\n{hint}", job.name)).into());
    }
    let tables = Tables::builtin()?;
    let rates = rates(args, &plan, &tables)?;
    let folder = record(args);
    let settings = |job: &&PlannedJob| {
        let record = match option.jobs.len() {
            1 => folder.clone(),
            _ => folder.join(&job.name),
        };
        let settings = Settings::new(known_model(&job.model, &tables)?, 1, record);
        let mut settings = around(args, settings, (launch, on_gpus))?;
        settings.layout = job.layout();
        settings.sequence_length = job.sequence_length;
        settings.micro_batch_sequences = job.degrees.micro_batch;
        settings.classes =
            ClassShare::of_ranks(&job.class_of_rank(), |class| rates.get(class).cloned());
        Ok(settings)
    };
    let settings: Vec<Settings> = jobs.iter().map(settings).collect::<Result<_>>()?;
    check_ranks(&jobs, launch)?;
    if launch.is_some() && jobs.len() > 1 && args.output.is_none() {
        let hint = "hint: give one folder to all ranks with -o";
        let what = "jobs beside each other cannot choose a folder together";
        return Err(Usage(format!("{what}\n{hint}")).into());
    }
    Ok(settings)
}

/// The jobs to run: all of the option, or the one that was named.
fn jobs<'p>(option: &'p PlannedOption, name: Option<&str>) -> Result<Vec<&'p PlannedJob>> {
    let is_asked = |job: &&PlannedJob| name.is_none_or(|name| job.name == name);
    let jobs: Vec<&PlannedJob> = option.jobs.iter().filter(is_asked).collect();
    if !jobs.is_empty() {
        return Ok(jobs);
    }
    let Some(name) = name else {
        let hint = "hint: choose an option that trains with --option";
        let what = &option.name;
        return Err(Usage(format!("nothing trains in the option `{what}`\n{hint}")).into());
    };
    let known: Vec<&str> = option.jobs.iter().map(|job| job.name.as_str()).collect();
    let hint = format!("hint: its jobs are {}", known.join(", "));
    Err(Usage(format!("the option has no job `{name}`\n{hint}")).into())
}

/// How fast each class is to be, relative to the fastest, where classes are emulated.
fn rates<'p>(
    args: &RunArgs,
    plan: &'p PlanFile,
    tables: &Tables,
) -> Result<BTreeMap<&'p str, (f64, String)>> {
    let names = || plan.classes.iter().map(|class| class.name.as_str());
    let measured = plan.classes.iter().map(|class| class.emulated_rate);
    if let Some(measured) = measured.collect::<Option<Vec<f64>>>() {
        let source = || "as in the run that was planned from".to_owned();
        return Ok(names()
            .zip(measured.into_iter().map(|rate| (rate, source())))
            .collect());
    }
    if !args.rehearsal.emulate {
        return Ok(BTreeMap::new());
    }
    let accelerators: Vec<&str> = plan
        .classes
        .iter()
        .map(|class| class.accelerator.as_str())
        .collect();
    let rates = tables
        .class_rates(&accelerators, basis(args))
        .map_err(|error| naming_all(error.into(), tables))?;
    let rates = rates.into_iter().map(|rate| (rate.relative, rate.source));
    Ok(names().zip(rates).collect())
}

/// Refuses a plan for other ranks than there are.
fn check_ranks(jobs: &[&PlannedJob], launch: Option<&Launch>) -> Result<()> {
    let needed: u64 = jobs.iter().map(|job| job.ranks()).sum();
    let most = u64::from(Settings::MOST_RANKS);
    let refused = match launch {
        Some(launch) if u64::from(launch.size) != needed => format!(
            "the plan needs {needed} ranks, {} has started {}\nhint: start {needed}, or choose a \
             part of the plan with --option or --job",
            launch.launcher, launch.size
        ),
        None if needed > most => format!(
            "the plan needs {needed} ranks, one process takes {most}\nhint: start it on the \
             plan's nodes with mpirun or srun, or plan a smaller cluster"
        ),
        _ => return Ok(()),
    };
    Err(Usage(refused).into())
}
