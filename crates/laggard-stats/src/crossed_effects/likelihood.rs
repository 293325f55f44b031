//! The restricted likelihood of variances, and what follows from them. Units are eliminated from
//! the mixed-model equations one by one, which leaves one equation for each session and level.

use super::cholesky::Cholesky;
use super::{CrossedEffects, Effect, LARGEST, Measurement, SMALLEST, Variances};

/// Weight of the belief that a level, or a unit that stands alone, is 0: next to none.
const FLAT: f64 = 1e-6;
/// Sessions beyond one for each level from which on their variance is estimated.
const FEWEST_REPEATS: usize = 2;

/// The measurements in the order of units, and the columns of what is not a unit.
pub(super) struct Equations<'a> {
    of: &'a CrossedEffects<'a>,
    /// Measurements of each unit.
    by_unit: Vec<Vec<Measurement>>,
    /// Mean over all values, taken from each before anything else.
    middle: f64,
    /// Whether sessions differ at random about levels.
    sessions_are_random: bool,
    columns: usize,
    adjustments: Adjustments,
}

/// By which powers of the variances the likelihood is multiplied: 1, and less where there is so
/// little to estimate a variance from that the product would grow without bound.
#[derive(Debug, Clone, Copy)]
struct Adjustments {
    unit: f64,
    visit: f64,
    session: f64,
}

impl Adjustments {
    /// From the degrees of freedom that units, visits and sessions leave.
    fn new(units: usize, visits: usize, sessions: usize) -> Self {
        let power = |freedom: usize| (0.5 * (freedom as f64 - 1.0)).clamp(0.0, 1.0);
        let (mut unit, mut visit) = (power(units), power(visits));
        if visits == 0 {
            // Only the sum of the two is known: half of it is either's.
            unit *= 0.5;
            visit = unit;
        }
        Self {
            unit,
            visit,
            session: power(sessions),
        }
    }
}

/// A solution for given variances.
pub(super) struct Solved {
    /// Logarithm of the adjusted restricted likelihood, but for a constant.
    pub(super) score: f64,
    variances: Variances,
    factor: Cholesky,
    /// Sessions, then levels.
    columns: Vec<f64>,
}

impl<'a> Equations<'a> {
    pub(super) fn new(of: &'a CrossedEffects<'a>) -> Self {
        let mut by_unit = vec![Vec::new(); of.stands_alone.len()];
        for measurement in of.measurements {
            by_unit[measurement.unit].push(*measurement);
        }
        let sum: f64 = of.measurements.iter().map(|it| it.value).sum();
        let sessions = of.level_of_session.len();
        let mut levels = of.level_of_session.to_vec();
        levels.sort_unstable();
        levels.dedup();
        let sessions_are_random = sessions >= levels.len() + FEWEST_REPEATS;
        let level_columns = of.level_of_session.iter().max().map_or(0, |last| last + 1);
        let measured = by_unit.iter().filter(|it| !it.is_empty()).count();
        let drawn = by_unit.iter().zip(of.stands_alone);
        let drawn = drawn.filter(|(it, alone)| !it.is_empty() && !**alone);
        let visits = of.measurements.len() + 1;
        let adjustments = Adjustments::new(
            drawn.count().saturating_sub(1),
            visits.saturating_sub(measured + sessions),
            sessions - levels.len().min(sessions),
        );
        Self {
            adjustments,
            of,
            by_unit,
            middle: sum / of.measurements.len() as f64,
            sessions_are_random,
            columns: match sessions_are_random {
                true => sessions + level_columns,
                false => sessions,
            },
        }
    }

    /// Variances to start from: what values vary about their sessions' means, a third each.
    pub(super) fn guess(&self) -> Variances {
        let sessions = self.of.level_of_session.len();
        let (mut sums, mut counts) = (vec![0.0; sessions], vec![0.0; sessions]);
        for it in self.of.measurements {
            sums[it.session] += it.value;
            counts[it.session] += 1.0;
        }
        let square = |it: &Measurement| {
            let mean = sums[it.session] / f64::max(counts[it.session], 1.0);
            (it.value - mean).powi(2)
        };
        let squares: f64 = self.of.measurements.iter().map(square).sum();
        let third = squares / self.of.measurements.len() as f64 / 3.0;
        Variances {
            unit: third,
            visit: third,
            session: Some(third),
        }
    }

    pub(super) fn bounded(&self, variances: Variances) -> Variances {
        let bounded = |variance: f64| variance.clamp(SMALLEST, LARGEST);
        let session = variances.session.unwrap_or(variances.unit);
        Variances {
            unit: bounded(variances.unit),
            visit: bounded(variances.visit),
            session: self.sessions_are_random.then(|| bounded(session)),
        }
    }

    /// Weight of the belief that a unit's own value is 0.
    fn belief(&self, unit: usize, variances: &Variances) -> f64 {
        match self.of.stands_alone[unit] {
            true => FLAT,
            false => 1.0 / variances.unit,
        }
    }

