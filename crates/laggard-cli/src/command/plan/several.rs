//! Several training jobs that share a cluster.

use super::asked::Setup;
use super::page::numbers::{days, digits, percent};
use super::{files, words};
use crate::args::PlanArgs;
use crate::command::calibrate::{self, CalibratedOn};
use crate::failure::{BadInput, Usage};
use crate::page::Page;
use crate::{input, output};
use anyhow::Result;
use laggard_plan::{
    Course, Objective, PlanFile, Problem, Served, Shared, SiteLoad, Use, Wanted, WantedJob,
    error_factor, in_turn, loads, offers, read_jobs, serve, share,
};
use laggard_specs::Cluster;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// From such a gap on it is said what the bound leaves out.
const WIDE: f64 = 0.05;

/// Everything that is printed.
#[derive(Debug, Serialize)]
struct SharedOut {
    cluster: String,
    objective: Objective,
    jobs: Vec<JobLine>,
    uses: BTreeMap<String, Use>,
    /// Model FLOP per second by weight, or dollars per hour where they are the objective.
    value: f64,
    /// What no sharing is predicted to be worth more than.
    bound: f64,
    gap: f64,
    until_done: UntilDone,
    power: Vec<SiteLoad>,
    caveats: Vec<String>,
    programs: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calibrated_on: Vec<CalibratedOn>,
    /// Who serves what is asked for.
    demand: Option<Served>,
}

/// Ways to go on until the last job is done.
#[derive(Debug, Serialize)]
struct UntilDone {
    /// Each keeps what it has.
    held: Course,
    /// What it has goes to the others once it is done; `None` where that is leased.
    given_on: Option<Course>,
    /// One after the other, each on everything that it can span.
    in_turn: Course,
}

#[derive(Debug, Serialize)]
struct JobLine {
    name: String,
    model: String,
    weight: f64,
    tokens: f64,
    deadline_days: Option<f64>,
    devices: BTreeMap<String, u64>,
    tokens_per_s: f64,
    days: Option<f64>,
    /// Nine of ten predictions of tokens per second lie within this factor, either way.
    error_factor: f64,
    job: Option<words::JobLine>,
}

pub(super) fn run(args: &PlanArgs, setup: &Setup, path: &Path) -> Result<()> {
    let [cluster] = &args.cluster[..] else {
        let hint = "hint: give one --cluster with --jobs";
        return Err(Usage(format!("jobs that share several clusters\n{hint}")).into());
    };
    let objective = args.objective.objective();
    if !matches!(objective, Objective::Tokens | Objective::NetDollars) {
        let hint = "hint: use --objective tokens, which counts FLOP by weight, or net-dollars";
        let name = objective.name();
        return Err(Usage(format!("several jobs cannot be compared by {name}\n{hint}")).into());
    }
    let (cluster, caveat) = Setup::together(args, &input::cluster(cluster, &setup.tables)?)?;
    let jobs = read_jobs(&input::text(path)?, &setup.tables)
        .map_err(|error| BadInput(format!("{}: {error}", path.display())))?;
    let Problems {
        list: problems,
        calibrated_on,
        demand,
    } = problems(args, setup, &cluster, &jobs)?;
    let wanted: Vec<Wanted<'_, '_>> = jobs.iter().zip(&problems).map(wanted).collect();
    let sharing = share(&wanted, objective)?;
    let classes = || {
        problems[0]
            .classes
            .iter()
            .map(|class| class.of.name.clone())
    };
    let lines = wanted
        .iter()
        .zip(&sharing.jobs)
        .map(|(wanted, job)| line(wanted, job));
    let name = cluster.name.clone().unwrap_or_else(|| cluster.id.clone());
    let caveats = [caveats(&jobs, &problems), caveat.into_iter().collect()].concat();
    let until_done = UntilDone {
        held: sharing.held(&wanted),
        given_on: (objective == Objective::Tokens).then(|| sharing.given_on(&wanted)),
        in_turn: in_turn(&wanted),
    };
    let of_sharing = (&wanted[..], &sharing);
    let file = PlanFile::of_sharing((&name, &problems[0]), of_sharing, objective, &caveats);
    let shared = SharedOut {
        cluster: name,
        objective,
        jobs: lines.collect(),
        gap: sharing.gap(),
        uses: classes().zip(sharing.uses).collect(),
        value: sharing.value,
        bound: sharing.bound,
        until_done,
        power: loads(&problems[0]),
        caveats,
        programs: sharing.programs,
        calibrated_on,
        demand,
    };
    let text = output::formatted(args.format, &shared, || page(&shared))?;
    output::result(&text, Path::new("-"))?;
    match &args.output {
        Some(folder) => files::write(&file, args, folder),
        None => Ok(()),
    }
}

