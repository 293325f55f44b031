//! Every way to use a mixed cluster for a training job, side by side: what runs where, and what it
//! gives. Which of them is best is for [`crate::compare`] to say.

mod across;
mod devices;
mod job;
mod loosely;
mod prepare;
mod relaxation;
mod search;
mod sets;
mod spans;
mod trimmed;

use laggard_simulate::Precision;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use devices::Use;
pub use job::{ClassTime, Group, JobPlan, Outcome, Parts};
pub use spans::MixedPipeline;
pub use trimmed::{Trimmed, trimmed};

use crate::figures::{Figures, figures};
use crate::problem::{Class, Factors, PlanError, Problem};
pub(crate) use across::{farthest, reaches};
use devices::{Rest, on_within_power, uses};
use job::Costs;
pub(crate) use search::Search;

/// Kinds of options.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One job on everything, equal shares.
    EqualShares,
    /// One job on everything, micro-batches by speed.
    UnevenShares,
    /// One job whose replicas have stages on every class.
    UnevenStages,
    /// One job on everything at several sites that links join.
    AcrossSites,
    /// A job of its own for each class.
    Pools,
    /// Some classes train one job, the rest is leased.
    TrainAndLease,
    /// Some classes train one job, the rest serves.
    TrainAndServe,
    /// Just enough of some classes trains to end in time, the rest is leased or serves.
    InTime,
    /// One class trains, the rest is off.
    Alone,
    /// The jobs of another option without the slowest hosts.
    WithoutSlowest,
    /// One job on pools that meet every so many steps.
    LooselyCoupled,
    /// Everything is leased.
    LeaseAll,
    /// Everything serves.
    ServeAll,
    /// Jobs of models of their own share the cluster.
    Shared,
}

/// A way to use the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanOption {
    /// Which kind.
    pub kind: Kind,
    /// What is done, in words.
    pub name: String,
    /// The jobs; of loosely coupled pools one for each.
    pub jobs: Vec<JobPlan>,
    /// What each class does.
    pub uses: Vec<Use>,
    /// What it gives.
    pub figures: Figures,
    /// Whether it can be the answer: not where the algorithm is another and convergence is not
    /// modelled.
    pub can_win: bool,
    /// The pace of each class, as [`Class::pace`], where it has other hosts than other options.
    pub paces: Option<Vec<f64>>,
}

impl PlanOption {
    /// Whether all its jobs train the same model.
    #[must_use]
    pub fn is_one_model(&self) -> bool {
        self.kind == Kind::LooselyCoupled
    }

    /// Factors with the option's own paces.
    fn factors(&self, problem: &Problem<'_>, factors: &Factors) -> Factors {
        let mut own = factors.clone();
        let paces = self.paces.iter().flatten().zip(&problem.classes);
        for (speed, (pace, class)) in own.speed.iter_mut().zip(paces) {
            *speed *= pace / class.pace;
        }
        own
    }
}

/// All options.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// In the order of [`Kind`].
    pub list: Vec<PlanOption>,
    /// Options that cannot be, with the reason.
    pub left_out: Vec<(Kind, String)>,
    /// Layouts whose step was predicted.
    pub evaluated: u64,
    /// Layouts that do not fit in memory.
    pub too_large: u64,
}

/// Makes every option.
///
/// # Errors
/// Where nothing can train the model, with the smallest change that would help.
pub fn options(problem: &Problem<'_>) -> Result<Options, PlanError> {
    let mut maker = Maker::new(problem);
    let stages = maker.prepare();
    maker.together(stages)?;
    maker.across_sites()?;
    maker.pools()?;
    maker.train_and_give_away()?;
    maker.alone()?;
    maker.loosely_coupled()?;
    let Maker {
        search,
        mut list,
        left_out,
        on,
        ..
    } = maker;
    if list.is_empty() {
        return Err(relaxation::infeasible(problem, &search, &on));
    }
    let has = |price: fn(&Class) -> Option<f64>| {
        let mut classes = problem.classes.iter();
        classes.any(|class| price(class).is_some())
    };
    if has(|class| class.dollars_per_hour) {
        list.push(without_jobs(problem, &on, Kind::LeaseAll)?);
    }
    if has(|class| class.serving_dollars_per_hour) {
        list.push(without_jobs(problem, &on, Kind::ServeAll)?);
    }
    list.sort_by_key(|option| option.kind);
    Ok(Options {
        list,
        left_out,
        evaluated: search.evaluated[0],
        too_large: search.evaluated[1],
    })
}

