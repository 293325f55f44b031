//! What each rank of a sketch is charged.
//!
//! A sketch says what the others waited for each rank's unit, counted from the first unit that
//! arrives (the airport game). That includes what classes differ by, which is nobody's fault, and
//! what the first unit was earlier than usual, which is no loss. So charges are held to what steps
//! took beyond what their classes make of them: what a rank is always slower than its peers comes
//! first, the rest is cut in proportion.

use super::SECONDS;
use super::peers::Peers;
use super::steps::Steps;
use laggard_record::SketchRank;

/// Charges, seconds over all steps.
pub(super) struct Charges {
    /// Of each rank.
    pub(super) of_rank: Vec<f64>,
}

impl Charges {
    pub(super) fn new(steps: &Steps, ranks: &[SketchRank], peers: &Peers) -> Self {
        let count = steps.count() as f64;
        let lasting = |row: &SketchRank| {
            let slower = row.mean_ns as f64 - peers.typical_ns[row.rank as usize];
            (row.blamed_ns as f64).min(count * slower.max(0.0)) * SECONDS
        };
        let sums = ranks.iter().fold((0.0, 0.0), |(first, all), row| {
            (first + lasting(row), all + row.blamed_ns as f64 * SECONDS)
        });
        let there_is = steps.beyond_classes_s();
        let first = held_to(there_is, sums.0);
        let rest = held_to(there_is - first * sums.0, sums.1 - sums.0);
        let charge = |row: &SketchRank| {
            let lasting = lasting(row);
            first * lasting + rest * (row.blamed_ns as f64 * SECONDS - lasting)
        };
        Self {
            of_rank: ranks.iter().map(charge).collect(),
        }
    }

    pub(super) fn sum(&self) -> f64 {
        self.of_rank.iter().sum()
    }
}

/// What claims are multiplied by so that they do not exceed what there is.
fn held_to(there_is: f64, claims: f64) -> f64 {
    if claims > there_is.max(0.0) {
        there_is.max(0.0) / claims
    } else {
        1.0
    }
}
