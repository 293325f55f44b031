//! Shuffle tests: what a statistic of a table looks like if the columns are interchangeable.
//!
//! The table has one row per step. Within a block of neighbouring steps all rows are shuffled
//! alike, so that what neighbours share survives in the null; between blocks, independently.

use crate::error::{StatsError, check};
use crate::rng::Rng;

/// A plan of shuffles of the columns of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShuffleTest {
    /// Rows of the table.
    pub steps: usize,
    /// Columns, whose labels are shuffled.
    pub columns: usize,
    /// Rows that share one shuffle, at least 1.
    pub block_length: usize,
    /// How many shuffles; the smallest p-value is 1 / (1 + shuffles).
    pub shuffles: usize,
    /// Seed: equal seeds give equal shuffles.
    pub seed: u64,
}

/// One shuffle of the whole table.
#[derive(Debug, Clone)]
pub struct Assignment {
    columns: usize,
    block_length: usize,
    /// One permutation of the columns per block, end to end.
    sources: Vec<u32>,
}

impl Assignment {
    /// The columns that a row's values come from: `row(step)[c]` is the original column whose
    /// value stands in column `c`. `step` must be below the number of steps.
    #[must_use]
    pub fn row(&self, step: usize) -> &[u32] {
        let block = step / self.block_length;
        &self.sources[block * self.columns..(block + 1) * self.columns]
    }
}

impl ShuffleTest {
    /// The statistic of every shuffled table.
    ///
    /// # Errors
    /// An empty table, more than `u32::MAX` columns, or a block length of 0.
    pub fn null_distribution(
        &self,
        mut statistic: impl FnMut(&Assignment) -> f64,
    ) -> Result<Vec<f64>, StatsError> {
        if self.steps == 0 || self.columns == 0 {
            return Err(StatsError::TooShort { needed: 1, got: 0 });
        }
        if self.block_length == 0 {
            let allowed = "at least 1";
            return Err(StatsError::OutOfRange {
                name: "block_length",
                value: 0.0,
                allowed,
            });
        }
        let Ok(columns) = u32::try_from(self.columns) else {
            let (value, allowed) = (self.columns as f64, "at most 4294967295");
            return Err(StatsError::OutOfRange {
                name: "columns",
                value,
                allowed,
            });
        };
        let blocks = self.steps.div_ceil(self.block_length);
        let mut assignment = Assignment {
            columns: self.columns,
            block_length: self.block_length,
            sources: (0..blocks).flat_map(|_| 0..columns).collect(),
        };
        let shuffled = (0..self.shuffles).map(|shuffle| {
            // A shuffle of a shuffle is as uniform as a shuffle of the original order.
            let mut rng = Rng::for_stream(self.seed, shuffle as u64);
            for block in assignment.sources.chunks_mut(self.columns) {
                rng.shuffle(block);
            }
            statistic(&assignment)
        });
        Ok(shuffled.collect())
    }
}

/// One-sided p-value of an observed statistic against its null distribution:
/// (1 + how many are at least as large) / (1 + how many), never 0 (Phipson and Smyth,
/// "Permutation p-values should never be zero", 2010).
///
/// # Errors
/// A number that is not finite.
pub fn p_value(observed: f64, null: &[f64]) -> Result<f64, StatsError> {
    check(null, 0)?;
    if !observed.is_finite() {
        let allowed = "finite";
        return Err(StatsError::OutOfRange {
            name: "observed",
            value: observed,
            allowed,
        });
    }
    let as_large = null.iter().filter(|&&value| value >= observed).count();
    Ok((1 + as_large) as f64 / (1 + null.len()) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest column mean, of a table in row-major order.
    fn largest_mean(table: &[f64], assignment: &Assignment, steps: usize) -> f64 {
        let columns = assignment.columns;
        let mut sums = vec![0.0; columns];
        for step in 0..steps {
            for (sum, &source) in sums.iter_mut().zip(assignment.row(step)) {
                *sum += table[step * columns + source as usize];
            }
        }
        sums.into_iter().fold(f64::MIN, f64::max) / steps as f64
    }

    fn p_of_table(slow: f64, seed: u64) -> f64 {
        let (steps, columns) = (40, 6);
        let mut rng = Rng::new(seed);
        let table: Vec<f64> = (0..steps * columns)
            .map(|i| rng.normal() + if i % columns == 2 { slow } else { 0.0 })
            .collect();
        let test = ShuffleTest {
            steps,
            columns,
            block_length: 4,
            shuffles: 99,
            seed,
        };
        let null = test
            .null_distribution(|a| largest_mean(&table, a, steps))
            .unwrap();
        let means = (0..columns)
            .map(|c| (0..steps).map(|s| table[s * columns + c]).sum::<f64>() / steps as f64);
        p_value(means.fold(f64::MIN, f64::max), &null).unwrap()
    }

    /// Under the null, p is uniform on 0.01, 0.02, ..., so p <= 0.1 in a tenth of the tables: at
    /// most 3.3 binomial deviations of 200 tables away.
    #[test]
    fn null_tables_are_rejected_at_the_stated_rate() {
        let rejected = (0..200)
            .filter(|&seed| p_of_table(0.0, seed) <= 0.1)
            .count();
        assert!((6..=34).contains(&rejected), "{rejected} of 200");
    }

    #[test]
    fn a_slow_column_is_found() {
        assert!((0..20).all(|seed| p_of_table(1.0, seed) <= 0.03));
    }

    #[test]
    fn rows_of_a_block_are_alike_and_each_row_is_a_permutation() {
        let test = ShuffleTest {
            steps: 7,
            columns: 5,
            block_length: 3,
            shuffles: 20,
            seed: 1,
        };
        let mut distinct = 0;
        let null = test.null_distribution(|assignment| {
            for step in 0..7 {
                let mut row = assignment.row(step).to_vec();
                assert_eq!(row, assignment.row(step / 3 * 3));
                row.sort_unstable();
                assert_eq!(row, [0, 1, 2, 3, 4]);
            }
            distinct += u32::from(assignment.row(0) != assignment.row(3));
            0.0
        });
        assert_eq!(null.unwrap().len(), 20);
        assert!(distinct >= 15);
    }

    #[test]
    fn edges() {
        let test = ShuffleTest {
            steps: 1,
            columns: 1,
            block_length: 1,
            shuffles: 0,
            seed: 0,
        };
        assert_eq!(test.null_distribution(|_| 0.0), Ok(Vec::new()));
        assert_eq!(p_value(1.0, &[]), Ok(1.0));
        assert_eq!(p_value(2.0, &[1.0, 2.0, 3.0]), Ok(0.75));
        assert!(p_value(f64::NAN, &[1.0]).is_err());
        assert!(p_value(1.0, &[f64::NAN]).is_err());
        assert!(
            ShuffleTest {
                block_length: 0,
                ..test
            }
            .null_distribution(|_| 0.0)
            .is_err()
        );
        assert!(
            ShuffleTest { steps: 0, ..test }
                .null_distribution(|_| 0.0)
                .is_err()
        );
    }
}
