//! The jobs of a plan: layouts, and who has how much of the work.

use super::Page;
use super::numbers::span;
use crate::command::plan::Plan;
use crate::command::plan::words::{JobLine, ShareLine, StageLine, mebi};
use laggard_plan::Kind;
use laggard_types::format_seconds;

pub(super) fn layouts(page: &mut Page, plan: &Plan) {
    page.heading("layouts (all of them with --format json)");
    let one_job = |kind| {
        matches!(
            kind,
            Kind::EqualShares | Kind::UnevenShares | Kind::UnevenStages
        )
    };
    let ranking = &plan.ranking;
    for (at, option) in plan.options.iter().enumerate() {
        let is_named = ranking.order.iter().take(2).any(|&it| it == at);
        let is_shown = is_named || ranking.one_model == Some(at) || one_job(option.kind);
        let Some(number) = option.number.filter(|_| is_shown) else {
            continue;
        };
        for job in &option.jobs {
            page.sentence(2, &format!("{number} {}", layout(job)));
            for line in shares(job) {
                page.sentence(5, &line);
            }
        }
    }
}

fn layout(job: &JobLine) -> String {
    let failures = match (job.mtbf_s, job.checkpoint_every_s) {
        (Some(mtbf), Some(every)) => {
            format!("; fails every {}, saved every {}", span(mtbf), span(every))
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
    let counts = job.shares.iter().map(|share| share.micro_batches);
    let differ = counts.clone().min() != counts.max();
    let share = |it: &ShareLine| {
        let weight = match differ {
            true => format!(", gradient weight {:.3e} each", it.gradient_weight),
            false => String::new(),
        };
        let (class, replicas, count) = (&it.class, it.replicas, it.micro_batches);
        let sequences = job.micro_batch_sequences;
        format!("{replicas} replicas of {class} x {count} micro-batches of {sequences}{weight}")
    };
    let mut lines: Vec<String> = job.shares.iter().map(share).collect();
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
        format!(
            "{} x {} with {} layers",
            run.len(),
            stage.class,
            stage.layers
        )
    };
    let runs: Vec<String> = stages.chunk_by(alike).map(text).collect();
    runs.join(", ")
}
