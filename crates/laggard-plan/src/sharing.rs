//! Several training jobs on one cluster: how many hosts of each class each of them gets, and what
//! is left to lease or to serve with.
//!
//! Each job's rate on each class alone is predicted at several sizes and drawn through these points
//! as a concave curve. Classes that train one job together do not train more than apart, nor more
//! than as much of the fastest class would that is as fast in all: the best sharings under either
//! bound every sharing, as far as rates between the sizes that were predicted are what their
//! neighbours say. The sharings that are looked at, the one of
//! the bound and those with one class for each job, are then laid out and predicted as the jobs
//! that they are: what is said of a sharing is said of its layouts, never of curves.

mod in_time;
mod program;
mod rates;

use serde::Serialize;

use crate::compare::Objective;
use crate::options::{JobPlan, Outcome, Search, Use, on};
use crate::pools::{Effort, PoolsError, allocate};
use crate::problem::{PlanError, Problem};
use program::{Ask, Goal};
use rates::{Drawn, Rates};

/// Seconds of a day.
const SECONDS_PER_DAY: f64 = 86_400.0;
/// Most ways to give each job one class that are looked at.
const MOST_WAYS: usize = 128;
/// Of these, how many of the best are laid out.
const LAID_OUT: usize = 3;
/// How often a sharing whose layouts are slower than its curves is made again with more devices.
const AGAIN: u32 = 8;

/// A job to train.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'p, 'a> {
    /// Its name.
    pub name: &'p str,
    /// The cluster with the job; of all jobs the same cluster.
    pub problem: &'p Problem<'a>,
    /// What a FLOP of it is worth beside those of other jobs.
    pub weight: f64,
    /// Days in which it must have its tokens.
    pub deadline_days: Option<f64>,
    /// Fewest devices that it may have, if it has any.
    pub fewest_devices: u64,
}

impl Wanted<'_, '_> {
    /// Tokens per second that the deadline needs.
    fn needed(&self) -> Option<f64> {
        let days = self.deadline_days?;
        Some(self.problem.training.tokens / (days * SECONDS_PER_DAY))
    }
}

/// What becomes of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Shared {
    /// Its name.
    pub name: String,
    /// Devices of each class that it is given.
    pub devices: Vec<u64>,
    /// Layout and shares; `None` where it is given nothing.
    pub plan: Option<JobPlan>,
    /// What it does.
    pub outcome: Option<Outcome>,
    /// Tokens per second that it keeps.
    pub tokens_per_s: f64,
    /// Days until it has its tokens.
    pub days: Option<f64>,
}

/// A way to share a cluster out.
#[derive(Debug, Clone, PartialEq)]
pub struct Sharing {
    /// The jobs, in the order in which they were wanted.
    pub jobs: Vec<Shared>,
    /// What the devices of each class do.
    pub uses: Vec<Use>,
    /// What is made large: model FLOP per second by weight, or dollars per hour.
    pub value: f64,
    /// What no sharing is worth more than.
    pub bound: f64,
    /// Integer programs that were solved.
    pub programs: u64,
}

/// All jobs one after the other, each on everything with equal shares, in the order of deadlines.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InTurn {
    /// Model FLOP per second by weight, on average until the last is done.
    pub value: f64,
    /// Each job's day of being done, in the order in which they were wanted; `None` where it cannot
    /// be trained on everything, or failures leave it nothing there.
    pub done_days: Vec<Option<f64>>,
}

impl Sharing {
    /// How far the best sharing may be above this, relative to the bound.
    #[must_use]
    pub fn gap(&self) -> f64 {
        let missing = (self.bound - self.value).max(0.0);
        if missing > 0.0 {
            missing / self.bound.abs().max(missing)
        } else {
            0.0
        }
    }
}

/// Shares a cluster out to jobs so that they train most, by weight, or so that what they leave
/// earns most where dollars are the objective; each by its deadline. What no job takes is leased as
/// far as power allows.
///
/// # Errors
/// No job, or deadlines that cannot be met together, with what could be.
pub fn share(wanted: &[Wanted<'_, '_>], objective: Objective) -> Result<Sharing, PlanError> {
    if wanted.is_empty() {
        return Err(PlanError::NoJob);
    }
    let goal = match objective {
        Objective::NetDollars => Goal::Earned,
        _ => Goal::Trained,
    };
    Sharer::new(wanted, goal).share()
}

