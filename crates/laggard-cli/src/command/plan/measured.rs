//! `laggard plan --calibrated-on`: the classes found in run records.

use super::files;
use super::page::numbers::clipped;
use crate::args::PlanArgs;
use crate::command::operation_costs::{ELEMENT_BYTES, OperationCosts, read};
use crate::failure::Usage;
use crate::page::Page;
use crate::{exit_code, input, output};
use anyhow::Result;
use laggard_plan::{
    Measured, MeasuredClass, MeasuredPlan, PlannedJob, PlannedOption, PlannedParts,
    PlannedReplicas, PlannedStage, plan_measured,
};
use laggard_record::Manifest;
use laggard_schedule::{Layout, ScheduleOrigin};
use laggard_simulate::SimulateError;
use laggard_types::format_seconds;
use std::collections::BTreeMap;
use std::path::Path;

/// Columns of an option's name.
const NAME_COLUMNS: usize = 36;
/// Steps that are drawn for an option, and the seed.
const DRAWS: (u32, u64) = (201, 1);

pub(super) fn run(args: &PlanArgs) -> Result<u8> {
    let tables = input::tables(&args.tables)?;
    let records = read(&args.measured.calibrated_on)?;
    let first = &records.manifests[0];
    let workload = &first.workload;
    let model = tables.model(args.model.as_deref().unwrap_or(&workload.model))?;
    let ScheduleOrigin::Generated(layout) = &first.schedule.origin else {
        return Err(SimulateError::NoLayoutInRecord.into());
    };
    let classes = classes(&records, &args.measured.ranks_of)?;
    let length = args.job.sequence_length.unwrap_or(workload.sequence_length);
    let names = args.measured.calibrated_on.iter();
    let names: Vec<String> = names.map(|it| it.display().to_string()).collect();
    let measured = Measured {
        source: names.join(", "),
        model,
        sequence_length: length,
        micro_batch: workload.micro_batch_sequences,
        element_bytes: ELEMENT_BYTES,
        layout,
        micro_batches: micro_batches(args, (first, layout), (&classes, length)),
        classes: &classes,
        calibration: &records.calibration,
        objective: args.objective.objective(),
        draws: DRAWS,
    };
    let mut plan = plan_measured(&measured)?;
    plan.file.caveats.clone_from(&records.caveats);
    let text = output::formatted(args.format, &plan.file, || page(&measured, &plan))?;
    output::result(&text, Path::new("-"))?;
    if let Some(folder) = &args.output {
        files::write(&plan.file, args, folder)?;
    }
    Ok(exit_code::DONE)
}

/// The classes of the records in order of appearance, with the ranks that were asked for.
fn classes(records: &OperationCosts, asked: &[String]) -> Result<Vec<MeasuredClass>> {
    let mut classes: Vec<MeasuredClass> = Vec::new();
    for (at, manifest) in records.manifests.iter().enumerate() {
        for found in found(manifest) {
            let Some(known) = classes.iter_mut().find(|it| it.name == found.name) else {
                let ranks = if at == 0 { found.ranks } else { 0 };
                classes.push(MeasuredClass { ranks, ..found });
                continue;
            };
            if known.emulated_rate != found.emulated_rate {
                let hint = "hint: give records of runs with the same --classes";
                let name = &known.name;
                return Err(Usage(format!(
                    "class {name} was emulated at different rates in the records\n{hint}"
                ))
                .into());
            }
        }
    }
    let mut given: BTreeMap<&str, u32> = BTreeMap::new();
    for text in asked {
        let parsed = text.rsplit_once('=');
        let parsed = parsed.and_then(|(class, ranks)| Some((class, ranks.parse().ok()?)));
        let Some((class, ranks)) = parsed else {
            let hint = "hint: for example `--ranks-of h100=2`";
            return Err(Usage(format!("cannot read --ranks-of `{text}`\n{hint}")).into());
        };
        if given.insert(class, ranks).is_some() {
            let hint = "hint: give each class one number of ranks";
            return Err(Usage(format!("two --ranks-of for {class}\n{hint}")).into());
        }
    }
    for (class, ranks) in given {
        let Some(known) = classes.iter_mut().find(|it| it.name == class) else {
            let names: Vec<&str> = classes.iter().map(|it| it.name.as_str()).collect();
            let hint = format!("hint: the records have {}", names.join(", "));
            return Err(Usage(format!("no record has a class {class}\n{hint}")).into());
        };
        known.ranks = ranks;
    }
    classes.retain(|class| class.ranks > 0);
    Ok(classes)
}

