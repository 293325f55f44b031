//! The jobs of a plan: layouts, and who has how much of the work.

use super::Page;
use crate::command::plan::Plan;
use crate::command::plan::words::{JobLine, ShareLine, StageLine, mebi};
use laggard_plan::Kind;
use laggard_plan::launch::in_words;
use laggard_types::{format_seconds, format_span};

pub(super) fn layouts(page: &mut Page, plan: &Plan) {
    page.heading("layouts (all of them with --format json)");
    for (numbers, lines) in shown(plan) {
        let (first, others) = lines.split_first().map_or(("", &[][..]), |(a, b)| (a, b));
        page.sentence(2, &format!("{} {first}", numbers.join(", ")));
        for line in others {
            page.sentence(5, line);
        }
    }
    for (numbers, who) in who_runs(plan) {
        page.sentence(2, &format!("{}: {who}", numbers.join(", ")));
    }
}

/// The jobs that are shown, those of options that do the same together.
fn shown(plan: &Plan) -> Vec<(Vec<String>, Vec<String>)> {
    let one_job = [
        Kind::EqualShares,
        Kind::UnevenShares,
        Kind::UnevenStages,
        Kind::AcrossSites,
    ];
    let ranking = &plan.ranking;
    let mut groups: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    for (at, option) in plan.options.iter().enumerate() {
        let is_named = at == ranking.order[0] || plan.next == Some(at);
        let is_shown = is_named || ranking.one_model == Some(at) || one_job.contains(&option.kind);
        let Some(number) = option.number.filter(|_| is_shown) else {
            continue;
        };
        let number = number.to_string();
        for job in &option.jobs {
            let lines = [vec![layout(job)], shares(job)].concat();
            match groups.iter_mut().find(|group| group.1 == lines) {
                Some(group) if group.0.contains(&number) => {}
                Some(group) => group.0.push(number.clone()),
                None => groups.push((vec![number.clone()], lines)),
            }
        }
    }
    groups
}

/// Which frameworks run which options, those of the same ones together.
fn who_runs(plan: &Plan) -> Vec<(Vec<String>, String)> {
    let mut groups: Vec<(Vec<String>, String)> = Vec::new();
    for option in plan.options.iter().filter(|option| !option.jobs.is_empty()) {
        let Some(number) = option.number else {
            continue;
        };
        let who = in_words(&option.executable);
        match groups.iter_mut().find(|group| group.1 == who) {
            Some(group) => group.0.push(number.to_string()),
            None => groups.push((vec![number.to_string()], who)),
        }
    }
    groups
}

fn layout(job: &JobLine) -> String {
    let failures = match (job.mtbf_s, job.checkpoint_every_s) {
        (Some(mtbf), Some(every)) => {
            format!(
                "; fails every {}, saved every {}",
                format_span(mtbf),
                format_span(every)
            )
        }
        _ => String::new(),
    };
    format!(
        "{}: {} for {} tokens{failures}",
        job.layout,
        format_seconds(job.step_s),
        mebi(job.step_tokens)
    )
}

fn shares(job: &JobLine) -> Vec<String> {
    let sequences = job.micro_batch_sequences;
    let counts = job.shares.iter().map(|share| share.micro_batches);
    let differ = counts.clone().min() != counts.max();
    let of_class = |it: &ShareLine| format!("{} replicas of {}", it.replicas, it.class);
    let share = |it: &ShareLine| {
        let (count, weight) = (it.micro_batches, it.gradient_weight);
        format!(
            "{} x {count} micro-batches of {sequences}, gradient weight {weight:.3e} each",
            of_class(it)
        )
    };
    let mut lines: Vec<String> = match (differ, job.shares.first()) {
        (true, _) => job.shares.iter().map(share).collect(),
        (false, Some(first)) => {
            let classes: Vec<String> = job.shares.iter().map(of_class).collect();
            let (classes, count) = (classes.join(", "), first.micro_batches);
            vec![format!(
                "{classes}, each x {count} micro-batches of {sequences}"
            )]
        }
        (false, None) => Vec::new(),
    };
    if let Some(tokens) = job.fine_step_tokens {
        lines.push(format!(
            "whole micro-batches cost less than 2 % from {} tokens a step on",
            mebi(tokens)
        ));
    }
    if !job.stages.is_empty() {
        lines.push(format!("stages and layers of each: {}", runs(&job.stages)));
    }
    lines
}

/// `2 x h100 with 3 layers, ...`: equal neighbours together.
fn runs(stages: &[StageLine]) -> String {
    let alike = |a: &StageLine, b: &StageLine| a.class == b.class && a.layers == b.layers;
    let text = |run: &[StageLine]| {
        let stage = &run[0];
        let layers = if stage.layers == 1 { "layer" } else { "layers" };
        let (count, class) = (run.len(), &stage.class);
        format!("{count} x {class} with {} {layers}", stage.layers)
    };
    let runs: Vec<String> = stages.chunk_by(alike).map(text).collect();
    runs.join(", ")
}
