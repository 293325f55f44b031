//! What checks are written with: one rank's queue, buffers with guard elements around them, calls
//! that are waited for, and comparisons that become violations.

use super::Violation;
use crate::{BackendError, Buffer, Call, Communicator, Launch, QueueId, Slice, Token, World};
use laggard_types::{DataType, Rank, ReduceOp};
use std::fmt::{Debug, Display};
use std::time::Duration;

/// Longer than anything that a working backend does here takes.
pub(super) const LONG: Duration = Duration::from_secs(120);

/// Elements before and behind every slice that must stay as they are; odd, so that slices are not
/// aligned.
const GUARD: usize = 3;

/// What guard elements hold.
const GUARD_VALUE: f64 = 77.0;

/// Lengths that lay bare errors in cutting: nothing, one element, fewer than ranks, odd ones, and
/// enough for several partial sums.
pub(super) const LENGTHS: [usize; 5] = [0, 1, 5, 129, 20_011];

/// Whether `send` and `recv` are the same memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    In,
    Out,
}

pub(super) const PLACES: [Place; 2] = [Place::In, Place::Out];

/// Block lengths for so many ranks.
pub(super) fn block_lengths(ranks: u32) -> Vec<Vec<usize>> {
    let of = |f: &dyn Fn(usize) -> usize| (0..ranks as usize).map(f).collect::<Vec<_>>();
    vec![
        of(&|_| 0),
        of(&|_| 1),
        of(&|_| 1003),
        of(&|i| (i * 37) % 5 * 211),
        of(&|i| i),
    ]
}

/// Roots worth trying.
pub(super) fn roots(ranks: u32) -> Vec<Rank> {
    if ranks == 1 {
        vec![0]
    } else {
        vec![0, ranks - 1]
    }
}

/// Element `index` of what `rank` contributes: between -5 and 5, differently on each of up to 11
/// ranks. Sums over some fifty ranks are exact in every type. The modulus is a prime above the
/// usual world sizes, or the sum over all ranks would be zero everywhere.
pub(super) fn element(rank: Rank, index: usize) -> f64 {
    ((index * 3 + rank as usize * 5 + index / 11) % 11) as f64 - 5.0
}

/// `len` elements of what `rank` contributes, from the `start`th.
pub(super) fn elements(rank: Rank, start: usize, len: usize) -> Vec<f64> {
    (start..start + len)
        .map(|index| element(rank, index))
        .collect()
}

/// What the reduction of all ranks' elements must be. For averages of floats the contributions are
/// scaled by [`scale`], so that the quotient is a whole number.
pub(super) fn reduced(op: ReduceOp, data_type: DataType, ranks: u32, index: usize) -> f64 {
    let scale = scale(op, data_type, ranks);
    let all = (0..ranks).map(|rank| scale * element(rank, index));
    match op {
        ReduceOp::Sum => all.sum(),
        ReduceOp::Min => all.fold(f64::INFINITY, f64::min),
        ReduceOp::Max => all.fold(f64::NEG_INFINITY, f64::max),
        ReduceOp::Avg => (all.sum::<f64>() / f64::from(ranks)).trunc(),
    }
}

/// What contributions to a reduction are multiplied with; integers keep their remainders, since
/// truncation is to be checked.
pub(super) fn scale(op: ReduceOp, data_type: DataType, ranks: u32) -> f64 {
    match (op, data_type) {
        (ReduceOp::Avg, DataType::I32 | DataType::I64) => 1.0,
        (ReduceOp::Avg, _) => f64::from(ranks),
        _ => 1.0,
    }
}

/// One rank's side of a check.
pub(super) struct Fixture<'a> {
    pub world: &'a World,
    pub queue: QueueId,
    pub rank: Rank,
    pub ranks: u32,
}

impl<'a> Fixture<'a> {
    pub(super) fn new(world: &'a World) -> Result<Self, Violation> {
        let (rank, ranks) = (world.data.rank(), world.data.size());
        let queue = world.device.create_queue("check");
        let queue = queue.map_err(|e| violation(rank, "creating a queue", &e))?;
        Ok(Self {
            world,
            queue,
            rank,
            ranks,
        })
    }

