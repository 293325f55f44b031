//! Rents, power and what an allocation earns and costs per hour.
//!
//! The table that laggard ships has a date and a source for each number; what a cluster file says
//! of its own pools goes before it. What is unknown stays unknown: it is listed beside the sums
//! that lack it, never taken as zero in silence. Knows nothing of how fast anything is.

mod bill;
mod break_even;

use laggard_specs::{Pool, Price};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::number::NumberError;

pub use bill::{Activity, Bill, Costs, LeftOut, Line, PoolMoney, Purchase, SitePower, bill};
pub use break_even::{
    ClassRates, Elsewhere, LeaseOrder, break_even_lease, break_even_token_price, lease_order,
};

const TABLE: &str = include_str!("../data/prices.toml");

/// A number with its range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The lowest.
    pub low: f64,
    /// The usual.
    pub typical: f64,
    /// The highest.
    pub high: f64,
}

impl Span {
    /// One number, without a range.
    #[must_use]
    pub fn exactly(number: f64) -> Self {
        Self {
            low: number,
            typical: number,
            high: number,
        }
    }

    /// Each end times a number that is not negative.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self {
            low: self.low * factor,
            typical: self.typical * factor,
            high: self.high * factor,
        }
    }

    /// The ends together: both low, both high.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            low: self.low + other.low,
            typical: self.typical + other.typical,
            high: self.high + other.high,
        }
    }

    /// The difference: at its lowest where this is low and the other high.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            low: self.low - other.high,
            typical: self.typical - other.typical,
            high: self.high - other.low,
        }
    }
}

impl From<&Price> for Span {
    fn from(price: &Price) -> Self {
        Self {
            low: price.low,
            typical: price.typical,
            high: price.high,
        }
    }
}

/// What a power figure rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrawBasis {
    /// The cluster file says so.
    Given,
    /// Measured at the wall under a load.
    Measured,
    /// The most that the maker allows for.
    Nameplate,
}

/// Power of one device with its share of the host, without cooling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draw {
    /// Id of the accelerator.
    pub accelerator: String,
    /// Watts of one device.
    pub watts_per_device: f64,
    /// What the figure rests on.
    pub basis: DrawBasis,
    /// A power mode other than the ordinary one.
    pub mode: Option<String>,
    /// What it did meanwhile, or what the limit is of.
    pub load: String,
    /// Where it is published.
    pub source: String,
}

/// What it costs to rent an accelerator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rent {
    /// Id of the accelerator.
    pub accelerator: String,
    /// Dollars for one device and hour.
    pub price: Price,
    /// What a user of the number must know.
    pub note: Option<String>,
}

/// Power drawn over power used by computers (PUE).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overhead {
    /// Short unique name.
    pub id: String,
    /// The lowest that is usual.
    pub low: f64,
    /// The highest that is usual.
    pub high: f64,
    /// Of which sites.
    pub sites: String,
    /// Where it is published.
    pub source: String,
}

/// Rents and power by accelerator.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Rents, at most one of each accelerator.
    #[serde(rename = "rent", default)]
    pub rents: Vec<Rent>,
    /// Power, at most one of each accelerator, basis and mode.
    #[serde(rename = "draw", default)]
    pub draws: Vec<Draw>,
    /// Power for cooling and losses.
    #[serde(rename = "overhead", default)]
    pub overheads: Vec<Overhead>,
}

/// Why a price table or a bill was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MoneyError {
    /// Text that is no price table.
    #[error("cannot read the price table: {source}")]
    Parse {
        /// What the TOML reader says, with line and column.
        source: Box<toml::de::Error>,
    },
    /// Text that does not say what an owner pays.
    #[error(
        "cannot read what the owner pays: {source}\nhint: for example `[bought.h100]` with \
         dollars_per_device and years"
    )]
    Costs {
        /// What the TOML reader says, with line and column.
        source: Box<toml::de::Error>,
    },
    /// A number of the table that cannot be.
    #[error("price table, {entry} of {of}: {problem}")]
    Invalid {
        /// Rent, draw or overhead.
        entry: &'static str,
        /// The accelerator or id.
        of: String,
        /// What is wrong.
        problem: String,
    },
    /// A number that cannot be.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// More devices at work than the pool has.
    #[error("pool {pool} has {devices} devices, but {used} are given something to do")]
    TooMany {
        /// The pool.
        pool: String,
        /// Its devices.
        devices: u64,
        /// Devices in all lines of the pool.
        used: u64,
    },
    /// A pool that the cluster does not have.
    #[error("the cluster has no pool {pool}")]
    NoPool {
        /// The name.
        pool: String,
    },
}

