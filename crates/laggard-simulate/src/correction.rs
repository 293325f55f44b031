//! How far classes are from their datasheets: what a run took, beside what the cost model predicts
//! of the same job. [`Corrections`] come of it, with which [`crate::Machine::corrected`] predicts
//! other jobs. Knows records and the cost model, and nothing of files or of whose classes they are.

mod calls;
mod parts;
mod ratio;

use laggard_record::{Manifest, Origin, TimeBasis};
use laggard_schedule::{Operation, OperationKind, ScheduleOrigin};
use laggard_specs::Model;
use laggard_stats::median;
use laggard_types::{Caveat, CaveatCode, Rank};
use serde::Serialize;

use crate::compute::Constants;
use crate::error::SimulateError;
use crate::forecast::ForecastClass;
use crate::graph::predict_step;
use crate::job::{Corrections, Degrees, Job, Precision, Shape, Software};
pub use calls::{CallWork, MeasuredCall, compare_calls};
use parts::{ClassParts, Work};
use ratio::{RankTimes, Series, ratios};

/// Relative difference up to which two counts of parameters are the same but for rounding.
const SAME_PARAMETERS: f64 = 1e-9;

/// A run, with what its operations took on their own.
#[derive(Debug, Clone, Copy)]
pub struct MeasuredRun<'a> {
    /// Its record's manifest.
    pub manifest: &'a Manifest,
    /// Rank and operation of each column of `seconds`.
    pub columns: &'a [(Rank, u32)],
    /// What each took, `[step][column]`, without waiting for other ranks.
    pub seconds: &'a [f32],
    /// Length of each step, seconds.
    pub step_s: &'a [f64],
}

/// What a run is held against.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'a> {
    /// The run's model.
    pub model: &'a Model,
    /// What each class of the record is; `None` where nobody asks for it.
    pub classes: &'a [Option<&'a ForecastClass>],
    /// The arithmetic that corrections are wanted for.
    pub precision: Precision,
    /// What the software does.
    pub software: Software,
    /// Constants of the cost model.
    pub constants: &'a Constants,
}

/// What a run says of classes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunComparison {
    /// Steps after warm-up.
    pub steps: usize,
    /// The classes that were asked for.
    pub classes: Vec<ClassCorrection>,
    /// The run's own step; `None` where not all of its classes were asked for.
    pub own_step: Option<OwnStep>,
    /// What to know of the comparison.
    pub caveats: Vec<String>,
}

/// What a run says of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassCorrection {
    /// Name of the class that is corrected.
    pub class: String,
    /// Its accelerator.
    pub accelerator: String,
    /// Matrix products and attention.
    pub products: Correction,
    /// Kernels that are bound by memory.
    pub memory_bound: Correction,
    /// Collectives and transfers.
    pub links: Correction,
}

/// Times of one kind over their defaults.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// The default is replaced.
    Measured(Ratio),
    /// The default stays, because the record does not tell.
    Default {
        /// Why not, as a sentence goes on after a colon.
        reason: String,
    },
}

/// Measured over predicted time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Median over ranks of their medians over steps.
    pub value: f64,
    /// Lower end of its 95 % interval, over ranks and steps.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Ranks that tell.
    pub ranks: usize,
    /// Steps of each.
    pub steps: usize,
}

/// The step of the run that corrections are from, with operations as long as the cost model says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OwnStep {
    /// Median of the steps, seconds.
    pub measured_s: f64,
    /// Predicted by default.
    pub default_s: f64,
    /// Predicted with the corrections.
    pub corrected_s: f64,
    /// Relative error of the default.
    pub default_error: f64,
    /// Relative error with the corrections.
    pub corrected_error: f64,
}

impl ClassCorrection {
    /// The factors, 1 where nothing was measured.
    #[must_use]
    pub fn corrections(&self) -> Corrections {
        Corrections {
            products: self.products.factor(),
            memory_bound: self.memory_bound.factor(),
            links: self.links.factor(),
        }
    }
}

impl Correction {
    /// The factor, 1 where nothing was measured.
    #[must_use]
    pub fn factor(&self) -> f64 {
        match self {
            Self::Measured(ratio) => ratio.value,
            Self::Default { .. } => 1.0,
        }
    }

    fn untold(reason: &str) -> Self {
        Self::Default {
            reason: reason.to_owned(),
        }
    }
}

