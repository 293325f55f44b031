//! From one allocation to the next: what is worth nearly as much as the best and moves the fewest
//! devices.

use serde::Serialize;

use super::program::{Before, solve_near};
use super::worth::{check, off, value};
use super::{Allocation, Effort, PoolProblem, PoolsError, allocate};
use crate::number::refuse_unless;

/// How near to the best, and how long to search.
#[derive(Debug, Clone, PartialEq)]
pub struct Near<'a> {
    /// Devices of a domain, by class.
    pub devices: &'a [u64],
    /// What may be given up of the best value, as a share of it, from 0 to 1.
    pub tolerance: f64,
    /// How long to search, for the best and then for the fewest moves.
    pub effort: Effort,
}

/// What to do after something changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replanned {
    /// Domains of each member of each use.
    pub domains: Vec<Vec<u64>>,
    /// What that is worth.
    pub value: f64,
    /// Devices that come to a use, or to none.
    pub moved_devices: u64,
    /// The same for the allocation of the best value.
    pub moved_by_best: u64,
    /// The best value that was found.
    pub best_value: f64,
    /// What no allocation is worth more than.
    pub bound: f64,
    /// What the allocation before would still be worth; `None` where it is not possible any more.
    pub staying: Option<f64>,
    /// No allocation of a value within the tolerance moves fewer devices than this.
    pub fewest: u64,
}

impl Replanned {
    /// Whether none within the tolerance moves fewer devices.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.fewest >= self.moved_devices
    }
}

/// Finds the allocation that moves the fewest devices among those whose value is within the
/// tolerance of the best. `before` has the domains of each member of each use as they are now, with
/// what is lost already left out.
///
/// # Errors
/// As [`allocate`]; a tolerance that is no share, or an allocation before of another shape.
pub fn replan(
    problem: &PoolProblem,
    before: &[Vec<u64>],
    near: &Near<'_>,
) -> Result<Replanned, PoolsError> {
    check(problem)?;
    check_shapes(problem, before, near)?;
    let best = allocate(problem, near.effort)?;
    let moves = |domains: &[Vec<u64>]| moved_devices(problem, before, domains, near.devices);
    let mut found = Replanned {
        value: best.worth.value,
        moved_devices: moves(&best.domains),
        moved_by_best: moves(&best.domains),
        best_value: best.worth.value,
        bound: best.bound,
        staying: value(problem, before).ok().map(|worth| worth.value),
        fewest: 0,
        domains: best.domains,
    };
    let least = best.worth.value - near.tolerance * best.worth.value.abs();
    if let Some(staying) = found.staying.filter(|staying| *staying >= least) {
        found.domains = before.to_vec();
        (found.value, found.moved_devices) = (staying, 0);
    }
    if found.is_proven() {
        return Ok(found);
    }
    let wanted = Before {
        domains: before,
        off: &off_before(problem, before),
        devices: near.devices,
        value: least,
    };
    let exact = Effort {
        gap: 0.0,
        ..near.effort
    };
    let Some(solved) = solve_near(problem, &wanted, exact)? else {
        return Ok(found);
    };
    // What the solver takes for whole is recomputed from the whole.
    if let Ok(worth) = value(problem, &solved.domains) {
        let moved = moves(&solved.domains);
        // Terms cancel: what rounding leaves of them is no smaller where the sum is.
        let rounding = 1e-9 * best.worth.value.abs().max(solved.scale);
        if worth.value >= least - rounding && moved <= found.moved_devices {
            found.value = worth.value;
            found.moved_devices = moved;
            found.domains = solved.domains;
        }
    }
    // Devices are whole; what is just below a whole number is that number.
    found.fewest = (solved.bound - 1e-6).ceil().max(0.0) as u64;
    Ok(found)
}

/// Devices that come to a use, or to none, from one allocation to another. `devices` are those of a
/// domain, by class.
#[must_use]
pub fn moved_devices(
    problem: &PoolProblem,
    before: &[Vec<u64>],
    after: &[Vec<u64>],
    devices: &[u64],
) -> u64 {
    let mut moved = 0;
    for ((of_use, before), after) in problem.uses.iter().zip(before).zip(after) {
        let counts = before.iter().zip(after);
        for (member, (before, after)) in of_use.members.iter().zip(counts) {
            moved += after.saturating_sub(*before) * devices[member.class];
        }
    }
    let left = off_before(problem, before)
        .into_iter()
        .zip(off(problem, after));
    let to_none = left.map(|(before, after)| after.saturating_sub(before));
    moved
        + to_none
            .zip(devices)
            .map(|(count, devices)| count * devices)
            .sum::<u64>()
}

/// Domains of each class that no use had; none where uses had more than there are now.
fn off_before(problem: &PoolProblem, before: &[Vec<u64>]) -> Vec<u64> {
    let mut left: Vec<u64> = (0..problem.classes.len())
        .map(|class| super::worth::free(problem, class))
        .collect();
    for (of_use, counts) in problem.uses.iter().zip(before) {
        for (member, count) in of_use.members.iter().zip(counts) {
            left[member.class] = left[member.class].saturating_sub(*count);
        }
    }
    left
}

fn check_shapes(
    problem: &PoolProblem,
    before: &[Vec<u64>],
    near: &Near<'_>,
) -> Result<(), PoolsError> {
    let tolerance = near.tolerance;
    let is_share = (0.0..=1.0).contains(&tolerance);
    refuse_unless(is_share, "the tolerance", tolerance, "a share from 0 to 1")?;
    let counts = before.iter().map(Vec::len);
    let members = problem.uses.iter().map(|it| it.members.len());
    let fits = counts.eq(members) && near.devices.len() == problem.classes.len();
    match fits {
        true => Ok(()),
        false => Err(PoolsError::NotAllowed {
            problem: "the allocation before has other uses or classes".to_owned(),
        }),
    }
}

impl Allocation {
    /// Takes domains of a class away, from each use as large a share as it has of them, those that
    /// no use has included: which of them fail is chance.
    #[must_use]
    pub fn without(mut self, problem: &PoolProblem, class: usize, lost: u64) -> Self {
        let mut places: Vec<&mut u64> = Vec::new();
        for (of_use, counts) in problem.uses.iter().zip(&mut self.domains) {
            let members = of_use.members.iter().zip(counts);
            places.extend(members.filter(|it| it.0.class == class).map(|it| it.1));
        }
        places.extend(self.off.get_mut(class));
        take_away(&mut places, lost);
        self
    }
}

/// Takes a number away in proportion, the largest remainders first.
pub(crate) fn take_away(places: &mut [&mut u64], lost: u64) {
    let all: u64 = places.iter().map(|it| **it).sum();
    let lost = lost.min(all);
    if lost == 0 {
        return;
    }
    let part = |count: u64| u128::from(count) * u128::from(lost);
    let mut rest = lost;
    let mut order: Vec<(u128, usize)> = Vec::with_capacity(places.len());
    for (at, place) in places.iter_mut().enumerate() {
        let share = part(**place);
        let whole = (share / u128::from(all)) as u64;
        order.push((share % u128::from(all), at));
        **place -= whole;
        rest -= whole;
    }
    order.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    // There are no more left than remainders.
    for &(_, at) in order.iter().take(rest as usize) {
        *places[at] -= 1;
    }
}

#[cfg(test)]
mod tests;