/// The classes of a record that have ranks.
fn found(manifest: &Manifest) -> impl Iterator<Item = MeasuredClass> {
    let count = |class: usize| {
        let is_of = |rank: &&laggard_record::RankPlace| rank.class as usize == class;
        manifest.ranks.iter().filter(is_of).count() as u32
    };
    let class = move |(at, class): (usize, &laggard_record::Class)| MeasuredClass {
        name: class.name.clone(),
        ranks: count(at),
        emulated_rate: class.emulated.then_some(class.relative_rate),
    };
    let classes = manifest.classes.iter().enumerate().map(class);
    classes.filter(|class| class.ranks > 0)
}

/// Micro-batches of a step: as many for each rank as the first record's replicas have, or as the
/// tokens that were asked for make.
fn micro_batches(
    args: &PlanArgs,
    (first, layout): (&Manifest, &Layout),
    (classes, length): (&[MeasuredClass], u32),
) -> u32 {
    let ranks = classes.iter().map(|class| class.ranks);
    let ranks = ranks.fold(0, u32::saturating_add);
    let each = match args.batch_tokens {
        Some(tokens) => {
            let sequences = u64::from(first.workload.micro_batch_sequences);
            let at_once = sequences * u64::from(length) * u64::from(ranks);
            u32::try_from(tokens / at_once.max(1)).unwrap_or(u32::MAX)
        }
        None => {
            let batches: u32 = layout.micro_batches.iter().sum();
            (batches / layout.data_parallel.max(1)).max(1)
        }
    };
    each.saturating_mul(ranks)
}

fn page(measured: &Measured<'_>, plan: &MeasuredPlan) -> String {
    let mut page = Page::default();
    let class = |it: &MeasuredClass| format!("{} of {}", it.ranks, it.name);
    let classes: Vec<String> = measured.classes.iter().map(class).collect();
    page.sentence(
        0,
        &format!(
            "{}, {} micro-batches of {} x {} tokens a step, on ranks: {}",
            measured.model.id,
            measured.micro_batches,
            measured.micro_batch,
            measured.sequence_length,
            classes.join(", ")
        ),
    );
    page.sentence(
        0,
        &format!(
            "by what operations cost in {}: predicted, not measured",
            plan.file.cluster
        ),
    );
    page.heading(&format!(
        "{:<NAME_COLUMNS$}{:>11}{:>25}{:>12}{:>10}",
        "option", "step", "90 % of steps", "tokens/s", "gain"
    ));
    let equal = plan.file.options[0].tokens_per_s.value;
    for (at, option) in plan.file.options.iter().enumerate() {
        let mark = if at == plan.file.chosen { '*' } else { ' ' };
        let name = format!("{mark}{} {}", at + 1, option.name);
        let gain = 100.0 * (option.tokens_per_s.value / equal - 1.0);
        page.line(&format!(
            "{:<NAME_COLUMNS$}{:>36}{:>12.0}{:>10}",
            clipped(&name, NAME_COLUMNS),
            steps(option),
            option.tokens_per_s.value,
            format!("{gain:+.1} %")
        ));
    }
    for (_, why) in &plan.left_out {
        page.sentence(0, &format!("left out: {why}"));
    }
    let best = &plan.file.options[plan.file.chosen];
    page.heading(&format!(
        "answer, by {}: {}",
        plan.file.objective.name(),
        best.name
    ));
    for job in &best.jobs {
        page.sentence(2, &shares(job));
    }
    if !plan.file.caveats.is_empty() {
        page.heading("keep in mind");
    }
    for caveat in &plan.file.caveats {
        page.sentence(2, caveat);
    }
    page.text()
}

/// The step of an option's only job, and its interval.
fn steps(option: &PlannedOption) -> String {
    let [job] = &option.jobs[..] else {
        return "each its own".to_owned();
    };
    let step = &job.expected.step_s;
    let range = format!(
        "{} to {}",
        format_seconds(step.low),
        format_seconds(step.high)
    );
    format!("{:>11}{range:>25}", format_seconds(step.value))
}

/// Who does what in a job.
fn shares(job: &PlannedJob) -> String {
    let parts: Vec<String> = match &job.parts {
        PlannedParts::Replicas(groups) => {
            let group = |it: &PlannedReplicas| {
                let (class, replicas, count) = (&it.class, it.replicas, it.micro_batches);
                let weight = it.gradient_weight;
                format!(
                    "{replicas} x {class} with {count} micro-batches (gradient weight {weight:.3})"
                )
            };
            groups.iter().map(group).collect()
        }
        PlannedParts::Stages(stages) => {
            let stage = |it: &PlannedStage| format!("{} with {} layers", it.class, it.layers);
            stages.iter().map(stage).collect()
        }
    };
    format!("{}, {}: {}", job.name, job.degrees, parts.join(", "))
}
