//! What is not likely to be chance: one device beside its class, or beside itself before.

use super::FEWEST_TO_COMPARE;
use super::population::Population;
use crate::AnalyzeError;
use laggard_stats::student_upper_tail;

/// Of so many devices at most one is tested for standing out or for having changed.
const DEVICES_PER_SUSPECT: usize = 4;
/// Tests in sequence that may fail before the search ends: several devices that stand out hide each
/// other.
const MISSES: usize = 3;

/// A population with the devices that changed and then those that stand out told apart, each with a
/// share of false alarms.
pub(super) fn sifted(
    population: Population<'_>,
    allowed: f64,
) -> Result<Population<'_>, AnalyzeError> {
    if population.devices.len() < FEWEST_TO_COMPARE {
        return Ok(population);
    }
    let changed = sift(population, allowed, least_likely_change)?;
    sift(changed, allowed, least_likely_unit)
}

/// Takes out what is least likely, again and again, and keeps as much of that as is unlikely enough
/// beside what then is left.
fn sift<'a>(
    population: Population<'a>,
    allowed: f64,
    next: impl Fn(&Population<'a>) -> Result<Option<(Population<'a>, f64)>, AnalyzeError>,
) -> Result<Population<'a>, AnalyzeError> {
    let most = population.devices.len() / DEVICES_PER_SUSPECT;
    let (mut kept, mut current, mut misses) = (population.clone(), population, 0);
    for _ in 0..most {
        let Some((without, probability)) = next(&current)? else {
            break;
        };
        current = without;
        if probability <= allowed {
            (kept, misses) = (current.clone(), 0);
            continue;
        }
        misses += 1;
        if misses == MISSES {
            break;
        }
    }
    Ok(kept)
}

/// The device that is farthest from its class beside how far devices are, taken out, and how likely
/// the farthest of so many is to be as far.
fn least_likely_unit<'a>(
    population: &Population<'a>,
) -> Result<Option<(Population<'a>, f64)>, AnalyzeError> {
    let rests = rests(population);
    let drawn = |&unit: &usize| !population.stands_alone[unit] && !rests[unit].is_empty();
    let drawn: Vec<usize> = (0..rests.len()).filter(drawn).collect();
    let lasting = population.fit.variances.unit;
    let far = |&&unit: &&usize| {
        let mean = Mean::of(&rests[unit]);
        mean.value().abs() / (lasting + mean.variance()).sqrt()
    };
    let Some(&unit) = drawn.iter().max_by(|a, b| far(a).total_cmp(&far(b))) else {
        return Ok(None);
    };
    let mut without = population.clone();
    without.stands_alone[unit] = true;
    let without = without.refitted()?;
    let effect = without.fit.units[unit];
    let deviation = (without.fit.variances.unit + effect.deviation.powi(2)).sqrt();
    let others = drawn.len() - 1;
    let freedom = others.saturating_sub(1);
    let probability = two_sided(effect.value / deviation, freedom) * drawn.len() as f64;
    Ok(Some((without, probability)))
}

/// The device whose runs before and after a date differ most beside how much runs of a device do,
/// cut in two, and how likely the most different of so many is to differ as much.
fn least_likely_change<'a>(
    population: &Population<'a>,
) -> Result<Option<(Population<'a>, f64)>, AnalyzeError> {
    let mut worst: Option<(f64, usize, usize)> = None;
    let mut tests = 0_u32;
    for (unit, rests) in rests(population).iter().enumerate() {
        for cut in 1..rests.len() {
            if rests[cut - 1].run == rests[cut].run {
                continue;
            }
            tests += 1;
            let (before, after) = rests.split_at(cut);
            let (before, after) = (Mean::of(before), Mean::of(after));
            let deviation = (before.variance() + after.variance()).sqrt();
            let far = (after.value() - before.value()).abs() / deviation;
            if worst.is_none_or(|it| far > it.0) {
                worst = Some((far, unit, rests[cut].run));
            }
        }
    }
    let Some((_, unit, cut)) = worst else {
        return Ok(None);
    };
    let split = population.clone().split(unit, cut).refitted()?;
    let units = split.stands_alone.len();
    let visits = split.measurements.len() + 1;
    let freedom = visits.saturating_sub(units + split.sessions());
    let longer = split.difference(unit, units - 1)?;
    let probability = two_sided(longer.value / longer.deviation, freedom) * f64::from(tests);
    Ok(Some((split, probability)))
}

/// What a unit's measurement has beside its session's.
struct Rest {
    run: usize,
    value: f64,
    variance: f64,
}

/// By unit, in order of time.
fn rests(population: &Population<'_>) -> Vec<Vec<Rest>> {
    let fit = &population.fit;
    let mut rests: Vec<Vec<Rest>> = fit.units.iter().map(|_| Vec::new()).collect();
    for it in &population.measurements {
        rests[it.unit].push(Rest {
            run: population.run_of(it),
            value: it.value - fit.sessions[it.session],
            variance: it.variance + fit.variances.visit,
        });
    }
    rests
}

/// A mean weighted by what is known of each value.
struct Mean {
    weights: f64,
    sum: f64,
}

impl Mean {
    fn of(rests: &[Rest]) -> Self {
        let weights = rests.iter().map(|it| 1.0 / it.variance);
        let values = rests.iter().map(|it| it.value / it.variance);
        Self {
            weights: weights.sum(),
            sum: values.sum(),
        }
    }

    fn value(&self) -> f64 {
        self.sum / self.weights
    }

    fn variance(&self) -> f64 {
        1.0 / self.weights
    }
}

/// How likely a t variable is as far from 0; 1 where there is nothing to tell from.
fn two_sided(t: f64, freedom: usize) -> f64 {
    let freedom = u32::try_from(freedom).unwrap_or(u32::MAX);
    student_upper_tail(t.abs(), freedom).map_or(1.0, |tail| 2.0 * tail)
}
