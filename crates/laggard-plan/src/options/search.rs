//! The best layout of one job on given devices: equal shares, and shares by speed.

use laggard_schedule::Zero;
use laggard_simulate::{Degrees, Machine};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

use super::job::{Costs, Group, JobPlan, Parts};
use crate::layouts::{Candidate, Found, NoLayout, fastest_layouts, memory_of_layout};
use crate::problem::{Factors, Problem};
use crate::shares::{Shares, Worker, share_out};

/// Layouts that are kept of a search for classes together.
const KEPT: usize = 600;
/// Layouts of these that equal shares are tried with.
const TRIED_EQUAL: usize = 24;
/// Micro-batches that a replica's times are told apart at: its time grows evenly from two on.
const FEW: u32 = 2;
const MANY: u32 = 10;

/// Finds jobs, and remembers them: options share many.
pub(crate) struct Search<'p> {
    pub(crate) costs: Costs<'p>,
    /// Whatever was refused.
    pub(super) refusals: Vec<NoLayout>,
    /// Layouts whose step was predicted, and those that do not fit in memory.
    pub(super) evaluated: [u64; 2],
    together: BTreeMap<Vec<u64>, Vec<Candidate>>,
}

impl<'p> Search<'p> {
    pub(super) fn new(costs: Costs<'p>) -> Self {
        Self {
            costs,
            refusals: Vec::new(),
            evaluated: [0; 2],
            together: BTreeMap::new(),
        }
    }

    /// Finds jobs of a problem as it is.
    pub(crate) fn of(problem: &'p Problem<'p>) -> Self {
        Self::new(Costs::new(problem, &Factors::none(problem.classes.len())))
    }

    /// The best job whose replicas all have equal shares, on so many devices of each class.
    pub(crate) fn equal(&mut self, counts: &[u64]) -> Option<JobPlan> {
        let candidates = self.candidates(counts);
        // Gradients that are reduced after each micro-batch would cross links as often.
        let mut classes = (0..counts.len()).filter(|&class| counts[class] > 0);
        let site = |class: usize| self.costs.problem.classes[class].site;
        let first = classes.next().map(site);
        let at_one = classes.all(|class| Some(site(class)) == first);
        let may_be = |it: &&Candidate| at_one || it.degrees.zero < Zero::Gradients;
        let jobs = candidates.iter().filter(may_be).take(TRIED_EQUAL);
        let jobs = jobs.filter_map(|candidate| self.equal_shares(&candidate.degrees, counts));
        let jobs = jobs.filter(|job| self.fits(job));
        self.fastest(jobs.collect())
    }

    /// The best job whose classes have as many micro-batches as end together.
    /// Layouts are gone through from the one that would do most if micro-batches could be split,
    /// until no other can do more than the best.
    pub(super) fn uneven(&mut self, counts: &[u64]) -> Option<JobPlan> {
        let crews = self.crews(counts);
        let mut best: Option<(f64, usize, JobPlan)> = None;
        for (place, crew) in crews {
            let beats = |most: f64| best.as_ref().is_none_or(|best| most >= best.0);
            if !beats(crew.most_tokens_per_s) {
                break;
            }
            let jobs = self.uneven_shares(&crew, counts).into_iter();
            for job in jobs.filter(|job| self.fits(job)) {
                let rate = self.rate(&job);
                // Of equals that stays which is the fastest on the slowest class.
                let is_better = best.as_ref().is_none_or(|(most, first, _)| {
                    rate.total_cmp(most).then(first.cmp(&place)).is_gt()
                });
                if is_better {
                    best = Some((rate, place, job));
                }
            }
        }
        best.map(|(_, _, job)| job)
    }

    /// The replicas that layouts make of the devices, each shape once, with its place among the
    /// layouts; those that may do most first.
    fn crews(&mut self, counts: &[u64]) -> Vec<(usize, Crew)> {
        let candidates = self.candidates(counts);
        let mut seen = BTreeSet::new();
        let shape = |it: &Degrees| {
            let stage = (it.tensor, it.context, it.pipeline);
            (stage, it.virtual_stages, it.micro_batch)
        };
        // Sharded gradients are reduced after each micro-batch, as often by every replica.
        let may_differ = |it: &&Candidate| it.degrees.zero < Zero::Gradients;
        let first = candidates
            .iter()
            .filter(may_differ)
            .filter(|candidate| seen.insert(shape(&candidate.degrees)));
        let crews = first.filter_map(|candidate| self.crew(&candidate.degrees, counts));
        let mut crews: Vec<(usize, Crew)> = crews.enumerate().collect();
        crews.sort_by(|a, b| b.1.most_tokens_per_s.total_cmp(&a.1.most_tokens_per_s));
        crews
    }