/// What is asked of the cluster, job by job.
struct Problems<'s> {
    list: Vec<Problem<'s>>,
    calibrated_on: Vec<CalibratedOn>,
    demand: Option<Served>,
}

fn problems<'s>(
    args: &PlanArgs,
    setup: &'s Setup,
    cluster: &Cluster,
    jobs: &[(String, WantedJob<'s>)],
) -> Result<Problems<'s>> {
    let mut all = Problems {
        list: Vec::new(),
        calibrated_on: Vec::new(),
        demand: None,
    };
    for (_, job) in jobs {
        let (mut problem, calibrated_on) = setup.problem(args, cluster, job)?;
        if let Some(first) = all.list.first() {
            problem.classes.clone_from(&first.classes);
        } else {
            all.calibrated_on = calibrated_on;
            if args.serve.serve.is_some() {
                let service = setup.service(&args.serve, job.model)?;
                let offers = offers(&problem, &service, &setup.tables, &setup.serving)?;
                let objective = args.objective.objective();
                all.demand = serve(&mut problem, &service, &offers, objective, &setup.serving)?;
            }
        }
        all.list.push(problem);
    }
    Ok(all)
}

/// What to keep in mind of all jobs, and of some of them.
fn caveats(jobs: &[(String, WantedJob<'_>)], problems: &[Problem<'_>]) -> Vec<String> {
    let of_jobs: Vec<Vec<String>> = problems.iter().map(words::caveats).collect();
    let is_of_all = |caveat: &String| of_jobs.iter().all(|list| list.contains(caveat));
    let mut caveats: Vec<String> = of_jobs.iter().flatten().cloned().collect();
    caveats.retain(is_of_all);
    let mut seen = BTreeSet::new();
    caveats.retain(|caveat| seen.insert(caveat.clone()));
    for ((name, _), list) in jobs.iter().zip(&of_jobs) {
        let own = list.iter().filter(|caveat| !is_of_all(caveat));
        caveats.extend(own.map(|caveat| format!("{name}: {caveat}")));
    }
    caveats
}

fn wanted<'p, 'a>(
    ((name, job), problem): (&'p (String, WantedJob<'a>), &'p Problem<'a>),
) -> Wanted<'p, 'a> {
    Wanted {
        name,
        problem,
        weight: job.weight,
        deadline_days: job.deadline_days,
        fewest_devices: job.fewest_devices,
    }
}

fn line(wanted: &Wanted<'_, '_>, job: &Shared) -> JobLine {
    let problem = wanted.problem;
    let names = problem.classes.iter().map(|class| class.of.name.clone());
    let devices = names.zip(job.devices.iter().copied());
    let plan = job.plan.as_ref().zip(job.outcome.as_ref());
    JobLine {
        name: job.name.clone(),
        model: problem.training.model.name.clone(),
        weight: wanted.weight,
        tokens: problem.training.tokens,
        deadline_days: wanted.deadline_days,
        devices: devices.filter(|(_, count)| *count > 0).collect(),
        tokens_per_s: job.tokens_per_s,
        days: job.days,
        error_factor: error_factor(problem),
        job: plan.map(|(plan, outcome)| words::job(problem, plan, outcome)),
    }
}

