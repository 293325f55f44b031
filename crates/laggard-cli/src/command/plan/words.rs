//! Jobs, doubts and prices of a plan, in words and as lines of JSON.

use crate::command::usual;
use anyhow::Result;
use laggard_plan::money::{Elsewhere, Span, break_even_lease};
use laggard_plan::{Group, JobPlan, Kind, Knob, Outcome, Parts, PlanOption, Problem};
use serde::Serialize;

/// Micro-batches of the slowest from which on rounding to whole ones costs less than 2 %: one of
/// them at most is lost.
const FINE_MICRO_BATCHES: f64 = 50.0;

/// A job as it is printed.
#[derive(Debug, Serialize)]
pub(super) struct JobLine {
    pub(super) layout: String,
    pub(super) step_s: f64,
    pub(super) step_tokens: f64,
    pub(super) tokens_per_s: f64,
    pub(super) micro_batch_sequences: u32,
    /// Mean time between failures, seconds.
    pub(super) mtbf_s: Option<f64>,
    /// Work between two checkpoints, seconds.
    pub(super) checkpoint_every_s: Option<f64>,
    pub(super) useful: f64,
    /// What each class has, where classes have whole replicas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) shares: Vec<ShareLine>,
    /// What each stage has, where replicas span classes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) stages: Vec<StageLine>,
    /// Tokens of a step from which on whole micro-batches cost less than 2 %, where shares differ.
    pub(super) fine_step_tokens: Option<f64>,
}

/// Replicas of a class.
#[derive(Debug, Serialize)]
pub(super) struct ShareLine {
    pub(super) class: String,
    pub(super) replicas: u64,
    pub(super) micro_batches: u32,
    /// What the mean gradient of one of these replicas counts for in that of the step; equal
    /// weights would favour the sequences of slow replicas.
    pub(super) gradient_weight: f64,
}

/// A stage of every replica.
#[derive(Debug, Serialize)]
pub(super) struct StageLine {
    pub(super) class: String,
    pub(super) layers: usize,
}

/// The lease price of a class above which leasing it and renting elsewhere trains more.
#[derive(Debug, Serialize)]
pub(super) struct BreakEven {
    pub(super) class: String,
    pub(super) elsewhere: String,
    pub(super) dollars_per_device_hour: f64,
    /// What the class brings.
    pub(super) lease_dollars_per_device_hour: Option<f64>,
}

pub(super) fn job(problem: &Problem<'_>, job: &JobPlan, outcome: &Outcome) -> JobLine {
    let (shares, stages) = match &job.parts {
        Parts::Replicas(groups) => (shares(problem, groups), Vec::new()),
        Parts::Stages(span) => {
            let stage = |&(class, layers): &(usize, usize)| StageLine {
                class: name(problem, class),
                layers,
            };
            (Vec::new(), span.stages.iter().map(stage).collect())
        }
    };
    JobLine {
        layout: job.degrees.to_string(),
        step_s: outcome.step_s,
        step_tokens: outcome.step_tokens,
        tokens_per_s: outcome.tokens_per_s(),
        micro_batch_sequences: job.degrees.micro_batch,
        mtbf_s: outcome.mtbf_s,
        checkpoint_every_s: outcome.goodput.map(|it| it.interval_s),
        useful: outcome.useful(),
        shares,
        stages,
        fine_step_tokens: fine_step_tokens(problem, job),
    }
}

fn name(problem: &Problem<'_>, class: usize) -> String {
    problem.classes[class].of.name.clone()
}

fn shares(problem: &Problem<'_>, groups: &[Group]) -> Vec<ShareLine> {
    let of = |group: &Group| group.replicas * u64::from(group.micro_batches);
    let all: u64 = groups.iter().map(of).sum();
    let line = |group: &Group| ShareLine {
        class: name(problem, group.class),
        replicas: group.replicas,
        micro_batches: group.micro_batches,
        gradient_weight: f64::from(group.micro_batches) / all as f64,
    };
    groups.iter().map(line).collect()
}

