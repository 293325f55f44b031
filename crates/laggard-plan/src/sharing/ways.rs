//! Which classes each job may have: all of them, one, or those of sites that one job can span.

use std::collections::BTreeSet;

use super::program::Goal;
use super::rates::{Drawn, Rates};
use super::{Sharer, Wanted};
use crate::options::farthest;
use crate::pools::PoolsError;
use crate::problem::PlanError;

/// Most programs that are solved to find the best way of a kind.
const MOST_WAYS: usize = 128;

/// The classes that each job may have.
pub(super) type Way = Vec<Vec<usize>>;

/// Every way to choose for each job, if they are not too many.
fn every(choices: &[Way]) -> Option<Vec<Way>> {
    let mut ways = vec![Vec::new()];
    for choices in choices {
        if ways.len() * choices.len() > MOST_WAYS {
            return None;
        }
        let longer = |way: &Way| {
            let with = |choice: &Vec<usize>| [&way[..], std::slice::from_ref(choice)].concat();
            choices.iter().map(with).collect::<Vec<_>>()
        };
        ways = ways.iter().flat_map(longer).collect();
    }
    Some(ways)
}

impl Sharer<'_, '_> {
    /// Every job may have all classes that it can be trained on.
    pub(super) fn mixed(&self) -> Way {
        self.rates.iter().map(|rates| rates.classes()).collect()
    }

    /// Whether one job can span all sites.
    pub(super) fn are_joined(&self) -> bool {
        farthest(&self.reaches).len() == 1
    }

    /// Whether one job can span the sites of all these hosts.
    pub(super) fn can_span(&self, hosts: &[u64]) -> bool {
        let classes = self.wanted[0].problem.classes.iter().zip(hosts);
        let sites = classes.filter(|(_, hosts)| **hosts > 0);
        let sites: BTreeSet<usize> = sites.map(|(class, _)| class.site).collect();
        self.reaches.iter().any(|reach| reach.is_superset(&sites))
    }

    /// For each job its classes in each of some sets of sites.
    fn at(&self, sites: &[BTreeSet<usize>]) -> Vec<Way> {
        let of_job = |classes: Vec<usize>| -> Way {
            let at = |sites: &BTreeSet<usize>| {
                let site = |class: usize| self.wanted[0].problem.classes[class].site;
                let here = classes.iter().copied();
                let here: Vec<usize> = here.filter(|&it| sites.contains(&site(it))).collect();
                (!here.is_empty()).then_some(here)
            };
            sites.iter().filter_map(at).collect()
        };
        self.mixed().into_iter().map(of_job).collect()
    }

    /// What no sharing is worth more than, given the way in which all have everything.
    pub(super) fn bound_of_ways(&mut self, mixed: &Way) -> Result<f64, PlanError> {
        let all = self.bound(mixed)?;
        if self.are_joined() {
            return Ok(all);
        }
        let choices = self.at(&farthest(&self.reaches));
        let Some(ways) = every(&choices) else {
            return Ok(all.min(self.most_apart(&choices)));
        };
        let plain = vec![1.0; mixed.len()];
        let mut bounds = Vec::new();
        for way in ways {
            match self.solve(&way, &plain, &self.all(Drawn::Above)) {
                Ok((bound, _)) => bounds.push((bound, way)),
                // So no deadlines can be kept.
                Err(PoolsError::Demands { .. } | PoolsError::Power { .. }) => (),
                Err(_) => return Ok(all),
            }
        }
        bounds.sort_by(|a, b| b.0.total_cmp(&a.0));
        // From the one that could be worth most, until no other can.
        let mut most: Option<f64> = None;
        for (above, way) in bounds {
            if most.is_some_and(|most| above <= most) {
                break;
            }
            let bound = self.bound(&way).unwrap_or(above);
            most = Some(most.map_or(bound, |most| most.max(bound)));
        }
        Ok(most.map_or(all, |most| most.min(all)))
    }

    /// What jobs would train if each had the best of its choices to itself.
    fn most_apart(&self, choices: &[Way]) -> f64 {
        if self.goal != Goal::Trained {
            return f64::INFINITY;
        }
        let jobs = self.wanted.iter().zip(&self.rates).zip(choices);
        let most = |((wanted, rates), choices): ((&Wanted<'_, '_>, &Rates), &Way)| {
            let of = |classes: &Vec<usize>| {
                let by = [Drawn::Above, Drawn::Together];
                let rate = |drawn| Some(rates.curve(classes, drawn).ok()?.rate(rates.all(classes)));
                by.into_iter()
                    .filter_map(rate)
                    .fold(f64::INFINITY, f64::min)
            };
            wanted.value() * choices.iter().map(of).fold(0.0, f64::max)
        };
        jobs.map(most).sum()
    }

    /// Ways in which jobs have fewer classes, the best by the curves first: one class each, and one
    /// set of sites each.
    pub(super) fn narrower(&mut self) -> Vec<Way> {
        let one_class = |rates: &Rates| {
            let classes = rates.classes().into_iter();
            let enough = classes.filter(|&class| rates.is_enough(class));
            enough.map(|class| vec![class]).collect::<Way>()
        };
        let classes: Vec<Way> = self.rates.iter().map(one_class).collect();
        let mut kinds = vec![classes];
        if self.reaches.len() > 1 {
            kinds.push(self.at(&self.reaches));
        }
        let mut ways = Vec::new();
        for choices in kinds {
            match every(&choices) {
                Some(all) => {
                    for way in all {
                        ways.extend(self.worth(&way).map(|value| (value, way)));
                    }
                }
                None => ways.extend(self.one_by_one(&choices)),
            }
        }
        // Of equals the earlier.
        ways.sort_by(|a, b| b.0.total_cmp(&a.0));
        ways.into_iter().map(|(_, way)| way).collect()
    }

    /// A way that no other choice for one job makes better, if so many programs were enough. Jobs
    /// begin apart, where they would train most.
    fn one_by_one(&mut self, choices: &[Way]) -> Option<(f64, Way)> {
        let mut choices = choices.to_vec();
        for (choices, rates) in choices.iter_mut().zip(&self.rates) {
            choices.sort_by(|a, b| rates.all(b).total_cmp(&rates.all(a)));
        }
        let begin = |(at, choices): (usize, &Way)| {
            let count = choices.len();
            (count > 0).then(|| choices[at % count].clone())
        };
        let way: Option<Way> = choices.iter().enumerate().map(begin).collect();
        let mut way = way?;
        let mut best = self.worth(&way);
        let changes: Vec<(usize, &Vec<usize>)> = choices
            .iter()
            .enumerate()
            .flat_map(|(at, choices)| choices.iter().map(move |choice| (at, choice)))
            .collect();
        let mut since_better = 0;
        for (at, choice) in changes.iter().cycle().take(MOST_WAYS) {
            if since_better == changes.len() {
                break;
            }
            since_better += 1;
            let before = std::mem::replace(&mut way[*at], (*choice).clone());
            match self.worth(&way) {
                with if with > best => (best, since_better) = (with, 0),
                _ => way[*at] = before,
            }
        }
        Some((best?, way))
    }

    /// What a way is worth by the curves, if deadlines can be kept.
    fn worth(&mut self, way: &Way) -> Option<f64> {
        let plain = vec![1.0; way.len()];
        let solved = self.solve(way, &plain, &self.all(Drawn::Through));
        solved.ok().map(|(value, _)| value)
    }
}
