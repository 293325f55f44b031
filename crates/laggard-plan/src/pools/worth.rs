//! What an allocation is worth, and whether it keeps to its limits.

use serde::{Deserialize, Serialize};

use super::{PoolProblem, PoolsError, Use};
use crate::number;

/// Most domains of a class: what the solver counts with.
const MOST_DOMAINS: u64 = i32::MAX as u64;
/// How far above a limit a sum may be that should be on it.
const ROUNDING: f64 = 1e-9;

/// What an allocation is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worth {
    /// Values less costs.
    pub value: f64,
    /// Rate of each use, as far as it counts.
    pub rates: Vec<f64>,
    /// Power of each site with its reserve.
    pub watts: Vec<f64>,
}

impl Use {
    /// The rate of a capacity, as far as it counts.
    pub(super) fn rate(&self, capacity: f64) -> f64 {
        self.curve
            .rate(capacity)
            .min(self.most_rate.unwrap_or(f64::INFINITY))
    }
}

/// Domains of a class that uses may take.
pub(super) fn free(problem: &PoolProblem, class: usize) -> u64 {
    problem.classes[class].domains - problem.classes[class].reserve
}

/// What the reserve draws at each site.
pub(super) fn reserve_watts(problem: &PoolProblem) -> Vec<f64> {
    let mut watts = vec![0.0; problem.sites.len()];
    for class in &problem.classes {
        watts[class.site] += class.reserve as f64 * class.reserve_watts;
    }
    watts
}

/// Domains of each class that no use has.
pub(super) fn off(problem: &PoolProblem, domains: &[Vec<u64>]) -> Vec<u64> {
    let mut left: Vec<u64> = (0..problem.classes.len())
        .map(|class| free(problem, class))
        .collect();
    for (of_use, counts) in problem.uses.iter().zip(domains) {
        for (member, count) in of_use.members.iter().zip(counts) {
            left[member.class] -= count;
        }
    }
    left
}

/// What an allocation of a checked problem is worth.
pub(super) fn value(problem: &PoolProblem, domains: &[Vec<u64>]) -> Result<Worth, PoolsError> {
    let not_allowed = |problem: String| Err(PoolsError::NotAllowed { problem });
    if domains.len() != problem.uses.len() {
        return not_allowed("it has another number of uses".to_owned());
    }
    let mut taken = vec![0_u64; problem.classes.len()];
    let mut watts = reserve_watts(problem);
    let mut worth = 0.0;
    let mut rates = Vec::with_capacity(problem.uses.len());
    for (of_use, counts) in problem.uses.iter().zip(domains) {
        let name = &of_use.name;
        if counts.len() != of_use.members.len() {
            return not_allowed(format!("{name} has another number of classes"));
        }
        let (mut capacity, mut cost) = (0.0, 0.0);
        for (member, &count) in of_use.members.iter().zip(counts) {
            if member.most.is_some_and(|most| count > most) {
                return not_allowed(format!("{name} has {count} of class {}", member.class));
            }
            taken[member.class] = taken[member.class].saturating_add(count);
            watts[problem.classes[member.class].site] += count as f64 * member.watts;
            capacity += count as f64 * member.capacity;
            cost += count as f64 * member.cost;
        }
        let all = counts.iter().copied().fold(0, u64::saturating_add);
        let too_many = of_use.most.is_some_and(|most| all > most);
        if too_many || (all > 0 && all < of_use.least) {
            return not_allowed(format!("{name} has {all} domains"));
        }
        let rate = of_use.rate(capacity);
        if rate < of_use.least_rate * (1.0 - ROUNDING) {
            return not_allowed(format!("{name} has a rate of {rate}"));
        }
        worth += rate * of_use.value - cost;
        if all > 0 {
            worth -= of_use.fixed_cost;
        }
        rates.push(rate);
    }
    for (class, &count) in taken.iter().enumerate() {
        if count > free(problem, class) {
            return not_allowed(format!("{count} domains of class {class} are used"));
        }
    }
    for (site, (limit, drawn)) in problem.sites.iter().zip(&watts).enumerate() {
        if limit
            .watts
            .is_some_and(|limit| *drawn > limit * (1.0 + ROUNDING))
        {
            return not_allowed(format!("site {site} draws {drawn} W"));
        }
    }
    Ok(Worth {
        value: worth,
        rates,
        watts,
    })
}

/// Refuses numbers that cannot be.
pub(super) fn check(problem: &PoolProblem) -> Result<(), PoolsError> {
    for (site, limit) in problem.sites.iter().enumerate() {
        if let Some(watts) = limit.watts {
            at_least_zero("the power limit", &format!("site {site}"), watts)?;
        }
    }
    for (index, class) in problem.classes.iter().enumerate() {
        let of = format!("class {index}");
        known("site", &of, class.site, problem.sites.len())?;
        at_least_zero("the power of the reserve", &of, class.reserve_watts)?;
        let (domains, what) = (class.domains, format!("the number of domains of {of}"));
        let fits = domains <= MOST_DOMAINS;
        number::refuse_unless(fits, &what, domains as f64, "below 2^31")?;
        if class.reserve > class.domains {
            return Err(PoolsError::Reserve {
                class: index,
                domains: class.domains,
                reserve: class.reserve,
            });
        }
    }
    for of_use in &problem.uses {
        check_use(problem, of_use)?;
    }
    let watts = reserve_watts(problem);
    for (site, (limit, watts)) in problem.sites.iter().zip(watts).enumerate() {
        let is_over = |limit: &f64| watts > limit * (1.0 + ROUNDING);
        if let Some(limit) = limit.watts.filter(is_over) {
            return Err(PoolsError::ReservePower { site, watts, limit });
        }
    }
    Ok(())
}

fn check_use(problem: &PoolProblem, of_use: &Use) -> Result<(), PoolsError> {
    let of = &of_use.name;
    at_least_zero("the value", of, of_use.value)?;
    at_least_zero("the fixed cost", of, of_use.fixed_cost)?;
    at_least_zero("the least rate", of, of_use.least_rate)?;
    if let Some(most) = of_use.most_rate {
        at_least_zero("the most rate", of, most)?;
    }
    let mut seen = vec![false; problem.classes.len()];
    for member in &of_use.members {
        known("class", of, member.class, problem.classes.len())?;
        if std::mem::replace(&mut seen[member.class], true) {
            return Err(PoolsError::Twice {
                of: of.clone(),
                class: member.class,
            });
        }
        at_least_zero("the capacity of a domain", of, member.capacity)?;
        at_least_zero("the power of a domain", of, member.watts)?;
        let (cost, what) = (member.cost, format!("the cost of a domain of {of}"));
        number::refuse_unless(cost.is_finite(), &what, cost, "finite")?;
    }
    Ok(())
}

fn at_least_zero(what: &str, of: &str, value: f64) -> Result<(), PoolsError> {
    number::at_least_zero(&format!("{what} of {of}"), value)?;
    Ok(())
}

fn known(what: &'static str, of: &str, index: usize, count: usize) -> Result<(), PoolsError> {
    if index < count {
        return Ok(());
    }
    Err(PoolsError::Unknown {
        what,
        of: of.to_owned(),
        index,
        count,
    })
}
