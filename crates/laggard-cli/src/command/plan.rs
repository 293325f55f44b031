//! `laggard plan`: how to use a mixed cluster for a training job.

mod again;
mod asked;
mod beside;
mod files;
mod launch;
mod lost_on;
mod measured;
mod page;
mod several;
mod tails;
mod words;

use super::calibrate::CalibratedOn;
use super::usual;
use crate::args::PlanArgs;
use crate::failure::BadInput;
use crate::{exit_code, input, output};
use anyhow::Result;
use asked::Setup;
use laggard_plan::launch::{Executable, executable};
use laggard_plan::money::{Activity, Bill, Costs, Line, bill};
use laggard_plan::serving::ServingError;
use laggard_plan::{
    Answer, ByClass, Difference, Figures, Flip, Kind, Objective, Offers, Options, PlanError,
    PlanFile, PlanOption, Problem, Ranking, Served, SiteLoad, Use, WantedJob, binding, by_class,
    differences, error_factor, flips, loads, offers, options, rank, serve,
};
use laggard_specs::Cluster;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calibrated_on: Vec<CalibratedOn>,
    objective: Objective,
    options: Vec<OptionLine>,
    /// Options that cannot be, and why.
    left_out: Vec<String>,
    ranking: Ranking,
    /// The best option that does something else than the answer, by position.
    next: Option<usize>,
    /// Why the answer and not the next best, in shares of the peak: what the answer spends more.
    against_next: Vec<Difference>,
    flips: Vec<FlipLine>,
    /// What a device of each class is worth in each use.
    by_class: ByClass,
    power: Vec<SiteLoad>,
    serving: Option<Serving>,
    owner: Option<Owner>,
    /// Days in which the model must have its tokens.
    deadline_days: Option<f64>,
    /// How much more what a job that ends in time leaves could earn at most, over the bound.
    in_time_gap: Option<f64>,
    /// What the slowest hosts cost, where single devices are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    tails: Option<tails::Tails>,
    /// What to do after something changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    again: Option<again::Replanned>,
    /// The answer with a batch as large as Llama 3 405B's, where the batch is larger.
    with_small_batch: Option<SmallBatch>,
    layouts_evaluated: u64,
    layouts_too_large: u64,
}

impl Plan {
    /// Whether an option ends after the day by which it must.
    fn is_late(&self, option: &OptionLine) -> bool {
        let days = option.figures.days;
        self.deadline_days
            .is_some_and(|deadline| days.is_none_or(|days| days > deadline))
    }
}

/// What is served.
#[derive(Debug, Serialize)]
struct Serving {
    #[serde(flatten)]
    offers: Offers,
    /// Who serves what is asked for.
    demand: Option<Served>,
}

/// What an owner pays.
#[derive(Debug, Serialize)]
struct Owner {
    /// Dollars for an hour of a device that is of use, by class.
    dollars_per_used_hour: BTreeMap<String, f64>,
    /// What that lacks, by class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    lacking: BTreeMap<String, Vec<&'static str>>,
    /// The bill of the best option.
    bill: Bill,
}

#[derive(Debug, Serialize)]
struct ClassLine {
    name: String,
    accelerator: String,
    count: u64,
    reserve: u64,
    watts: Option<f64>,
    is_nameplate: bool,
    dollars_per_hour: Option<f64>,
    failures_per_device_year: Option<f64>,
}

#[derive(Debug, Serialize)]
struct SiteLine {
    name: String,
    limit_mw: Option<f64>,
    /// Whether the limit can be kept: the power of every class there is known.
    is_kept: bool,
    power_usage_effectiveness: Option<f64>,
}

#[derive(Debug, Serialize)]
struct OptionLine {
    /// Its number on the page, from 1; what is not shown has none.
    number: Option<usize>,
    kind: Kind,
    name: String,
    can_win: bool,
    figures: Figures,
    bound_by: Option<Difference>,
    uses: BTreeMap<String, Use>,
    jobs: Vec<words::JobLine>,
    /// Which frameworks run the jobs as they are, and what the others would need.
    executable: Vec<Executable>,
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
    if !args.measured.calibrated_on.is_empty() {
        return measured::run(args);
    }
    lost_on::check(&args.change)?;
    let mut setup = Setup::of(args)?;
    if let Some(jobs) = &args.jobs {
        several::run(args, &setup, jobs)?;
        return Ok(exit_code::DONE);
    }
    let [cluster] = &args.cluster[..] else {
        args.change.refuse()?;
        beside::run(args, &mut setup)?;
        return Ok(exit_code::DONE);
    };
    let cluster = input::cluster(cluster, &setup.tables)?;
    let made = again::made(args, &setup, &cluster)?;
    let text = output::formatted(args.format, &made.plan, || {
        page::page(&made.plan, &made.problem)
    })?;
    output::result(&text, Path::new("-"))?;
    if let Some(folder) = &args.output {
        files::write(&made.file, args, folder)?;
    }
    Ok(exit_code::DONE)
}

