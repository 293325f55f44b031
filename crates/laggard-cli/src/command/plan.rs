//! `laggard plan`: how to use a mixed cluster for a training job.

mod page;
mod words;

use super::usual;
use crate::args::PlanArgs;
use crate::failure::Usage;
use crate::{exit_code, input, output};
use anyhow::Result;
use laggard_plan::money::Prices;
use laggard_plan::{
    Difference, Figures, Flip, Known, Objective, PlanOption, Problem, Ranking, Terms, Training,
    Use, binding, differences, error_factor, flips, options, rank,
};
use laggard_simulate::{Constants, Frameworks};
use laggard_specs::{Cluster, Model};
use serde::Serialize;
use std::collections::BTreeMap;

/// Tokens for each parameter where no number is said. Source: Hoffmann et al., arXiv 2203.15556,
/// table 3: about 20.
const TOKENS_PER_PARAMETER: f64 = 20.0;
/// Sets of classes to train on that are printed, of many.
const SHOWN_SETS: usize = 3;

/// Everything that is printed.
#[derive(Debug, Serialize)]
struct Plan {
    model: String,
    cluster: String,
    framework: String,
    classes: Vec<ClassLine>,
    sites: Vec<SiteLine>,
    sequence_length: u32,
    batch_tokens: u64,
    tokens: f64,
    /// Nine of ten predictions of tokens per second lie within this factor, either way.
    error_factor: f64,
    caveats: Vec<String>,
    objective: Objective,
    options: Vec<OptionLine>,
    /// Options that cannot be, and why.
    left_out: Vec<String>,
    ranking: Ranking,
    /// Why the answer and not the next best, in shares of the peak: what the answer spends more.
    against_next: Vec<Difference>,
    flips: Vec<FlipLine>,
    break_even: Vec<words::BreakEven>,
    /// The answer with a batch as large as Llama 3 405B's, where the batch is larger.
    with_small_batch: Option<SmallBatch>,
    layouts_evaluated: u64,
    layouts_too_large: u64,
}

#[derive(Debug, Serialize)]
struct ClassLine {
    name: String,
    accelerator: String,
    count: u64,
    watts: Option<f64>,
    is_nameplate: bool,
    dollars_per_hour: Option<f64>,
    failures_per_device_year: Option<f64>,
}

#[derive(Debug, Serialize)]
struct SiteLine {
    name: String,
    limit_mw: Option<f64>,
    power_usage_effectiveness: Option<f64>,
}

#[derive(Debug, Serialize)]
struct OptionLine {
    /// Its number on the page, from 1; what is not shown has none.
    number: Option<usize>,
    kind: laggard_plan::Kind,
    name: String,
    can_win: bool,
    figures: Figures,
    bound_by: Option<Difference>,
    uses: BTreeMap<String, Use>,
    jobs: Vec<words::JobLine>,
}

#[derive(Debug, Serialize)]
struct FlipLine {
    what: String,
    factor: f64,
    becomes: String,
}

#[derive(Debug, Serialize)]
struct SmallBatch {
    batch_tokens: u64,
    answer: String,
    tokens_per_s: f64,
}

pub(crate) fn run(args: &PlanArgs) -> Result<u8> {
    let tables = input::tables(&args.tables)?;
    let model = tables.model(&args.model)?;
    let cluster = input::cluster(&args.cluster, &tables)?;
    let frameworks = Frameworks::builtin()?;
    let framework = usual::framework(args.job.framework.as_deref(), &frameworks)?;
    let known = Known {
        tables: &tables,
        prices: &Prices::builtin()?,
        constants: &Constants::builtin()?,
    };
    let training = Training {
        model,
        tokens: args.tokens.unwrap_or_else(|| usual_tokens(model)),
        batch_tokens: args
            .batch_tokens
            .unwrap_or_else(|| usual::batch_tokens(cluster.devices())),
        sequence_length: usual::sequence_length(args.job.sequence_length, model),
        precision: usual::precision(args.job.precision),
        software: framework.software,
        around: usual::surroundings(&args.job)?,
    };
    let problem = Problem::new(&cluster, training, &terms(args)?, &known)?;
    let plan = plan(&problem, &cluster, &framework.id, args)?;
    output::either(&args.result, &plan, || page::page(&plan, &problem))?;
    Ok(exit_code::DONE)
}

fn usual_tokens(model: &Model) -> f64 {
    TOKENS_PER_PARAMETER * model.parameters() as f64
}

fn terms(args: &PlanArgs) -> Result<Terms> {
    let mut lease = BTreeMap::new();
    for text in &args.lease {
        let parsed = text.split_once('=');
        let parsed = parsed.and_then(|(class, price)| Some((class, price.parse::<f64>().ok()?)));
        let Some((class, price)) = parsed else {
            let hint = "hint: for example `--lease h100=2.60`";
            return Err(Usage(format!("cannot read --lease `{text}`\n{hint}")).into());
        };
        if lease
            .insert(class.to_owned(), price)
            .is_some_and(|old| old.total_cmp(&price).is_ne())
        {
            let hint = "hint: give each class one price";
            return Err(Usage(format!("two prices for {class} contradict\n{hint}")).into());
        }
    }
    Ok(Terms {
        power_limit_watts: args.power_limit_mw.map(|limit| limit * 1e6),
        lease_dollars_per_hour: lease,
        dollars_per_kwh: args.electricity,
        ..Terms::default()
    })
}

