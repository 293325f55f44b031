//! Rates that grow ever more slowly with capacity.

use super::PoolsError;
use crate::number::{above_zero, at_least_zero, refuse_unless};

/// A concave curve through the origin: what rate comes of how much capacity.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    pieces: Vec<Piece>,
}

/// A straight part of a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Piece {
    /// Capacity that it covers; may be infinite.
    pub capacity: f64,
    /// Rate per capacity.
    pub slope: f64,
}

impl Curve {
    /// The whole capacity is the rate.
    #[must_use]
    pub fn straight() -> Self {
        let piece = Piece {
            capacity: f64::INFINITY,
            slope: 1.0,
        };
        Self {
            pieces: vec![piece],
        }
    }

    /// A curve of pieces in order, each flatter than the one before it. Beyond the last, more
    /// capacity adds nothing.
    ///
    /// # Errors
    /// Pieces of no capacity, with a slope below zero, or steeper than the one before.
    pub fn of_pieces(pieces: Vec<Piece>) -> Result<Self, PoolsError> {
        let mut before = f64::INFINITY;
        for (index, piece) in pieces.iter().enumerate() {
            let (capacity, slope) = (piece.capacity, piece.slope);
            let what = format!("the capacity of piece {index} of a curve");
            refuse_unless(capacity > 0.0, &what, capacity, "above zero")?;
            let what = format!("the slope of piece {index} of a curve");
            let is_concave = (0.0..=before).contains(&slope) && slope.is_finite();
            let allowed = "at least zero, and no steeper than the piece before";
            refuse_unless(is_concave, &what, slope, allowed)?;
            before = piece.slope;
        }
        Ok(Self { pieces })
    }

    /// The least concave curve through the origin that no point lies above: exact at the points
    /// that it bends at, and a bound at all others. Points are capacities with their rates.
    ///
    /// # Errors
    /// Numbers that are not finite, capacities not above zero, or rates below zero.
    pub fn hull(points: &[(f64, f64)]) -> Result<Self, PoolsError> {
        let mut sorted = vec![(0.0, 0.0)];
        for &(capacity, rate) in points {
            above_zero("the capacity of a point of a curve", capacity)?;
            at_least_zero("the rate of a point of a curve", rate)?;
            sorted.push((capacity, rate));
        }
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut corners: Vec<(f64, f64)> = Vec::new();
        for point in sorted {
            let same = corners.last().is_some_and(|last| last.0 >= point.0);
            let highest = corners.last().map_or(0.0, |last| last.1);
            if same || (!corners.is_empty() && point.1 <= highest) {
                continue;
            }
            while corners.len() > 1 && is_below(corners[corners.len() - 2..].as_ref(), point) {
                corners.pop();
            }
            corners.push(point);
        }
        let piece = |pair: &[(f64, f64)]| Piece {
            capacity: pair[1].0 - pair[0].0,
            slope: (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0),
        };
        Self::of_pieces(corners.windows(2).map(piece).collect())
    }

    /// The straight parts, in order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The rate of a capacity.
    #[must_use]
    pub fn rate(&self, capacity: f64) -> f64 {
        let (mut rate, mut left) = (0.0, capacity);
        for piece in &self.pieces {
            let part = left.min(piece.capacity);
            rate += part * piece.slope;
            left -= part;
        }
        rate
    }
}

/// Whether the second of two corners lies on or below the line from the first to a later point.
fn is_below(corners: &[(f64, f64)], point: (f64, f64)) -> bool {
    let (first, second) = (corners[0], corners[1]);
    let rise = (point.1 - first.1) * (second.0 - first.0);
    (second.1 - first.1) * (point.0 - first.0) <= rise
}
