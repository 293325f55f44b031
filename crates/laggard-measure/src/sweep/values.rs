//! What the buffers of a benchmark hold, so that every element of every result is known: small
//! whole numbers that differ between neighbours and between ranks, and whose sums are exact.

use laggard_backend::{BackendError, Slice};
use laggard_types::{DataType, Rank, ReduceOp};

/// What memory holds that a call should overwrite; no contribution or result is that. Bf16 has it.
const POISON: f64 = 300.0;
/// Elements that are written or read at a time.
const CHUNK: usize = 1 << 16;
/// Up to 256, whole numbers are exact in bf16, the narrowest type that is summed: 5 from each of
/// this many ranks stay below it.
const MOST_RANKS_OF_ELEVEN: u32 = 51;
/// So many different numbers, up to 125 and down to -125, are exact in bf16.
const NUMBERS_PASSED_ON: usize = 251;
/// How far a whole number may be off.
const WHOLE: f64 = 0.25;
/// How far an average of a half type may be off, of numbers up to 5: NCCL divides contributions,
/// and rounds them and their sums to 8 bits or more. Over more than 16 ranks this may hide that one
/// is missing.
const HALF_AVERAGE: f64 = 1.0 / 32.0;

/// The contributions of all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Values {
    ranks: u32,
    /// How many different numbers there are; a prime.
    numbers: usize,
}

/// Elements that are known: a table that repeats, and where in it they begin.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    table: Vec<f64>,
    first: usize,
    len: usize,
    tolerance: f64,
}

impl Values {
    /// For calls that reduce, of so many ranks. Ranks that are a multiple of the numbers apart
    /// contribute the same. Above 256 ranks, sums of bf16 may be rounded on the way.
    pub(super) fn summed(ranks: u32) -> Self {
        let numbers = if ranks <= MOST_RANKS_OF_ELEVEN { 11 } else { 3 };
        Self { ranks, numbers }
    }

    /// For calls that pass contributions on as they are: those of all ranks differ.
    pub(super) fn passed_on(ranks: u32) -> Self {
        Self {
            ranks,
            numbers: NUMBERS_PASSED_ON,
        }
    }

    /// One element of what a rank contributes.
    fn element(self, rank: Rank, index: usize) -> f64 {
        let (p, rank) = (self.numbers, rank as usize);
        // Ranks beyond the numbers go through them at another pace.
        let pace = match p {
            NUMBERS_PASSED_ON => 7 + rank / p,
            _ => 7,
        };
        ((index * pace + rank * 5 + index / p) % p) as f64 - (p / 2) as f64
    }

    fn table(self, element: impl Fn(usize) -> f64) -> Vec<f64> {
        (0..self.numbers * self.numbers).map(element).collect()
    }

    /// Elements `first..first + len` of what a rank contributes.
    pub(super) fn of_rank(self, rank: Rank, first: usize, len: usize) -> Known {
        Known {
            table: self.table(|index| self.element(rank, index)),
            first,
            len,
            tolerance: WHOLE,
        }
    }

    /// The same elements of all ranks, reduced.
    pub(super) fn reduced(
        self,
        (op, data_type): (ReduceOp, DataType),
        first: usize,
        len: usize,
    ) -> Known {
        let reduced = |index| {
            let all = (0..self.ranks).map(|rank| self.element(rank, index));
            match op {
                ReduceOp::Sum => all.sum(),
                ReduceOp::Min => all.fold(f64::INFINITY, f64::min),
                ReduceOp::Max => all.fold(f64::NEG_INFINITY, f64::max),
                ReduceOp::Avg => {
                    let average = all.sum::<f64>() / f64::from(self.ranks);
                    match data_type {
                        DataType::I32 | DataType::I64 => average.trunc(),
                        _ => average,
                    }
                }
            }
        };
        // Half of what one rank's 1 adds to an average.
        let of_rank = 0.5 / f64::from(self.ranks);
        Known {
            table: self.table(reduced),
            first,
            len,
            tolerance: match (op, data_type) {
                (ReduceOp::Avg, DataType::Bf16 | DataType::F16) => of_rank.max(HALF_AVERAGE),
                (ReduceOp::Avg, DataType::F32 | DataType::F64) => of_rank,
                _ => WHOLE,
            },
        }
    }
}