impl Prices {
    /// The table that laggard ships.
    ///
    /// # Errors
    /// None in a released laggard: its tests load it.
    pub fn builtin() -> Result<Self, MoneyError> {
        Self::from_toml_str(TABLE)
    }

    /// A table from TOML text.
    ///
    /// # Errors
    /// Text that is no such table, impossible numbers, or two entries for one thing.
    pub fn from_toml_str(text: &str) -> Result<Self, MoneyError> {
        let prices: Self = toml::from_str(text).map_err(|source| MoneyError::Parse {
            source: Box::new(source),
        })?;
        prices.check()?;
        Ok(prices)
    }

    /// What a device of a pool rents for per hour: as the cluster file says, else as the table.
    #[must_use]
    pub fn rent(&self, pool: &Pool) -> Option<Price> {
        let own = pool.price_dollars_per_device_hour.clone();
        own.or_else(|| {
            let rent = self
                .rents
                .iter()
                .find(|rent| rent.accelerator == pool.accelerator)?;
            Some(rent.price.clone())
        })
    }

    /// Power of a device of a pool: as the cluster file says, else as measured in the ordinary
    /// power mode, else nameplate.
    #[must_use]
    pub fn draw(&self, pool: &Pool) -> Option<Draw> {
        if let Some(watts_per_device) = pool.power_watts_per_device {
            return Some(Draw {
                accelerator: pool.accelerator.clone(),
                watts_per_device,
                basis: DrawBasis::Given,
                mode: None,
                load: pool.note.clone().unwrap_or_default(),
                source: format!("cluster file, pool {}", pool.id),
            });
        }
        let of_basis = |basis| self.published(&pool.accelerator, basis).cloned();
        of_basis(DrawBasis::Measured).or_else(|| of_basis(DrawBasis::Nameplate))
    }

    /// Measured power over nameplate: the mean of the accelerators that have both in the ordinary
    /// power mode.
    #[must_use]
    pub fn measured_share_of_nameplate(&self) -> Option<f64> {
        let measured = self.draws.iter().filter_map(|draw| {
            let measured = self.published(&draw.accelerator, DrawBasis::Measured)?;
            let is_nameplate = draw.basis == DrawBasis::Nameplate;
            is_nameplate.then_some(measured.watts_per_device / draw.watts_per_device)
        });
        let shares: Vec<f64> = measured.collect();
        let count = shares.len() as f64;
        (count > 0.0).then(|| shares.iter().sum::<f64>() / count)
    }

    /// Power drawn over power used by computers, the lowest and the highest that is usual anywhere:
    /// for sites that do not state theirs.
    #[must_use]
    pub fn usual_overhead(&self) -> Option<(f64, f64)> {
        let ends = self.overheads.iter().map(|it| (it.low, it.high));
        ends.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)))
    }

    fn published(&self, accelerator: &str, basis: DrawBasis) -> Option<&Draw> {
        let mut draws = self.draws.iter();
        draws.find(|draw| {
            draw.accelerator == accelerator && draw.basis == basis && draw.mode.is_none()
        })
    }

    fn check(&self) -> Result<(), MoneyError> {
        let invalid = |entry, of: &str, problem: &str| {
            Err(MoneyError::Invalid {
                entry,
                of: of.to_owned(),
                problem: problem.to_owned(),
            })
        };
        let is_positive = |number: f64| number > 0.0 && number.is_finite();
        for (at, rent) in self.rents.iter().enumerate() {
            let (of, price) = (&rent.accelerator, &rent.price);
            let is_ordered = price.low <= price.typical && price.typical <= price.high;
            if !(is_positive(price.low) && is_positive(price.high) && is_ordered) {
                return invalid(
                    "rent",
                    of,
                    "must go up from low over typical to high, above 0",
                );
            }
            if self.rents[..at].iter().any(|it| it.accelerator == *of) {
                return invalid("rent", of, "stands twice");
            }
        }
        for (at, draw) in self.draws.iter().enumerate() {
            let of = &draw.accelerator;
            if !is_positive(draw.watts_per_device) {
                return invalid("draw", of, "must be above 0 and finite");
            }
            let is_same =
                |it: &Draw| it.accelerator == *of && it.basis == draw.basis && it.mode == draw.mode;
            if self.draws[..at].iter().any(is_same) {
                return invalid("draw", of, "stands twice");
            }
        }
        for overhead in &self.overheads {
            let is_ordered = 1.0 <= overhead.low && overhead.low <= overhead.high;
            if !(is_ordered && overhead.high.is_finite()) {
                return invalid(
                    "overhead",
                    &overhead.id,
                    "must go up from 1 over low to high",
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
