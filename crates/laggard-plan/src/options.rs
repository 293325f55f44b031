//! Every way to use a mixed cluster for a training job, side by side: what runs where, and what it
//! gives. Which of them is best is for [`crate::compare`] to say.

mod job;
mod loosely;
mod relaxation;
mod search;
mod spans;

use laggard_simulate::Precision;
use serde::{Deserialize, Serialize};

pub use job::{ClassTime, Group, JobPlan, Outcome, Parts};
pub use spans::MixedPipeline;

use crate::figures::{Figures, figures};
use crate::problem::{Factors, PlanError, Problem};
use job::Costs;
use search::Search;

/// Kinds of options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One job on everything, equal shares.
    EqualShares,
    /// One job on everything, micro-batches by speed.
    UnevenShares,
    /// One job whose replicas have stages on every class.
    UnevenStages,
    /// A job of its own for each class.
    Pools,
    /// Some classes train one job, the rest is leased.
    TrainAndLease,
    /// One class trains, the rest is off.
    Alone,
    /// One job on pools that meet every so many steps.
    LooselyCoupled,
    /// Everything is leased.
    LeaseAll,
}

/// What the devices of a class do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// Work in a job.
    pub train: u64,
    /// Belong to a job that has nothing for them.
    pub idle: u64,
    /// Are leased.
    pub lease: u64,
    /// Are off.
    pub off: u64,
}

impl Use {
    /// All devices of the class; `None` where there are more than can be counted.
    #[must_use]
    pub fn all(&self) -> Option<u64> {
        let parts = [self.train, self.idle, self.lease, self.off];
        parts.into_iter().try_fold(0, u64::checked_add)
    }
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
}