    /// The columns of a measurement.
    fn columns_of(&self, it: &Measurement) -> impl Iterator<Item = usize> + use<> {
        let sessions = self.of.level_of_session.len();
        let level = sessions + self.of.level_of_session[it.session];
        let level = self.sessions_are_random.then_some(level);
        [Some(it.session), level].into_iter().flatten()
    }

    pub(super) fn solve(&self, variances: &Variances) -> Solved {
        let size = self.columns;
        let mut matrix = vec![0.0; size * size];
        let mut right = vec![0.0; size];
        let sessions = self.of.level_of_session.len();
        for column in 0..size {
            matrix[column * size + column] = match variances.session {
                Some(session) if column < sessions => 1.0 / session,
                _ => FLAT,
            };
        }
        let (mut log_determinant, mut squares) = (0.0, 0.0);
        let mut row = Vec::new();
        for (unit, measurements) in self.by_unit.iter().enumerate() {
            if measurements.is_empty() {
                continue;
            }
            let belief = self.belief(unit, variances);
            let (mut weights, mut values) = (belief, 0.0);
            row.clear();
            for it in measurements {
                let variance = it.variance + variances.visit;
                let (weight, value) = (1.0 / variance, it.value - self.middle);
                log_determinant += variance.ln();
                weights += weight;
                values += weight * value;
                squares += weight * value * value;
                for column in self.columns_of(it) {
                    right[column] += weight * value;
                    row.push((column, weight));
                    for other in self.columns_of(it) {
                        matrix[column * size + other] += weight;
                    }
                }
            }
            log_determinant += (weights / belief).ln();
            squares -= values * values / weights;
            for &(column, weight) in &row {
                right[column] -= weight * values / weights;
                for &(other, of_other) in &row {
                    matrix[column * size + other] -= weight * of_other / weights;
                }
            }
        }
        let factor = Cholesky::new(size, matrix);
        let mut columns = right.clone();
        factor.solve(&mut columns);
        let explained: f64 = columns.iter().zip(&right).map(|(a, b)| a * b).sum();
        let of_sessions = variances
            .session
            .map_or(0.0, |it| sessions as f64 * it.ln());
        let likelihood =
            log_determinant + factor.log_determinant() + of_sessions + squares - explained;
        let power = &self.adjustments;
        let adjusted = power.unit * variances.unit.ln()
            + power.visit * variances.visit.ln()
            + power.session * variances.session.map_or(0.0, f64::ln);
        Solved {
            score: adjusted - 0.5 * likelihood,
            variances: *variances,
            factor,
            columns,
        }
    }
}

impl Solved {
    /// Level and session together, by session.
    pub(super) fn sessions(&self, equations: &Equations<'_>) -> Vec<f64> {
        let sessions = equations.of.level_of_session.len();
        let of = |(session, &level): (usize, &usize)| {
            let level = match equations.sessions_are_random {
                true => self.columns[sessions + level],
                false => 0.0,
            };
            equations.middle + level + self.columns[session]
        };
        let levels = equations.of.level_of_session.iter().enumerate();
        levels.map(of).collect()
    }

    /// The units' own values.
    pub(super) fn units(&self, equations: &Equations<'_>) -> Vec<Effect> {
        let sessions = self.sessions(equations);
        let own = |unit| self.own(equations, &sessions, unit);
        let units = 0..equations.by_unit.len();
        units.map(|unit| self.effect(own(unit))).collect()
    }

    /// The second of two units' own values less the first.
    pub(super) fn difference(&self, equations: &Equations<'_>, units: [usize; 2]) -> Effect {
        let sessions = self.sessions(equations);
        let [first, second] = units.map(|unit| self.own(equations, &sessions, unit));
        let shared = second.shared.iter().zip(&first.shared);
        self.effect(Own {
            value: second.value - first.value,
            variance: first.variance + second.variance,
            shared: shared.map(|(a, b)| a - b).collect(),
        })
    }

    fn own(&self, equations: &Equations<'_>, sessions: &[f64], unit: usize) -> Own {
        let mut weights = equations.belief(unit, &self.variances);
        let mut values = 0.0;
        let mut shared = vec![0.0; equations.columns];
        for it in &equations.by_unit[unit] {
            let weight = 1.0 / (it.variance + self.variances.visit);
            weights += weight;
            values += weight * (it.value - sessions[it.session]);
            for column in equations.columns_of(it) {
                shared[column] += weight;
            }
        }
        shared.iter_mut().for_each(|it| *it /= weights);
        Own {
            value: values / weights,
            variance: 1.0 / weights,
            shared,
        }
    }

    fn effect(&self, mut own: Own) -> Effect {
        self.factor.forward(&mut own.shared);
        let of_shared: f64 = own.shared.iter().map(|it| it * it).sum();
        Effect {
            value: own.value,
            deviation: (own.variance + of_shared).sqrt(),
        }
    }
}

/// A unit's own value, with its variance if sessions and levels were known, and by how much it
/// falls where one of them rises.
struct Own {
    value: f64,
    variance: f64,
    shared: Vec<f64>,
}
