//! Jobs whose devices stand at several sites, and what the links between these cost them.
//!
//! Replicas at each site reduce their gradients inside it first; what crosses links is one sum for
//! each site, up a tree of links and down again, which hides behind nothing: the widest links that
//! join the sites decide. Stages at each site send activations over the link between neighbours,
//! and those of all replicas share it. Which sites a job should span is found by what it could
//! train at best: as much as its classes apart, held up by the narrowest link once a step.

use std::collections::BTreeSet;

use super::job::{Costs, JobPlan};
use super::{Kind, Maker, spans};
use crate::problem::{Link, PlanError, Problem};
use crate::stages::Joint;

/// Up to so many sites, all sets of them that links join are looked at; of more, those that links
/// of at least some bandwidth join.
const FEW_SITES: usize = 4;
/// Most orders of sites that are tried for stages, where not all orders of stages are; and most
/// beginnings of orders that are followed to find them.
const MOST_ORDERS: usize = 24;
const MOST_BEGINNINGS: usize = 10_000;
/// Sites that are named, of many.
const NAMED: usize = 3;
/// Bytes of an activation, ones of half precision.
const ACTIVATION_BYTES: f64 = 2.0;

/// The links that sums go over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Crossing {
    /// The narrowest, bytes per second in one direction.
    pub(super) bytes_per_s: f64,
    /// One way from the middle of the tree to the site that is farthest from it.
    pub(super) latency_s: f64,
}

impl Crossing {
    /// The tree of the widest links between sites; `None` where they do not join all of them.
    pub(super) fn of(links: &[Link], sites: &BTreeSet<usize>) -> Option<Self> {
        let mut within: Vec<&Link> = links
            .iter()
            .filter(|link| link.sites.iter().all(|site| sites.contains(site)))
            .collect();
        within.sort_by(|a, b| {
            let wider = b.bytes_per_s.total_cmp(&a.bytes_per_s);
            wider.then(a.latency_s.total_cmp(&b.latency_s))
        });
        let mut parts: Vec<BTreeSet<usize>> = sites.iter().map(|&at| [at].into()).collect();
        let mut tree: Vec<&Link> = Vec::new();
        for link in within {
            if join(&mut parts, link.sites) {
                tree.push(link);
            }
        }
        if parts.len() > 1 {
            return None;
        }
        let farthest = |&from: &usize| depth(&tree, from, None);
        Some(Self {
            bytes_per_s: tree
                .iter()
                .map(|it| it.bytes_per_s)
                .fold(f64::INFINITY, f64::min),
            latency_s: sites.iter().map(farthest).fold(f64::INFINITY, f64::min),
        })
    }

    /// Seconds in which every site has the sum of so many bytes of each.
    pub(super) fn sum_seconds(&self, bytes: f64) -> f64 {
        bytes / self.bytes_per_s + 2.0 * self.latency_s
    }
}

/// Puts the parts that have two sites together; whether there were two.
fn join(parts: &mut Vec<BTreeSet<usize>>, [a, b]: [usize; 2]) -> bool {
    let part = |site: usize| parts.iter().position(|part| part.contains(&site));
    let (Some(a), Some(b)) = (part(a), part(b)) else {
        return false;
    };
    if a == b {
        return false;
    }
    let moved = parts.remove(a.max(b));
    parts[a.min(b)].extend(moved);
    true
}

/// One way to the farthest site of a tree, seconds.
fn depth(tree: &[&Link], from: usize, before: Option<usize>) -> f64 {
    let next = tree.iter().filter_map(|link| {
        let to = link.other(from).filter(|&to| Some(to) != before)?;
        Some(link.latency_s + depth(tree, to, Some(from)))
    });
    next.fold(0.0, f64::max)
}

/// What the links between the stages of a pipeline cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Hops {
    /// Added once a step: there and back of the first micro-batch.
    pub(super) once_s: f64,
    /// No micro-batch follows the one before it in less.
    pub(super) each_s: f64,
}

