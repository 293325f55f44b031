//! Which sets of classes to train on, where the rest is given away.
//!
//! Of few sets each is laid out. Of many, first those that could be best by some objective: a set
//! trains no more together than its classes do apart, and what the rest earns and draws is known,
//! so the sets are gone through from the best that each could be, until those that are left cannot
//! be better than those that are known.

use super::devices::uses;
use super::{JobPlan, Kind, Maker, Outcome, Parts, PlanOption, rest};
use crate::compare::Objective;
use crate::figures::{Figures, figures_of};
use crate::problem::{Class, Factors, PlanError};
use laggard_simulate::Degrees;
use std::collections::BTreeMap;

/// Up to so many sets are all laid out.
const FEW_SETS: usize = 63;
/// Of many, how many of the best by each objective are.
const BEST_SETS: usize = 3;

/// Sets of classes, each of one site, with the jobs of those that were laid out.
pub(super) struct Sets {
    pub(super) sets: Vec<Vec<usize>>,
    pub(super) jobs: BTreeMap<usize, Option<JobPlan>>,
}

impl Maker<'_> {
    /// The proper sets of the classes that are on, site by site, and the jobs on those that may be
    /// best.
    pub(super) fn sets(&mut self, kinds: &[Kind]) -> Result<Sets, PlanError> {
        let mut sets = Sets {
            sets: self.all_sets(),
            jobs: BTreeMap::new(),
        };
        if sets.sets.len() <= FEW_SETS {
            for at in 0..sets.sets.len() {
                self.lay_out(&mut sets, at);
            }
            return Ok(sets);
        }
        let trained = self.trained_apart();
        for &kind in kinds {
            let bounds: Vec<Figures> = sets
                .sets
                .iter()
                .map(|set| self.at_best(kind, set, &trained))
                .collect();
            for objective in Objective::ALL {
                self.best_sets(&mut sets, (kind, objective), &bounds)?;
            }
        }
        Ok(sets)
    }

    /// The sets, if they are so few that each is laid out.
    pub(super) fn few_sets(&self) -> Option<Vec<Vec<usize>>> {
        Some(self.all_sets()).filter(|sets| sets.len() <= FEW_SETS)
    }

    fn all_sets(&self) -> Vec<Vec<usize>> {
        let there = self.on.iter().filter(|count| **count > 0).count();
        let mut sets = Vec::new();
        for classes in self.sites() {
            for set in 1..1_u32 << classes.len() {
                let bits = (0..classes.len()).filter(|bit| set & (1 << bit) != 0);
                let chosen: Vec<usize> = bits.map(|bit| classes[bit]).collect();
                if chosen.len() < there {
                    sets.push(chosen);
                }
            }
        }
        sets
    }

    /// The job on a set, found once.
    fn lay_out<'s>(&mut self, sets: &'s mut Sets, at: usize) -> Option<&'s JobPlan> {
        let job = match sets.jobs.remove(&at) {
            Some(job) => job,
            None => match sets.sets[at][..] {
                [class] => self.uniform(class),
                ref chosen => {
                    let counts = self.of(chosen);
                    self.search.either(&counts)
                }
            },
        };
        sets.jobs.entry(at).or_insert(job).as_ref()
    }

    /// Tokens per second that each class trains at most: alone, or where it cannot, as if its
    /// kernels reached the peak.
    pub(super) fn trained_apart(&mut self) -> Vec<f64> {
        let classes = 0..self.on.len();
        let rate = |class: usize| match self.uniform(class) {
            Some(job) => self.search.rate(&job),
            None => {
                let machine = &self.problem.classes[class].of.machine;
                let peak = machine
                    .half_peak
                    .max(machine.fp8_peak)
                    .max(machine.fp4_peak);
                self.on[class] as f64 * peak / self.problem.flop_per_token()
            }
        };
        classes.map(rate).collect()
    }

    /// The figures that a set would have if its classes trained as much together as apart.
    fn at_best(&self, kind: Kind, set: &[usize], trained: &[f64]) -> Figures {
        let job = JobPlan {
            degrees: Degrees::ONE,
            parts: Parts::Replicas(Vec::new()),
            idle: self.of(set),
        };
        let outcome = Outcome {
            step_s: 1.0,
            step_tokens: set.iter().map(|&class| trained[class]).sum(),
            classes: Vec::new(),
            mtbf_s: None,
            goodput: None,
        };
        let jobs = vec![job];
        let option = PlanOption {
            kind,
            name: String::new(),
            uses: uses(self.problem, &self.on, &jobs, rest(kind)),
            jobs,
            figures: Figures::default(),
            can_win: true,
            paces: None,
        };
        let none = Factors::none(self.on.len());
        figures_of(self.problem, &option, &none, vec![outcome])
    }

    /// Lays out the sets that can be among the best by an objective.
    fn best_sets(
        &mut self,
        sets: &mut Sets,
        (kind, objective): (Kind, Objective),
        bounds: &[Figures],
    ) -> Result<(), PlanError> {
        let mut order: Vec<(usize, f64)> = bounds
            .iter()
            .enumerate()
            .filter_map(|(at, figures)| Some((at, objective.score(figures)?)))
            .collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut best: Vec<f64> = Vec::new();
        for (at, bound) in order {
            if best.get(BEST_SETS - 1).is_some_and(|worst| bound <= *worst) {
                break;
            }
            let Some(job) = self.lay_out(sets, at).cloned() else {
                continue;
            };
            let figures = self.option(kind, "", vec![job])?.figures;
            best.extend(objective.score(&figures));
            best.sort_by(|a, b| b.total_cmp(a));
        }
        Ok(())
    }
}

/// Whether a class earns by serving.
pub(super) fn serves(class: &Class) -> bool {
    class.serving_dollars_per_hour.is_some()
}

#[cfg(test)]
mod tests;
