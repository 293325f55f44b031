//! What a benchmark measures, and which sizes follow from it.

use crate::MeasureError;
use laggard_record::Placement;
use laggard_types::{Collective, DataType, Rank, ReduceOp, format_bytes};
use std::time::Duration;

/// What to measure. Equal on all ranks.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepSettings {
    /// Collectives, in order; [`SweepSettings::COLLECTIVES`] are known.
    pub collectives: Vec<Collective>,
    /// Message sizes, counted as nccl-tests counts them.
    pub sizes: Sizes,
    /// Where results go; a collective that knows one place alone is measured there.
    pub placements: Vec<Placement>,
    /// Type of the elements.
    pub data_type: DataType,
    /// Reduction of those collectives that have one.
    pub op: ReduceOp,
    /// How often each call is timed.
    pub calls: Repetitions,
    /// Calls before those that are timed.
    pub warm_up: u32,
    /// Matrix products, in order.
    pub products: Vec<ProductShape>,
    /// Bytes that one triad reads and writes; `None` measures none.
    pub triad_bytes: Option<u64>,
    /// How often each kernel is timed.
    pub rounds: u32,
    /// Bytes of the messages between pairs of ranks; `None` measures none.
    pub pair_bytes: Option<u64>,
    /// A rank that comes late to every call, to see what that does to figures.
    pub late: Option<Late>,
    /// Longest wait for another rank.
    pub timeout: Duration,
}

/// Message sizes: `first`, and each `factor` times the one before, up to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The smallest, bytes.
    pub first: u64,
    /// The largest, bytes.
    pub last: u64,
    /// From one to the next.
    pub factor: u64,
}

/// How often something is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repetitions {
    /// So often.
    Exactly(u32),
    /// As often as fits into the time, between [`Repetitions::LEAST`] and this.
    Within {
        /// The most.
        most: u32,
        /// The time.
        time: Duration,
    },
}

/// A matrix product: `m` x `k` by `k` x `n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductShape {
    /// What it is for.
    pub name: String,
    /// Rows of the result.
    pub m: u64,
    /// Columns of the result.
    pub n: u64,
    /// What is summed over.
    pub k: u64,
}

/// A rank that comes late on purpose, by real arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    /// The rank.
    pub rank: Rank,
    /// How much later than it would.
    pub by: Duration,
}

impl Sizes {
    /// All sizes, ascending.
    pub fn all(self) -> Vec<u64> {
        let mut sizes = Vec::new();
        let mut next = Some(self.first);
        while let Some(size) = next.filter(|size| *size <= self.last) {
            sizes.push(size);
            next = size
                .checked_mul(self.factor)
                .filter(|larger| *larger > size);
        }
        sizes
    }
}

impl Repetitions {
    /// The fewest that a time limit leaves.
    pub const LEAST: u32 = 7;

    /// How often, if once takes so long.
    pub(super) fn count(self, once: Duration) -> u32 {
        match self {
            Self::Exactly(count) => count,
            Self::Within { most, time } => {
                let fits = time.as_nanos() / once.as_nanos().max(1);
                let fits = u32::try_from(fits).unwrap_or(u32::MAX);
                fits.clamp(Self::LEAST.min(most), most)
            }
        }
    }
}

impl SweepSettings {
    /// The collectives that can be measured, in the order of tables.
    pub const COLLECTIVES: [Collective; 6] = [
        Collective::AllReduce,
        Collective::ReduceScatter,
        Collective::AllGather,
        Collective::AllToAll,
        Collective::Broadcast,
        Collective::SendRecv,
    ];
    /// Message sizes that memory may hold.
    const MOST_BYTES: u64 = 1 << 40;