/// A plan of one cluster.
struct Made<'s> {
    plan: Plan,
    file: PlanFile,
    problem: Problem<'s>,
}

fn make<'s>(
    args: &PlanArgs,
    setup: &'s Setup,
    cluster: &Cluster,
    job: &WantedJob<'s>,
) -> Result<Made<'s>> {
    let objective = args.objective.objective();
    let (cluster, caveat) = &Setup::together(args, cluster)?;
    let (mut problem, calibrated_on) = setup.problem(args, cluster, job)?;
    problem.caveats.extend(caveat.clone());
    let serving = served(args, setup, &mut problem)?;
    let fleet = args.change.fleet.as_deref();
    let speeds = fleet.map(|path| tails::slow_down(&mut problem, path, (cluster, &setup.tables)));
    let speeds = speeds.transpose()?;
    let mut found = options(&problem)?;
    let tails = match &speeds {
        Some(speeds) => tails::add(&problem, &mut found, speeds, objective)?,
        None => None,
    };
    let in_time_gap = match job.deadline_days {
        Some(days) => found.hold_to(&problem, days)?,
        None => None,
    };
    let ranking = rank(&found.list, objective)?;
    let numbers = shown(&found.list, &ranking);
    let caveats = words::caveats(&problem);
    let name = cluster.name.clone().unwrap_or_else(|| cluster.id.clone());
    let answer = Answer {
        cluster: &name,
        options: &found.list,
        numbers: &numbers,
        chosen: ranking.order[0],
        objective,
        caveats: &caveats,
    };
    let file = PlanFile::new(&problem, &answer);
    let of_serving = serving.as_ref().map(|it| &it.offers);
    let by_class = by_class(&problem, &found.list, of_serving, &setup.tables)?;
    let mut plan = plan(&problem, &found, &answer, (ranking, by_class))?;
    for (line, planned) in plan.options.iter_mut().zip(&file.options) {
        line.executable = executable(planned);
    }
    plan.framework.clone_from(&setup.framework.id);
    plan.calibrated_on = calibrated_on;
    plan.serving = serving;
    plan.deadline_days = job.deadline_days;
    plan.with_small_batch = small_batch(&problem, objective, job.deadline_days)?;
    plan.in_time_gap = in_time_gap;
    plan.tails = tails;
    if let Some((path, costs)) = asked::costs(args)? {
        let best = &found.list[answer.chosen];
        let owner = owner(&problem, cluster, best, (&costs, setup));
        let named = |error| BadInput(format!("{}: {error}", path.display()));
        plan.owner = Some(owner.map_err(named)?);
    }
    Ok(Made {
        plan,
        file,
        problem,
    })
}

/// Lets devices serve what is asked for.
fn served<'s>(
    args: &PlanArgs,
    setup: &'s Setup,
    problem: &mut Problem<'s>,
) -> Result<Option<Serving>> {
    let service = setup.service(&args.serve, problem.training.model)?;
    let offers = match offers(problem, &service, &setup.tables, &setup.serving) {
        Ok(offers) => offers,
        // Where no model to serve is named, figures of serving are an extra.
        Err(PlanError::Serving(error))
            if args.serve.serve.is_none() && !matches!(error, ServingError::Number(_)) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let objective = args.objective.objective();
    let demand = serve(problem, &service, &offers, objective, &setup.serving)?;
    Ok(Some(Serving { offers, demand }))
}

fn plan(
    problem: &Problem<'_>,
    found: &Options,
    answer: &Answer<'_>,
    (ranking, by_class): (Ranking, ByClass),
) -> Result<Plan> {
    let objective = answer.objective;
    let best = &found.list[answer.chosen];
    let does_else = |&at: &usize| {
        let other = &found.list[at];
        other.jobs != best.jobs || other.uses != best.uses
    };
    let next = ranking.order.iter().copied().find(does_else);
    let against_next = next.map_or(Vec::new(), |next| {
        differences(&best.figures, &found.list[next].figures)
    });
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
        cluster: answer.cluster.to_owned(),
        framework: String::new(),
        classes: classes(problem),
        sites: sites(problem),
        sequence_length: training.sequence_length,
        batch_tokens: training.batch_tokens,
        tokens: training.tokens,
        error_factor: error_factor(problem),
        caveats: answer.caveats.to_vec(),
        calibrated_on: Vec::new(),
        objective,
        options: found.list.iter().zip(answer.numbers).map(line).collect(),
        left_out: left_out.collect(),
        next,
        against_next,
        flips: flips.iter().map(flip).collect(),
        by_class,
        power: loads(problem),
        serving: None,
        owner: None,
        deadline_days: None,
        in_time_gap: None,
        tails: None,
        again: None,
        with_small_batch: None,
        layouts_evaluated: found.evaluated,
        layouts_too_large: found.too_large,
        ranking,
    })
}