fn plan(
    problem: &Problem<'_>,
    cluster: &Cluster,
    framework: &str,
    args: &PlanArgs,
) -> Result<Plan> {
    let objective = args.objective.objective();
    let found = options(problem)?;
    let ranking = rank(&found.list, objective)?;
    let against_next = match ranking.order[..] {
        [best, next, ..] => differences(&found.list[best].figures, &found.list[next].figures),
        _ => Vec::new(),
    };
    let numbers = shown(&found.list, &ranking);
    let line = |(option, number): (&PlanOption, &Option<usize>)| line(problem, option, *number);
    let flips = flips(problem, &found.list, objective)?;
    let flip = |flip: &Flip| FlipLine {
        what: words::knob(problem, flip.knob),
        factor: flip.factor,
        becomes: found.list[flip.becomes].name.clone(),
    };
    let left_out = found.left_out.iter().map(|(_, reason)| reason.clone());
    let training = &problem.training;
    Ok(Plan {
        model: training.model.name.clone(),
        cluster: cluster.name.clone().unwrap_or_else(|| cluster.id.clone()),
        framework: framework.to_owned(),
        classes: classes(problem),
        sites: sites(problem),
        sequence_length: training.sequence_length,
        batch_tokens: training.batch_tokens,
        tokens: training.tokens,
        error_factor: error_factor(problem),
        caveats: words::caveats(problem),
        objective,
        options: found.list.iter().zip(&numbers).map(line).collect(),
        left_out: left_out.collect(),
        against_next,
        flips: flips.iter().map(flip).collect(),
        break_even: words::break_even(problem, &found.list)?,
        with_small_batch: small_batch(problem, objective)?,
        layouts_evaluated: found.evaluated,
        layouts_too_large: found.too_large,
        ranking,
    })
}

/// The numbers of options on the page: of the sets of classes to train on only the best.
fn shown(options: &[PlanOption], ranking: &Ranking) -> Vec<Option<usize>> {
    let is_set = |at: usize| options[at].kind == laggard_plan::Kind::TrainAndLease;
    let sets = ranking.order.iter().copied().filter(|&at| is_set(at));
    let best: Vec<usize> = sets.take(SHOWN_SETS).collect();
    let mut count = 0;
    let number = |at: usize| {
        (!is_set(at) || best.contains(&at)).then(|| {
            count += 1;
            count
        })
    };
    (0..options.len()).map(number).collect()
}

fn line(problem: &Problem<'_>, option: &PlanOption, number: Option<usize>) -> OptionLine {
    let names = problem.classes.iter().map(|class| class.of.name.clone());
    let jobs = option.jobs.iter().zip(&option.figures.outcomes);
    OptionLine {
        number,
        kind: option.kind,
        name: option.name.clone(),
        can_win: option.can_win,
        bound_by: binding(&option.figures),
        uses: names.zip(option.uses.iter().copied()).collect(),
        jobs: jobs
            .map(|(job, outcome)| words::job(problem, job, outcome))
            .collect(),
        figures: option.figures.clone(),
    }
}

fn classes(problem: &Problem<'_>) -> Vec<ClassLine> {
    let line = |class: &laggard_plan::Class| ClassLine {
        name: class.of.name.clone(),
        accelerator: class.of.accelerator.clone(),
        count: class.of.count,
        watts: class.watts,
        is_nameplate: class.is_nameplate,
        dollars_per_hour: class.dollars_per_hour,
        failures_per_device_year: class.of.failures_per_device_year,
    };
    problem.classes.iter().map(line).collect()
}

fn sites(problem: &Problem<'_>) -> Vec<SiteLine> {
    let line = |place: &laggard_plan::Place| SiteLine {
        name: place.id.clone(),
        limit_mw: place.limit_watts.map(|watts| watts / 1e6),
        power_usage_effectiveness: place.usage_effectiveness,
    };
    problem.places.iter().map(line).collect()
}

/// The answer with the batch of Llama 3 405B.
fn small_batch(problem: &Problem<'_>, objective: Objective) -> Result<Option<SmallBatch>> {
    if problem.training.batch_tokens <= usual::BATCH_TOKENS {
        return Ok(None);
    }
    let mut small = problem.clone();
    small.training.batch_tokens = usual::BATCH_TOKENS;
    let Ok(found) = options(&small) else {
        return Ok(None);
    };
    let ranking = rank(&found.list, objective)?;
    let answer = &found.list[ranking.order[0]];
    Ok(Some(SmallBatch {
        batch_tokens: usual::BATCH_TOKENS,
        answer: answer.name.clone(),
        tokens_per_s: answer.figures.tokens_per_s,
    }))
}
