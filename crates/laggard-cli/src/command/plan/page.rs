//! The plan as text.

mod classes;
mod jobs;
pub(super) mod numbers;

use super::words::{self, mebi};
use super::{OptionLine, Plan};
use crate::command::calibrate;
use crate::page::{Page, WIDTH};
pub(super) use classes::serving;
use laggard_plan::{Difference, Kind, Problem};
use numbers::{clipped, days, digits, percent};

pub(super) fn page(plan: &Plan, problem: &Problem<'_>) -> String {
    let mut page = Page::default();
    head(&mut page, plan);
    answer(&mut page, plan);
    table(&mut page, plan);
    losses(&mut page, plan, problem);
    changes(&mut page, plan);
    classes::by_class(&mut page, plan);
    serving(&mut page, plan);
    classes::owner(&mut page, plan);
    jobs::layouts(&mut page, plan);
    for line in calibrate::lines(&plan.calibrated_on) {
        page.line(&line);
    }
    if let Some(tails) = &plan.tails {
        super::tails::lines(&mut page, tails);
    }
    if let Some(again) = &plan.again {
        super::again::lines(&mut page, again);
    }
    page.heading("keep in mind");
    for caveat in [&sure(plan)]
        .into_iter()
        .chain(&plan.caveats)
        .chain(&plan.left_out)
    {
        page.sentence(2, caveat);
    }
    page.text()
}

fn head(page: &mut Page, plan: &Plan) {
    page.line(&format!(
        "{} on {}: predicted, not measured",
        plan.model, plan.cluster
    ));
    let classes = plan.classes.iter().map(|class| {
        let price = class.dollars_per_hour.map(|it| format!("${it:.2}/h"));
        let watts = class.watts.map(|it| format!("{it:.0} W"));
        let kept = (class.reserve > 0).then(|| format!("{} in reserve", class.reserve));
        let known: Vec<String> = [watts, price, kept].into_iter().flatten().collect();
        match known.is_empty() {
            true => format!("{} {}", class.count, class.name),
            false => format!("{} {} ({})", class.count, class.name, known.join(", ")),
        }
    });
    page.sentence(0, &classes.collect::<Vec<_>>().join("; "));
    for site in &plan.sites {
        let usage = site.power_usage_effectiveness;
        let usage = usage.map(|it| format!("PUE {it:.2}"));
        let kept = if site.is_kept {
            ""
        } else {
            " (not kept: see below)"
        };
        let limit = site
            .limit_mw
            .map(|it| format!("at most {} MW{kept}", digits(it)));
        let known: Vec<String> = [limit, usage].into_iter().flatten().collect();
        if !known.is_empty() {
            page.line(&format!("power of {}: {}", site.name, known.join(", ")));
        }
    }
    page.line(&format!(
        "{:.3e} tokens to train on; at most {} tokens a step, in sequences of {}; {}",
        plan.tokens,
        mebi(plan.batch_tokens as f64),
        plan.sequence_length,
        plan.framework,
    ));
    for load in &plan.power {
        if let Some(line) = words::load(load) {
            page.sentence(0, &line);
        }
    }
    if let Some(line) = off(plan) {
        page.sentence(0, &line);
    }
}

/// What power keeps from being on.
pub(super) fn off(plan: &Plan) -> Option<String> {
    // Of one job on everything nothing is off but for power.
    let together = plan
        .options
        .iter()
        .find(|it| it.kind == Kind::EqualShares)?;
    let off = together.uses.iter().filter(|(_, it)| it.off > 0);
    let off: Vec<String> = off.map(|(name, it)| format!("{} {name}", it.off)).collect();
    let off = (!off.is_empty()).then(|| off.join(", "))?;
    Some(format!(
        "power binds: {off} are off, those of least peak per watt"
    ))
}