    /// Refuses what cannot be measured on so many ranks.
    pub(super) fn check(&self, ranks: u32) -> Result<(), MeasureError> {
        let unknown = |it: &&Collective| !Self::COLLECTIVES.contains(it);
        if let Some(other) = self.collectives.iter().find(unknown) {
            let names = Self::COLLECTIVES.map(Collective::name).join(", ");
            let hint = format!("these are measured: {names}");
            let value = other.name().to_owned();
            return refuse("the collective", value, "nothing measures it", hint);
        }
        let Sizes {
            first,
            last,
            factor,
        } = self.sizes;
        if first == 0 || first > last || last > Self::MOST_BYTES {
            let value = format!("{} to {}", format_bytes(first), format_bytes(last));
            let hint = "give -b a size from 1 and -e one that is not smaller".to_owned();
            return refuse("the range of sizes", value, "no size is in it", hint);
        }
        if factor < 2 && first < last {
            let why = "the sizes would never end";
            let hint = "give -f a whole number from 2".to_owned();
            return refuse("the factor between sizes", factor.to_string(), why, hint);
        }
        let most = match self.calls {
            Repetitions::Exactly(count) => count,
            Repetitions::Within { most, .. } => most,
        };
        for (what, value, flag) in [
            ("the number of calls", most, "-n"),
            ("the number of rounds", self.rounds, "--rounds"),
        ] {
            if value == 0 {
                let hint = format!("give {flag} a number from 1");
                return refuse(what, value.to_string(), "nothing would be timed", hint);
            }
        }
        self.check_kernels()?;
        match self.late {
            Some(late) if late.rank >= ranks => {
                let hint = format!("ranks are 0 to {}", ranks.saturating_sub(1));
                let why = "there is no such rank";
                refuse("the late rank", late.rank.to_string(), why, hint)
            }
            _ => Ok(()),
        }
    }

    /// Refuses products, triads and messages that are nothing or too large for any memory.
    fn check_kernels(&self) -> Result<(), MeasureError> {
        for shape in &self.products {
            let ProductShape { m, n, k, .. } = shape;
            let value = || format!("{m} x {n} x {k}");
            if [m, n, k].contains(&&0) {
                let hint = "give --gemm sizes from 1".to_owned();
                return refuse("a product", value(), "it is empty", hint);
            }
            let elements = |a: u64, b: u64| u128::from(a) * u128::from(b);
            let all = elements(*m, *k) + elements(*k, *n) + elements(*m, *n);
            if all > u128::from(Self::MOST_BYTES) {
                let hint = "give --gemm smaller sizes".to_owned();
                return refuse("a product", value(), "no memory holds it", hint);
            }
        }
        for (what, bytes, flag) in [
            ("the triad", self.triad_bytes, "--triad-bytes"),
            ("a message", self.pair_bytes, "--pair-bytes"),
        ] {
            if let Some(bytes) = bytes.filter(|it| !(1..=Self::MOST_BYTES).contains(it)) {
                let most = format_bytes(Self::MOST_BYTES);
                let hint = format!("give {flag} a size from 1 to {most}");
                let why = "it is empty, or no memory holds it";
                return refuse(what, format_bytes(bytes), why, hint);
            }
        }
        Ok(())
    }
}

fn refuse(what: &'static str, value: String, why: &str, hint: String) -> Result<(), MeasureError> {
    Err(MeasureError::Setting {
        what,
        value,
        why: why.to_owned(),
        hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_by_the_factor_and_end() {
        let check = |first, last, factor, expect: &[u64]| {
            let sizes = Sizes {
                first,
                last,
                factor,
            };
            assert_eq!(sizes.all(), expect);
        };
        check(8, 64, 2, &[8, 16, 32, 64]);
        check(8, 63, 2, &[8, 16, 32]);
        check(5, 5, 1, &[5]);
        check(3, 100, 4, &[3, 12, 48]);
        check(1 << 62, u64::MAX, 2, &[1 << 62, 1 << 63]);
    }

    #[test]
    fn a_time_limit_leaves_some_calls_and_never_too_many() {
        let check = |once_us, expect| {
            let within = Repetitions::Within {
                most: 100,
                time: Duration::from_millis(10),
            };
            assert_eq!(within.count(Duration::from_micros(once_us)), expect);
        };
        check(1, 100);
        check(200, 50);
        check(1_000_000, Repetitions::LEAST);
        assert_eq!(Repetitions::Exactly(3).count(Duration::MAX), 3);
        let few = Repetitions::Within {
            most: 2,
            time: Duration::ZERO,
        };
        assert_eq!(few.count(Duration::from_secs(1)), 2);
    }
}