    /// A violation seen by this rank.
    pub(super) fn violation(&self, case: impl Display, why: impl Display) -> Violation {
        violation(self.rank, case, why)
    }

    /// Turns an error into a violation.
    pub(super) fn must<T>(
        &self,
        case: impl Display,
        result: Result<T, BackendError>,
    ) -> Result<T, Violation> {
        result.map_err(|error| self.violation(case, error))
    }

    /// A slice with these contents, between guard elements.
    pub(super) fn slice(&self, data_type: DataType, values: &[f64]) -> Result<Slice, Violation> {
        let len = values.len() + 2 * GUARD;
        let buffer = self.must("allocating", self.world.device.allocate(data_type, len))?;
        let whole = Slice::whole(&buffer);
        self.must("filling", whole.write_numbers(&vec![GUARD_VALUE; len]))?;
        let slice = self.must("slicing", whole.part(GUARD..GUARD + values.len()))?;
        self.must("filling", slice.write_numbers(values))?;
        Ok(slice)
    }

    /// Makes a call on the data group and waits for it.
    pub(super) fn call(&self, call: Call) -> Result<(), BackendError> {
        self.call_on(&*self.world.data, call)
    }

    /// Makes a call on some group and waits for it.
    pub(super) fn call_on(&self, group: &dyn Communicator, call: Call) -> Result<(), BackendError> {
        let token = group.enqueue(call, self.launch(&[]))?;
        self.world.device.wait(token, LONG)
    }

    /// Makes a call that must succeed.
    pub(super) fn done(&self, case: &dyn Display, call: Call) -> Result<(), Violation> {
        self.must(case, self.call(call))
    }

    pub(super) fn launch<'b>(&self, after: &'b [Token]) -> Launch<'b> {
        Launch {
            queue: self.queue,
            after,
            tag: 0,
        }
    }

    /// Compares a slice, and the guards around its buffer.
    pub(super) fn expect(
        &self,
        case: &dyn Display,
        slice: &Slice,
        want: &[f64],
    ) -> Result<(), Violation> {
        let found = self.must(case, slice.read_numbers())?;
        self.same(case, &found, want)?;
        let buffer: &Buffer = &slice.buffer;
        let all = self.must(case, Slice::whole(buffer).read_numbers())?;
        let guards = all[..GUARD].iter().chain(&all[all.len() - GUARD..]);
        if guards.copied().any(|x| differs(x, GUARD_VALUE)) {
            return Err(self.violation(case, "elements beside the slice were changed"));
        }
        Ok(())
    }

    /// Compares numbers exactly.
    pub(super) fn same(
        &self,
        case: &dyn Display,
        found: &[f64],
        want: &[f64],
    ) -> Result<(), Violation> {
        if found.len() != want.len() {
            let why = format!("{} elements instead of {}", found.len(), want.len());
            return Err(self.violation(case, why));
        }
        match found.iter().zip(want).position(|(a, b)| differs(*a, *b)) {
            None => Ok(()),
            Some(at) => Err(self.violation(
                case,
                format!(
                    "element {at} of {} is {}, not {}",
                    found.len(),
                    found[at],
                    want[at]
                ),
            )),
        }
    }

    /// Demands an error of some kind.
    pub(super) fn fails<T: Debug>(
        &self,
        case: &dyn Display,
        result: Result<T, BackendError>,
        is_right: impl Fn(&BackendError) -> bool,
    ) -> Result<(), Violation> {
        match result {
            Err(error) if is_right(&error) => Ok(()),
            other => Err(self.violation(case, format!("ended with {other:?}"))),
        }
    }
}

fn violation(rank: Rank, case: impl Display, why: impl Display) -> Violation {
    Violation {
        rank,
        case: case.to_string(),
        why: why.to_string(),
    }
}

/// Whether two whole numbers differ.
fn differs(a: f64, b: f64) -> bool {
    a.partial_cmp(&b) != Some(std::cmp::Ordering::Equal)
}
