//! From options to the file.

use laggard_simulate::Job;
use std::collections::BTreeMap;

use super::{
    Expected, ExpectedStep, PLAN_VERSION, PlanFile, PlannedClass, PlannedJob, PlannedOption,
    PlannedParts, PlannedReplicas, PlannedStage,
};
use crate::compare::Objective;
use crate::options::{Group, JobPlan, Outcome, Parts, PlanOption, error_factor};
use crate::problem::{Class, Problem};

/// The options of a cluster and which of them is the answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// The options.
    pub options: &'a [PlanOption],
    /// The number of each on the page.
    pub numbers: &'a [Option<usize>],
    /// Position of the best.
    pub chosen: usize,
    /// What it is best by.
    pub objective: Objective,
    /// What to keep in mind.
    pub caveats: &'a [String],
}

impl PlanFile {
    /// The file of what was planned.
    #[must_use]
    pub fn new(problem: &Problem<'_>, answer: &Answer<'_>) -> Self {
        let options = answer.options.iter().zip(answer.numbers);
        Self {
            schema_version: PLAN_VERSION,
            cluster: answer.cluster.to_owned(),
            objective: answer.objective,
            classes: problem
                .classes
                .iter()
                .map(|it| class(problem, it))
                .collect(),
            chosen: answer.chosen,
            options: options
                .map(|(it, &number)| option(problem, it, number))
                .collect(),
            caveats: answer.caveats.to_vec(),
        }
    }
}

pub(super) fn class(problem: &Problem<'_>, class: &Class) -> PlannedClass {
    PlannedClass {
        name: class.of.name.clone(),
        accelerator: class.of.accelerator.clone(),
        site: Some(problem.places[class.site].id.clone()),
        count: class.of.count,
        node_devices: class.node_devices,
        domain_devices: Some(class.of.machine.fabric.domain_ranks()),
        emulated_rate: None,
    }
}

fn option(problem: &Problem<'_>, option: &PlanOption, number: Option<usize>) -> PlannedOption {
    let figures = &option.figures;
    let factor = error_factor(problem);
    let names = problem.classes.iter().map(|class| class.of.name.clone());
    let trains = figures.tokens_per_s > 0.0;
    let jobs = option.jobs.iter().zip(&figures.outcomes).enumerate();
    PlannedOption {
        number,
        kind: option.kind,
        name: option.name.clone(),
        can_win: option.can_win,
        uses: names.zip(option.uses.iter().copied()).collect(),
        tokens_per_s: Expected::within_factor(figures.tokens_per_s, factor),
        model_tokens_per_s: Expected::within_factor(figures.model_tokens_per_s, factor),
        mfu: trains.then_some(figures.mfu),
        power_mw: figures.power_mw,
        net_dollars_per_hour: figures.net_dollars_per_hour,
        jobs: jobs
            .map(|(at, (plan, outcome))| job(problem, plan, outcome, job_name(at + 1)))
            .collect(),
    }
}

/// The name of the job of a number, from 1.
pub(crate) fn job_name(number: usize) -> String {
    format!("job-{number}")
}

pub(super) fn job(
    problem: &Problem<'_>,
    plan: &JobPlan,
    outcome: &Outcome,
    name: String,
) -> PlannedJob {
    let training = &problem.training;
    let layout = Job {
        shape: problem.shape(),
        degrees: plan.degrees,
        sequence_length: training.sequence_length,
        precision: training.precision,
        software: training.software,
    }
    .layout();
    let sequences = outcome.step_tokens / f64::from(training.sequence_length);
    PlannedJob {
        name,
        model: training.model.id.clone(),
        sequence_length: training.sequence_length,
        precision: Some(training.precision),
        degrees: plan.degrees,
        piece_layers: match &plan.parts {
            Parts::Replicas(_) => layout.stage_layers,
            Parts::Stages(_) => Vec::new(),
        },
        parts: parts(plan, &|class| problem.classes[class].of.name.clone()),
        global_batch_sequences: sequences.round() as u64,
        bucket_bytes: layout.bucket_bytes,
        overlap: layout.overlap,
        expected: expected(problem, plan, outcome),
    }
}

/// Who does what, with names of classes.
pub(crate) fn parts(plan: &JobPlan, class: &dyn Fn(usize) -> String) -> PlannedParts {
    match &plan.parts {
        Parts::Replicas(groups) => {
            let group = |group: &Group| PlannedReplicas {
                class: class(group.class),
                replicas: group.replicas,
                micro_batches: group.micro_batches,
                gradient_weight: plan.gradient_weight(group),
            };
            PlannedParts::Replicas(groups.iter().map(group).collect())
        }
        Parts::Stages(span) => {
            let stage = |&(at, layers): &(usize, usize)| PlannedStage {
                class: class(at),
                layers: layers as u32,
            };
            PlannedParts::Stages(span.stages.iter().map(stage).collect())
        }
    }
}

/// Sum of the dense peaks of the devices that work in a job in half precision, FLOP/s.
pub(super) fn peak_of_job(problem: &Problem<'_>, plan: &JobPlan) -> f64 {
    let classes = problem.classes.iter().enumerate();
    classes
        .map(|(at, class)| plan.devices(at) as f64 * class.of.machine.half_peak)
        .sum()
}

fn expected(problem: &Problem<'_>, plan: &JobPlan, outcome: &Outcome) -> ExpectedStep {
    let factor = error_factor(problem);
    let rate = outcome.stepping_tokens_per_s();
    let peak = peak_of_job(problem, plan);
    let times = problem.classes.iter().zip(&outcome.classes);
    let working = times.filter(|(_, time)| time.devices > 0);
    let classes: BTreeMap<_, _> = working
        .map(|(class, time)| (class.of.name.clone(), *time))
        .collect();
    ExpectedStep {
        step_s: Expected::within_factor(outcome.step_s, factor),
        tokens_per_s: Expected::within_factor(rate, factor),
        mfu: Some(rate * problem.flop_per_token() / peak),
        classes,
    }
}