impl Costs<'_> {
    /// The sites of some classes.
    fn sites(&self, classes: impl Iterator<Item = usize>) -> BTreeSet<usize> {
        classes
            .map(|class| self.problem.classes[class].site)
            .collect()
    }

    /// Seconds for which the sum of the gradients of these classes' replicas crosses links; none
    /// where they are at one site, infinite where nothing joins theirs.
    pub(super) fn gradients_across(&self, classes: impl Iterator<Item = usize>) -> f64 {
        let bytes = self.problem.training.software.gradient_bytes;
        self.sum_across(classes, bytes)
    }

    /// The same of any sum of so many bytes for each parameter.
    pub(super) fn sum_across(&self, classes: impl Iterator<Item = usize>, bytes: f64) -> f64 {
        let sites = self.sites(classes);
        if sites.len() < 2 {
            return 0.0;
        }
        let crossing = Crossing::of(&self.problem.links, &sites);
        let bytes = bytes * self.problem.shape().parameters();
        crossing.map_or(f64::INFINITY, |it| it.sum_seconds(bytes))
    }

    /// What lies between stages at two sites, for micro-batches of so many `sequences` of all
    /// replicas together: the widest link between them. `None` where there is none.
    pub(super) fn joint(&self, ends: [usize; 2], sequences: f64) -> Option<Joint> {
        let problem = self.problem;
        let length = f64::from(problem.training.sequence_length);
        let bytes = ACTIVATION_BYTES * sequences * length * problem.shape().hidden;
        let links = problem.links.iter().filter(|link| link.joins(ends));
        let link = links.max_by(|a, b| {
            let wider = a.bytes_per_s.total_cmp(&b.bytes_per_s);
            wider.then(b.latency_s.total_cmp(&a.latency_s))
        })?;
        let each = bytes / link.bytes_per_s;
        Some(Joint {
            both_ways: 2.0 * (each + link.latency_s),
            each,
        })
    }

    /// What links cost a pipeline whose stages, of a class each, take seconds for each of
    /// `micro_batches` of `sequences` of all replicas together. Infinite where nothing joins
    /// neighbours.
    pub(super) fn hops(
        &self,
        stages: &[(usize, f64)],
        (micro_batches, sequences): (u32, f64),
    ) -> Hops {
        let site = |stage: &(usize, f64)| self.problem.classes[stage.0].site;
        let mut hops = Hops::default();
        for (at, pair) in stages.windows(2).enumerate() {
            let (first, second) = (pair[0], pair[1]);
            if site(&first) == site(&second) {
                continue;
            }
            let joint = self.joint([site(&first), site(&second)], sequences);
            let Some(joint) = joint else {
                return Hops {
                    once_s: f64::INFINITY,
                    each_s: f64::INFINITY,
                };
            };
            let (from_on, seconds) = (stages.len() - at, [first.1, second.1]);
            let held = joint.holds_up(seconds, from_on, micro_batches.into());
            hops.once_s += joint.both_ways;
            hops.each_s = hops.each_s.max(joint.each).max(held);
        }
        hops
    }
}

/// A job at several sites, with the tokens per second that it trains.
type Across = (f64, BTreeSet<usize>, JobPlan);

/// Sets of at least two sites that links join, each with everything that stands there.
fn joined(links: &[Link], sites: &[usize]) -> Vec<BTreeSet<usize>> {
    if sites.len() <= FEW_SITES {
        let sets = (1..1_u32 << sites.len()).map(|set| {
            let bits = (0..sites.len()).filter(|bit| set & (1 << bit) != 0);
            bits.map(|bit| sites[bit]).collect::<BTreeSet<usize>>()
        });
        let is_joined = |set: &BTreeSet<usize>| set.len() > 1 && Crossing::of(links, set).is_some();
        return sets.filter(is_joined).collect();
    }
    // What links of at least some bandwidth join only grows with narrower ones.
    let mut by_width: Vec<&Link> = links.iter().collect();
    by_width.sort_by(|a, b| b.bytes_per_s.total_cmp(&a.bytes_per_s));
    let mut parts: Vec<BTreeSet<usize>> = sites.iter().map(|&at| [at].into()).collect();
    let mut sets = Vec::new();
    for link in by_width {
        if join(&mut parts, link.sites) {
            let part = parts.iter().find(|part| part.contains(&link.sites[0]));
            sets.extend(part.cloned());
        }
    }
    sets
}

/// Sets of sites with devices that one job can span: each alone, and those that links join.
pub(crate) fn reaches(problem: &Problem<'_>) -> Vec<BTreeSet<usize>> {
    let with_devices = problem.classes.iter().filter(|class| class.free() > 0);
    let sites: BTreeSet<usize> = with_devices.map(|class| class.site).collect();
    let sites: Vec<usize> = sites.into_iter().collect();
    let alone = sites.iter().map(|&site| [site].into());
    alone.chain(joined(&problem.links, &sites)).collect()
}

/// Of these, those that are part of no other.
pub(crate) fn farthest(reaches: &[BTreeSet<usize>]) -> Vec<BTreeSet<usize>> {
    let is_part = |of: &BTreeSet<usize>| reaches.iter().any(|it| it != of && it.is_superset(of));
    let farthest = reaches.iter().filter(|of| !is_part(of));
    farthest.cloned().collect()
}

/// Orders of sites in which each is joined to the next, and whether these are all.
pub(super) fn orders(problem: &Problem<'_>, sites: &BTreeSet<usize>) -> (Vec<Vec<usize>>, bool) {
    let mut orders = Vec::new();
    let mut begun = sites
        .iter()
        .map(|&site| vec![site])
        .rev()
        .collect::<Vec<_>>();
    for _ in 0..MOST_BEGINNINGS {
        let Some(order) = begun.pop() else {
            return (orders, true);
        };
        if order.len() == sites.len() {
            orders.push(order);
            if orders.len() == MOST_ORDERS {
                break;
            }
            continue;
        }
        let last = order[order.len() - 1];
        let is_next = |site: &&usize| {
            let joins = problem.links.iter().any(|it| it.joins([last, **site]));
            !order.contains(site) && joins
        };
        let longer = |site: &usize| [&order[..], &[*site]].concat();
        begun.extend(sites.iter().rev().filter(is_next).map(longer));
    }
    let are_all = begun.is_empty();
    (orders, are_all)
}

