//! A line with coefficients that are not negative.

use serde::{Deserialize, Serialize};

/// FLOP, bytes, further members.
const SIZES: usize = 3;
/// How far beyond what was seen a line is trusted, as a factor.
const REACH: f64 = 2.0;
/// A column of which the others say all but this share of its square says nothing of its own:
/// rounding alone leaves about 1e-16.
const NEW_SHARE: f64 = 1e-12;

/// What an operation of some size took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) size: [f64; SIZES],
    pub(super) seconds: f64,
}

/// Cost of an operation as a function of its size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Seconds whatever its size.
    pub fixed_s: f64,
    /// Seconds per FLOP.
    pub per_flop_s: f64,
    /// Seconds per byte that passes a rank.
    pub per_byte_s: f64,
    /// Seconds for each member of its group but one.
    pub per_member_s: f64,
    /// Largest FLOP, bytes and further members that were seen.
    pub largest: [f64; SIZES],
    /// Root mean square of the relative errors of what was seen.
    pub relative_error: f64,
    /// How much was seen.
    pub observations: usize,
}

impl Line {
    /// The line of the least relative errors; `None` where nothing took any time.
    pub(super) fn fit(points: &[Point]) -> Option<Self> {
        let points: Vec<Point> = points
            .iter()
            .copied()
            .filter(|it| it.seconds > 0.0)
            .collect();
        let count = points.len();
        if count == 0 {
            return None;
        }
        let largest: [f64; SIZES] = std::array::from_fn(|at| {
            let sizes = points.iter().map(|it| it.size[at]);
            sizes.fold(0.0, f64::max)
        });
        // Scaled, so that all columns are of like magnitude.
        let mut scale = [1.0; SIZES + 1];
        scale[1..].copy_from_slice(&largest);
        let columns = useful(&points);
        let row = |point: &Point| -> [f64; SIZES + 1] {
            let mut row = [1.0; SIZES + 1];
            for (at, size) in row.iter_mut().skip(1).zip(point.size) {
                *at = size;
            }
            std::array::from_fn(|at| match scale[at] > 0.0 {
                true => row[at] / scale[at] / point.seconds,
                false => 0.0,
            })
        };
        let rows: Vec<[f64; SIZES + 1]> = points.iter().map(row).collect();
        let (error, best) = (1_usize..1 << (SIZES + 1))
            .filter(|subset| subset & !columns == 0)
            .filter_map(|subset| solve(&rows, subset))
            .min_by(|a, b| a.0.total_cmp(&b.0))?;
        let of = |at: usize| match scale[at] > 0.0 {
            true => best[at] / scale[at],
            false => 0.0,
        };
        Some(Self {
            fixed_s: of(0),
            per_flop_s: of(1),
            per_byte_s: of(2),
            per_member_s: of(3),
            largest,
            relative_error: (error / count as f64).sqrt(),
            observations: count,
        })
    }

    /// Whether something as large was seen, or nearly so.
    pub(super) fn reaches(&self, size: &[f64; SIZES]) -> bool {
        let within = |(size, seen): (&f64, &f64)| *size <= REACH * seen;
        size.iter().zip(&self.largest).all(within)
    }

    pub(super) fn seconds(&self, size: &[f64; SIZES]) -> f64 {
        let slopes = [self.per_flop_s, self.per_byte_s, self.per_member_s];
        let grown: f64 = slopes
            .iter()
            .zip(size)
            .map(|(slope, size)| slope * size)
            .sum();
        self.fixed_s + grown
    }
}

/// The columns that the points can say something of, as bits; the lowest is the constant. Of one
/// size alone, cost is taken to be proportional to it.
fn useful(points: &[Point]) -> usize {
    let differs = |at: usize| {
        let first = points[0].size[at];
        points
            .iter()
            .any(|it| (it.size[at] - first).abs() > 1e-9 * first.abs())
    };
    let mut columns = 0;
    for at in 0..SIZES {
        if differs(at) {
            columns |= 2 << at;
        }
    }
    if columns != 0 {
        return columns | 1;
    }
    match (points[0].size[0] > 0.0, points[0].size[1] > 0.0) {
        (true, _) => 0b010,
        (false, true) => 0b100,
        (false, false) => 0b001,
    }
}

/// Least squares of `row . x = 1` with the columns of a subset; `None` if a coefficient would be
/// negative, or the columns say the same.
fn solve(rows: &[[f64; SIZES + 1]], subset: usize) -> Option<(f64, [f64; SIZES + 1])> {
    let columns: Vec<usize> = (0..=SIZES).filter(|at| subset >> at & 1 == 1).collect();
    let n = columns.len();
    let mut matrix = vec![vec![0.0; n + 1]; n];
    for row in rows {
        for (i, &a) in columns.iter().enumerate() {
            for (j, &b) in columns.iter().enumerate() {
                matrix[i][j] += row[a] * row[b];
            }
            matrix[i][n] += row[a];
        }
    }
    // A matrix of products of columns needs no exchange of rows.
    let norms: Vec<f64> = (0..n).map(|at| matrix[at][at]).collect();
    for pivot in 0..n {
        let (head, below) = matrix.split_at_mut(pivot + 1);
        let from = &head[pivot];
        // What of the column the others do not say.
        if from[pivot] <= NEW_SHARE * norms[pivot] {
            return None;
        }
        for to in below {
            let factor = to[pivot] / from[pivot];
            to.iter_mut()
                .zip(from)
                .for_each(|(to, from)| *to -= factor * *from);
        }
    }
    let mut x = [0.0; SIZES + 1];
    for at in (0..n).rev() {
        let known: f64 = (at + 1..n).map(|it| matrix[at][it] * x[columns[it]]).sum();
        x[columns[at]] = (matrix[at][n] - known) / matrix[at][at];
    }
    if x.iter().any(|coefficient| *coefficient < 0.0) {
        return None;
    }
    let residual = |row: &[f64; SIZES + 1]| {
        let fitted: f64 = row.iter().zip(&x).map(|(row, x)| row * x).sum();
        (fitted - 1.0).powi(2)
    };
    Some((rows.iter().map(residual).sum(), x))
}
