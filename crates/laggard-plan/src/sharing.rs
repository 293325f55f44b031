//! Several training jobs on one cluster: how many hosts of each class each of them gets, and what
//! is left to lease or to serve with.
//!
//! Each job's rate on each class alone is predicted at several sizes and drawn through these points
//! as a concave curve. Classes that train one job together do not train more than apart, nor more
//! than as much of the fastest class would that is as fast in all: the best sharings under either,
//! job by job, bound every sharing, as far as rates between the sizes that were predicted are what
//! their neighbours say. A second bound knows that all devices of a job step and fail together. The
//! sharings that are looked at, the one of the bound and those with one class for each job, are
//! then laid out and predicted as the jobs that they are, and of the best of them hosts change
//! hands as long as more is trained by that: what is said of a sharing is said of its layouts,
//! never of curves.

mod course;
mod exchange;
mod in_time;
mod later;
mod prices;
mod program;
mod rates;
mod ways;

use crate::compare::Objective;
use crate::options::{JobPlan, Outcome, Search, Use, reaches};
use crate::pools::{Effort, PoolsError, allocate};
use crate::problem::{Class, PlanError, Problem};
use program::{Ask, Goal};
use rates::{Drawn, Rates};
use std::collections::{BTreeMap, BTreeSet};
use ways::Way;

pub use course::{Course, in_turn};

/// Seconds of a day.
const SECONDS_PER_DAY: f64 = 86_400.0;
/// Of the ways in which jobs have fewer classes, how many of the best are laid out.
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

    /// Refuses a job that may not have fewer devices than there are.
    fn check_fewest(&self) -> Result<(), PlanError> {
        let free: u64 = self.problem.classes.iter().map(Class::free).sum();
        if self.fewest_devices <= free {
            return Ok(());
        }
        Err(PlanError::Infeasible {
            model: self.name.to_owned(),
            reason: format!(
                "it may not have fewer than {} devices, of which {free} can be used",
                self.fewest_devices
            ),
            relaxation: format!("set fewest_devices = {free} or less"),
        })
    }

    /// What a token per second of it is worth: model FLOP per second by weight.
    fn value(&self) -> f64 {
        self.weight * self.problem.flop_per_token()
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
    for job in wanted {
        job.check_fewest()?;
    }
    let mut sharer = Sharer::new(wanted, goal);
    let refusal = match sharer.share() {
        Ok(mut sharing) => {
            if let Some(bound) = sharer.bound_by_prices(sharing.bound) {
                sharing.bound = bound.min(sharing.bound).max(sharing.value);
            }
            return Ok(sharing);
        }
        Err(refusal) => refusal,
    };
    let due = wanted.iter().filter(|job| job.deadline_days.is_some());
    let names: Vec<&str> = due.map(|job| job.name).collect();
    Err(match sharer.later() {
        Some(relaxation) => PlanError::Infeasible {
            model: names.join(" and "),
            reason: match names.len() {
                1 => "its deadline cannot be kept".to_owned(),
                _ => "their deadlines cannot be kept together".to_owned(),
            },
            relaxation,
        },
        None => refusal,
    })
}

/// A sharing as hosts of each class for each job.
type Hosts = Vec<Vec<u64>>;

struct Sharer<'p, 'a> {
    wanted: Vec<Wanted<'p, 'a>>,
    goal: Goal,
    /// Sets of sites that one job can span.
    reaches: Vec<BTreeSet<usize>>,
    searches: Vec<Search<'p>>,
    rates: Vec<Rates>,
    programs: u64,
    /// What jobs make of hosts, as far as that has been asked.
    known: BTreeMap<(usize, Vec<u64>), Shared>,
}

impl<'p, 'a> Sharer<'p, 'a> {
    fn new(wanted: &[Wanted<'p, 'a>], goal: Goal) -> Self {
        let mut sharer = Self::without_rates(wanted, goal);
        sharer.rates = sharer.searches.iter_mut().map(Rates::new).collect();
        sharer
    }

    fn without_rates(wanted: &[Wanted<'p, 'a>], goal: Goal) -> Self {
        Self {
            wanted: wanted.to_vec(),
            goal,
            reaches: reaches(wanted[0].problem),
            searches: wanted.iter().map(|job| Search::of(job.problem)).collect(),
            rates: Vec::new(),
            programs: 0,
            known: BTreeMap::new(),
        }
    }

