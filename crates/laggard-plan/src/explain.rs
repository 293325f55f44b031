//! Why one option beats another, and what would have to change for the answer to change.

mod contest;

use serde::Serialize;

use contest::Contest;

use crate::compare::Objective;
use crate::figures::Figures;
use crate::options::PlanOption;
use crate::problem::{PlanError, Problem};

/// Factors are tried up to this, and down to its inverse.
const MOST: f64 = 8.0;
/// Factors that are tried in each direction before the order is looked for between two.
const SCAN: i32 = 12;
/// Halvings between two factors.
const HALVINGS: u32 = 40;

/// A share of the cluster's peak that two options differ in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// What the peak goes to.
    pub term: &'static str,
    /// Share of the peak that goes there in the first option less that in the second.
    pub share: f64,
}

/// In which terms two options differ, the largest first; what trains is left out.
#[must_use]
pub fn differences(a: &Figures, b: &Figures) -> Vec<Difference> {
    let pairs = a.peak_use.terms().into_iter().zip(b.peak_use.terms());
    let difference = |((term, a), (_, b))| Difference { term, share: a - b };
    let mut list: Vec<Difference> = pairs.skip(1).map(difference).collect();
    list.sort_by(|a, b| b.share.abs().total_cmp(&a.share.abs()));
    list
}

/// What of an option costs most of the peak and could be otherwise: all but kernels and what is of
/// use elsewhere.
#[must_use]
pub fn binding(figures: &Figures) -> Option<Difference> {
    let terms = figures.peak_use.terms();
    let could = |name: &str| {
        !matches!(
            name,
            "trains" | "kernels below peak" | "leased" | "serves" | "reserve"
        )
    };
    let lost = terms
        .into_iter()
        .filter(|(name, share)| could(name) && *share > 0.0);
    // The first of equals stays.
    let most = lost.reduce(|best, next| if next.1 > best.1 { next } else { best });
    most.map(|(term, share)| Difference { term, share })
}

/// What can be turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Knob {
    /// Speed of a class's kernels.
    Speed(usize),
    /// Price of a class.
    Price(usize),
    /// All failure rates.
    Failures,
    /// Growth of steps with the number of ranks.
    Jitter,
}

/// How far a knob must be turned, up or down, for the answer to change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flip {
    /// Which knob.
    pub knob: Knob,
    /// The factor at which the order flips.
    pub factor: f64,
    /// The option that is best beyond it.
    pub becomes: usize,
}

/// Turns every knob by itself, with layouts as they are, and gives the factors at which another
/// option becomes the best by the objective. Knobs that change nothing between an eighth and eight
/// times are not in the list.
///
/// # Errors
/// A prediction that fails.
pub fn flips(
    problem: &Problem<'_>,
    options: &[PlanOption],
    objective: Objective,
) -> Result<Vec<Flip>, PlanError> {
    let classes = problem.classes.len();
    // Prices are no part of other objectives.
    let priced = if objective.needs_prices() { classes } else { 0 };
    let knobs = (0..classes)
        .map(Knob::Speed)
        .chain((0..priced).map(Knob::Price))
        .chain([Knob::Failures, Knob::Jitter]);
    let contest = Contest::new(problem, options, objective);
    let mut flips = Vec::new();
    for knob in knobs {
        for most in [MOST, 1.0 / MOST] {
            flips.extend(flip(&contest, (knob, most))?);
        }
    }
    Ok(flips)
}

fn flip(contest: &Contest<'_>, (knob, most): (Knob, f64)) -> Result<Option<Flip>, PlanError> {
    let best = |factor: f64| contest.best(knob, factor);
    let now = best(1.0)?;
    let mut near = 1.0;
    for step in 1..=SCAN {
        let far = most.powf(f64::from(step) / f64::from(SCAN));
        if best(far)? == now {
            near = far;
            continue;
        }
        let (mut same, mut other) = (near, far);
        for _ in 0..HALVINGS {
            let middle = (same * other).sqrt();
            if best(middle)? == now {
                same = middle;
            } else {
                other = middle;
            }
        }
        return Ok(best(other)?.map(|becomes| Flip {
            knob,
            factor: other,
            becomes,
        }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
