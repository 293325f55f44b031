//! `laggard simulate`: what a job will do on a cluster, before it runs.

mod calibrated;
mod page;
mod record;

use super::calibrate::{Basis, CalibratedOn, calibrate};
use super::usual;
use crate::args::SimulateArgs;
use crate::{exit_code, input, output};
use anyhow::{Context, Result};
use laggard_plan::{BATCH_TOLERANCE, Demand, Space, fastest_layouts, memory_of_layout, weakest};
use laggard_schedule::Layout;
use laggard_simulate::{
    Constants, Degrees, FabricOptions, FailureRate, FleetAssumptions, Forecast, ForecastClass,
    Framework, Frameworks, Identification, Job, Lockstep, Machine, Shape, Spares, forecast,
    identify_mfu, mix_alone,
};
use laggard_specs::{Attention, Model, RateBasis, Tables, training_flop_per_token};
use laggard_types::Seconds;
use serde::Serialize;

/// The model where none is said.
const USUAL_MODEL: &str = "llama3.1-405b";
/// Everything that is printed.
#[derive(Debug, Serialize)]
struct Simulation {
    model: String,
    cluster: String,
    layout: String,
    framework: String,
    sequence_length: u32,
    global_batch: u64,
    caveats: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calibrated_on: Vec<CalibratedOn>,
    /// What the step would be without calibration, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    step_by_default_s: Option<f64>,
    forecast: Forecast,
    #[serde(skip_serializing_if = "Option::is_none")]
    spares: Option<Spares>,
    /// What the mix alone makes of the assumed MFU, by peaks.
    mix_by_peak: Option<Lockstep>,
    /// The same by measured rates of the classes; absent where no workload has all of them.
    mix_by_measured_rates: Option<Lockstep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet_figure: Option<Identification>,
}

pub(crate) fn run(args: &SimulateArgs) -> Result<u8> {
    let tables = input::tables(&args.tables)?;
    if !args.calibrated_on.is_empty() {
        calibrated::run(args, &tables)?;
        return Ok(exit_code::DONE);
    }
    let model = tables.model(args.model.as_deref().unwrap_or(USUAL_MODEL))?;
    let (cluster, mut classes) = classes(args, &tables)?;
    let constants = Constants::builtin()?;
    let frameworks = Frameworks::builtin()?;
    let framework = usual::framework(args.job.framework.as_deref(), &frameworks)?;
    let basis = Basis {
        tables: &tables,
        precision: usual::precision(args.job.precision),
        software: framework.software,
        constants: &constants,
    };
    let by_default = classes.clone();
    let mut each: Vec<&mut ForecastClass> = classes.iter_mut().collect();
    let calibrated_on = calibrate(&args.job.calibrate, &mut each, &basis)?;
    let job = job(args, model, &classes, framework, &constants)?;
    let length = u64::from(job.sequence_length);
    let flop = training_flop_per_token(model, length, Attention::Causal).0;
    let around = usual::surroundings(&args.job)?;
    let forecast_on = |classes: &[_]| forecast(&job, flop, classes, around, &constants);
    let forecast = forecast_on(&classes)?;
    let default = (!calibrated_on.is_empty()).then(|| forecast_on(&by_default));
    let mixed = classes.len() > 1;
    let alone = |rates: Option<&[f64]>| mix_alone(&classes, args.assumed_mfu, rates);
    let measured = measured_rates(&classes, &tables).filter(|_| mixed);
    let simulation = Simulation {
        model: model.name.clone(),
        cluster,
        layout: job.degrees.to_string(),
        framework: framework.id.clone(),
        sequence_length: job.sequence_length,
        global_batch: job.degrees.global_batch(),
        caveats: caveats(&job, args.accelerator.is_some().then_some(&classes[0]))?,
        calibrated_on,
        step_by_default_s: default.transpose()?.map(|it| it.step_s),
        mix_by_peak: mixed.then(|| alone(None)).transpose()?,
        mix_by_measured_rates: measured.map(|rates| alone(Some(&rates))).transpose()?,
        fleet_figure: args
            .fleet_mfu
            .map(|it| fleet_figure(it, &classes))
            .transpose()?,
        spares: spares(&forecast, &classes, args.repair_time)?,
        forecast,
    };
    output::either(&args.result, &simulation, || {
        page::page(&simulation, args.assumed_mfu)
    })?;
    if let Some(dir) = &args.record {
        let used = simulation.forecast.classes.iter().map(|class| class.ranks);
        let used: Vec<(&ForecastClass, u64)> = classes.iter().zip(used).collect();
        let used: Vec<_> = used.into_iter().filter(|(_, ranks)| *ranks > 0).collect();
        record::write(dir, args, (&job, model), &used, &constants)?;
    }
    Ok(exit_code::DONE)
}

