//! The step of a layout by what runs of other layouts cost on the user's own machines.

use crate::args::SimulateArgs;
use crate::command::operation_costs::{ELEMENT_BYTES, OperationCosts, read};
use crate::failure::Usage;
use crate::output;
use anyhow::Result;
use laggard_record::Manifest;
use laggard_schedule::{Layout, generate};
use laggard_simulate::{CalibratedStep, Calibration, Degrees, Does, KindCost};
use laggard_specs::{Tables, model_work};
use laggard_types::format_seconds;
use serde::Serialize;
use std::fmt::Write;

/// Steps that are drawn.
const DRAWS: u32 = 201;

/// Everything that is printed.
#[derive(Debug, Serialize)]
struct Calibrated {
    model: String,
    class: String,
    layout: String,
    ranks: u64,
    step: CalibratedStep,
    tokens_per_s: f64,
    costs: Vec<KindCost>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    caveats: Vec<String>,
}

pub(super) fn run(args: &SimulateArgs, tables: &Tables) -> Result<()> {
    let OperationCosts {
        manifests,
        calibration,
        caveats,
    } = read(&args.calibrated_on)?;
    let found = Calibrated {
        caveats,
        ..predict(args, tables, &manifests, &calibration)?
    };
    output::either(&args.result, &found, || page(&found, manifests.len()))
}

fn predict(
    args: &SimulateArgs,
    tables: &Tables,
    manifests: &[Manifest],
    calibration: &Calibration,
) -> Result<Calibrated> {
    let [class] = &calibration.classes[..] else {
        let names: Vec<&str> = calibration
            .classes
            .iter()
            .map(|it| it.class.as_str())
            .collect();
        let hint = "hint: give records of one class of devices";
        let names = names.join(", ");
        return Err(Usage(format!("the records have the classes {names}\n{hint}")).into());
    };
    let workload = &manifests[0].workload;
    let model = tables.model(args.model.as_deref().unwrap_or(&workload.model))?;
    let length = args.job.sequence_length.unwrap_or(workload.sequence_length);
    let sequences = args.micro_batch.unwrap_or(workload.micro_batch_sequences);
    let text = args.layout.as_deref().unwrap_or_default();
    let layout = with_batch(Layout::parse(text)?, sequences, args.global_batch)?;
    let batches: u64 = layout.micro_batches.iter().map(|&it| u64::from(it)).sum();
    let most = Calibration::MOST_PASSES;
    if batches.saturating_mul(model.layers) > most {
        let hint = "hint: give a smaller --global-batch, or a --layout of fewer replicas";
        let layers = model.layers;
        return Err(Usage(format!(
            "{batches} micro-batches through {layers} layers are more than the {most} passes of a \
             layer that can be replayed\n{hint}"
        ))
        .into());
    }
    let work = model_work(model, (sequences, length), ELEMENT_BYTES);
    let schedule = generate(&layout, &work)?;
    let step = calibration.predict(&schedule, |_| class.class.as_str(), (DRAWS, args.seed))?;
    let tokens = batches as f64 * f64::from(sequences) * f64::from(length);
    Ok(Calibrated {
        model: model.id.clone(),
        class: class.class.clone(),
        layout: layout.to_string(),
        ranks: layout.world_size(),
        step,
        tokens_per_s: tokens / step.median_s,
        costs: class.costs.clone(),
        caveats: Vec::new(),
    })
}

/// A layout with as many micro-batches as the batch needs, or as `laggard run` has by default.
fn with_batch(layout: Layout, sequences: u32, batch: Option<u64>) -> Result<Layout> {
    let each = match batch {
        Some(batch) => {
            let degrees = Degrees::of_layout(&layout, sequences);
            degrees.with_global_batch(batch)?.micro_batches
        }
        None if layout.pipeline_parallel > 1 => 2 * layout.pipeline_parallel,
        None => 1,
    };
    Ok(Layout {
        micro_batches: vec![each; layout.data_parallel as usize],
        ..layout
    })
}

fn page(it: &Calibrated, records: usize) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let mut line = |text: String| _ = writeln!(page, "{}", text.trim_end());
    let step = &it.step;
    line(format!(
        "{}, {} on {} ranks of {}, by what {records} records cost: predicted, not measured",
        it.model, it.layout, it.ranks, it.class
    ));
    line(format!(
        "step {}, 90 % of steps {} to {}; {} if nothing varied; {:.0} tokens/s",
        format_seconds(step.median_s),
        format_seconds(step.low_s),
        format_seconds(step.high_s),
        format_seconds(step.calm_s),
        it.tokens_per_s
    ));
    line(String::new());
    line(format!(
        "{:<34}{:>11}{:>11}{:>11}{:>11}{:>8}{:>8}",
        "what operations cost", "fixed", "per GFLOP", "per MiB", "per member", "error", "seen"
    ));
    for cost in &it.costs {
        let fit = &cost.line;
        let time = |seconds: f64| match seconds > 0.0 {
            true => format_seconds(seconds),
            false => "-".to_owned(),
        };
        line(format!(
            "{:<34}{:>11}{:>11}{:>11}{:>11}{:>8}{:>8}",
            name_of(cost),
            time(fit.fixed_s),
            time(1e9 * fit.per_flop_s),
            time(f64::from(1 << 20) * fit.per_byte_s),
            time(fit.per_member_s),
            format!("{:.0} %", 100.0 * fit.relative_error),
            fit.observations
        ));
    }
    for caveat in &it.caveats {
        line(format!("keep in mind: {caveat}"));
    }
    page
}

fn name_of(cost: &KindCost) -> String {
    let does = match cost.kind.does {
        Does::Host => "host".to_owned(),
        Does::Multiply => "products".to_owned(),
        Does::Update => "memory-bound work".to_owned(),
        Does::Transfer => "transfers".to_owned(),
        Does::Collective(collective) => collective.name().to_owned(),
        Does::AnyCollective => "any collective".to_owned(),
    };
    let phase = cost.kind.phase.map(|phase| phase.name());
    let parts = match &cost.kind.parts {
        Some((parts, _)) if !parts.is_empty() => format!("{parts:?}").to_lowercase(),
        Some((_, true)) => "head".to_owned(),
        Some((_, false)) => "layer".to_owned(),
        None => "all".to_owned(),
    };
    match phase {
        Some(phase) => format!("{does}, {phase}, {parts}"),
        None => does,
    }
}