impl PlanOption {
    /// Whether all its jobs train the same model.
    #[must_use]
    pub fn is_one_model(&self) -> bool {
        self.kind == Kind::LooselyCoupled
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
    let factors = Factors::none(problem.classes.len());
    let mut maker = Maker {
        problem,
        search: Search::new(Costs::new(problem, &factors)),
        on: on_within_power(problem),
        list: Vec::new(),
        left_out: Vec::new(),
    };
    maker.together()?;
    maker.pools()?;
    maker.train_and_lease()?;
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
    if problem
        .classes
        .iter()
        .any(|class| class.dollars_per_hour.is_some())
    {
        list.push(lease_all(problem, &on)?);
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
/// predicted with constants fitted without its source, and nine of ten errors are below 21 %; of
/// those in fp8 and fp4 (108 rows) below 26 %. Of experts (67 rows) predictions reach from 58 %
/// below to 77 % above. The constants of the last two were fitted on the runs that they are
/// compared with. Source: what `benches/src/bin/fit_cost_model.rs` prints (2026-11-21), sources
/// with equal weight.
#[must_use]
pub fn error_factor(problem: &Problem<'_>) -> f64 {
    match (&problem.training.model.experts, problem.training.precision) {
        (Some(_), _) => 1.0 / (1.0 - 0.58),
        (None, Precision::Half) => 1.0 / (1.0 - 0.21),
        (None, _) => 1.0 / (1.0 - 0.26),
    }
}

/// Devices of each class that the power of its site lets run: where it does not suffice for all,
/// those with the least peak per watt are off, then those with less memory; whole hosts.
fn on_within_power(problem: &Problem<'_>) -> Vec<u64> {
    let mut on: Vec<u64> = problem.classes.iter().map(|class| class.of.count).collect();
    for (at, place) in problem.places.iter().enumerate() {
        let (Some(limit), Some(usage)) = (place.limit_watts, place.usage_effectiveness) else {
            continue;
        };
        let here = || (0..on.len()).filter(|&class| problem.classes[class].site == at);
        let known: Option<Vec<(usize, f64)>> = here()
            .map(|class| Some((class, problem.classes[class].watts? * usage)))
            .collect();
        let Some(mut known) = known else { continue };
        let per_watt = |&(class, watts): &(usize, f64)| {
            let machine = &problem.classes[class].of.machine;
            (machine.half_peak / watts, machine.memory_bytes)
        };
        known.sort_by(|a, b| {
            let (a, b) = (per_watt(a), per_watt(b));
            a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        let drawn: f64 = known
            .iter()
            .map(|&(class, watts)| on[class] as f64 * watts)
            .sum();
        let mut excess = drawn - limit;
        for (class, watts) in known {
            if excess <= 0.0 {
                break;
            }
            let node = problem.classes[class].node_devices;
            let off = ((excess / watts).ceil() as u64)
                .next_multiple_of(node)
                .min(on[class]);
            on[class] -= off;
            excess -= off as f64 * watts;
        }
    }
    on
}

struct Maker<'p> {
    problem: &'p Problem<'p>,
    search: Search<'p>,
    /// Devices that the power lets run.
    on: Vec<u64>,
    list: Vec<PlanOption>,
    left_out: Vec<(Kind, String)>,
}

impl Maker<'_> {
    /// The classes that are on, site by site: jobs do not span sites.
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
        if jobs.is_empty() {
            return Ok(());
        }
        let rest = match kind {
            Kind::Alone => Rest::Off,
            Kind::TrainAndLease => Rest::Leased,
            _ => Rest::Idle,
        };
        let uses = uses(self.problem, &self.on, &jobs, rest);
        let factors = Factors::none(self.on.len());
        let mut option = PlanOption {
            kind,
            name: name.to_owned(),
            jobs,
            uses,
            figures: Figures::default(),
            can_win: kind != Kind::LooselyCoupled,
        };
        option.figures = figures(self.problem, &option, &factors)?;
        self.list.push(option);
        Ok(())
    }

    /// One job on all classes of each site.
    fn together(&mut self) -> Result<(), PlanError> {
        let sites = self.sites();
        let mixed = sites.iter().any(|classes| classes.len() > 1);
        let counts: Vec<Vec<u64>> = sites.iter().map(|classes| self.of(classes)).collect();
        let equal: Vec<_> = counts
            .iter()
            .filter_map(|it| self.search.equal(it))
            .collect();
        let of_each = match sites.len() {
            0 | 1 => "",
            _ => " for each site",
        };
        self.add(
            Kind::EqualShares,
            &format!("one job{of_each}, equal shares"),
            equal,
        )?;
        if !mixed {
            return Ok(());
        }
        // Where a site has one class, there is nothing to share out unevenly.
        let is_mixed = |counts: &Vec<u64>| counts.iter().filter(|count| **count > 0).count() > 1;
        let (mut uneven, mut stages) = (Vec::new(), Vec::new());
        let (mut has_uneven, mut has_stages) = (false, false);
        for counts in &counts {
            if !is_mixed(counts) {
                let job = self.search.equal(counts);
                uneven.extend(job.clone());
                stages.extend(job);
                continue;
            }
            let by_shares = self.search.uneven(counts);
            has_uneven |= by_shares.is_some();
            uneven.extend(by_shares);
            let by_stages = spans::best(&self.search.costs, counts);
            has_stages |= by_stages.is_some();
            stages.extend(by_stages);
        }
        let mut add = |kind, how: &str, jobs, exists, missing: &str| match exists {
            true => self.add(kind, &format!("one job{of_each}, {how}"), jobs),
            false => {
                self.left_out.push((kind, missing.to_owned()));
                Ok(())
            }
        };
        add(
            Kind::UnevenShares,
            "micro-batches by speed",
            uneven,
            has_uneven,
            "no layout with more micro-batches for faster classes fits the batch and the memory of \
             all classes",
        )?;
        add(
            Kind::UnevenStages,
            "stages by speed",
            stages,
            has_stages,
            "no pipeline of up to 24 stages has some of every class, within the batch and the \
             memory",
        )
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

    /// Every proper set of the classes at a site.
    fn train_and_lease(&mut self) -> Result<(), PlanError> {
        let there: Vec<usize> = (0..self.on.len()).filter(|&it| self.on[it] > 0).collect();
        if there.len() < 2 {
            return Ok(());
        }
        for set in 1..(1_u32 << there.len()) - 1 {
            let is_in = |&(bit, _): &(usize, &usize)| set & (1 << bit) != 0;
            let chosen: Vec<usize> = there
                .iter()
                .enumerate()
                .filter(is_in)
                .map(|it| *it.1)
                .collect();
            let site = self.problem.classes[chosen[0]].site;
            if chosen
                .iter()
                .any(|&it| self.problem.classes[it].site != site)
            {
                continue;
            }
            let job = match chosen[..] {
                [class] => self.uniform(class),
                _ => {
                    let counts = self.of(&chosen);
                    self.search.either(&counts)
                }
            };
            let name = format!("train on {}, lease the rest", self.names(&chosen));
            self.add(Kind::TrainAndLease, &name, job.into_iter().collect())?;
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
            let mut problem = self.problem.clone();
            problem.classes.iter_mut().enumerate().for_each(|(at, it)| {
                if at != class {
                    it.of.count = 0;
                }
            });
            self.on = on_within_power(&problem);
            let name = format!("{} alone, the rest off", self.names(&[class]));
            let job = self.uniform(class);
            self.add(Kind::Alone, &name, job.into_iter().collect())?;
        }
        self.on = on;
        Ok(())
    }

    fn loosely_coupled(&mut self) -> Result<(), PlanError> {
        for classes in self.sites() {
            if classes.len() < 2 {
                continue;
            }
            let jobs: Vec<_> = classes.iter().filter_map(|&it| self.uniform(it)).collect();
            if jobs.len() < 2 {
                continue;
            }
            let (pools, steps) = (jobs.len(), loosely::STEPS_APART);
            let name = format!("{pools} pools meeting each {steps} steps");
            self.add(Kind::LooselyCoupled, &name, jobs)?;
        }
        Ok(())
    }
}

fn lease_all(problem: &Problem<'_>, on: &[u64]) -> Result<PlanOption, PlanError> {
    let mut option = PlanOption {
        kind: Kind::LeaseAll,
        name: "lease everything".to_owned(),
        jobs: Vec::new(),
        uses: uses(problem, on, &[], Rest::Leased),
        figures: Figures::default(),
        can_win: true,
    };
    option.figures = figures(problem, &option, &Factors::none(on.len()))?;
    Ok(option)
}

/// What becomes of devices that are in no job.
#[derive(Clone, Copy, PartialEq)]
enum Rest {
    Idle,
    Leased,
    Off,
}

fn uses(problem: &Problem<'_>, on: &[u64], jobs: &[JobPlan], rest: Rest) -> Vec<Use> {
    let of = |(at, class): (usize, &crate::problem::Class)| {
        let (mut train, mut idle) = (0, 0);
        for job in jobs {
            idle += job.idle[at];
            train += job.devices(at);
        }
        let others = on[at].saturating_sub(train + idle);
        let (lease, left) = match rest {
            Rest::Leased => (others, 0),
            Rest::Idle => (0, others),
            Rest::Off => (0, 0),
        };
        let idle = idle + left;
        Use {
            train,
            idle,
            lease,
            off: class.of.count - train - idle - lease,
        }
    };
    problem.classes.iter().enumerate().map(of).collect()
}

/// What the jobs of an option do under some factors.
pub(crate) fn outcomes(
    problem: &Problem<'_>,
    option: &PlanOption,
    factors: &Factors,
) -> Result<Vec<Outcome>, PlanError> {
    let costs = Costs::new(problem, factors);
    let outcomes = option.jobs.iter().map(|job| costs.outcome(job));
    let mut outcomes: Vec<Outcome> = outcomes.collect::<Result<_, _>>()?;
    if option.kind == Kind::LooselyCoupled {
        loosely::couple(&costs, &option.jobs, &mut outcomes);
    }
    Ok(outcomes)
}

#[cfg(test)]
pub(crate) mod tests;
