//! How fast links between hosts are, as a curve of what was measured of them.

use anyhow::{Context, Result};
use std::collections::BTreeMap;

use super::rows;

const TABLE: &str = include_str!("sailor_links.csv");

/// A rate that depends on the size of a message: `(a x^2 + b x + c)` GB/s at
/// `x = log2(bytes / 1e6)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Curve([f64; 3]);

impl Curve {
    /// Seconds of a message; infinite where the curve, out of what was measured, has no rate.
    #[must_use]
    pub fn seconds(&self, bytes: f64) -> f64 {
        let [a, b, c] = self.0;
        let x = (bytes / 1e6).log2();
        let rate = (a * x + b) * x + c;
        match rate > 0.0 {
            true => bytes / 1e9 / rate,
            false => f64::INFINITY,
        }
    }
}

/// Curves between hosts of classes, by the number of devices that send or receive at once.
#[derive(Debug, Clone)]
pub struct Links {
    curves: BTreeMap<(&'static str, u32, &'static str, u32), Curve>,
}

impl Links {
    /// The curves of a network of the table.
    ///
    /// # Errors
    /// A row that cannot be read.
    pub fn of(network: &str) -> Result<Self> {
        let of_network = rows(TABLE).filter(|row| row[0] == network);
        let curves = of_network.map(|row| {
            let number = |at: usize| row[at].parse::<f64>().with_context(|| format!("{row:?}"));
            let curve = Curve([number(5)?, number(6)?, number(7)?]);
            Ok(((row[1], row[2].parse()?, row[3], row[4].parse()?), curve))
        });
        Ok(Self {
            curves: curves.collect::<Result<_>>()?,
        })
    }

    /// The curve from so many devices of a class's host to so many of another's.
    ///
    /// # Errors
    /// Where none was measured.
    pub fn between(&self, from: (&'static str, u32), to: (&'static str, u32)) -> Result<Curve> {
        let curve = self.curves.get(&(from.0, from.1, to.0, to.1));
        curve
            .copied()
            .with_context(|| format!("no link from {from:?} to {to:?}"))
    }
}
