//! Units that are measured in sessions: what of a value is the unit's own, when each session has a
//! level of its own and each unit is measured in few of them.
//!
//! `value = level + session + unit + visit + error`: levels are unknown numbers; sessions, units
//! and visits (a unit in a session) are normal about 0 with unknown variances; the variance of each
//! error is given. Variances are those of the restricted likelihood (Patterson and Thompson,
//! "Recovery of inter-block information when block sizes are unequal", Biometrika 58(3), 1971),
//! multiplied by each variance itself (where there is little to tell it from, by a lower power),
//! so that few units never give a variance of zero and with it intervals of no width (Morris and
//! Tang, "Estimating random effects via adjustment for density maximization", Statistical Science
//! 26(2), 2011). Units' own values are best linear unbiased
//! predictions, which pull a unit that was measured little towards the others (Henderson, "Best
//! linear unbiased estimation and prediction under a selection model", Biometrics 31(2), 1975).

mod cholesky;
mod likelihood;

use crate::error::StatsError;
use likelihood::{Equations, Solved};

/// Variances are looked for between these: deviations from a millionth to 1. Values are meant to
/// be logarithms, or of that size.
const SMALLEST: f64 = 1e-12;
const LARGEST: f64 = 1.0;
/// Factors by which variances are changed in the search, from first to last; with a guess from the
/// second on.
const FIRST_FACTOR: f64 = 16.0;
const GUESSED_FACTOR: f64 = 1.25;
const LAST_FACTOR: f64 = 1.04;

/// A value of a unit in a session.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measurement {
    /// The unit, from 0.
    pub unit: usize,
    /// The session, from 0.
    pub session: usize,
    /// The value.
    pub value: f64,
    /// Variance of its error.
    pub variance: f64,
}

/// Measurements and what they are of.
#[derive(Debug, Clone, Copy)]
pub struct CrossedEffects<'a> {
    /// Each unit at most once in each session.
    pub measurements: &'a [Measurement],
    /// The level that each session is about: sessions that measured the same thing share one.
    pub level_of_session: &'a [usize],
    /// For each unit, whether it stands for itself: its own value is a number like a level, not
    /// drawn from what units usually are.
    pub stands_alone: &'a [bool],
}

/// Variances of what differs at random.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variances {
    /// Between units.
    pub unit: f64,
    /// Of one unit between its sessions, beyond the given errors.
    pub visit: f64,
    /// Between sessions of one level; `None` where hardly any level has several: then each session
    /// has a level of its own.
    pub session: Option<f64>,
}

/// A predicted value with its standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect {
    /// The value.
    pub value: f64,
    /// The standard deviation of its error.
    pub deviation: f64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossedFit {
    /// The variances.
    pub variances: Variances,
    /// What is each unit's own; of a unit that was never measured, what units usually are.
    pub units: Vec<Effect>,
    /// Level and session together, by session.
    pub sessions: Vec<f64>,
}

impl CrossedEffects<'_> {
    /// Finds variances and the units' own values. `start` is a guess of the variances; a good one
    /// makes it faster.
    ///
    /// # Errors
    /// No measurements, values or variances that are not finite or below zero, or indices beyond
    /// the lists of sessions and units.
    pub fn fit(&self, start: Option<Variances>) -> Result<CrossedFit, StatsError> {
        self.check()?;
        let equations = Equations::new(self);
        let (variances, solved) = search(&equations, start);
        Ok(CrossedFit {
            units: solved.units(&equations),
            sessions: solved.sessions(&equations),
            variances,
        })
    }

    /// The second of two units' own values less the first, for given variances.
    ///
    /// # Errors
    /// As [`CrossedEffects::fit`], or units beyond the list.
    pub fn difference(
        &self,
        variances: &Variances,
        units: [usize; 2],
    ) -> Result<Effect, StatsError> {
        self.check()?;
        let known = self.stands_alone.len();
        if let Some(unit) = units.into_iter().find(|unit| *unit >= known) {
            return refuse("unit", unit as f64, "below the number of units");
        }
        let equations = Equations::new(self);
        let solved = equations.solve(&equations.bounded(*variances));
        Ok(solved.difference(&equations, units))
    }

    fn check(&self) -> Result<(), StatsError> {
        if self.measurements.is_empty() {
            return Err(StatsError::TooShort { needed: 1, got: 0 });
        }
        for (index, it) in self.measurements.iter().enumerate() {
            if !it.value.is_finite() {
                return Err(StatsError::NotFinite { index });
            }
            if !(it.variance >= 0.0 && it.variance.is_finite()) {
                return refuse("variance", it.variance, "finite and not negative");
            }
            if it.unit >= self.stands_alone.len() {
                return refuse("unit", it.unit as f64, "below the number of units");
            }
            if it.session >= self.level_of_session.len() {
                return refuse("session", it.session as f64, "below the number of sessions");
            }
        }
        Ok(())
    }
}

fn refuse<T>(name: &'static str, value: f64, allowed: &'static str) -> Result<T, StatsError> {
    Err(StatsError::OutOfRange {
        name,
        value,
        allowed,
    })
}

/// Looks for the best variances, one after the other, by ever smaller factors.
fn search(equations: &Equations<'_>, start: Option<Variances>) -> (Variances, Solved) {
    let first = start.unwrap_or_else(|| equations.guess());
    let mut best = equations.bounded(first);
    let mut solved = equations.solve(&best);
    let mut factor = match start {
        Some(_) => GUESSED_FACTOR,
        None => FIRST_FACTOR,
    };
    while factor > LAST_FACTOR {
        let mut improved = false;
        for which in 0..3 {
            for by in [factor, 1.0 / factor] {
                let Some(tried) = changed(&best, which, by) else {
                    continue;
                };
                let found = equations.solve(&tried);
                if found.score > solved.score {
                    (best, solved, improved) = (tried, found, true);
                    break;
                }
            }
        }
        if !improved {
            factor = factor.sqrt();
        }
    }
    (best, solved)
}

/// One of the variances times a factor; `None` beyond the bounds, or where there is no such.
fn changed(variances: &Variances, which: usize, by: f64) -> Option<Variances> {
    let mut changed = *variances;
    let of = match which {
        0 => &mut changed.unit,
        1 => &mut changed.visit,
        _ => changed.session.as_mut()?,
    };
    *of *= by;
    (SMALLEST..=LARGEST).contains(of).then_some(changed)
}

#[cfg(test)]
mod tests;