impl Maker<'_> {
    /// One job on all classes of several sites: with replicas at each, with stages at each, or as
    /// pools that meet every so many steps.
    pub(super) fn across_sites(&mut self) -> Result<(), PlanError> {
        let problem = self.problem;
        let sites: Vec<usize> = self
            .sites()
            .iter()
            .map(|it| problem.classes[it[0]].site)
            .collect();
        if sites.len() < 2 {
            return Ok(());
        }
        let mut sets: Vec<(f64, BTreeSet<usize>)> = Vec::new();
        let trained = self.trained_apart();
        for set in joined(&problem.links, &sites) {
            sets.push((self.most_across(&set, &trained), set));
        }
        if sets.is_empty() {
            let reason = "no job spans sites: no links between them are stated".to_owned();
            self.left_out.push((Kind::AcrossSites, reason));
            return Ok(());
        }
        sets.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut ways = [self.by_gradients(&sets), None];
        let (by_stages, missed) = self.by_activations(&sets);
        ways[1] = by_stages;
        for (way, what) in ways.into_iter().zip(["gradients", "activations"]) {
            if let Some((_, set, job)) = way {
                let name = format!("one job at {}, {what} cross", self.site_names(&set));
                self.add(Kind::AcrossSites, &name, vec![job])?;
            }
        }
        self.left_out.extend(missed);
        let largest = sets.into_iter().max_by_key(|(_, set)| set.len());
        match largest {
            Some((_, set)) => self.meeting(&self.at(&set)),
            None => Ok(()),
        }
    }

    /// The best job with replicas at the sites of some set; sets come with what they could train
    /// at most, downwards.
    fn by_gradients(&mut self, sets: &[(f64, BTreeSet<usize>)]) -> Option<Across> {
        let mut found: Option<Across> = None;
        for (most, set) in sets {
            if found.as_ref().is_some_and(|(rate, ..)| most <= rate) {
                break;
            }
            let counts = self.of(&self.at(set));
            let job = self.search.either(&counts);
            let Some(job) = job.filter(|job| self.spans(job)) else {
                continue;
            };
            let rate = self.search.rate(&job);
            if rate > 0.0 && found.as_ref().is_none_or(|(best, ..)| rate > *best) {
                found = Some((rate, set.clone(), job));
            }
        }
        found
    }

    /// The best job with stages at all sites of some set, and what may have been missed.
    fn by_activations(
        &mut self,
        sets: &[(f64, BTreeSet<usize>)],
    ) -> (Option<Across>, Vec<(Kind, String)>) {
        let mut found: Option<Across> = None;
        let (mut most, mut is_all) = (0.0_f64, true);
        for (_, set) in sets {
            let counts = self.of(&self.at(set));
            let beat = found.as_ref().map_or(0.0, |(rate, ..)| *rate);
            let best = spans::best(&self.search.costs, &counts, beat);
            most = most.max(best.most_tokens_per_s);
            is_all &= best.has_all_divisions;
            if let Some(job) = best.job {
                found = Some((best.tokens_per_s, set.clone(), job));
            }
        }
        let missed = found.as_ref().map_or(Vec::new(), |(rate, ..)| {
            let reasons = spans::missed(most / rate, is_all);
            reasons.map(|reason| (Kind::AcrossSites, reason)).collect()
        });
        (found, missed)
    }

    /// Tokens per second that a job with replicas at some sites does at most.
    fn most_across(&self, set: &BTreeSet<usize>, trained: &[f64]) -> f64 {
        let classes = self.at(set);
        let apart: f64 = classes.iter().map(|&class| trained[class]).sum();
        let training = &self.problem.training;
        let tokens = self.problem.most_sequences() * f64::from(training.sequence_length);
        let link = self.search.costs.gradients_across(classes.into_iter());
        tokens / (tokens / apart + link)
    }

    /// The classes that are on at some sites.
    fn at(&self, set: &BTreeSet<usize>) -> Vec<usize> {
        let is_there =
            |&class: &usize| self.on[class] > 0 && set.contains(&self.problem.classes[class].site);
        (0..self.on.len()).filter(is_there).collect()
    }

    /// Whether a job has devices at several sites.
    fn spans(&self, job: &JobPlan) -> bool {
        let there = (0..self.on.len()).filter(|&class| job.devices(class) > 0);
        self.search.costs.sites(there).len() > 1
    }

    fn site_names(&self, set: &BTreeSet<usize>) -> String {
        if set.len() > NAMED {
            return format!("{} sites", set.len());
        }
        let names = set.iter().map(|&at| self.problem.places[at].id.as_str());
        names.collect::<Vec<_>>().join(" + ")
    }
}

#[cfg(test)]
mod tests;
