//! Hosts that change hands: what programs of curves miss, since classes of one job train less
//! together than the sum of what they train apart.

use super::program::Goal;
use super::{Hosts, Shared, Sharer, Wanted};
use crate::hosts::{Unit, power_left};

/// Of the hosts of a class that a job has all, half or a quarter change hands at once.
const PARTS: [u64; 3] = [1, 2, 4];
/// Most jobs that are laid out to find who makes more of them.
const MOST_LAID_OUT: usize = 64;
/// Among more classes than this, what one of them adds is not worth the time.
const MOST_CLASSES: usize = 16;
/// Gains of a smaller share of what is trained are rounding.
const SEEN: f64 = 1e-9;

/// Hosts of a class that a job gives, or nobody had, to another or to nobody.
#[derive(Clone, Copy)]
struct Gift {
    class: usize,
    part: u64,
    from: Option<usize>,
    to: Option<usize>,
}

impl Gift {
    /// Every gift of one holder to another.
    fn all(classes: usize, jobs: usize) -> Vec<Self> {
        let holders = || (0..jobs).map(Some).chain([None]);
        let mut all = Vec::new();
        for part in PARTS {
            for class in 0..classes {
                for from in holders() {
                    let others = holders().filter(|to| *to != from);
                    all.extend(others.map(|to| Self {
                        class,
                        part,
                        from,
                        to,
                    }));
                }
            }
        }
        all
    }
}

impl Wanted<'_, '_> {
    /// Takes the hosts from its job that are idle there, but for the fewest that it may have.
    fn give_back(&self, job: &mut Shared, hosts: &mut [u64], idle: &mut [u64]) {
        let has: u64 = job.devices.iter().sum();
        let mut most = has - self.fewest_devices.min(has);
        for (class, of) in self.problem.classes.iter().enumerate() {
            let works = job.plan.as_ref().map_or(0, |plan| plan.devices(class));
            let spare = (job.devices[class] - works).min(most) / of.node_devices;
            let devices = spare * of.node_devices;
            hosts[class] -= spare;
            idle[class] += spare;
            job.devices[class] -= devices;
            most -= devices;
            if let Some(plan) = &mut job.plan {
                plan.idle[class] -= devices;
            }
        }
    }
}

impl Sharer<'_, '_> {
    /// Takes the hosts from jobs that they have nothing for, and gives them to those that train
    /// more with them, where that counts.
    pub(super) fn give_idle_hosts(&mut self, hosts: &mut Hosts, jobs: &mut [Shared]) {
        let mut idle = vec![0; self.wanted[0].problem.classes.len()];
        for (at, job) in jobs.iter_mut().enumerate() {
            self.wanted[at].give_back(job, &mut hosts[at], &mut idle);
        }
        for at in 0..jobs.len() {
            if self.goal != Goal::Trained || idle.iter().all(|it| *it == 0) {
                return;
            }
            let mut more: Vec<u64> = hosts[at].iter().zip(&idle).map(|(a, b)| a + b).collect();
            let mut with = self.job(at, &more);
            if with.tokens_per_s > jobs[at].tokens_per_s {
                idle.fill(0);
                self.wanted[at].give_back(&mut with, &mut more, &mut idle);
                (hosts[at], jobs[at]) = (more, with);
            }
        }
    }

    /// Lets hosts change hands as long as jobs train more by that, where that counts, and end in
    /// time: what is left is a sharing that no single such change makes better, if so many layouts
    /// were enough.
    pub(super) fn exchange(&mut self, hosts: &mut Hosts, jobs: &mut [Shared]) {
        let classes = self.wanted[0].problem.classes.len();
        if self.goal != Goal::Trained || classes > MOST_CLASSES {
            return;
        }
        let gifts = Gift::all(classes, jobs.len());
        let most = self.known.len() + MOST_LAID_OUT;
        let mut since_better = 0;
        for gift in gifts.iter().cycle() {
            if since_better == gifts.len() || self.known.len() > most {
                break;
            }
            since_better += 1;
            if let Some((with, changed)) = self.given(*gift, hosts, jobs) {
                *hosts = with;
                for (at, job) in changed {
                    jobs[at] = job;
                }
                since_better = 0;
            }
        }
        self.give_idle_hosts(hosts, jobs);
    }

    /// What a gift makes of a sharing, if that trains more: hosts, and the jobs that change.
    fn given(
        &mut self,
        gift: Gift,
        hosts: &Hosts,
        jobs: &[Shared],
    ) -> Option<(Hosts, Vec<(usize, Shared)>)> {
        let held = match gift.from {
            Some(from) => hosts[from][gift.class],
            None => self.left(hosts, gift.class),
        };
        let count = held / gift.part;
        if count == 0 {
            return None;
        }
        let mut with = hosts.clone();
        let mut changed = Vec::new();
        let mut gain = 0.0;
        if let Some(from) = gift.from {
            with[from][gift.class] -= count;
            let job = self.job(from, &with[from]);
            if !self.may_be(from, &job) {
                return None;
            }
            gain += self.wanted[from].value() * (job.tokens_per_s - jobs[from].tokens_per_s);
            changed.push((from, job));
        }
        if let Some(to) = gift.to {
            with[to][gift.class] += count;
            if !self.can_span(&with[to]) {
                return None;
            }
            let value = self.wanted[to].value();
            let most = self.rates[to].most(&with[to]);
            if gain + value * (most - jobs[to].tokens_per_s) <= 0.0 {
                return None;
            }
            let job = self.job(to, &with[to]);
            if !self.may_be(to, &job) {
                return None;
            }
            gain += value * (job.tokens_per_s - jobs[to].tokens_per_s);
            changed.push((to, job));
        }
        let each = self.wanted.iter().zip(jobs);
        let trained: f64 = each.map(|(job, it)| job.value() * it.tokens_per_s).sum();
        (gain > SEEN * trained).then_some((with, changed))
    }

    /// Hosts of a class that no job has and that there is power for.
    fn left(&self, hosts: &Hosts, class: usize) -> u64 {
        let problem = self.wanted[0].problem;
        let units = Unit::hosts(problem);
        let taken = |class: usize| hosts.iter().map(|job| job[class]).sum::<u64>();
        let stock = units[class].stock(problem);
        let left = stock.domains - taken(class);
        let Some(watts) = power_left(problem)[stock.site].watts else {
            return left;
        };
        let here = units
            .iter()
            .filter(|unit| problem.classes[unit.class].site == stock.site);
        let drawn: f64 = here.map(|unit| taken(unit.class) as f64 * unit.watts).sum();
        left.min(((watts - drawn) / units[class].watts).max(0.0) as u64)
    }

    /// Whether a job ends in time, on no fewer devices than it may have.
    fn may_be(&self, at: usize, job: &Shared) -> bool {
        let wanted = &self.wanted[at];
        let has: u64 = job.devices.iter().sum();
        let is_in_time = wanted.needed().is_none_or(|it| job.tokens_per_s >= it);
        is_in_time && (has == 0 || has >= wanted.fewest_devices)
    }
}
