//! Published training rows as jobs: what a row says, what its framework implies, and the best of
//! what neither says. Predictions stand beside measurements; nothing is fitted here.

mod errors;
mod framework;
mod interconnect;
mod layout;
mod noise;
mod outcome;

use laggard_specs::{Convention, Model, PublishedRow, Recompute, RowKind, SpecsError, Tables};

pub use errors::{ErrorSummary, GroupKey, summaries, summary};
pub use noise::{NoiseFloor, noise_floor};
pub use outcome::{LeftOut, PublishedComparison, RowClass, RowPrediction};

use crate::compute::Constants;
use crate::error::SimulateError;
use crate::job::{Degrees, Frameworks, Job, Machine, Precision, Shape};
use crate::step::{Communication, predict_with};
use framework::framework_of;
use layout::Candidates;

/// Tokens of a sequence beyond which a row counts as one of long context.
const LONG_CONTEXT: u64 = 8192;
/// Words by which a source or whoever compiled its rows calls a row an anomaly.
const ANOMALY_WORDS: [&str; 3] = ["OUTLIER", "SUSPECT", "Internally inconsistent"];

/// A published row that can be predicted.
#[derive(Debug, Clone)]
pub struct PublishedJob {
    /// The row's id.
    pub row_id: String,
    /// Its source.
    pub source: String,
    /// Its model, as the source calls it.
    pub model: String,
    /// Its accelerator.
    pub accelerator: String,
    /// How many of them.
    pub accelerators: u64,
    /// Which rows it is counted with.
    pub class: RowClass,
    /// Whether the row does not say how the model was laid out.
    pub layout_assumed: bool,
    /// Id of the framework.
    pub framework: String,
    /// Throughput of the framework over what is predicted, as fitted.
    pub efficiency: f64,
    /// Tokens per second and accelerator, as measured.
    pub measured_tokens_per_s: f64,
    /// Model FLOP of a token, causal.
    pub flop_per_token: f64,
    machine: Machine,
    /// Jobs that the row may mean, each with its communication; at least one.
    candidates: Vec<(Job, Communication)>,
}

/// What turned out of the rows of a file.
#[derive(Debug, Clone, Default)]
pub struct PublishedJobs {
    /// Rows that can be predicted, in the order of the file.
    pub jobs: Vec<PublishedJob>,
    /// The others, with the reason.
    pub left_out: Vec<LeftOut>,
}

/// Reads the rows of a CSV file as jobs.
///
/// # Errors
/// Text that is no such file; a row that cannot be predicted is no error, but left out.
pub fn published_jobs(
    text: &str,
    tables: &Tables,
    frameworks: &Frameworks,
) -> Result<PublishedJobs, SpecsError> {
    let mut result = PublishedJobs::default();
    for row in laggard_specs::rows(text)? {
        match PublishedJob::of(&row, tables, frameworks) {
            Ok(job) => result.jobs.push(job),
            Err(reason) => result.left_out.push(LeftOut {
                row_id: row.row_id,
                source: row.source_id,
                reason,
            }),
        }
    }
    Ok(result)
}

impl PublishedJob {
    /// A row as a job.
    ///
    /// # Errors
    /// Why it cannot be predicted.
    fn of(row: &PublishedRow, tables: &Tables, frameworks: &Frameworks) -> Result<Self, String> {
        if row.kind != RowKind::Train {
            return Err("not a training run on one kind of accelerator".to_owned());
        }
        if let Some(word) = anomaly(row) {
            return Err(format!("an anomaly by its own notes ({word})"));
        }
        let length = row.seq_len.ok_or("no sequence length")?;
        let accelerators = row.gpus.ok_or("no number of accelerators")?;
        let id = row.accelerator_id.as_deref().ok_or("no accelerator")?;
        let accelerator = tables
            .accelerator(id)
            .map_err(|_| format!("the accelerator {id} is in no table"))?;
        let model = row
            .shape(tables)
            .ok_or("the model's dimensions are not given, and no table has it")?;
        if row.model.contains("LoRA") {
            return Err("most weights are not trained".to_owned());
        }
        let mut links = interconnect::fabric_options(row.interconnect.as_deref());
        let domain = accelerator.scale_up_domain_devices.unwrap_or(1);
        if accelerators <= u64::from(domain) {
            // Nothing leaves the domain, so that no rate beyond it need be known.
            links.scale_out_bandwidth = links
                .scale_out_bandwidth
                .or(accelerator.scale_out_bandwidth_bytes_per_s)
                .or(accelerator.scale_up_bandwidth_bytes_per_s);
        }
        let machine = Machine::new(accelerator, &links).map_err(first_line)?;
        let framework = framework_of(row, machine.family, frameworks);
        let measured = measured(row, &model, machine.half_peak, length)
            .ok_or("no throughput, and no figure that gives it by a known way to count FLOP")?;
        let precision = precision(row.precision.as_deref().unwrap_or_default());
        let template = Job {
            shape: Shape::of(&model),
            degrees: Degrees::ONE,
            sequence_length: u32::try_from(length).map_err(|_| "the sequence is too long")?,
            precision,
            software: framework.software,
        };
        let Candidates { jobs, assumed } =
            layout::candidates(row, framework, (&model, &template), &machine)?;
        let class = RowClass::of(&template, assumed, length > LONG_CONTEXT);
        let candidates = jobs
            .into_iter()
            .map(|job| (job, Communication::of(&job, &machine)))
            .collect();
        Ok(Self {
            row_id: row.row_id.clone(),
            source: row
                .source_id
                .clone()
                .unwrap_or_else(|| "unnamed".to_owned()),
            model: row.model.clone(),
            accelerator: accelerator.id.clone(),
            accelerators,
            class,
            layout_assumed: assumed,
            framework: framework.id.clone(),
            efficiency: framework.efficiency.unwrap_or(1.0),
            measured_tokens_per_s: measured,
            flop_per_token: Convention::Causal
                .flop_per_token(&model, length, Recompute::None)
                .model
                .map_or(0.0, |flop| flop.0),
            machine,
            candidates,
        })
    }