impl Known {
    /// Writes them.
    pub(super) fn write(&self, to: &Slice) -> Result<(), BackendError> {
        write_by_chunks(to, |index| self.at(index))
    }

    /// How many elements of a slice are other ones.
    pub(super) fn wrong_in(&self, found: &Slice) -> Result<u64, BackendError> {
        let mut wrong = found.len.abs_diff(self.len) as u64;
        let len = found.len.min(self.len);
        for start in (0..len).step_by(CHUNK) {
            let part = found.part(start..len.min(start + CHUNK))?.read_numbers()?;
            let is_wrong = |(at, value): (usize, &f64)| {
                // Not a number is wrong too.
                let off = (value - self.at(start + at)).abs();
                off.is_nan() || off >= self.tolerance
            };
            wrong += part.iter().enumerate().filter(|it| is_wrong(*it)).count() as u64;
        }
        Ok(wrong)
    }

    fn at(&self, index: usize) -> f64 {
        self.table[(self.first + index) % self.table.len()]
    }
}

/// Overwrites a slice with what no result is.
pub(super) fn poison(to: &Slice) -> Result<(), BackendError> {
    write_by_chunks(to, |_| POISON)
}

/// Overwrites a slice with zeros.
pub(super) fn clear(to: &Slice) -> Result<(), BackendError> {
    write_by_chunks(to, |_| 0.0)
}

fn write_by_chunks(to: &Slice, value: impl Fn(usize) -> f64) -> Result<(), BackendError> {
    for start in (0..to.len).step_by(CHUNK) {
        let end = to.len.min(start + CHUNK);
        let values: Vec<f64> = (start..end).map(&value).collect();
        to.part(start..end)?.write_numbers(&values)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use laggard_backend::{Buffer, HostMemory};

    fn slice(data_type: DataType, len: usize) -> Slice {
        Slice::whole(&Buffer::Host(HostMemory::zeroed(data_type, len).unwrap()))
    }

    #[test]
    fn contributions_of_all_ranks_differ() {
        let values = Values::passed_on(600);
        let len = 1000;
        let found = slice(DataType::Bf16, len);
        for (rank, other) in [(0, 11), (3, 14), (0, 3), (7, 258), (7, 509), (258, 509)] {
            let known = values.of_rank(rank, 0, len);
            known.write(&found).unwrap();
            assert_eq!(known.wrong_in(&found), Ok(0));
            let wrong = values.of_rank(other, 0, len).wrong_in(&found).unwrap();
            assert!(wrong as usize > len / 2, "{rank} and {other}: {wrong}");
        }
    }

    #[test]
    fn wrong_elements_are_counted() {
        let values = Values::passed_on(3);
        let len = CHUNK + 777;
        let found = slice(DataType::F32, len);
        let known = values.of_rank(1, 40, len);
        known.write(&found).unwrap();
        assert_eq!(known.wrong_in(&found), Ok(0));
        // Another rank's, or the same displaced by one, is wrong nearly everywhere.
        for other in [values.of_rank(2, 40, len), values.of_rank(1, 41, len)] {
            assert!(other.wrong_in(&found).unwrap() as usize > len / 2);
        }
        let last = found.part(len - 1..len).unwrap();
        last.write_numbers(&[f64::NAN]).unwrap();
        assert_eq!(known.wrong_in(&found), Ok(1));
        assert_eq!(known.wrong_in(&found.part(0..len - 5).unwrap()), Ok(5));
        poison(&found).unwrap();
        assert_eq!(known.wrong_in(&found), Ok(len as u64));
    }

    #[test]
    fn reductions_miss_nobody() {
        for ranks in [2, 8, 51, 52, 200] {
            let values = Values::summed(ranks);
            let known = values.reduced((ReduceOp::Sum, DataType::Bf16), 0, 500);
            let sums: Vec<f64> = (0..500).map(|index| known.at(index)).collect();
            assert!(sums.iter().all(|sum| sum.abs() <= 256.0), "{ranks}");
            // Leaving one rank out shows.
            for missing in [0, ranks - 1] {
                let own = values.of_rank(missing, 0, 500);
                let differs = (0..500).filter(|index| own.at(*index).abs() > WHOLE);
                assert!(differs.count() > 250, "{ranks} without {missing}");
            }
        }
    }
}