    /// The best job with equal shares, and the best with shares by speed, which are equal too where
    /// no others train more.
    pub(super) fn both(&mut self, counts: &[u64]) -> [Option<JobPlan>; 2] {
        let jobs = [self.equal(counts), self.uneven(counts)];
        let jobs: Vec<JobPlan> = jobs.into_iter().flatten().collect();
        let equal = jobs.iter().filter(|job| job.has_equal_shares()).cloned();
        [self.fastest(equal.collect()), self.fastest(jobs)]
    }

    /// The best job of equal or different shares.
    pub(crate) fn either(&mut self, counts: &[u64]) -> Option<JobPlan> {
        let [_, best] = self.both(counts);
        best
    }

    /// The layouts that all devices together can have, those that are fastest on the slowest first.
    fn candidates(&mut self, counts: &[u64]) -> Vec<Candidate> {
        let key = self.key(counts);
        if let Some(known) = self.together.get(&key) {
            return known.clone();
        }
        let found = self.find(counts);
        self.remember(key, found)
    }

    /// What the layouts of so many devices are known by.
    fn key(&self, counts: &[u64]) -> Vec<u64> {
        let problem = self.costs.problem;
        let classes: Vec<usize> = (0..counts.len()).filter(|&at| counts[at] > 0).collect();
        let mut key = counts.to_vec();
        if let [class] = classes[..] {
            // Classes of the same machines have the same layouts, wherever they stand.
            let machine = |at: usize| {
                let of = &problem.classes[at].of;
                (&of.machine, of.devices_per_node)
            };
            let first = (0..class).find(|&at| machine(at) == machine(class));
            key.swap(first.unwrap_or(class), class);
        }
        key
    }

    fn find(&self, counts: &[u64]) -> Result<Found, NoLayout> {
        let problem = self.costs.problem;
        let classes: Vec<usize> = (0..counts.len()).filter(|&at| counts[at] > 0).collect();
        let space = problem.space(counts.iter().sum(), &classes);
        let machine: Machine = problem.weakest(&classes);
        let constants = &self.costs.constants;
        // Of a class alone no more are tried than equal shares need.
        let kept = if classes.len() > 1 { KEPT } else { TRIED_EQUAL };
        match space.ranks {
            0 => Ok(Found::default()),
            _ => fastest_layouts(&problem.demand(), space, &machine, constants, kept),
        }
    }

    fn remember(&mut self, key: Vec<u64>, found: Result<Found, NoLayout>) -> Vec<Candidate> {
        let found = found.unwrap_or_else(|refusal| {
            self.refusals.push(refusal);
            Found::default()
        });
        self.evaluated[0] += found.evaluated;
        self.evaluated[1] += found.too_large;
        self.together.insert(key, found.best.clone());
        found.best
    }