fn fine_step_tokens(problem: &Problem<'_>, job: &JobPlan) -> Option<f64> {
    let Parts::Replicas(groups) = &job.parts else {
        return None;
    };
    let least = groups.iter().map(|group| group.micro_batches).min()?;
    let most = groups.iter().map(|group| group.micro_batches).max()?;
    if least == most {
        return None;
    }
    let of = |group: &Group| group.replicas as f64 * f64::from(group.micro_batches);
    let all: f64 = groups.iter().map(of).sum();
    let sequences = all * f64::from(job.degrees.micro_batch);
    let tokens = sequences * f64::from(problem.training.sequence_length);
    let round = match job.degrees.virtual_stages {
        1 => 1.0,
        _ => f64::from(job.degrees.pipeline),
    };
    let larger = FINE_MICRO_BATCHES * round / f64::from(least);
    Some(tokens * larger.max(1.0))
}

pub(super) fn knob(problem: &Problem<'_>, knob: Knob) -> String {
    match knob {
        Knob::Speed(class) => format!("speed of {}", name(problem, class)),
        Knob::Price(class) => format!("rent of {}", name(problem, class)),
        Knob::Failures => "failure rate".to_owned(),
        Knob::Jitter => "jitter (growth of steps with ranks)".to_owned(),
    }
}

/// What to keep in mind.
pub(super) fn caveats(problem: &Problem<'_>) -> Vec<String> {
    let mut list = problem.caveats.clone();
    let training = &problem.training;
    if training.batch_tokens > usual::BATCH_TOKENS {
        list.push(format!(
            "convergence is not modelled: a step may have {} tokens, more than the 16 Mi of Llama \
             3 405B (--batch-tokens)",
            mebi(training.batch_tokens as f64)
        ));
    }
    if training.model.experts.is_some() {
        list.push("experts are predicted badly, with routing taken to be even".to_owned());
    }
    let nameplate = problem.classes.iter().filter(|class| class.is_nameplate);
    let nameplate: Vec<&str> = nameplate
        .filter(|class| class.watts.is_some())
        .map(|class| class.of.name.as_str())
        .collect();
    if !nameplate.is_empty() {
        list.push(format!(
            "power of {} is that of the cluster's file or nameplate; measured draw is lower (8 \
             B200 that serve: 10.4 of 14.3 kW)",
            nameplate.join(", ")
        ));
    }
    list
}

/// For each class with a rate of its own, against the class that trains cheapest at market rents.
pub(super) fn break_even(problem: &Problem<'_>, options: &[PlanOption]) -> Result<Vec<BreakEven>> {
    let Some(pools) = options.iter().find(|option| option.kind == Kind::Pools) else {
        return Ok(Vec::new());
    };
    let mut rates = vec![None; problem.classes.len()];
    for (job, outcome) in pools.jobs.iter().zip(&pools.figures.outcomes) {
        for (class, rate) in rates.iter_mut().enumerate() {
            let devices = job.devices(class) + job.idle[class];
            if job.devices(class) > 0 {
                *rate = Some(outcome.tokens_per_s() / devices as f64);
            }
        }
    }
    let priced = (0..rates.len()).filter_map(|class| {
        let (rate, rent) = (rates[class]?, problem.classes[class].dollars_per_hour?);
        Some((class, rate, rent))
    });
    let cheapest = priced.max_by(|a, b| (a.1 / a.2).total_cmp(&(b.1 / b.2)));
    let Some((other, rate, rent)) = cheapest else {
        return Ok(Vec::new());
    };
    let elsewhere = Elsewhere {
        dollars_per_device_hour: Span::exactly(rent),
        tokens_per_second: rate,
    };
    let mut list = Vec::new();
    for (class, rate) in rates.iter().enumerate().filter(|it| it.0 != other) {
        let Some(rate) = *rate else { continue };
        list.push(BreakEven {
            class: name(problem, class),
            elsewhere: name(problem, other),
            dollars_per_device_hour: break_even_lease(rate, &elsewhere, 0.0)?.typical,
            lease_dollars_per_device_hour: problem.classes[class].dollars_per_hour,
        });
    }
    Ok(list)
}

/// `16 Mi` and the like.
pub(super) fn mebi(tokens: f64) -> String {
    format!("{:.0} Mi", tokens / f64::from(1 << 20))
}