/// Compares a run with what is expected of it. Everything random has `seed`.
///
/// # Errors
/// A record without a layout, of another model, or whose arithmetic says nothing of the one that
/// is asked for; a class that was emulated.
pub fn compare_run(
    run: &MeasuredRun<'_>,
    against: &Expectation<'_>,
    seed: u64,
) -> Result<RunComparison, SimulateError> {
    let manifest = run.manifest;
    let job = own_job(manifest, against)?;
    let synthetic = |caveat: &Caveat| caveat.code == CaveatCode::SyntheticJob;
    let mut work = Work {
        single: false,
        element_bytes: element_bytes(manifest),
        synthetic: manifest.caveats.iter().any(synthetic),
    };
    let mut predicted = Vec::new();
    for (recorded, class) in manifest.classes.iter().zip(against.classes) {
        let Some(class) = class else {
            predicted.push(None);
            continue;
        };
        if recorded.emulated {
            let class = recorded.name.clone();
            return Err(SimulateError::EmulatedClass { class });
        }
        work.single = is_single(manifest, class, against.precision)?;
        let machine = (&class.machine, against.constants);
        predicted.push(Some(ClassParts::new(
            &job,
            &manifest.schedule,
            machine,
            work,
        )));
    }
    let mut classes = Vec::new();
    for (at, class) in against.classes.iter().enumerate() {
        if let (Some(class), Some(parts)) = (class, &predicted[at]) {
            let [products, memory_bound, links] = correct(run, at, parts, seed)?;
            classes.push(ClassCorrection {
                class: class.name.clone(),
                accelerator: class.accelerator.clone(),
                products,
                memory_bound,
                links,
            });
        }
    }
    Ok(RunComparison {
        steps: run.step_s.len(),
        own_step: own_step(run, &predicted, &classes)?,
        classes,
        caveats: caveats(manifest, work),
    })
}

/// The job of a record.
fn own_job(manifest: &Manifest, against: &Expectation<'_>) -> Result<Job, SimulateError> {
    let ScheduleOrigin::Generated(layout) = &manifest.schedule.origin else {
        return Err(SimulateError::NoLayoutInRecord);
    };
    let workload = &manifest.workload;
    let (recorded, known) = (workload.parameters, against.model.parameters() as f64);
    if (recorded / known - 1.0).abs() > SAME_PARAMETERS {
        return Err(SimulateError::OtherModel {
            model: workload.model.clone(),
            recorded,
            known,
        });
    }
    let mut software = against.software;
    if manifest.origin == Origin::Measured {
        // `laggard run` reduces gradients as it computes them.
        software.gradient_bytes = element_bytes(manifest) as f64;
    }
    Ok(Job {
        shape: Shape::of(against.model),
        degrees: Degrees::of_layout(layout, workload.micro_batch_sequences),
        sequence_length: workload.sequence_length,
        precision: against.precision,
        software,
    })
}

/// Whether a record was computed in single precision, from which a class tells of half precision
/// only if it does both by the same units.
fn is_single(
    manifest: &Manifest,
    class: &ForecastClass,
    wanted: Precision,
) -> Result<bool, SimulateError> {
    let data_type = manifest.workload.data_type.as_str();
    let refused = |why: String| {
        Err(SimulateError::OtherArithmetic {
            data_type: data_type.to_owned(),
            why,
        })
    };
    let (name, half) = (&class.accelerator, class.machine.half_peak);
    match (data_type, wanted, class.machine.single_peak) {
        ("bf16" | "fp16", Precision::Half, _)
        | ("fp8", Precision::Fp8, _)
        | ("fp4", Precision::Fp4, _) => Ok(false),
        ("f32", Precision::Half, Some(single)) if half <= single => Ok(true),
        ("f32", Precision::Half, Some(single)) => refused(format!(
            "{name} computes half precision, which is forecast, by other units: their peak is \
             {half:.3e} FLOP/s, that of f32 {single:.3e}"
        )),
        ("f32", Precision::Half, None) => refused(format!(
            "the peak of {name} in f32 is unknown (dense_fp32_flop_per_s)"
        )),
        _ => refused(format!("the forecast is in {}", arithmetic(wanted))),
    }
}

/// Bytes of an element of the record's schedule: the large products alone are in less than half
/// precision.
fn element_bytes(manifest: &Manifest) -> u64 {
    match manifest.workload.data_type.as_str() {
        "f32" => 4,
        _ => 2,
    }
}