    fn share(&mut self) -> Result<Sharing, PlanError> {
        let mixed = self.mixed();
        let bound = self.bound_of_ways(&mixed)?;
        let mut ways: Vec<Way> = Vec::new();
        // One job on everything first, then the best of the others.
        if self.are_joined() {
            ways.push(mixed);
        }
        ways.extend(self.narrower().into_iter().take(LAID_OUT));
        let mut best: Option<Sharing> = None;
        let mut refusal = None;
        for way in ways {
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

    /// What no sharing of a way is worth more than. Each job's curve may be drawn either way that
    /// none of its sizes is above, whatever is done with those of others: the least found counts.
    fn bound(&mut self, way: &Way) -> Result<f64, PlanError> {
        let more = &vec![1.0; way.len()];
        let mut drawn = self.all(Drawn::Above);
        let (mut bound, _) = self.solve(way, more, &drawn)?;
        let together = self.all(Drawn::Together);
        let (of_together, _) = self.solve(way, more, &together)?;
        if of_together < bound {
            (bound, drawn) = (of_together, together);
        }
        // Of one job both have been tried.
        let jobs = drawn.len();
        for at in if jobs > 1 { 0..jobs } else { 0..0 } {
            let other = match drawn[at] {
                Drawn::Together => Drawn::Above,
                _ => Drawn::Together,
            };
            let before = std::mem::replace(&mut drawn[at], other);
            let (of_other, _) = self.solve(way, more, &drawn)?;
            if of_other < bound {
                bound = of_other;
            } else {
                drawn[at] = before;
            }
        }
        Ok(bound)
    }

    /// The same by prices, given what it is known not to be above; `None` where dollars count,
    /// classes are too many, or failures are not known.
    fn bound_by_prices(&mut self, known: f64) -> Option<f64> {
        let problem = self.wanted[0].problem;
        let is_small = problem.classes.len() <= prices::MOST_CLASSES;
        if self.goal != Goal::Trained || known <= 0.0 || !is_small {
            return None;
        }
        let each = self.wanted.iter().zip(&self.rates).zip(&mut self.searches);
        let jobs = each.map(|((wanted, rates), search)| {
            prices::Job::new(wanted.value() / known, rates, search)
        });
        let jobs = jobs.collect::<Option<Vec<_>>>()?;
        Some(prices::Market::new(problem).bound(&jobs) * known)
    }

    fn all(&self, drawn: Drawn) -> Vec<Drawn> {
        vec![drawn; self.wanted.len()]
    }

    fn ask(&self) -> Ask<'_, 'p, 'a> {
        Ask {
            wanted: &self.wanted,
            rates: &self.rates,
            goal: self.goal,
        }
    }

    /// The best hosts of each class for each job of a way, with their worth by the curves; jobs get
    /// as much more than they need as `more` says.
    fn solve(
        &mut self,
        way: &Way,
        more: &[f64],
        drawn: &[Drawn],
    ) -> Result<(f64, Hosts), PoolsError> {
        self.programs += 1;
        let ask = self.ask();
        let pools = ask.program(way, more, drawn)?;
        let found = allocate(&pools, Effort::for_classes(pools.classes.len()))?;
        let hosts = ask.hosts(&pools, &found.domains);
        Ok((found.bound, hosts))
    }

    /// The sharing of a way with its jobs as they are. Where their layouts are too slow for the
    /// deadlines, they get more; what they have nothing for, or less than others, goes to these.
    fn laid_out(&mut self, way: &Way) -> Result<Sharing, PlanError> {
        let mut more = vec![1.0; self.wanted.len()];
        for _ in 0..AGAIN {
            let solved = self.solve(way, &more, &self.all(Drawn::Through));
            let (_, mut hosts) = match solved {
                // That nobody asked for.
                Err(_) if more.iter().any(|it| *it > 1.0) => return Err(self.nothing_fits()),
                solved => solved?,
            };
            let mut jobs = self.jobs(&hosts);
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
                self.give_idle_hosts(&mut hosts, &mut jobs);
                self.exchange(&mut hosts, &mut jobs);
                return self.with_the_rest(jobs, &hosts);
            }
        }
        Err(self.nothing_fits())
    }

    fn jobs(&mut self, hosts: &Hosts) -> Vec<Shared> {
        let jobs = hosts.iter().enumerate();
        jobs.map(|(at, hosts)| self.job(at, hosts)).collect()
    }

    /// The best that a job makes of so many hosts of each class, found once.
    fn job(&mut self, at: usize, hosts: &[u64]) -> Shared {
        let key = (at, hosts.to_vec());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let job = self.laid_on(at, hosts);
        self.known.insert(key, job.clone());
        job
    }

    fn laid_on(&mut self, at: usize, hosts: &[u64]) -> Shared {
        let (wanted, search) = (&self.wanted[at], &mut self.searches[at]);
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
    }

    /// A sharing with what becomes of the devices that no job has.
    fn with_the_rest(&self, jobs: Vec<Shared>, hosts: &Hosts) -> Result<Sharing, PlanError> {
        let ask = self.ask();
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
                .map(|(wanted, job)| wanted.value() * job.tokens_per_s)
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
