//! Why there is no plan.

use thiserror::Error;

use crate::money::MoneyError;
use crate::number::NumberError;
use crate::pools::PoolsError;
use crate::serving::ServingError;

/// Why there is no plan.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A number that cannot be.
    #[error("{what} is {value}, but must be above zero and finite")]
    NotPositive {
        /// What the number is, with its unit.
        what: &'static str,
        /// The refused number.
        value: f64,
    },
    /// A batch that is meant otherwise.
    #[error(
        "a step of {batch} tokens is more than the {most} that can be counted\nhint: give the \
         tokens of one step"
    )]
    BatchTooLarge {
        /// Tokens of a step.
        batch: u64,
        /// Most that there can be.
        most: u64,
    },
    /// The batch and the sequence contradict each other.
    #[error(
        "a batch of at most {batch} tokens holds no sequence of {sequence} tokens\nhint: raise \
         --batch-tokens to {sequence}, or shorten --sequence-length"
    )]
    BatchBelowSequence {
        /// The batch.
        batch: u64,
        /// The sequence.
        sequence: u32,
    },
    /// One limit for several places.
    #[error(
        "one power limit for the {sites} sites of the cluster\nhint: state power_limit_watts of \
         each site in a cluster file (`laggard specs show {cluster} > mine.toml`)"
    )]
    LimitOfSeveralSites {
        /// Number of sites.
        sites: usize,
        /// The cluster.
        cluster: String,
    },
    /// A limit that cannot be kept.
    #[error(
        "a power limit of {limit_mw} MW cannot be kept: no power is known of {classes}\nhint: \
         state power_watts_per_device of each pool and power_usage_effectiveness of the site in a \
         cluster file (`laggard specs show {cluster} > mine.toml`)"
    )]
    UnknownPower {
        /// The limit, megawatts.
        limit_mw: f64,
        /// Classes without power.
        classes: String,
        /// The cluster.
        cluster: String,
    },
    /// A reserve larger than its class.
    #[error(
        "a reserve of {reserve} {class}, of which there are {count}\nhint: reserve fewer, or \
         a share such as `{class}=5%`"
    )]
    ReserveTooLarge {
        /// The class.
        class: String,
        /// Devices asked for.
        reserve: u64,
        /// Devices of the class.
        count: u64,
    },
    /// A share that is none.
    #[error("a reserve of {percent} % of {class}\nhint: a share is at least 0 % and at most 100 %")]
    ReserveShare {
        /// The class.
        class: String,
        /// The share, percent.
        percent: f64,
    },
    /// A statement about what is not there.
    #[error("a {what} of `{name}`, which the cluster has not\nhint: it has {known}")]
    UnknownClass {
        /// What is stated.
        what: &'static str,
        /// What was named.
        name: String,
        /// The pools of the cluster.
        known: String,
    },
    /// Every class lacks something.
    #[error("no class of the cluster can be planned with: {reasons}")]
    NoClass {
        /// What each lacks.
        reasons: String,
    },
    /// Too many sets of classes.
    #[error(
        "{classes} classes {place}, but at most {most} can be told apart\nhint: put pools that are \
         nearly alike into one in a cluster file"
    )]
    TooManyClasses {
        /// Classes of the cluster.
        classes: usize,
        /// Most that are accepted.
        most: usize,
        /// Where they are: at one site, or in all.
        place: &'static str,
    },
    /// Nothing fits.
    #[error("nothing can train {model} here: {reason}\nhint: {relaxation}")]
    Infeasible {
        /// The model.
        model: String,
        /// Why not, of the class that comes nearest.
        reason: String,
        /// The smallest change that makes a plan possible.
        relaxation: String,
    },
    /// Nobody to share a cluster out to.
    #[error("no job to share the cluster out to\nhint: give at least one")]
    NoJob,
    /// A deadline before which nothing ends.
    #[error(
        "{model} cannot be trained in {days} days: the fastest option takes about \
         {needed:.1}\nhint: --deadline {}",
        .needed.ceil()
    )]
    TooSoon {
        /// The model.
        model: String,
        /// The deadline.
        days: f64,
        /// What the fastest option takes.
        needed: f64,
    },
    /// The objective needs what no option has.
    #[error("no option can be compared by {objective}: {missing}\nhint: {hint}")]
    NothingToCompare {
        /// The objective.
        objective: &'static str,
        /// What is missing.
        missing: &'static str,
        /// What to state.
        hint: &'static str,
    },
    /// A number that cannot be.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// What is to be served cannot be.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// Demands that cannot be met together.
    #[error(transparent)]
    Pools(#[from] PoolsError),
    /// Prices that cannot be.
    #[error(transparent)]
    Money(#[from] MoneyError),
    /// A prediction failed.
    #[error(transparent)]
    Simulate(#[from] laggard_simulate::SimulateError),
    /// A name that is in no table.
    #[error(transparent)]
    Specs(#[from] laggard_specs::SpecsError),
}