/// What the prediction leaves out or takes from elsewhere. `alone` is the class of accelerators
/// that are of no cluster.
fn caveats(job: &Job, alone: Option<&ForecastClass>) -> Result<Vec<String>> {
    let mut list = Vec::new();
    if let Some(class) = alone
        && let Some(rate) = FailureRate::of_accelerator(&class.accelerator)?
    {
        let (counts, source) = (rate.counts, rate.source);
        list.push(format!(
            "failures are taken from elsewhere: {counts} ({source})"
        ));
    }
    let tokens = job.tokens_per_step();
    if tokens > usual::BATCH_TOKENS as f64 * (1.0 + BATCH_TOLERANCE) {
        list.push(format!(
            "convergence is not modelled: a step of {:.0} Mi tokens is larger than the 16 Mi of \
             Llama 3 405B; --global-batch {} would be as many",
            tokens / f64::from(1 << 20),
            usual::BATCH_TOKENS / u64::from(job.sequence_length)
        ));
    }
    Ok(list)
}

/// What the accelerators that the job leaves over do as spares.
fn spares(
    forecast: &Forecast,
    classes: &[ForecastClass],
    repair_time: Option<f64>,
) -> Result<Option<Spares>> {
    let Some(repair) = repair_time else {
        return Ok(None);
    };
    let of_node = classes.iter().filter_map(|class| class.devices_per_node);
    let node = of_node.max().unwrap_or(usual::DEVICES_PER_NODE);
    Ok(forecast.spares(node, Seconds(repair))?)
}

/// The name of the cluster, and its classes.
fn classes(args: &SimulateArgs, tables: &Tables) -> Result<(String, Vec<ForecastClass>)> {
    if let (Some(name), Some(count)) = (&args.accelerator, args.gpus) {
        let accelerator = tables.accelerator(name)?;
        let class = ForecastClass {
            name: accelerator.id.clone(),
            accelerator: accelerator.id.clone(),
            count,
            devices_per_node: None,
            machine: Machine::new(accelerator, &FabricOptions::default())?,
            failures_per_device_year: FailureRate::of_accelerator(&accelerator.id)?
                .map(|rate| rate.per_device_year()),
        };
        return Ok((format!("{count} x {}", accelerator.product), vec![class]));
    }
    let name = args.cluster.as_deref().unwrap_or_default();
    let cluster = input::cluster(name, tables)?;
    let classes = ForecastClass::of_cluster(&cluster, tables)?;
    Ok((cluster.name.unwrap_or(cluster.id), classes))
}

/// The job with the layout that was given, or the fastest.
fn job(
    args: &SimulateArgs,
    model: &Model,
    classes: &[ForecastClass],
    framework: &Framework,
    constants: &Constants,
) -> Result<Job> {
    let sequence_length = usual::sequence_length(args.job.sequence_length, model);
    let devices: u64 = classes.iter().map(|class| class.count).sum();
    let usual = usual::batch_tokens(devices) / u64::from(sequence_length);
    let batch = args.global_batch.unwrap_or(usual.max(1));
    let precision = usual::precision(args.job.precision);
    let tolerance = match args.global_batch {
        Some(_) => 0.0,
        None => BATCH_TOLERANCE,
    };
    let demand = Demand {
        model,
        sequence_length,
        global_batch: batch,
        batch_excess: tolerance,
        batch_shortfall: tolerance,
        precision,
        software: framework.software,
    };
    let machine = weakest(classes.iter()).context("a cluster without pools")?;
    let degrees = match &args.layout {
        Some(text) => {
            let degrees = given(text, args, batch)?;
            memory_of_layout(&demand, &degrees, &machine)?;
            degrees
        }
        None => {
            let space = Space::of(devices, classes.iter());
            fastest_layouts(&demand, space, &machine, constants, 1)?.best[0].degrees
        }
    };
    Ok(Job {
        shape: Shape::of(model),
        degrees,
        sequence_length,
        precision,
        software: framework.software,
    })
}

/// The degrees of a layout in text form, for the batch that was said or, as nearly as replicas can
/// share it, the usual one.
fn given(text: &str, args: &SimulateArgs, usual: u64) -> Result<Degrees> {
    let layout = Layout::parse(text)?;
    let degrees = Degrees::of_layout(&layout, args.micro_batch.unwrap_or(1));
    let at_once = u64::from(degrees.data) * u64::from(degrees.micro_batch);
    let nearest = (usual / at_once).max(1) * at_once;
    Ok(degrees.with_global_batch(args.global_batch.unwrap_or(nearest))?)
}

/// Training rates of the classes on one workload, where one has all of them.
fn measured_rates(classes: &[ForecastClass], tables: &Tables) -> Option<Vec<f64>> {
    let names: Vec<&str> = classes.iter().map(|it| it.accelerator.as_str()).collect();
    let rates = tables.class_rates(&names, RateBasis::Measured).ok()?;
    Some(rates.iter().map(|rate| rate.relative).collect())
}

/// What a company-wide figure may mean.
fn fleet_figure(figure: f64, classes: &[ForecastClass]) -> Result<Identification> {
    let machine = weakest(classes.iter()).context("a cluster without pools")?;
    Ok(identify_mfu(figure, &FleetAssumptions::usual(&machine))?)
}