fn answer(page: &mut Page, plan: &Plan) {
    let option = |at: usize| &plan.options[at];
    let best = option(plan.ranking.order[0]);
    page.heading(&format!("best by {}: {}", plan.objective.name(), best.name));
    page.line(&format!("  {}", summary(best, plan)));
    if let Some(next) = plan.next {
        let as_one = match plan.ranking.one_model == Some(next) {
            true => ", and fastest for one model",
            false => "",
        };
        let next = option(next);
        page.line(&format!("next{as_one}: {}", next.name));
        page.line(&format!("  {}", summary(next, plan)));
        page.sentence(2, &why(best, next, &plan.against_next));
    }
    if let Some(at) = plan.ranking.one_model
        && ![Some(plan.ranking.order[0]), plan.next].contains(&Some(at))
    {
        let one = option(at);
        page.line(&format!("fastest for one model alone: {}", one.name));
        page.line(&format!("  {}", summary(one, plan)));
    }
    if let Some(small) = &plan.with_small_batch {
        page.line(&format!(
            "with at most {} tokens a step the best is: {}",
            mebi(small.batch_tokens as f64),
            small.answer,
        ));
        if small.tokens_per_s > 0.0 {
            page.line(&format!("  {:.3e} tokens/s", small.tokens_per_s));
        }
    }
}

fn summary(option: &OptionLine, plan: &Plan) -> String {
    let figures = &option.figures;
    let mut parts = Vec::new();
    if figures.tokens_per_s > 0.0 {
        parts.push(format!(
            "{:.3e} tokens/s ({:.2e} to {:.2e})",
            figures.tokens_per_s,
            figures.tokens_per_s / plan.error_factor,
            figures.tokens_per_s * plan.error_factor
        ));
    }
    if let Some(count) = figures.days {
        parts.push(format!("{} until one model is trained", days(count)));
    }
    if let Some(dollars) = figures.net_dollars_per_hour.filter(|it| *it != 0.0) {
        parts.push(format!("{dollars:.0} $/h earned"));
    }
    parts.join(", ")
}

/// The terms in which two options differ most, in points of the cluster's peak.
fn why(best: &OptionLine, next: &OptionLine, differences: &[Difference]) -> String {
    let trained = 100.0 * (next.figures.cluster_mfu - best.figures.cluster_mfu);
    let most = differences.iter().take(3);
    let list: Vec<String> = most
        .filter(|it| it.share.abs() >= 0.0005)
        .map(|it| format!("{} {:+.1}", it.term, -100.0 * it.share))
        .collect();
    let goes = match list.is_empty() {
        true => String::new(),
        false => format!(": {}", list.join(", ")),
    };
    format!("against the best, in points of the cluster's peak: trains {trained:+.1}{goes}")
}

fn table(page: &mut Page, plan: &Plan) {
    page.heading("the options");
    page.line(&format!(
        "  {:<2} {:<37}{:>8}{:>9}{:>6}{:>7}{:>7}{:>6}{:>7}{:>8}",
        "", "", "tokens/s", "days", "MFU", "of all", "useful", "MW", "k$/h", "$/Mtok"
    ));
    for option in plan.options.iter() {
        let Some(number) = option.number else {
            continue;
        };
        let figures = &option.figures;
        let trains = figures.tokens_per_s > 0.0;
        let of_job = |text: String| if trains { text } else { "-".to_owned() };
        let known = |value: Option<f64>| value.map_or("?".to_owned(), digits);
        let per_token = figures.dollars_per_million_tokens;
        let mark = mark(plan, option);
        page.line(&format!(
            "  {number:<2} {:<37}{:>8}{:>9}{:>6}{:>7}{:>7}{:>6}{:>7}{:>8}",
            clipped(&option.name, 37 - mark.len()) + mark,
            of_job(format!("{:.2e}", figures.tokens_per_s)),
            figures.days.map_or("-".to_owned(), days),
            of_job(percent(figures.mfu)),
            of_job(percent(figures.cluster_mfu)),
            of_job(percent(figures.goodput)),
            known(figures.power_mw),
            known(figures.net_dollars_per_hour.map(|it| it / 1e3)),
            of_job(per_token.map_or("?".to_owned(), |it| format!("{it:.3}"))),
        ));
    }
    legend(page, plan);
}

