//! From predicted jobs to the file.

use std::collections::BTreeMap;

use super::{Measured, MeasuredClass};
use crate::compare::Objective;
use crate::file::{
    Expected, ExpectedStep, PLAN_VERSION, PlanFile, PlannedClass, PlannedJob, PlannedOption,
    job_name, parts,
};
use crate::options::{JobPlan, Kind, Use};

/// A job of which nothing is predicted yet.
pub(super) fn job(measured: &Measured<'_>, plan: &JobPlan, number: usize) -> PlannedJob {
    let nothing = Expected::within_factor(0.0, 1.0);
    let mut job = PlannedJob {
        name: job_name(number),
        model: measured.model.id.clone(),
        sequence_length: measured.sequence_length,
        precision: None,
        degrees: plan.degrees,
        piece_layers: Vec::new(),
        parts: parts(plan, &|class| measured.classes[class].name.clone()),
        global_batch_sequences: 0,
        bucket_bytes: measured.layout.bucket_bytes,
        overlap: measured.layout.overlap,
        expected: ExpectedStep {
            step_s: nothing,
            tokens_per_s: nothing,
            mfu: None,
            classes: BTreeMap::new(),
        },
    };
    let batches: u64 = job.micro_batches().iter().map(|&it| u64::from(it)).sum();
    job.global_batch_sequences = batches * u64::from(measured.micro_batch);
    job
}

/// An option of predicted jobs; it has no number yet.
pub(super) fn option(measured: &Measured<'_>, kind: Kind, jobs: Vec<PlannedJob>) -> PlannedOption {
    let rates = || jobs.iter().map(|job| job.expected.tokens_per_s);
    let nothing = Expected::within_factor(0.0, 1.0);
    let all = rates().fold(nothing, |sum, rate| sum + rate);
    let fastest = rates().fold(nothing, |best, rate| match rate.value > best.value {
        true => rate,
        false => best,
    });
    let uses = measured.classes.iter().map(|class| {
        let devices = jobs.iter().map(|job| job.devices());
        let train = devices.filter_map(|it| it.get(class.name.as_str()).copied());
        let train = train.sum();
        let rest = Use {
            train,
            off: u64::from(class.ranks) - train,
            ..Use::default()
        };
        (class.name.clone(), rest)
    });
    PlannedOption {
        number: None,
        kind,
        name: name(kind, &jobs),
        can_win: true,
        uses: uses.collect(),
        tokens_per_s: all,
        model_tokens_per_s: fastest,
        mfu: None,
        power_mw: None,
        net_dollars_per_hour: None,
        jobs,
    }
}

fn name(kind: Kind, jobs: &[PlannedJob]) -> String {
    match kind {
        Kind::EqualShares => "one job, equal shares".to_owned(),
        Kind::UnevenShares => "one job, micro-batches by speed".to_owned(),
        Kind::UnevenStages => "one job, stages by speed".to_owned(),
        Kind::Alone => {
            let classes: Vec<&str> = jobs
                .iter()
                .flat_map(|it| it.devices().into_keys())
                .collect();
            format!("{} alone, the rest off", classes.join(" + "))
        }
        _ => format!("{} jobs, one for each class", jobs.len()),
    }
}

/// The file, with the best of the options chosen: of equals the first.
pub(super) fn file(measured: &Measured<'_>, mut options: Vec<PlannedOption>) -> PlanFile {
    let score = |option: &PlannedOption| match measured.objective {
        Objective::Time => option.model_tokens_per_s.value,
        _ => option.tokens_per_s.value,
    };
    let mut chosen = 0;
    for at in 0..options.len() {
        options[at].number = Some(at + 1);
        if score(&options[at]) > score(&options[chosen]) {
            chosen = at;
        }
    }
    let class = |class: &MeasuredClass| PlannedClass {
        name: class.name.clone(),
        accelerator: class.name.clone(),
        site: None,
        count: class.ranks.into(),
        node_devices: 1,
        domain_devices: None,
        emulated_rate: class.emulated_rate,
    };
    PlanFile {
        schema_version: PLAN_VERSION,
        cluster: measured.source.clone(),
        objective: measured.objective,
        classes: measured.classes.iter().map(class).collect(),
        chosen,
        options,
        caveats: Vec::new(),
    }
}