fn page(shared: &SharedOut) -> String {
    let mut page = Page::default();
    let count = shared.jobs.len();
    let share = if count == 1 {
        "job shares"
    } else {
        "jobs share"
    };
    page.line(&format!(
        "{count} {share} {}: predicted, not measured",
        shared.cluster
    ));
    for load in &shared.power {
        if let Some(line) = words::load(load) {
            page.sentence(0, &line);
        }
    }
    page.heading("who gets what");
    page.line(&format!(
        "  {:<18}{:>9}{:>9}{:>9}{:>9}{:>10}  devices",
        "", "tokens", "tokens/s", "off by x", "days", "deadline"
    ));
    for job in &shared.jobs {
        let devices = job.devices.iter();
        let devices: Vec<String> = devices
            .map(|(class, count)| format!("{count} {class}"))
            .collect();
        let devices = if devices.is_empty() {
            "none: it waits".to_owned()
        } else {
            devices.join(" + ")
        };
        page.line(&format!(
            "  {:<18}{:>9.2e}{:>9.2e}{:>9.2}{:>9}{:>10}  {devices}",
            job.name,
            job.tokens,
            job.tokens_per_s,
            job.error_factor,
            job.days.map_or("-".to_owned(), days),
            job.deadline_days.map_or("-".to_owned(), days),
        ));
        if let Some(line) = &job.job {
            page.sentence(20, &line.layout);
        }
    }
    uses(&mut page, &shared.uses);
    if let Some(demand) = &shared.demand {
        page.sentence(2, &words::served(demand));
    }
    worth(&mut page, shared);
    for line in calibrate::lines(&shared.calibrated_on) {
        page.line(&line);
    }
    if !shared.caveats.is_empty() {
        page.heading("keep in mind");
    }
    for caveat in &shared.caveats {
        page.sentence(2, caveat);
    }
    page.text()
}

/// What the devices of each class do.
fn uses(page: &mut Page, uses: &BTreeMap<String, Use>) {
    for (class, all) in uses {
        let parts = [
            (all.train, "train"),
            (all.idle, "idle"),
            (all.lease, "leased"),
            (all.serve, "serve"),
            (all.reserve, "in reserve"),
            (all.off, "off"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> = parts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        page.sentence(2, &format!("{class}: {}", parts.join(", ")));
    }
}

fn worth(page: &mut Page, shared: &SharedOut) {
    page.heading("how good that is");
    let unit = match shared.objective {
        Objective::NetDollars => "$/h earned",
        _ => "model FLOP/s by weight",
    };
    page.sentence(
        2,
        &format!(
            "{:.3e} {unit}: at most {} less than the best possible, by an integer program over \
             class counts",
            shared.value,
            percent(shared.gap)
        ),
    );
    if shared.gap > WIDE {
        page.sentence(
            2,
            "what is possible is known no better than that: the bound lets classes that train one \
             job wait for nobody, and lets any number of hosts between two that were predicted \
             train as much as the better of these, each; much of that no sharing can have",
        );
    }
    page.heading("until all are done");
    let UntilDone {
        held,
        given_on,
        in_turn,
    } = &shared.until_done;
    let ways = [
        ("each keeps what it has to the end", Some(held)),
        (
            "whenever one is done, all is shared out anew",
            given_on.as_ref(),
        ),
        (
            "one after the other, each on all it can span",
            Some(in_turn),
        ),
    ];
    for (what, course) in ways {
        if let Some(course) = course {
            page.sentence(2, &format!("{what}: {}", done(&shared.jobs, course)));
        }
    }
    let ends = given_on.as_ref().unwrap_or(held).last_day();
    let sooner = in_turn
        .last_day()
        .filter(|it| ends.is_none_or(|ends| *it < ends));
    if shared.jobs.len() > 1 && sooner.is_some() {
        page.sentence(
            2,
            "one after the other ends sooner: what trains most now is not what is done first",
        );
    }
}

/// When jobs are done, and which of them too late.
fn done(jobs: &[JobLine], course: &Course) -> String {
    let of = |(job, day): (&JobLine, &Option<f64>)| {
        let Some(day) = day else {
            return format!("{} never", job.name);
        };
        let is_late = job.deadline_days.is_some_and(|due| *day > due);
        let late = if is_late { " (too late)" } else { "" };
        format!("{} on day {}{late}", job.name, digits(*day))
    };
    let days: Vec<String> = jobs.iter().zip(&course.done_days).map(of).collect();
    days.join(", ")
}