/// What becomes of the jobs one after the other.
#[must_use]
pub fn in_turn(wanted: &[Wanted<'_, '_>]) -> InTurn {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    let deadline = |at: usize| wanted[at].deadline_days.unwrap_or(f64::INFINITY);
    order.sort_by(|&a, &b| deadline(a).total_cmp(&deadline(b)));
    let (mut now, mut flop) = (0.0, 0.0);
    let mut done_days = vec![None; wanted.len()];
    for at in order {
        let (problem, weight) = (wanted[at].problem, wanted[at].weight);
        let mut search = Search::of(problem);
        let Some(job) = search.equal(&on(problem)) else {
            continue;
        };
        let rate = search.rate(&job);
        // Where failures leave it nothing, it never ends, and the others do without it.
        if rate <= 0.0 {
            continue;
        }
        now += problem.training.tokens / rate / SECONDS_PER_DAY;
        flop += weight * problem.training.tokens * problem.flop_per_token();
        done_days[at] = Some(now);
    }
    InTurn {
        value: if now > 0.0 {
            flop / (now * SECONDS_PER_DAY)
        } else {
            0.0
        },
        done_days,
    }
}

/// A sharing as hosts of each class for each job.
type Hosts = Vec<Vec<u64>>;

struct Sharer<'p, 'a> {
    wanted: &'p [Wanted<'p, 'a>],
    goal: Goal,
    searches: Vec<Search<'p>>,
    rates: Vec<Rates>,
    programs: u64,
}

impl<'p, 'a> Sharer<'p, 'a> {
    fn new(wanted: &'p [Wanted<'p, 'a>], goal: Goal) -> Self {
        let mut searches: Vec<Search<'p>> =
            wanted.iter().map(|job| Search::of(job.problem)).collect();
        let rates = searches.iter_mut().map(Rates::new).collect();
        Self {
            wanted,
            goal,
            searches,
            rates,
            programs: 0,
        }
    }

    fn share(mut self) -> Result<Sharing, PlanError> {
        let plain = vec![1.0; self.wanted.len()];
        let mixed = vec![None; self.wanted.len()];
        // Both bounds hold.
        let (apart, _) = self.solve(&mixed, &plain, Drawn::Above)?;
        let (together, _) = self.solve(&mixed, &plain, Drawn::Together)?;
        let bound = apart.min(together);
        let mut ways = vec![(bound, mixed)];
        for way in self.one_class_each() {
            if let Ok((value, _)) = self.solve(&way, &plain, Drawn::Through) {
                ways.push((value, way));
            }
        }
        // The mixed way first, then the best of the others; of equals the earlier.
        ways[1..].sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut best: Option<Sharing> = None;
        let mut refusal = None;
        for (_, way) in ways.into_iter().take(1 + LAID_OUT) {
            match self.laid_out(&way) {
                Ok(mut sharing) => {
                    sharing.bound = bound.max(sharing.value);
                    if best.as_ref().is_none_or(|best| sharing.value > best.value) {
                        best = Some(sharing);
                    }
                }
                Err(error) => refusal = Some(error),
            }
        }
        let found = best.map(|sharing| Sharing {
            programs: self.programs,
            ..sharing
        });
        match (found, refusal) {
            (Some(found), _) => Ok(found),
            (None, Some(error)) => Err(error),
            (None, None) => Err(self.nothing_fits()),
        }
    }

    /// Every way to give each job one class that it can be trained on, if they are not too many.
    fn one_class_each(&self) -> Vec<Vec<Option<usize>>> {
        let mut ways = vec![Vec::new()];
        for rates in &self.rates {
            let mut classes = rates.classes();
            classes.retain(|&class| rates.is_enough(class));
            if ways.len() * classes.len() > MOST_WAYS {
                return Vec::new();
            }
            let longer = |way: &Vec<Option<usize>>| {
                let with = |&class: &usize| [&way[..], &[Some(class)]].concat();
                classes.iter().map(with).collect::<Vec<_>>()
            };
            ways = ways.iter().flat_map(longer).collect();
        }
        ways
    }

    /// The best hosts of each class for each job of a way, with their worth by the curves; jobs get
    /// as much more than they need as `more` says.
    fn solve(
        &mut self,
        way: &[Option<usize>],
        more: &[f64],
        drawn: Drawn,
    ) -> Result<(f64, Hosts), PoolsError> {
        let ask = Ask {
            wanted: self.wanted,
            rates: &self.rates,
            goal: self.goal,
        };
        let pools = ask.program(way, more, drawn)?;
        self.programs += 1;
        let found = allocate(&pools, Effort::default())?;
        let hosts = ask.hosts(&pools, &found.domains);
        Ok((found.bound, hosts))
    }

