//! Plans of several clusters, side by side.

use super::asked::{Setup, class_names};
use super::page::numbers::{clipped, days, digits, percent};
use super::{OptionLine, Plan, make, page, words};
use crate::args::PlanArgs;
use crate::failure::Usage;
use crate::page::Page;
use crate::{input, output};
use anyhow::Result;
use laggard_plan::Kind;
use laggard_specs::Cluster;
use serde::Serialize;
use std::path::Path;

/// What stands side by side, with its name.
const SHOWN: [(Kind, &str); 5] = [
    (Kind::EqualShares, "one job, equal shares"),
    (Kind::UnevenShares, "one job, micro-batches by speed"),
    (Kind::UnevenStages, "one job, stages by speed"),
    (Kind::Pools, "a job for each class"),
    (Kind::LeaseAll, "lease everything"),
];

/// Plans as JSON.
#[derive(Serialize)]
struct Beside {
    plans: Vec<Plan>,
}

pub(super) fn run(args: &PlanArgs, setup: &mut Setup) -> Result<()> {
    if args.owned.is_some() {
        let hint = "hint: give one --cluster at a time";
        return Err(Usage(format!("--owned with several clusters\n{hint}")).into());
    }
    if args.output.is_some() {
        let hint = "hint: write the plan of one --cluster at a time";
        return Err(Usage(format!("-o with several clusters\n{hint}")).into());
    }
    let clusters = args.cluster.iter();
    let clusters: Result<Vec<Cluster>> = clusters
        .map(|name| input::cluster(name, &setup.tables))
        .collect();
    let clusters = clusters?;
    setup.classes = clusters.iter().flat_map(class_names).collect();
    let mut plans = Vec::new();
    for cluster in &clusters {
        plans.push(make(args, setup, cluster, &setup.one_job(args)?)?.plan);
    }
    let beside = Beside { plans };
    let text = output::formatted(args.format, &beside, || side_by_side(&beside.plans))?;
    output::result(&text, Path::new("-"))
}

fn side_by_side(plans: &[Plan]) -> String {
    let mut page = Page::default();
    let model = plans.first().map_or("", |plan| plan.model.as_str());
    let names: Vec<&str> = plans.iter().map(|plan| plan.cluster.as_str()).collect();
    page.sentence(
        0,
        &format!(
            "{model} on {}: predicted, not measured",
            names.join(" and on ")
        ),
    );
    for plan in plans {
        let classes = plan.classes.iter();
        let classes: Vec<String> = classes
            .map(|it| format!("{} {}", it.count, it.name))
            .collect();
        page.sentence(2, &format!("{}: {}", plan.cluster, classes.join(", ")));
    }
    page.heading("side by side");
    page.line(&format!(
        "  {:<32}{:<16}{:>8}{:>9}{:>6}{:>7}{:>6}{:>7}{:>7}",
        "", "", "tokens/s", "days", "MFU", "of all", "MW", "k$/h", "$/Mtok"
    ));
    for (kind, name) in SHOWN {
        let of_kind = |plan: &Plan| plan.options.iter().position(|it| it.kind == kind);
        rows(&mut page, plans, name, of_kind);
    }
    rows(&mut page, plans, "best", |plan| {
        plan.ranking.order.first().copied()
    });
    rows(&mut page, plans, "fastest for one model", |plan| {
        plan.ranking.one_model
    });
    if let Some(days) = plans.iter().find_map(|plan| plan.deadline_days) {
        page.sentence(2, &page::deadline(days, None));
    }
    for plan in plans {
        let best = plan.ranking.order.first().map(|&at| &plan.options[at]);
        let best = best.map_or("nothing", |option| option.name.as_str());
        page.heading(short(plan));
        page.sentence(2, &format!("best by {}: {best}", plan.objective.name()));
        for load in &plan.power {
            if let Some(line) = words::load(load) {
                page.sentence(2, &line);
            }
        }
        if let Some(line) = page::off(plan) {
            page.sentence(2, &line);
        }
        page::serving(&mut page, plan);
        let sure = page::sure(plan);
        for caveat in [&sure]
            .into_iter()
            .chain(&plan.caveats)
            .chain(&plan.left_out)
        {
            page.sentence(2, caveat);
        }
    }
    page.text()
}

/// The name of a cluster without what stands in brackets.
fn short(plan: &Plan) -> &str {
    plan.cluster.split(" (").next().unwrap_or_default()
}

/// A row for each cluster that has such an option.
fn rows(page: &mut Page, plans: &[Plan], name: &str, of: impl Fn(&Plan) -> Option<usize>) {
    let mut name = name;
    for plan in plans {
        if let Some(at) = of(plan) {
            let option = &plan.options[at];
            page.line(&row(name, plan, option));
            name = "";
        }
    }
}

fn row(name: &str, plan: &Plan, option: &OptionLine) -> String {
    let figures = &option.figures;
    let trains = figures.tokens_per_s > 0.0;
    let of_job = |text: String| if trains { text } else { "-".to_owned() };
    let known = |value: Option<f64>| value.map_or("?".to_owned(), digits);
    let per_token = figures.dollars_per_million_tokens;
    let mark = page::mark(plan, option);
    format!(
        "  {name:<32}{:<16}{:>8}{:>9}{:>6}{:>7}{:>6}{:>7}{:>7}",
        clipped(short(plan), 15 - mark.len()) + mark,
        of_job(format!("{:.2e}", figures.tokens_per_s)),
        figures.days.map_or("-".to_owned(), days),
        of_job(percent(figures.mfu)),
        of_job(percent(figures.cluster_mfu)),
        known(figures.power_mw),
        known(figures.net_dollars_per_hour.map(|it| it / 1e3)),
        of_job(per_token.map_or("?".to_owned(), |it| format!("{it:.3}"))),
    )
}
