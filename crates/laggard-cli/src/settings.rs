//! From what was typed to what is run.

mod planned;

use crate::args::{Rates, RunArgs};
use crate::failure::Usage;
use crate::launcher::Launch;
use anyhow::Result;
use laggard_measure::{ClassShare, MeasureError, Settings};
use laggard_schedule::{Layout, LayoutError};
use laggard_specs::{Model, RateBasis, SpecsError, Tables};
use laggard_types::{DataType, parse_bytes};
pub(crate) use planned::of_plan;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ranks of a run that says nothing, where there is no GPU: one per processor, and no more than
/// show a picture.
const RANKS_MAX: usize = 4;

/// Settings of `laggard run`, for the processes of a launch or for ranks of this process, which
/// compute on so many GPUs of this machine or on its processors.
pub(crate) fn of_run(
    args: &RunArgs,
    launch: Option<&Launch>,
    gpus: Option<usize>,
) -> Result<Settings> {
    let tables = Tables::builtin()?;
    let classes = match &args.classes {
        Some(text) => ClassShare::parse_list(text, &tables, basis(args))
            .map_err(|error| naming_all(error, &tables))?,
        None => Vec::new(),
    };
    let layout = layout(args, &classes, launch, gpus)?;
    let mut model = known_model(&args.model, &tables)?;
    if let Some(layers) = args.layers {
        // Another model, which must not be taken for the whole one.
        model.id = format!("{}-of-{layers}-layers", model.id);
        model.layers = layers;
    }
    let settings = Settings::new(model, 1, record(args));
    let mut settings = around(args, settings, (launch, gpus.is_some()))?;
    settings.layout = layout;
    settings.classes = classes;
    settings.emulate_hosts = args.emulate_hosts.unwrap_or(1);
    if let Some(length) = args.sequence_length {
        settings.sequence_length = length;
    }
    Ok(settings)
}

/// A model of the tables; the error about an unknown one names all.
pub(crate) fn known_model(name: &str, tables: &Tables) -> Result<Model> {
    let model = tables.model(name);
    let model = model.map_err(|error| naming_all(error.into(), tables))?;
    Ok(model.clone())
}

fn basis(args: &RunArgs) -> RateBasis {
    match args.rates {
        Rates::Measured => RateBasis::Measured,
        Rates::Peak => RateBasis::Peak,
    }
}

/// What a job is kept in: where nothing is asked for, what its devices are made for.
fn data_type(args: &RunArgs, on_gpus: bool) -> Result<DataType> {
    let Some(name) = &args.data_type else {
        return Ok(match on_gpus {
            true => DataType::Bf16,
            false => DataType::F32,
        });
    };
    let known = DataType::ALL.into_iter().find(|it| it.name() == name);
    let hint = "hint: give --data-type bf16, f16 or f32";
    known.ok_or_else(|| Usage(format!("no data type is called `{name}`\n{hint}")).into())
}

/// Folder of the record.
fn record(args: &RunArgs) -> PathBuf {
    let free = || free_name(Path::new("."));
    args.output.clone().unwrap_or_else(free)
}

