//! How far a step is from what was predicted for its layout, by costs that were calibrated on runs
//! of other layouts.
//!
//! Each round runs the layouts of the calibration and one layout more on as many ranks, in random
//! order, since the speed of a shared machine drifts; fits the costs of operations on the former;
//! and predicts the step of the latter from its schedule alone.
//!
//! `calibrated_prediction --help` shows what can be asked for.
#![expect(clippy::print_stdout, reason = "the table is the result")]

use anyhow::{Context, Result};
use clap::Parser;
use laggard_analyze::{OperationTime, analyze, operation_times};
use laggard_benches::models::{LAYER_ELEMENTS, OUTPUT_ELEMENTS, layered};
use laggard_measure::{Hooks, Settings, run};
use laggard_record::{Manifest, Record};
use laggard_schedule::Layout;
use laggard_simulate::{Calibration, observations};
use laggard_specs::Model;
use laggard_stats::{Rng, median, quantile};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Layouts of a number of ranks: what costs are calibrated on, each kind of parallelism in two
/// degrees, and what is predicted. Other numbers of ranks share the caches of the processors
/// otherwise, which no cost of an operation tells.
const WORLDS: [Layouts; 2] = [
    Layouts {
        known: ["dp4", "dp2,tp2", "tp4", "dp2,pp2", "dp2,cp2", "cp4"],
        predicted: ["pp4", "tp2,pp2", "cp2,pp2", "tp2,cp2", "dp4,zero1"],
    },
    Layouts {
        known: ["dp8", "dp4,tp2", "dp2,tp4", "dp4,pp2", "dp4,cp2", "dp2,cp4"],
        predicted: [
            "dp2,pp4",
            "dp2,tp2,pp2",
            "tp2,pp4",
            "dp2,cp2,pp2",
            "dp8,zero1",
        ],
    },
];
const LAYERS: u32 = 8;
/// Steps that are drawn for a prediction.
const DRAWS: u32 = 41;

/// What is run with a number of ranks.
struct Layouts {
    known: [&'static str; 6],
    predicted: [&'static str; 5],
}

/// One run.
struct Made {
    manifest: Manifest,
    times: Vec<OperationTime>,
    step_seconds: f64,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let model = layered(LAYERS, LAYER_ELEMENTS / 2 / OUTPUT_ELEMENTS)?;
    let mut csv = options.csv.as_ref().map(File::create).transpose()?;
    let header = "round,layout,basis,measured_ms,predicted_ms,error";
    if let Some(file) = &mut csv {
        writeln!(file, "{header}")?;
    }
    let mut errors = Vec::new();
    for round in 0..options.rounds {
        let mut rng = Rng::for_stream(options.seed, u64::from(round));
        let layouts = &WORLDS[round as usize % WORLDS.len()];
        let layout = layouts.predicted[round as usize / WORLDS.len() % layouts.predicted.len()];
        let (known, unknown) = made((&layouts.known, layout), &model, options.steps, &mut rng)
            .with_context(|| format!("round {round}, {layout}"))?;
        let predicted = predict(&known, &unknown.manifest)?;
        let error = predicted / unknown.step_seconds - 1.0;
        let (seen, said) = (1e3 * unknown.step_seconds, 1e3 * predicted);
        let basis = unknown.manifest.clock.basis;
        println!(
            "{layout:<14} {basis:?}: {seen:7.3} ms, predicted {said:7.3} ms, {:+.2} %",
            1e2 * error
        );
        if let Some(file) = &mut csv {
            writeln!(
                file,
                "{round},\"{layout}\",{basis:?},{seen:.4},{said:.4},{error:.5}"
            )?;
        }
        errors.push(error.abs());
    }
    let middle = median(&errors)?;
    println!(
        "absolute error of {} predictions: median {:.2} %, 90th percentile {:.2} %, largest {:.2} \
         %",
        errors.len(),
        1e2 * middle,
        1e2 * quantile(&errors, 0.9)?,
        1e2 * quantile(&errors, 1.0)?
    );
    Ok(
        match options
            .require_median
            .is_none_or(|required| middle < required)
        {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
    )
}

/// Runs the layouts of the calibration and the one to predict, in random order.
fn made(
    (known, layout): (&[&'static str], &'static str),
    model: &Model,
    steps: u32,
    rng: &mut Rng,
) -> Result<(Vec<Made>, Made)> {
    let mut left: Vec<&str> = known.to_vec();
    left.push(layout);
    let mut known = Vec::new();
    let mut unknown = None;
    while !left.is_empty() {
        let text = left.swap_remove(rng.below(left.len()));
        let it = one(text, model, steps, rng.next_u64() >> 1).with_context(|| text.to_owned())?;
        match text == layout {
            true => unknown = Some(it),
            false => known.push(it),
        }
    }
    Ok((known, unknown.context("the layout was not run")?))
}

fn one(text: &str, model: &Model, steps: u32, seed: u64) -> Result<Made> {
    let dir = tempfile::tempdir().context("no directory for the record")?;
    let mut layout = Layout::parse(text)?;
    let replicas = layout.data_parallel as usize;
    layout.micro_batches = vec![2 * layout.pipeline_parallel; replicas];
    let ranks = layout.world_size() as u32;
    let mut settings = Settings::new(model.clone(), ranks, dir.path().join("record"));
    settings.layout = layout;
    settings.steps = steps;
    settings.seed = seed;
    let hooks = Hooks {
        stop: &|| None,
        flush: &|| false,
        progress: &|_| (),
    };
    let made = run(&settings, &hooks)?;
    let record = Record::open(&made.record)?;
    let analysis = analyze(&record, &laggard_analyze::Options::default())?;
    Ok(Made {
        times: operation_times(&record)?,
        step_seconds: analysis.step_time.median,
        manifest: record.manifest,
    })
}

/// The step of a record's schedule, by costs calibrated on others.
fn predict(known: &[Made], manifest: &Manifest) -> Result<f64> {
    let mut seen = Vec::new();
    for it in known {
        let times = it.times.iter();
        let taken = times.map(|it| (it.rank, it.operation, it.seconds, &it.ratios[..]));
        seen.extend(observations(&it.manifest, taken));
    }
    let class = &manifest.classes[0].name;
    let calibration = Calibration::fit(&seen);
    Ok(calibration
        .predict(&manifest.schedule, |_| class.as_str(), (DRAWS, 1))?
        .median_s)
}

/// What the command line asks for.
#[derive(Parser)]
struct Options {
    /// Times that all layouts are run.
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: u32,
    /// Steps of each run.
    #[arg(long, value_name = "N", default_value_t = 100)]
    steps: u32,
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where each prediction goes.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Fails if the median of absolute errors is not below this share.
    #[arg(long, value_name = "SHARE")]
    require_median: Option<f64>,
}
