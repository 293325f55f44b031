//! Which option is best with a knob turned, without predicting those anew that cannot be.
//!
//! A class that is `f` times as fast makes the jobs that it works in at most `f` times as fast, or
//! where `f` is below one at least, and no other; without failures or jitter a job does at most
//! what these take from it more. So each option has a score that it cannot pass, some have one that
//! they reach for certain, and the options are gone through from the highest of the former.

use super::Knob;
use crate::compare::{Objective, score};
use crate::figures::figures_of;
use crate::options::{Outcome, PlanOption, outcomes_with};
use crate::problem::{Factors, PlanError, Problem};

/// Scores are that much above what they come to, because sums are rounded.
const ROUNDING: f64 = 1.0 + 1e-9;

/// Options with what they score as they are.
pub(super) struct Contest<'p> {
    problem: &'p Problem<'p>,
    options: &'p [PlanOption],
    objective: Objective,
    standings: Vec<Option<Standing>>,
}

/// What an option scores, if it can be the answer.
struct Standing {
    score: f64,
    /// By which factor its jobs would do more if nothing failed.
    without_failures: f64,
    /// By which factor they would if no rank were ever late.
    without_jitter: f64,
}

impl Standing {
    fn of(option: &PlanOption, objective: Objective) -> Option<Self> {
        let score = objective.score(&option.figures);
        let score = score.filter(|_| option.can_win)?;
        let most = |factor: fn(&Outcome) -> f64| {
            let outcomes = option.figures.outcomes.iter();
            outcomes.map(factor).fold(1.0, f64::max)
        };
        Some(Self {
            score,
            without_failures: most(|outcome| 1.0 / outcome.useful()),
            without_jitter: most(|outcome| {
                let late = outcome.classes.iter().map(|class| class.jitter_s);
                outcome.step_s / (outcome.step_s - late.fold(0.0, f64::max))
            }),
        })
    }
}

impl<'p> Contest<'p> {
    pub(super) fn new(
        problem: &'p Problem<'p>,
        options: &'p [PlanOption],
        objective: Objective,
    ) -> Self {
        let standing = |option| Standing::of(option, objective);
        Self {
            problem,
            options,
            objective,
            standings: options.iter().map(standing).collect(),
        }
    }

    /// The best option with a knob turned; of equals the earliest.
    pub(super) fn best(&self, knob: Knob, factor: f64) -> Result<Option<usize>, PlanError> {
        let standings = self.standings.iter().enumerate();
        let known = standings.filter_map(|(at, it)| Some((at, it.as_ref()?)));
        let most = known.map(|(at, standing)| (at, self.most(at, standing, (knob, factor))));
        let mut order: Vec<(usize, f64)> = most.collect();
        let standings = self.standings.iter().enumerate();
        let least = standings.filter_map(|(at, it)| Some((at, it.as_ref()?)));
        let least = least.map(|(at, standing)| self.least(at, standing, (knob, factor)));
        let floor = least.fold(f64::NEG_INFINITY, f64::max);
        order.retain(|(_, most)| *most >= floor);
        let is_certain = match self.objective {
            Objective::NetDollars => floor.is_finite(),
            _ => floor > 0.0,
        };
        if let ([(at, _)], true) = (&order[..], is_certain) {
            return Ok(Some(*at));
        }
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut best: Option<(usize, f64)> = None;
        for (at, most) in order {
            if best.is_some_and(|(_, score)| most < score) {
                break;
            }
            let Some(score) = self.turned(at, (knob, factor))? else {
                continue;
            };
            let is_better = best
                .is_none_or(|(first, most)| score.total_cmp(&most).then(first.cmp(&at)).is_gt());
            if is_better {
                best = Some((at, score));
            }
        }
        Ok(best.map(|(at, _)| at))
    }

    /// What an option cannot pass.
    fn most(&self, at: usize, standing: &Standing, (knob, factor): (Knob, f64)) -> f64 {
        let score = standing.score;
        if !self.is_touched(at, knob) {
            return score;
        }
        let by_rate = |more: f64| match self.objective {
            Objective::NetDollars => score,
            // What does nothing as it is says nothing of what it could.
            _ if score <= 0.0 => f64::INFINITY,
            _ => score * more * ROUNDING,
        };
        let worse = factor >= 1.0;
        match knob {
            Knob::Speed(class) => by_rate(self.faster(at, class, factor.max(1.0))),
            Knob::Failures | Knob::Jitter if worse => score,
            Knob::Failures => by_rate(standing.without_failures),
            Knob::Jitter => by_rate(standing.without_jitter),
            // What is let for more earns more, whatever else is paid.
            Knob::Price(_) => f64::INFINITY,
        }
    }

    /// What an option reaches for certain.
    fn least(&self, at: usize, standing: &Standing, (knob, factor): (Knob, f64)) -> f64 {
        match (knob, self.objective) {
            _ if !self.is_touched(at, knob) => standing.score,
            (Knob::Speed(_), Objective::NetDollars) => standing.score,
            (Knob::Speed(class), _) => {
                standing.score * self.faster(at, class, factor.min(1.0)) / ROUNDING
            }
            _ => f64::NEG_INFINITY,
        }
    }

    /// By which factor an option's jobs do more if a class is so many times as fast: at most, or
    /// where it is slower at least.
    fn faster(&self, at: usize, class: usize, factor: f64) -> f64 {
        let option = &self.options[at];
        let all = option.figures.tokens_per_s;
        match self.objective {
            // That of one job, or of steps.
            Objective::Time | Objective::Mfu => factor,
            _ if all > 0.0 => {
                let jobs = option.jobs.iter().zip(&option.figures.outcomes);
                let touched = jobs.filter(|(job, _)| job.devices(class) > 0);
                let touched: f64 = touched.map(|(_, outcome)| outcome.tokens_per_s()).sum();
                1.0 + (factor - 1.0) * touched / all
            }
            _ => factor,
        }
    }

    /// What an option scores with a knob turned.
    fn turned(&self, at: usize, (knob, factor): (Knob, f64)) -> Result<Option<f64>, PlanError> {
        let option = &self.options[at];
        if !self.is_touched(at, knob) {
            return Ok(score(self.objective, &option.figures));
        }
        let factors = factors(self.problem, knob, factor);
        let outcomes = match knob {
            // What jobs do does not depend on prices.
            Knob::Price(_) => option.figures.outcomes.clone(),
            Knob::Speed(class) => outcomes_with(self.problem, option, &factors, Some(class))?,
            Knob::Failures | Knob::Jitter => outcomes_with(self.problem, option, &factors, None)?,
        };
        let figures = figures_of(self.problem, option, &factors, outcomes);
        Ok(score(self.objective, &figures))
    }

    /// Whether a knob changes anything of an option.
    fn is_touched(&self, at: usize, knob: Knob) -> bool {
        let option = &self.options[at];
        match knob {
            Knob::Speed(class) => option.jobs.iter().any(|job| job.devices(class) > 0),
            Knob::Price(class) => {
                let it = &option.uses[class];
                it.lease + it.train + it.idle > 0
            }
            Knob::Failures | Knob::Jitter => !option.jobs.is_empty(),
        }
    }
}

/// A problem with a knob turned.
pub(super) fn factors(problem: &Problem<'_>, knob: Knob, factor: f64) -> Factors {
    let mut factors = Factors::none(problem.classes.len());
    match knob {
        Knob::Speed(class) => factors.speed[class] = factor,
        Knob::Price(class) => factors.price[class] = factor,
        Knob::Failures => factors.failures = factor,
        Knob::Jitter => factors.jitter = factor,
    }
    factors
}