const fn arithmetic(precision: Precision) -> &'static str {
    match precision {
        Precision::Half => "half precision",
        Precision::Fp8 => "fp8",
        Precision::Fp4 => "fp4",
    }
}

/// What a run says of one class: products, memory-bound kernels, links.
fn correct(
    run: &MeasuredRun<'_>,
    class: usize,
    parts: &ClassParts,
    seed: u64,
) -> Result<[Correction; 3], SimulateError> {
    let manifest = run.manifest;
    let schedule = &manifest.schedule;
    let is_of_class = |rank: &Rank| manifest.ranks[*rank as usize].class as usize == class;
    // A meeting with another class takes as long as the slower of the two.
    let meets_its_own = |operation: &Operation, rank: Rank| {
        let group = operation.axis.and_then(|axis| schedule.group(axis, rank));
        group.is_some_and(|group| group.iter().all(is_of_class))
    };
    let (count, steps) = (run.columns.len(), run.step_s.len());
    let mut ranks: Vec<Option<RankTimes>> = vec![None; schedule.world_size()];
    for (column, &(rank, id)) in run.columns.iter().enumerate() {
        if !is_of_class(&rank) {
            continue;
        }
        let operation = &schedule.operations[id as usize];
        let expected = parts.of(operation);
        let series = match operation.kind {
            OperationKind::Host => continue,
            OperationKind::Compute if expected.products > 0.0 => Series::Layers,
            OperationKind::Compute => Series::MemoryBound,
            // On the virtual clock the time of a processor counts, and no link's.
            _ if manifest.clock.basis == TimeBasis::Virtual => continue,
            _ if !meets_its_own(operation, rank) => continue,
            _ => Series::Links,
        };
        let times = ranks[rank as usize].get_or_insert_with(|| RankTimes::new(steps));
        let taken = run.seconds.iter().skip(column).step_by(count);
        times.add(series, &expected, taken.map(|it| f64::from(*it)));
    }
    let ranks: Vec<RankTimes> = ranks.into_iter().flatten().collect();
    let no_links = match manifest.clock.basis {
        TimeBasis::Virtual => "ranks that share processors tell nothing of links",
        TimeBasis::Wall => "no collective or transfer is among ranks of this class alone",
    };
    ratios(&ranks, run.step_s, (no_links, seed))
}

/// The run's own step by default and with corrections, where all of its classes are known.
fn own_step(
    run: &MeasuredRun<'_>,
    predicted: &[Option<ClassParts>],
    found: &[ClassCorrection],
) -> Result<Option<OwnStep>, SimulateError> {
    let known: Vec<&ClassParts> = predicted.iter().flatten().collect();
    if known.len() < run.manifest.classes.len() {
        return Ok(None);
    }
    let class = |rank: Rank| run.manifest.ranks[rank as usize].class as usize;
    let step = |corrections: &[Corrections]| {
        predict_step(
            &run.manifest.schedule,
            |rank| class(rank) as u64,
            |operation, rank| {
                let class = class(rank);
                known[class].of(operation).seconds(&corrections[class])
            },
        )
    };
    let corrections: Vec<Corrections> = found.iter().map(ClassCorrection::corrections).collect();
    let measured_s = median(run.step_s)?;
    let default_s = step(&vec![Corrections::default(); known.len()])?.step_s;
    let corrected_s = step(&corrections)?.step_s;
    Ok(Some(OwnStep {
        measured_s,
        default_s,
        corrected_s,
        default_error: default_s / measured_s - 1.0,
        corrected_error: corrected_s / measured_s - 1.0,
    }))
}

fn caveats(manifest: &Manifest, work: Work) -> Vec<String> {
    let mut list = Vec::new();
    let mut add = |text: &str| list.push(text.to_owned());
    if !matches!(manifest.origin, Origin::Measured) {
        add("the record was predicted, not measured");
    }
    if work.single {
        add("computed in f32: half precision is taken to reach the same shares of its peak");
    }
    if work.synthetic {
        add("synthetic: held against products and links alone, with all of attention's square");
    }
    if manifest.clock.basis == TimeBasis::Virtual {
        add("its ranks shared processors: what counts is the processor time of each");
    }
    list
}

#[cfg(test)]
mod tests;