/// What an owner pays for an hour of each class, and for the best option.
fn owner(
    problem: &Problem<'_>,
    cluster: &Cluster,
    best: &PlanOption,
    (costs, setup): (&Costs, &Setup),
) -> Result<Owner> {
    let mut dollars_per_used_hour = BTreeMap::new();
    let mut lacking = BTreeMap::new();
    let mut lines = Vec::new();
    for (class, all) in problem.classes.iter().zip(&best.uses) {
        let pool = class.of.name.clone();
        let of_pool = cluster.pools.iter().find(|it| it.id == pool);
        let at_meter = problem.watts_at_meter(class);
        let watts = at_meter.or(class.watts);
        let hour = of_pool.and_then(|it| costs.dollars_per_used_hour(cluster, it, watts));
        if let Some(dollars) = hour {
            dollars_per_used_hour.insert(pool.clone(), dollars);
            let lacks = costs.lacks(class.watts, at_meter);
            if !lacks.is_empty() {
                lacking.insert(pool.clone(), lacks);
            }
        }
        for (activity, devices, income) in [
            (Activity::Train, all.train + all.idle, None),
            (Activity::Lease, all.lease, class.dollars_per_hour),
            (Activity::Serve, all.serve, class.serving_dollars_per_hour),
            (Activity::Reserve, all.reserve, None),
            (Activity::Off, all.off, None),
        ] {
            lines.push(Line {
                pool: pool.clone(),
                activity,
                devices,
                income_dollars_per_device_hour: income.map(laggard_plan::money::Span::exactly),
            });
        }
    }
    Ok(Owner {
        dollars_per_used_hour,
        lacking,
        bill: bill(cluster, &lines, &setup.prices, costs).map_err(PlanError::from)?,
    })
}

/// The numbers of options on the page: of the sets of classes to train on only the best.
fn shown(options: &[PlanOption], ranking: &Ranking) -> Vec<Option<usize>> {
    let sets = [Kind::TrainAndLease, Kind::TrainAndServe];
    let is_set = |at: usize| sets.contains(&options[at].kind);
    let best_of = |kind: Kind| {
        let of_kind = ranking.order.iter().copied();
        of_kind
            .filter(move |&at| options[at].kind == kind)
            .take(SHOWN_SETS)
    };
    let best: Vec<usize> = sets.into_iter().flat_map(best_of).collect();
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
        executable: Vec::new(),
    }
}

fn classes(problem: &Problem<'_>) -> Vec<ClassLine> {
    let line = |class: &laggard_plan::Class| ClassLine {
        name: class.of.name.clone(),
        accelerator: class.of.accelerator.clone(),
        count: class.of.count,
        reserve: class.reserve,
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
        is_kept: place.is_kept,
        power_usage_effectiveness: place.usage_effectiveness,
    };
    problem.places.iter().map(line).collect()
}

/// The answer with the batch of Llama 3 405B.
fn small_batch(
    problem: &Problem<'_>,
    objective: Objective,
    deadline_days: Option<f64>,
) -> Result<Option<SmallBatch>> {
    if problem.training.batch_tokens <= usual::BATCH_TOKENS {
        return Ok(None);
    }
    let mut small = problem.clone();
    small.training.batch_tokens = usual::BATCH_TOKENS;
    let Ok(mut found) = options(&small) else {
        return Ok(None);
    };
    if let Some(days) = deadline_days
        && found.hold_to(&small, days).is_err()
    {
        return Ok(None);
    }
    let ranking = rank(&found.list, objective)?;
    let answer = &found.list[ranking.order[0]];
    Ok(Some(SmallBatch {
        batch_tokens: usual::BATCH_TOKENS,
        answer: answer.name.clone(),
        tokens_per_s: answer.figures.tokens_per_s,
    }))
}