    /// Finds the layouts of several numbers of devices on all processors, as if they had been asked
    /// for in this order, and does something else meanwhile.
    pub(super) fn prepare<T: Send>(
        &mut self,
        wanted: &[Vec<u64>],
        meanwhile: impl FnOnce(&Costs<'p>) -> T + Send,
    ) -> T {
        let mut seen = BTreeSet::new();
        let mut new: Vec<(Vec<u64>, &[u64])> = Vec::new();
        for counts in wanted {
            let key = self.key(counts);
            if !self.together.contains_key(&key) && seen.insert(key.clone()) {
                new.push((key, counts));
            }
        }
        let this = &*self;
        let find = || {
            new.par_iter()
                .map(|(_, counts)| this.find(counts))
                .collect()
        };
        let (found, other): (Vec<_>, T) = rayon::join(find, || meanwhile(&this.costs));
        let keys: Vec<Vec<u64>> = new.into_iter().map(|(key, _)| key).collect();
        for (key, found) in keys.into_iter().zip(found) {
            self.remember(key, found);
        }
        other
    }

    /// Tokens per second that a job keeps.
    pub(crate) fn rate(&self, job: &JobPlan) -> f64 {
        let outcome = self.costs.outcome(job).ok();
        outcome.map_or(0.0, |outcome| outcome.tokens_per_s())
    }

    fn fastest(&self, jobs: Vec<JobPlan>) -> Option<JobPlan> {
        // The first of equals stays.
        let rated = jobs.into_iter().map(|job| (self.rate(&job), job));
        let best = rated.reduce(|best, next| if next.0 > best.0 { next } else { best });
        best.map(|(_, job)| job)
    }

    /// Whether a job fits in the memory of its devices. Its layout does, but where that makes fewer
    /// replicas of them than of all devices as one class, each keeps more of what is sharded.
    fn fits(&self, job: &JobPlan) -> bool {
        let problem = self.costs.problem;
        let classes = 0..problem.classes.len();
        let classes: Vec<usize> = classes.filter(|&class| job.devices(class) > 0).collect();
        let machine = problem.weakest(&classes);
        memory_of_layout(&problem.demand(), &job.degrees, &machine).is_ok()
    }

    /// Replicas of each class, in whole groups of those that share experts.
    fn replicas(&self, degrees: &Degrees, counts: &[u64]) -> Vec<u64> {
        let ranks = degrees.ranks_per_replica();
        let experts = u64::from(degrees.expert);
        let of = |count: &u64| count / ranks / experts * experts;
        counts.iter().map(of).collect()
    }

    fn equal_shares(&self, degrees: &Degrees, counts: &[u64]) -> Option<JobPlan> {
        let mut replicas = self.replicas(degrees, counts);
        let at_once = f64::from(degrees.micro_batch) * f64::from(round(degrees));
        let rounds = self.costs.problem.most_sequences() / at_once;
        drop_surplus(&mut replicas, rounds as u64, degrees.expert.into());
        let all: u64 = replicas.iter().sum();
        if all == 0 {
            return None;
        }
        let each = (rounds / all as f64) as u32 * round(degrees);
        let group = |(class, &replicas): (usize, &u64)| Group {
            class,
            replicas,
            micro_batches: each,
        };
        let groups = replicas.iter().enumerate().filter(|(_, count)| **count > 0);
        Some(job(degrees, groups.map(group).collect(), counts))
    }

    /// The replicas of a layout with the times of each class's; `None` where there are none, or
    /// more than micro-batches.
    fn crew(&self, degrees: &Degrees, counts: &[u64]) -> Option<Crew> {
        let replicas = self.replicas(degrees, counts);
        let (experts, round) = (u64::from(degrees.expert), round(degrees));
        let degrees = Degrees {
            data: replicas.iter().sum::<u64>() as u32,
            ..*degrees
        };
        let at_once = f64::from(degrees.micro_batch) * f64::from(round) * experts as f64;
        let batch = (self.costs.problem.batch() as f64 / at_once) as u64;
        let there: Vec<usize> = (0..replicas.len()).filter(|&at| replicas[at] > 0).collect();
        let all: u64 = replicas.iter().sum::<u64>() / experts;
        if all == 0 || batch < all {
            return None;
        }
        let mut workers = Vec::with_capacity(there.len());
        let mut known: BTreeMap<usize, [f64; 3]> = BTreeMap::new();
        // Of seconds that all replicas compute together, the rounds a second and the fixed ones.
        let (mut rounds, mut fixed) = (0.0, 0.0);
        for &class in &there {
            let alike = self.costs.first_alike[class];
            let time = |count: u32| self.costs.step(&degrees, alike, count * round).total_s;
            let times = known.entry(alike);
            let [one, few, many] = *times.or_insert_with(|| [1, FEW, MANY].map(time));
            let each = (many - few) / f64::from(MANY - FEW);
            let before = few - f64::from(FEW) * each;
            let replicas = replicas[class] / experts;
            rounds += replicas as f64 / each;
            fixed += replicas as f64 / each * before.min(one - each);
            workers.push(Worker {
                replicas,
                fixed_seconds: before.max(0.0),
                micro_batch_seconds: each,
                most: None,
            });
        }
        // Fewer rounds in less time are fewer in all, but for times that start below zero.
        let links_s = self.costs.gradients_across(there.iter().copied());
        let rate = match fixed >= 0.0 {
            true => batch as f64 / ((batch as f64 + fixed) / rounds + links_s),
            false => f64::INFINITY,
        };
        let ranks = degrees.ranks_per_replica();
        let devices: Vec<u64> = replicas.iter().map(|count| count * ranks).collect();
        let tokens = at_once * f64::from(self.costs.problem.training.sequence_length);
        // A hair more, since sums are rounded.
        let most_tokens_per_s = rate * tokens * self.costs.useful(&devices)? * (1.0 + 1e-9);
        Some(Crew {
            degrees,
            there,
            workers,
            batch,
            most_tokens_per_s,
        })
    }

    /// Shares by speed, of the largest batch and of the largest ones that end with a micro-batch of
    /// each class.
    fn uneven_shares(&self, crew: &Crew, counts: &[u64]) -> Vec<JobPlan> {
        let Crew {
            degrees,
            there,
            workers,
            batch,
            ..
        } = crew;
        let (experts, round) = (u64::from(degrees.expert), round(degrees));
        let mut batches: BTreeSet<u64> = workers
            .iter()
            .filter_map(|worker| without_waste(workers, worker, *batch))
            .collect();
        batches.insert(*batch);
        let shares = batches
            .into_iter()
            .filter_map(|batch| share_out(workers, batch).ok());
        let groups = shares.map(|shares| groups(&shares, there, experts, round));
        groups.map(|groups| job(degrees, groups, counts)).collect()
    }
}

/// All replicas that a layout makes of the devices.
struct Crew {
    degrees: Degrees,
    /// The classes that have any.
    there: Vec<usize>,
    /// Those of each class; where replicas share experts, groups of them.
    workers: Vec<Worker>,
    /// Rounds of micro-batches of a step.
    batch: u64,
    /// What no shares of theirs can train.
    most_tokens_per_s: f64,
}

/// Micro-batches that are shared out at a time: interleaved pipelines take rounds of as many as
/// they have stages.
pub(super) fn round(degrees: &Degrees) -> u32 {
    match degrees.virtual_stages {
        1 => 1,
        _ => degrees.pipeline,
    }
}

/// The largest batch that fills the time of some number of micro-batches of one worker.
fn without_waste(workers: &[Worker], worker: &Worker, batch: u64) -> Option<u64> {
    let room = |count: u64| -> u64 {
        let end = worker.fixed_seconds + count as f64 * worker.micro_batch_seconds;
        let of = |other: &Worker| {
            let count = (end - other.fixed_seconds) / other.micro_batch_seconds;
            other.replicas * (count.max(0.0) + f64::EPSILON) as u64
        };
        workers.iter().map(of).sum()
    };
    let (mut low, mut high) = (0, batch + 1);
    while low + 1 < high {
        let middle = u64::midpoint(low, high);
        if room(middle) <= batch {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low > 0).then(|| room(low))
}

/// Replicas that a batch has no micro-batch for are given up, those of the largest class first.
fn drop_surplus(replicas: &mut [u64], most: u64, experts: u64) {
    let mut surplus = replicas.iter().sum::<u64>().saturating_sub(most);
    while surplus > 0 {
        let Some(largest) = replicas.iter_mut().max() else {
            return;
        };
        let fewer = surplus.next_multiple_of(experts).min(*largest);
        *largest -= fewer;
        surplus = surplus.saturating_sub(fewer);
    }
}

fn groups(shares: &Shares, there: &[usize], experts: u64, round: u32) -> Vec<Group> {
    let mut groups = Vec::new();
    for (&class, of_class) in there.iter().zip(&shares.of_worker) {
        for &(workers, rounds) in of_class {
            groups.push(Group {
                class,
                replicas: workers * experts,
                micro_batches: rounds as u32 * round,
            });
        }
    }
    groups
}

/// A job of whole replicas, with all numbers that follow.
fn job(degrees: &Degrees, groups: Vec<Group>, counts: &[u64]) -> JobPlan {
    let ranks = degrees.ranks_per_replica();
    let mut idle = counts.to_vec();
    for group in &groups {
        idle[group.class] -= group.replicas * ranks;
    }
    let most = groups.iter().map(|group| group.micro_batches).max();
    let all: u64 = groups.iter().map(|group| group.replicas).sum();
    JobPlan {
        degrees: Degrees {
            data: all as u32,
            micro_batches: most.unwrap_or(1),
            ..*degrees
        },
        parts: Parts::Replicas(groups),
        idle,
    }
}

#[cfg(test)]
mod tests;