    /// The sharing of a way with its jobs as they are. Where their layouts are too slow for the
    /// deadlines, they get more.
    fn laid_out(&mut self, way: &[Option<usize>]) -> Result<Sharing, PlanError> {
        let mut more = vec![1.0; self.wanted.len()];
        let mut error = None;
        for _ in 0..AGAIN {
            let (_, hosts) = self.solve(way, &more, Drawn::Through)?;
            let jobs = self.jobs(&hosts);
            let mut is_late = false;
            for (at, job) in jobs.iter().enumerate() {
                let Some(needed) = self.wanted[at].needed() else {
                    continue;
                };
                if job.tokens_per_s < needed {
                    is_late = true;
                    let short = needed / job.tokens_per_s.max(needed / 2.0);
                    more[at] *= short * 1.0005;
                }
            }
            if !is_late {
                return self.with_the_rest(jobs, &hosts);
            }
            error = Some(self.nothing_fits());
        }
        Err(error.unwrap_or_else(|| self.nothing_fits()))
    }

    fn jobs(&mut self, hosts: &Hosts) -> Vec<Shared> {
        let jobs = self.wanted.iter().zip(&mut self.searches).zip(hosts);
        let job = |((wanted, search), hosts): ((&Wanted<'_, '_>, &mut Search<'p>), &Vec<u64>)| {
            let classes = wanted.problem.classes.iter();
            let devices: Vec<u64> = classes
                .zip(hosts)
                .map(|(class, hosts)| class.node_devices * hosts)
                .collect();
            let plan = match devices.iter().filter(|count| **count > 0).count() {
                0 => None,
                1 => search.equal(&devices),
                _ => search.either(&devices),
            };
            let outcome = plan.as_ref().and_then(|job| search.costs.outcome(job).ok());
            let tokens_per_s = outcome.as_ref().map_or(0.0, Outcome::tokens_per_s);
            let tokens = wanted.problem.training.tokens;
            Shared {
                name: wanted.name.to_owned(),
                devices,
                plan,
                outcome,
                tokens_per_s,
                days: (tokens_per_s > 0.0).then(|| tokens / tokens_per_s / SECONDS_PER_DAY),
            }
        };
        jobs.map(job).collect()
    }

    /// A sharing with what becomes of the devices that no job has.
    fn with_the_rest(&self, jobs: Vec<Shared>, hosts: &Hosts) -> Result<Sharing, PlanError> {
        let ask = Ask {
            wanted: self.wanted,
            rates: &self.rates,
            goal: self.goal,
        };
        let rest = ask.rest(hosts)?;
        let problem = self.wanted[0].problem;
        let mut uses = Vec::new();
        for (at, class) in problem.classes.iter().enumerate() {
            let mut all = Use {
                serve: class.serve,
                reserve: class.reserve,
                ..Use::default()
            };
            for job in &jobs {
                let works = job.plan.as_ref().map_or(0, |plan| plan.devices(at));
                all.train += works;
                all.idle += job.devices[at] - works;
            }
            match rest.serves[at] {
                true => all.serve += rest.devices[at],
                false => all.lease += rest.devices[at],
            }
            let taken = all.train + all.idle + all.lease + all.serve + all.reserve;
            all.off = class.of.count - taken;
            uses.push(all);
        }
        let value = match self.goal {
            Goal::Trained => self
                .wanted
                .iter()
                .zip(&jobs)
                .map(|(wanted, job)| {
                    wanted.weight * wanted.problem.flop_per_token() * job.tokens_per_s
                })
                .sum(),
            Goal::Earned => rest.dollars_per_hour - ask.power_dollars(hosts),
        };
        Ok(Sharing {
            jobs,
            uses,
            value,
            bound: value,
            programs: 0,
        })
    }

    fn nothing_fits(&self) -> PlanError {
        let names: Vec<&str> = self.wanted.iter().map(|job| job.name).collect();
        PlanError::Infeasible {
            model: names.join(", "),
            reason: "no layouts that were looked at keep the deadlines".to_owned(),
            relaxation: "later deadlines, or smaller fewest_devices, leave more ways".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
