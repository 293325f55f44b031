//! Jobs and doubts of a plan, in words and as lines of JSON.

use super::page::numbers::{digits, percent};
use crate::command::usual;
use laggard_plan::{Class, Group, JobPlan, Knob, Outcome, Parts, Problem, Served, SiteLoad};
use serde::Serialize;

/// Powers that differ by no larger a share are not both printed.
const SAME_POWER: f64 = 2e-3;

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

pub(super) fn job(problem: &Problem<'_>, job: &JobPlan, outcome: &Outcome) -> JobLine {
    let (shares, stages) = match &job.parts {
        Parts::Replicas(groups) => (shares(problem, job, groups), Vec::new()),
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
        fine_step_tokens: job.fine_step_tokens(problem.training.sequence_length),
    }
}

fn name(problem: &Problem<'_>, class: usize) -> String {
    problem.classes[class].of.name.clone()
}

fn shares(problem: &Problem<'_>, job: &JobPlan, groups: &[Group]) -> Vec<ShareLine> {
    let line = |group: &Group| ShareLine {
        class: name(problem, group.class),
        replicas: group.replicas,
        micro_batches: group.micro_batches,
        gradient_weight: job.gradient_weight(group),
    };
    groups.iter().map(line).collect()
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
    let (length, model) = (u64::from(training.sequence_length), training.model);
    if let Some(context) = model.context.filter(|context| length > *context) {
        list.push(format!(
            "sequences of {length} tokens, longer than the {context} that {} was trained with",
            model.name
        ));
    }
    let is_sold = |class: &Class| class.serving_dollars_per_hour.is_some();
    if problem.classes.iter().any(is_sold) {
        list.push(
            "what serves beyond what is asked for (--serve-rate, --serve-sessions) is taken to \
             sell all of its tokens at one price, however many they are"
                .to_owned(),
        );
    }
    if training.model.experts.is_some() {
        list.push("experts are predicted badly, with routing taken to be even".to_owned());
    }
    // Where there is a limit, both loads stand beside it.
    let without_limit = |class: &&Class| problem.places[class.site].limit_watts.is_none();
    let nameplate = problem.classes.iter().filter(|class| class.is_nameplate);
    let nameplate = nameplate.filter(without_limit);
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

/// Who serves what is asked for.
pub(super) fn served(demand: &Served) -> String {
    let devices = demand.devices.iter();
    let devices: Vec<String> = devices
        .map(|(class, count)| format!("{count} {class}"))
        .collect();
    let sessions = demand.sessions.map_or(String::new(), |sessions| {
        let limit = demand.limit_multiplier;
        format!(", {sessions:.3e} sessions, or limits x {limit:.3}")
    });
    format!(
        "{} serve first: {:.3e} tokens/s at the peak of {:.3e}{sessions}; {} of it is used over a \
         day; another choice leaves at most {} more to the rest",
        devices.join(" + "),
        demand.tokens_per_s,
        demand.peak_tokens_per_s,
        percent(demand.share_used),
        percent(demand.gap)
    )
}

/// Whether the power of a site binds.
pub(super) fn load(load: &SiteLoad) -> Option<String> {
    let (limit, stated) = (load.limit_mw?, load.stated_mw?);
    let says = |mw: f64| match load.binds(Some(mw)) {
        Some(true) => "more than the limit",
        _ => "within the limit",
    };
    let mut text = format!(
        "with everything on {} draws {} MW at the power that is stated, {} of {} MW",
        load.site,
        digits(stated),
        says(stated),
        digits(limit)
    );
    if let (Some(measured), Some(share)) = (load.measured_mw, load.measured_share)
        && (measured - stated).abs() > SAME_POWER * stated
    {
        text += &format!(
            "; {} MW at the {share:.2} of nameplate that a B200 that serves was measured to draw, \
             {}",
            digits(measured),
            says(measured)
        );
    }
    Some(text)
}

/// `16 Mi` tokens and the like, of few `512 Ki`.
pub(super) fn mebi(tokens: f64) -> String {
    let kibi = tokens / f64::from(1 << 10);
    match kibi / 1024.0 {
        mebi if mebi >= 10.0 => format!("{mebi:.0} Mi"),
        mebi if mebi >= 1.0 => format!("{mebi:.3}").trim_end_matches(['0', '.']).to_owned() + " Mi",
        _ if kibi >= 1.0 => format!("{kibi:.0} Ki"),
        _ => format!("{tokens:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_tokens_are_not_none() {
        let check = |tokens: u32, expect: &str| assert_eq!(mebi(f64::from(tokens)), expect);
        check(512, "512");
        check(256 << 10, "256 Ki");
        check(1 << 20, "1 Mi");
        check(3 << 19, "1.5 Mi");
        check(16 << 20, "16 Mi");
        check(10 << 20, "10 Mi");
    }
}