fn legend(page: &mut Page, plan: &Plan) {
    page.sentence(
        2,
        "tokens/s: kept, of all jobs; days: for one model; MFU: of the devices of jobs while they \
         step; of all: tokens/s over the peak of the cluster; useful: share of time that failures \
         leave; k$/h: rent and tokens sold less power; $/Mtok: market rent of what trains",
    );
    if plan.options.iter().any(|it| mark(plan, it) == " *") {
        page.line("  * convergence not modelled: another algorithm, never the answer");
    }
    if let Some(days) = plan.deadline_days {
        page.sentence(2, &deadline(days, plan.in_time_gap));
    }
    let front = plan.ranking.front.iter();
    let front: Vec<String> = front
        .filter_map(|&at| plan.options[at].number)
        .map(|number| number.to_string())
        .collect();
    page.line(&format!(
        "  beaten by none in tokens/s, dollars and MW together: {}",
        front.join(", ")
    ));
}

/// What a deadline does to the options.
pub(super) fn deadline(days: f64, gap: Option<f64>) -> String {
    let gap = gap.map_or(String::new(), |gap| {
        format!(
            ". What just enough training leaves earns at most {} less than the best possible",
            percent(gap)
        )
    });
    format!("! later than {}: no answer{gap}", numbers::days(days))
}

/// How sure the numbers are.
pub(super) fn sure(plan: &Plan) -> String {
    format!(
        "tokens/s may be off by a factor of {:.2} either way: nine of ten published runs are \
         within it. Much of that is the same for all options: their order is surer than their \
         numbers",
        plan.error_factor
    )
}

/// Why an option is not the answer, if it cannot be.
pub(super) fn mark(plan: &Plan, option: &OptionLine) -> &'static str {
    match (option.can_win, plan.is_late(option)) {
        (true, _) => "",
        (false, true) => " !",
        (false, false) => " *",
    }
}

fn losses(page: &mut Page, plan: &Plan, problem: &Problem<'_>) {
    page.heading(&format!(
        "where the peak of the cluster ({:.3e} dense half-precision FLOP/s) goes, in points",
        problem.peak()
    ));
    const NAMES: [&str; 13] = [
        "trains", "kernel", "links", "bubble", "wait", "jitter", "sites", "fail", "idle", "lease",
        "serve", "kept", "off",
    ];
    let shown = || plan.options.iter().filter(|option| option.number.is_some());
    // What nothing is spent on in any option has no column.
    let is_used = |&at: &usize| {
        let share = |option: &OptionLine| option.figures.peak_use.terms()[at].1;
        shown().any(|option| share(option).abs() >= 0.0005)
    };
    let columns: Vec<usize> = (0..NAMES.len()).filter(is_used).collect();
    let head: String = columns
        .iter()
        .map(|&at| format!("{:>7}", NAMES[at]))
        .collect();
    page.line(&format!("    {head}  lost to"));
    for option in shown() {
        let terms = option.figures.peak_use.terms();
        let cell = |&at: &usize| format!("{:>7.1}", 100.0 * terms[at].1);
        let cells: String = columns.iter().map(cell).collect();
        let left = WIDTH - 6 - head.len();
        let bound = clipped(option.bound_by.map_or("-", |it| it.term), left);
        page.line(&format!(
            "  {:<2}{cells}  {bound}",
            option.number.unwrap_or_default()
        ));
    }
}

fn changes(page: &mut Page, plan: &Plan) {
    page.heading("what would change the answer (one at a time, layouts as they are)");
    for flip in &plan.flips {
        page.line(&format!(
            "  {} x {:.3}: {}",
            flip.what, flip.factor, flip.becomes
        ));
    }
    if plan.flips.is_empty() {
        page.line("  no speed, rent, failure rate or jitter between an eighth and eight times");
    }
}
