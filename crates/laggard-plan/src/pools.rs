//! Who uses how much of a cluster: the best number of domains of each class for each use.
//!
//! Accelerators of a class are interchangeable, and inside a scale-up domain (a box, a rack) they
//! stay together, so what is decided is counts: how many domains of each class train in which pool,
//! serve, are leased, or are off. That is an integer program with one row for each class, one for
//! each site's power and a few for each use; it is solved by branch and bound over its linear
//! relaxation, whose bound is given with every answer. What a unit of rate is worth is the caller's
//! to say. Counts are integers and rates are recomputed from them, so an answer is never better on
//! paper than it is. Knows nothing of models, prices or what a domain is made of.

mod curve;
mod program;
mod rounding;
mod worth;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::number::NumberError;

pub use curve::{Curve, Piece};
pub use worth::Worth;

/// What there is to be used, and for what.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PoolProblem {
    /// The classes.
    pub classes: Vec<Stock>,
    /// The sites at which they stand.
    pub sites: Vec<PowerLimit>,
    /// What their domains can be used for. What no use takes is off.
    pub uses: Vec<Use>,
}

/// The domains of a class at a site.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stock {
    /// How many there are.
    pub domains: u64,
    /// How many of them no use may take: for experiments, repairs, peaks.
    pub reserve: u64,
    /// Power of one domain of the reserve at the site's meter, cooling included.
    pub reserve_watts: f64,
    /// Which site, from 0.
    pub site: usize,
}

/// What a site can draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PowerLimit {
    /// At its meter; absent where nothing limits it.
    pub watts: Option<f64>,
}

/// Something that domains can be used for: a training pool, serving, a lease.
#[derive(Debug, Clone, PartialEq)]
pub struct Use {
    /// Its name, for errors.
    pub name: String,
    /// The classes that it can have domains of.
    pub members: Vec<Member>,
    /// What rate comes of the capacities of its domains together.
    pub curve: Curve,
    /// What a unit of rate is worth.
    pub value: f64,
    /// What it costs to have it at all, in the same unit.
    pub fixed_cost: f64,
    /// Fewest domains, if it has any.
    pub least: u64,
    /// Most domains.
    pub most: Option<u64>,
    /// The rate that it must reach.
    pub least_rate: f64,
    /// The rate beyond which nothing is worth anything.
    pub most_rate: Option<f64>,
}

/// A class that a use can have domains of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Member {
    /// Which class, from 0.
    pub class: usize,
    /// Rate of one domain if nothing were lost between domains.
    pub capacity: f64,
    /// What one domain costs in this use, in the unit of values: power, wear, a contract.
    pub cost: f64,
    /// Power of one domain in this use at the site's meter, cooling included.
    pub watts: f64,
    /// Most domains of this class in this use.
    pub most: Option<u64>,
}

impl Use {
    /// A use in which every domain counts alone, whatever its number: serving, a lease.
    #[must_use]
    pub fn each(name: impl Into<String>, members: Vec<Member>, value: f64) -> Self {
        Self {
            name: name.into(),
            members,
            curve: Curve::straight(),
            value,
            fixed_cost: 0.0,
            least: 0,
            most: None,
            least_rate: 0.0,
            most_rate: None,
        }
    }
}

/// How long to search for a better answer, and a better bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    /// Most linear programs to solve after the first.
    pub nodes: u64,
    /// The gap between answer and bound, relative, at which to stop.
    pub gap: f64,
}

impl Default for Effort {
    /// A gap far below what any rate or price is known to.
    fn default() -> Self {
        Self {
            nodes: 2000,
            gap: 1e-6,
        }
    }
}

impl Effort {
    /// Fewer programs the more classes there are beyond a few, as each takes so much longer.
    #[must_use]
    pub fn for_classes(classes: usize) -> Self {
        let few = Self::default();
        let times = classes.div_ceil(Self::FEW_CLASSES).max(1) as u64;
        Self {
            nodes: few.nodes / times,
            ..few
        }
    }

    /// Classes up to which programs are small.
    const FEW_CLASSES: usize = 16;

    /// Until the optimum is proven.
    #[must_use]
    pub fn exact() -> Self {
        Self {
            nodes: u64::MAX,
            gap: 0.0,
        }
    }
}

/// How many domains of each class each use has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// For each use, domains of each of its members.
    pub domains: Vec<Vec<u64>>,
    /// Domains of each class that no use has, without the reserve.
    pub off: Vec<u64>,
    /// What it is worth.
    pub worth: Worth,
    /// What no allocation is worth more than.
    pub bound: f64,
    /// Linear programs that were solved after the first.
    pub nodes: u64,
}

impl Allocation {
    /// How far the optimum may be above this, relative to the bound.
    #[must_use]
    pub fn gap(&self) -> f64 {
        let missing = (self.bound - self.worth.value).max(0.0);
        if missing > 0.0 {
            missing / self.bound.abs().max(missing)
        } else {
            0.0
        }
    }
}