/// Settings with all that does not depend on the job.
fn around(
    args: &RunArgs,
    mut settings: Settings,
    (launch, on_gpus): (Option<&Launch>, bool),
) -> Result<Settings> {
    settings.data_type = data_type(args, on_gpus)?;
    settings.steps = args.steps;
    settings.seed = args.seed;
    settings.timeout = Duration::from_secs(args.timeout);
    settings.init_timeout = init_timeout_of(args.init_timeout, launch);
    settings.scratch.clone_from(&args.scratch);
    settings.soak = args.soak.map(Duration::from_secs);
    settings.allow_shared_gpu = args.allow_shared_gpu;
    settings.command_line = std::env::args().collect();
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

/// The layout that is asked for, of as many ranks as the other options agree on.
fn layout(
    args: &RunArgs,
    classes: &[ClassShare],
    launch: Option<&Launch>,
    gpus: Option<usize>,
) -> Result<Layout> {
    let layout = match &args.layout {
        Some(text) => Some(Layout::parse(text).map_err(MeasureError::from)?),
        None => None,
    };
    let ranks = ranks(args, layout.as_ref(), classes, (launch, gpus))?;
    let layout = layout.unwrap_or_else(|| Layout::data_parallel(ranks, 1));
    let bucket_bytes = parse_bytes(&args.bucket_bytes)
        .map_err(|error| Usage(format!("--bucket-bytes: {error}\nhint: for example `1M`")))?;
    if bucket_bytes == 0 {
        let hint = "hint: for example `--bucket-bytes 1M`";
        return Err(Usage(format!("--bucket-bytes is 0: no gradient fits\n{hint}")).into());
    }
    let stage_layers = match &args.stage_layers {
        Some(text) => numbers(
            "--stage-layers",
            "give one whole number for each stage",
            text,
        )?,
        None => Vec::new(),
    };
    Ok(Layout {
        micro_batches: micro_batches(args, &layout)?,
        stage_layers,
        bucket_bytes,
        overlap: !args.no_overlap,
        ..layout
    })
}

/// The number of ranks that the options agree on.
fn ranks(
    args: &RunArgs,
    layout: Option<&Layout>,
    classes: &[ClassShare],
    (launch, gpus): (Option<&Launch>, Option<usize>),
) -> Result<u32> {
    let of_layout = layout.map(Layout::world_size);
    let ranks_of = |class: &ClassShare| u64::from(class.ranks);
    let from_classes = (!classes.is_empty()).then(|| classes.iter().map(ranks_of).sum());
    if let Some(layout) = layout
        && let Some(ranks) = args.ranks.map(u64::from).or(from_classes)
        && ranks != layout.world_size()
    {
        let error = LayoutError::WrongWorldSize {
            layout: layout.to_string(),
            needed: layout.world_size(),
            ranks: ranks.try_into().unwrap_or(u32::MAX),
        };
        return Err(MeasureError::from(error).into());
    }
    let given = args.ranks.map(u64::from).or(of_layout).or(from_classes);
    if let Some(launch) = launch {
        let other = given.is_some_and(|ranks| ranks != u64::from(launch.size));
        if other || args.emulate_hosts.is_some() {
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
    let processors = || std::thread::available_parallelism().map_or(1, |count| count.get());
    let own = || gpus.unwrap_or_else(|| processors().min(RANKS_MAX)) as u64;
    let ranks = given.unwrap_or_else(own);
    // Checked here already because a layout lists its replicas.
    let most = Settings::MOST_RANKS;
    let fits = u32::try_from(ranks)
        .ok()
        .filter(|ranks| (1..=most).contains(ranks));
    fits.ok_or_else(|| {
        let hint = format!("hint: give a number of ranks from 1 to {most}");
        Usage(format!(
            "the number of ranks is {ranks}: too few or too many\n{hint}"
        ))
        .into()
    })
}

/// Micro-batches of a pipeline stage where nothing is said: stages idle for less than a third of a
/// step with these, and pieces of stages can be interleaved.
const MICRO_BATCHES_PER_STAGE: u32 = 2;

/// Micro-batches of each replica.
fn micro_batches(args: &RunArgs, layout: &Layout) -> Result<Vec<u32>, Usage> {
    let all = |share| vec![share; layout.data_parallel as usize];
    let Some(text) = &args.micro_batches else {
        return Ok(match layout.pipeline_parallel {
            1 => all(1),
            stages => all(stages * MICRO_BATCHES_PER_STAGE),
        });
    };
    let hint = "give one whole number, or one for each replica";
    Ok(match numbers("--micro-batches", hint, text)?[..] {
        [share] => all(share),
        ref shares => shares.to_vec(),
    })
}

/// Whole numbers with commas between them.
fn numbers(flag: &str, hint: &str, text: &str) -> Result<Vec<u32>, Usage> {
    let read = |part: &str| {
        let number = part.trim().parse();
        number.map_err(|_| Usage(format!("cannot read {flag} `{part}`\nhint: {hint}")))
    };
    text.split(',').map(read).collect()
}

/// Ranks that start within one more second.
const RANKS_PER_SECOND: u64 = 64;

/// How long the ranks of a launch wait for each other at first.
pub(crate) fn init_timeout_of(given: Option<u64>, launch: Option<&Launch>) -> Duration {
    let ranks = launch.map_or(1, |launch| u64::from(launch.size));
    let usual = Settings::DEFAULT_TIMEOUT.as_secs() + ranks / RANKS_PER_SECOND;
    Duration::from_secs(given.unwrap_or(usual))
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
