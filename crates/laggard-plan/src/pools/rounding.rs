//! Whole domains from split ones.

use super::worth::value;
use super::{PoolProblem, Use};

/// Takes split domains as the whole ones below, and then, one by one, as the next above where there
/// is room for it and it is worth something or a use is short of what it must have. None where that
/// leaves a use short.
pub(super) fn round(
    problem: &PoolProblem,
    mut domains: Vec<Vec<u64>>,
    next: &[Vec<u64>],
) -> Option<Vec<Vec<u64>>> {
    let relaxed = without_least(problem);
    let mut worth = value(&relaxed, &domains).ok()?;
    for (at, of_use) in problem.uses.iter().enumerate() {
        for member in 0..of_use.members.len() {
            if domains[at][member] == next[at][member] {
                continue;
            }
            let is_short = is_short(of_use, worth.rates[at], &domains[at]);
            domains[at][member] += 1;
            match value(&relaxed, &domains) {
                Ok(more) if is_short || more.value > worth.value => worth = more,
                _ => domains[at][member] -= 1,
            }
        }
    }
    value(problem, &domains).is_ok().then_some(domains)
}

fn is_short(of_use: &Use, rate: f64, domains: &[u64]) -> bool {
    let all: u64 = domains.iter().sum();
    rate < of_use.least_rate || (all > 0 && all < of_use.least)
}

/// The problem without what uses must have at least.
fn without_least(problem: &PoolProblem) -> PoolProblem {
    let mut relaxed = problem.clone();
    for of_use in &mut relaxed.uses {
        of_use.least = 0;
        of_use.least_rate = 0.0;
    }
    relaxed
}