/// How far measured tokens per second may lie from the predicted ones, as a factor either way:
/// nine of ten published runs are within. Of dense models in half precision (269 rows) each run is
/// predicted with constants fitted without its source, and nine of ten errors are below 22 %; of
/// those in fp8 and fp4 (110 rows) below 26 %. Of experts (74 rows) nine of ten predictions lie
/// from 41 % below to 81 % above. The constants of the last two were fitted on the runs that they
/// are compared with. Source: `benches/src/bin/fit_cost_model.rs` for the first, the predictions of
/// `laggard validate --format json` for the others (2026-11-22), sources with equal weight.
#[must_use]
pub fn error_factor(problem: &Problem<'_>) -> f64 {
    match (&problem.training.model.experts, problem.training.precision) {
        (Some(_), _) => 1.0 + 0.81,
        (None, Precision::Half) => 1.0 / (1.0 - 0.22),
        (None, _) => 1.0 / (1.0 - 0.26),
    }
}

struct Maker<'p> {
    problem: &'p Problem<'p>,
    search: Search<'p>,
    /// Devices that the power lets run.
    on: Vec<u64>,
    list: Vec<PlanOption>,
    left_out: Vec<(Kind, String)>,
}

impl<'p> Maker<'p> {
    fn new(problem: &'p Problem<'p>) -> Self {
        Self {
            problem,
            search: Search::of(problem),
            on: on(problem),
            list: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// The classes that are on, site by site.
    fn sites(&self) -> Vec<Vec<usize>> {
        let classes = &self.problem.classes;
        let site = |at: usize| {
            let here = |&class: &usize| classes[class].site == at && self.on[class] > 0;
            (0..classes.len()).filter(here).collect::<Vec<_>>()
        };
        let sites = (0..self.problem.places.len()).map(site);
        sites.filter(|classes| !classes.is_empty()).collect()
    }

    /// Devices of some classes alone.
    fn of(&self, classes: &[usize]) -> Vec<u64> {
        let count = |class: usize| match classes.contains(&class) {
            true => self.on[class],
            false => 0,
        };
        (0..self.on.len()).map(count).collect()
    }

    fn add(&mut self, kind: Kind, name: &str, jobs: Vec<JobPlan>) -> Result<(), PlanError> {
        if !jobs.is_empty() {
            let option = self.option(kind, name, jobs)?;
            self.list.push(option);
        }
        Ok(())
    }

    fn option(&self, kind: Kind, name: &str, jobs: Vec<JobPlan>) -> Result<PlanOption, PlanError> {
        let mut option = PlanOption {
            kind,
            name: name.to_owned(),
            uses: uses(self.problem, &self.on, &jobs, rest(kind)),
            jobs,
            figures: Figures::default(),
            can_win: kind != Kind::LooselyCoupled,
            paces: None,
        };
        let none = Factors::none(self.on.len());
        option.figures = figures(self.problem, &option, &none)?;
        Ok(option)
    }

    /// One job on all classes of each site, some with stages by speed.
    fn together(&mut self, by_stages: Vec<Option<spans::Found>>) -> Result<(), PlanError> {
        let sites = self.sites();
        let mixed = sites.iter().any(|classes| classes.len() > 1);
        let counts: Vec<Vec<u64>> = sites.iter().map(|classes| self.of(classes)).collect();
        let of_each = match sites.len() {
            0 | 1 => "",
            _ => " for each site",
        };
        let [mut equal, mut uneven, mut stages] = [const { Vec::new() }; 3];
        let (mut has_uneven, mut differ, mut has_stages) = (false, false, false);
        let (mut missed, mut is_all) = (1.0_f64, true);
        for (counts, by_stages) in counts.iter().zip(by_stages) {
            let Some(by_stages) = by_stages else {
                let job = self.search.equal(counts);
                for jobs in [&mut equal, &mut uneven, &mut stages] {
                    jobs.extend(job.clone());
                }
                continue;
            };
            let [with_equal, by_speed] = self.search.both(counts);
            equal.extend(with_equal);
            has_uneven |= by_speed.is_some();
            differ |= by_speed.iter().any(|job| !job.has_equal_shares());
            uneven.extend(by_speed);
            has_stages |= by_stages.job.is_some();
            missed = missed.max(by_stages.excess());
            is_all &= by_stages.has_all_divisions;
            stages.extend(by_stages.job);
        }
        let name = format!("one job{of_each}, equal shares");
        self.add(Kind::EqualShares, &name, equal)?;
        if !mixed {
            return Ok(());
        }
        let by_speed = match differ {
            true => "micro-batches by speed",
            false => "by speed: as equal shares",
        };
        let mut add = |kind, how: &str, jobs, exists, missing: &str| match exists {
            true => self.add(kind, &format!("one job{of_each}, {how}"), jobs),
            false => {
                self.left_out.push((kind, missing.to_owned()));
                Ok(())
            }
        };
        add(
            Kind::UnevenShares,
            by_speed,
            uneven,
            has_uneven,
            "no layout fits the batch and the memory of all classes",
        )?;
        add(
            Kind::UnevenStages,
            "stages by speed",
            stages,
            has_stages,
            spans::none(is_all),
        )?;
        // Where there are none at all, that is said above.
        let missed = spans::missed(missed, is_all || !has_stages);
        let missed = missed.map(|reason| (Kind::UnevenStages, reason));
        self.left_out.extend(missed);
        Ok(())
    }

    /// The best job of a class alone.
    fn uniform(&mut self, class: usize) -> Option<JobPlan> {
        let counts = self.of(&[class]);
        self.search.equal(&counts)
    }

    fn pools(&mut self) -> Result<(), PlanError> {
        let jobs: Vec<_> = (0..self.on.len())
            .filter_map(|it| self.uniform(it))
            .collect();
        match jobs.len() {
            0 | 1 => Ok(()),
            count => self.add(
                Kind::Pools,
                &format!("{count} jobs, one for each class"),
                jobs,
            ),
        }
    }

    /// Sets of the classes at a site; the rest is leased, or serves where tokens have a price.
    fn train_and_give_away(&mut self) -> Result<(), PlanError> {
        let kinds: &[Kind] = match self.problem.classes.iter().any(sets::serves) {
            true => &[Kind::TrainAndServe, Kind::TrainAndLease],
            false => &[Kind::TrainAndLease],
        };
        let sets = self.sets(kinds)?;
        for (at, job) in sets.jobs {
            let names = self.names(&sets.sets[at]);
            for &kind in kinds {
                let rest = match kind {
                    Kind::TrainAndServe => "serve on the rest",
                    _ => "lease the rest",
                };
                let jobs = job.clone().into_iter().collect();
                self.add(kind, &format!("train on {names}, {rest}"), jobs)?;
            }
        }
        Ok(())
    }

    fn names(&self, classes: &[usize]) -> String {
        let name = |&at: &usize| self.problem.classes[at].of.name.as_str();
        classes.iter().map(name).collect::<Vec<_>>().join(" + ")
    }

    /// Each class by itself, with the power of the site to itself.
    fn alone(&mut self) -> Result<(), PlanError> {
        if self.on.len() < 2 {
            return Ok(());
        }
        let on = self.on.clone();
        for class in 0..on.len() {
            self.on = on_within_power(self.problem, |at| at == class);
            let name = format!("{} alone, the rest off", self.names(&[class]));
            let job = self.uniform(class);
            self.add(Kind::Alone, &name, job.into_iter().collect())?;
        }
        self.on = on;
        Ok(())
    }

    fn loosely_coupled(&mut self) -> Result<(), PlanError> {
        for classes in self.sites() {
            self.meeting(&classes)?;
        }
        Ok(())
    }

    /// A pool for each of some classes, which meet every so many steps.
    fn meeting(&mut self, classes: &[usize]) -> Result<(), PlanError> {
        let jobs: Vec<_> = classes.iter().filter_map(|&it| self.uniform(it)).collect();
        if jobs.len() < 2 {
            return Ok(());
        }
        let (pools, steps) = (jobs.len(), loosely::STEPS_APART);
        let name = format!("{pools} pools meeting each {steps} steps");
        self.add(Kind::LooselyCoupled, &name, jobs)
    }
}

/// An option in which nothing trains.
fn without_jobs(problem: &Problem<'_>, on: &[u64], kind: Kind) -> Result<PlanOption, PlanError> {
    let mut option = PlanOption {
        kind,
        name: match kind {
            Kind::ServeAll => "serve on everything".to_owned(),
            _ => "lease everything".to_owned(),
        },
        jobs: Vec::new(),
        uses: uses(problem, on, &[], rest(kind)),
        figures: Figures::default(),
        can_win: true,
        paces: None,
    };
    option.figures = figures(problem, &option, &Factors::none(on.len()))?;
    Ok(option)
}

/// What becomes of devices that are in no job of such an option.
fn rest(kind: Kind) -> Rest {
    match kind {
        Kind::Alone => Rest::Off,
        // What stands elsewhere has nothing to do with the job.
        Kind::TrainAndLease | Kind::LeaseAll | Kind::AcrossSites => Rest::Leased,
        Kind::TrainAndServe | Kind::ServeAll => Rest::Served,
        _ => Rest::Idle,
    }
}

/// Devices of each class that options may use and that the power lets run.
pub(crate) fn on(problem: &Problem<'_>) -> Vec<u64> {
    on_within_power(problem, |_| true)
}

/// Tokens per second and device that each class trains in a job of its own, all of one size, so
/// that devices are compared and not pools: as many as there are of the smallest class that can
/// train the model. `None` where a class cannot. Gives the size too.
pub(crate) fn rates_alone(problem: &Problem<'_>) -> (u64, Vec<Option<f64>>) {
    let mut search = Search::of(problem);
    let mut rate = |class: usize, devices: u64| {
        let mut counts = vec![0; problem.classes.len()];
        counts[class] = devices;
        let job = search.equal(&counts)?;
        Some(search.rate(&job) / devices as f64)
    };
    let count = |class: usize| problem.classes[class].of.count;
    let mut classes: Vec<usize> = (0..problem.classes.len()).collect();
    classes.sort_by_key(|&class| count(class));
    let smallest = classes
        .iter()
        .find(|&&class| rate(class, count(class)).is_some());
    let size = smallest.map_or(0, |&class| count(class));
    let alike = |class: usize| match count(class) < size {
        // Smaller ones cannot, or they would be the smallest.
        true => None,
        false => rate(class, size).or_else(|| rate(class, count(class))),
    };
    let rates = (0..problem.classes.len()).map(alike).collect();
    (size, rates)
}

/// What the jobs of an option do under some factors.
pub(crate) fn outcomes(
    problem: &Problem<'_>,
    option: &PlanOption,
    factors: &Factors,
) -> Result<Vec<Outcome>, PlanError> {
    let costs = Costs::new(problem, &option.factors(problem, factors));
    let outcomes = option.jobs.iter().map(|job| costs.outcome(job));
    let mut outcomes: Vec<Outcome> = outcomes.collect::<Result<_, _>>()?;
    if option.kind == Kind::LooselyCoupled {
        loosely::couple(&costs, &option.jobs, &mut outcomes);
    }
    Ok(outcomes)
}

/// What jobs that do not meet do under factors of which those of speed are all of one class, where
/// one is given: jobs without it do what they did.
pub(crate) fn outcomes_with(
    problem: &Problem<'_>,
    option: &PlanOption,
    factors: &Factors,
    class: Option<usize>,
) -> Result<Vec<Outcome>, PlanError> {
    let costs = Costs::new(problem, &option.factors(problem, factors));
    let jobs = option.jobs.iter().zip(&option.figures.outcomes);
    let outcome = |(job, before): (&JobPlan, &Outcome)| match class {
        Some(class) if job.devices(class) == 0 => Ok(before.clone()),
        _ => costs.outcome(job),
    };
    jobs.map(outcome).collect()
}

#[cfg(test)]
pub(crate) mod tests;