    /// Predicts the row. Of several jobs that it may mean, the fastest counts: authors publish what
    /// they tuned.
    #[must_use]
    pub fn predict(&self, constants: &Constants) -> RowPrediction {
        let mut best: Option<RowPrediction> = None;
        for (job, communication) in &self.candidates {
            let step = predict_with(job, &self.machine, constants, communication);
            let rate = job.tokens_per_step() / (step.total_s * job.degrees.ranks() as f64);
            if best.is_none_or(|best| rate > best.tokens_per_s) {
                best = Some(RowPrediction {
                    tokens_per_s: rate,
                    step,
                    degrees: job.degrees,
                });
            }
        }
        // A row without a candidate was left out.
        best.unwrap_or_default()
    }
}

fn first_line(error: SimulateError) -> String {
    error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn anomaly(row: &PublishedRow) -> Option<&'static str> {
    let notes = row.notes.as_deref()?;
    ANOMALY_WORDS.into_iter().find(|word| notes.contains(word))
}

/// Tokens per second and accelerator: as printed, else from the printed TFLOP/s, MFU or HFU by the
/// source's own way to count; where it does not say how, by the canonical one.
fn measured(row: &PublishedRow, model: &Model, peak: f64, length: u64) -> Option<f64> {
    if let Some(rate) = row.token_rate() {
        return Some(rate);
    }
    let convention = row.convention().unwrap_or(Convention::Causal);
    let recompute = row.recomputation().unwrap_or(Recompute::None);
    let counted = convention.flop_per_token(model, length, recompute);
    let (of_model, of_hardware) = (counted.model, counted.hardware);
    let peak = row.peak_tflops_used.map_or(peak, |tflops| tflops * 1e12);
    let hardware = row
        .tflops_kind
        .as_deref()
        .is_some_and(|kind| kind.starts_with("hardware"));
    let printed = row.tflops_per_gpu.map(|tflops| tflops * 1e12);
    let by = |rate: Option<f64>, flop: Option<laggard_types::Flop>| Some(rate? / flop?.0);
    let share = |per_cent: Option<f64>| per_cent.map(|per_cent| per_cent / 100.0 * peak);
    by(printed, if hardware { of_hardware } else { of_model })
        .or_else(|| by(share(row.mfu_pct), of_model))
        .or_else(|| by(share(row.hfu_pct), of_hardware))
}

/// The arithmetic that a row's words mean: the narrowest format that they name.
fn precision(words: &str) -> Precision {
    let words = words.to_lowercase();
    let narrow = |list: &[&str]| list.iter().any(|word| words.contains(word));
    if narrow(&["fp4"]) && !narrow(&["fp8"]) {
        Precision::Fp4
    } else if narrow(&["fp8", "float8", "int8"]) {
        Precision::Fp8
    } else {
        Precision::Half
    }
}

impl PublishedJob {
    /// Prediction beside measurement, times the framework's efficiency where it is asked for.
    #[must_use]
    pub fn compare(&self, constants: &Constants, with_efficiency: bool) -> PublishedComparison {
        let prediction = self.predict(constants);
        let efficiency = if with_efficiency {
            self.efficiency
        } else {
            1.0
        };
        let predicted = prediction.tokens_per_s * efficiency;
        let tflop = |rate: f64| rate * self.flop_per_token * 1e-12;
        PublishedComparison {
            row_id: self.row_id.clone(),
            source: self.source.clone(),
            model: self.model.clone(),
            accelerator: self.accelerator.clone(),
            accelerators: self.accelerators,
            class: self.class,
            framework: self.framework.clone(),
            measured_tflop_per_s: tflop(self.measured_tokens_per_s),
            predicted_tflop_per_s: tflop(predicted),
            relative_error: predicted / self.measured_tokens_per_s - 1.0,
            layout: prediction.degrees.to_string(),
            step: prediction.step,
        }
    }
}

#[cfg(test)]
mod tests;