/// Why there is no allocation.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum PoolsError {
    /// A number that cannot be.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// An index beyond the list that it points into.
    #[error("{of} names {what} {index}, but there are {count}")]
    Unknown {
        /// A class or a site.
        what: &'static str,
        /// Who names it.
        of: String,
        /// The index.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A class that stands twice among the members of a use.
    #[error("{of} has class {class} twice")]
    Twice {
        /// The use.
        of: String,
        /// The class.
        class: usize,
    },
    /// A reserve larger than the class.
    #[error("class {class} has {domains} domains, but {reserve} of them in reserve")]
    Reserve {
        /// The class.
        class: usize,
        /// All of its domains.
        domains: u64,
        /// The reserve.
        reserve: u64,
    },
    /// A site that the reserve alone is too much for.
    #[error(
        "the reserve draws {watts} W at site {site}, whose limit is {limit} W\nhint: make the \
         reserve smaller or raise the limit"
    )]
    ReservePower {
        /// The site.
        site: usize,
        /// What the reserve draws.
        watts: f64,
        /// The limit.
        limit: f64,
    },
    /// Demands that the domains cannot meet, whatever the power.
    #[error(
        "{} cannot all be met: with every domain that there is, at most {:.1} % of each\nhint: ask \
         for less, or lower reserves and smallest sizes",
        .uses.join(" and "),
        .share * 100.0
    )]
    Demands {
        /// The uses with a least rate.
        uses: Vec<String>,
        /// The share of every least rate that can be met at once.
        share: f64,
    },
    /// Demands that the limits of power do not allow.
    #[error(
        "the rates asked for need at least {:.3} MW at site {site}, whose limit is {:.3} MW\nhint: \
         raise the limit or ask for less",
        .needed / 1e6,
        .limit / 1e6
    )]
    Power {
        /// The first site that is short.
        site: usize,
        /// What is needed there.
        needed: f64,
        /// Its limit.
        limit: f64,
    },
    /// An allocation of another shape than the problem, or with more domains than there are.
    #[error("an allocation that the problem does not allow: {problem}")]
    NotAllowed {
        /// What is wrong.
        problem: String,
    },
    /// The solver of linear programs gave up.
    #[error("the linear program could not be solved: {message}")]
    Solver {
        /// What it says.
        message: String,
    },
}

/// Finds the allocation that is worth most.
///
/// A site of 100 boxes of one class and 10 racks of another, of which one job can use both, and all
/// of which can be leased, with power for about half:
///
/// ```
/// use laggard_plan::pools::{
///     Curve, Effort, Member, PoolProblem, PowerLimit, Stock, Use, allocate,
/// };
///
/// let stock = |domains| Stock { domains, reserve: 0, reserve_watts: 0.0, site: 0 };
/// let member = |class, capacity, watts| Member { class, capacity, watts, cost: 0.0, most: None };
/// let training = Use {
///     // Losing 2 % where the rate of 50 boxes doubles.
///     curve: Curve::hull(&[(50.0, 50.0), (100.0, 98.0)])?,
///     ..Use::each("training", vec![member(0, 1.0, 1.2e4), member(1, 18.0, 1.4e5)], 25.0)
/// };
/// let lease = Use::each("lease", vec![member(0, 8.0, 1.2e4), member(1, 72.0, 1.4e5)], 2.6);
/// let problem = PoolProblem {
///     classes: vec![stock(100), stock(10)],
///     sites: vec![PowerLimit { watts: Some(1.3e6) }],
///     uses: vec![training, lease],
/// };
/// let found = allocate(&problem, Effort::exact())?;
/// assert!(found.worth.watts[0] <= 1.3e6);
/// assert!(found.gap() < 1e-9);
/// # Ok::<(), laggard_plan::pools::PoolsError>(())
/// ```
/// The same problem gives the same answer; among
/// allocations of the same worth, any of them.
///
/// # Errors
/// Impossible numbers; demands that the domains or the power cannot meet, with what could be met.
pub fn allocate(problem: &PoolProblem, effort: Effort) -> Result<Allocation, PoolsError> {
    worth::check(problem)?;
    let solved = program::solve(problem, effort)?;
    let worth = worth::value(problem, &solved.domains)?;
    let off = worth::off(problem, &solved.domains);
    Ok(Allocation {
        bound: solved.bound.max(worth.value),
        domains: solved.domains,
        off,
        worth,
        nodes: solved.nodes,
    })
}

/// What an allocation is worth: domains of each member of each use.
///
/// # Errors
/// Impossible numbers in the problem, or an allocation that breaks one of its limits.
pub fn value(problem: &PoolProblem, domains: &[Vec<u64>]) -> Result<Worth, PoolsError> {
    worth::check(problem)?;
    worth::value(problem, domains)
}

#[cfg(test)]
mod tests;
