//! Symmetric positive definite systems, by Cholesky's factors.

/// The lower factor of a matrix, row by row.
pub(super) struct Cholesky {
    size: usize,
    lower: Vec<f64>,
}

impl Cholesky {
    /// Factors a matrix given row by row. A pivot that rounding has made too small is replaced by
    /// the smallest that its column allows: what nothing is known of then has a huge variance.
    pub(super) fn new(size: usize, mut lower: Vec<f64>) -> Self {
        for column in 0..size {
            let (above, below) = lower.split_at_mut((column + 1) * size);
            let row = &mut above[column * size..];
            let diagonal = row[column];
            let squares: f64 = row[..column].iter().map(|it| it * it).sum();
            let pivot = (diagonal - squares).max(diagonal.abs() * f64::EPSILON);
            let pivot = pivot.max(f64::MIN_POSITIVE).sqrt();
            row[column] = pivot;
            for other in below.chunks_mut(size) {
                let product: f64 = other[..column]
                    .iter()
                    .zip(&row[..column])
                    .map(|(a, b)| a * b)
                    .sum();
                other[column] = (other[column] - product) / pivot;
            }
        }
        Self { size, lower }
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.lower[row * self.size..][..=row]
    }

    /// Logarithm of the matrix's determinant.
    pub(super) fn log_determinant(&self) -> f64 {
        (0..self.size).map(|at| 2.0 * self.row(at)[at].ln()).sum()
    }

    /// Solves `lower x = values` in place.
    pub(super) fn forward(&self, values: &mut [f64]) {
        for at in 0..self.size {
            let row = self.row(at);
            let known: f64 = row[..at].iter().zip(&*values).map(|(a, b)| a * b).sum();
            values[at] = (values[at] - known) / row[at];
        }
    }

    /// Solves `matrix x = values` in place.
    pub(super) fn solve(&self, values: &mut [f64]) {
        self.forward(values);
        for at in (0..self.size).rev() {
            let row = self.row(at);
            values[at] /= row[at];
            let value = values[at];
            for (earlier, factor) in values[..at].iter_mut().zip(row) {
                *earlier -= factor * value;
            }
        }
    }
}
