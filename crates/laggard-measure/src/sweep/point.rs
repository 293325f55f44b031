//! One collective at one size: its calls, on memory that rotates as in nccl-tests, and what its
//! results must be. Knows no time.

use super::values::{Known, Values, clear, poison};
use laggard_backend::{BackendError, Call, Device, Slice};
use laggard_record::Placement;
use laggard_types::{Collective, DataType, Rank, ReduceOp};

/// Bytes to which the begins of calls' memory are aligned.
const ALIGNMENT: usize = 128;
/// Places that calls of small sizes take turns at.
const MOST_SLOTS: usize = 64;

/// The memory of one rank.
pub(super) struct Ground {
    /// Contributions, which no call changes.
    send: Slice,
    /// Results, and contributions that they replace.
    area: Slice,
    values: Values,
    rank: Rank,
    ranks: u32,
}

/// A collective at a size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub collective: Collective,
    pub op: ReduceOp,
    pub placement: Placement,
    pub data_type: DataType,
    /// Elements, as nccl-tests counts them.
    pub elements: usize,
}

/// One call of it, as one rank makes it.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// All ranks meet.
    Meet(Call),
    /// To the next rank, and from the one before.
    PassOn { send: Call, receive: Call },
}

impl Point {
    /// The points of a size, for the places that are wanted; none where ranks would have nothing.
    pub(super) fn of_size(
        (collective, op): (Collective, ReduceOp),
        data_type: DataType,
        bytes: u64,
        (ranks, placements): (u32, &[Placement]),
    ) -> Vec<Self> {
        let mut elements = usize::try_from(bytes).unwrap_or(usize::MAX) / data_type.size_bytes();
        if is_divided(collective) {
            elements -= elements % ranks as usize;
        }
        let places = match collective {
            // The root's memory is where its contribution is, and messages have two ends.
            Collective::Broadcast => &[Placement::InPlace][..],
            Collective::SendRecv => &[Placement::OutOfPlace][..],
            _ => placements,
        };
        let point = |placement: &Placement| Self {
            collective,
            op,
            placement: *placement,
            data_type,
            elements,
        };
        match elements {
            0 => Vec::new(),
            _ => places.iter().map(point).collect(),
        }
    }

    /// Bytes, as nccl-tests counts them.
    pub(super) fn bytes(&self) -> u64 {
        (self.elements * self.data_type.size_bytes()) as u64
    }

    /// Its reduction, if it has one.
    pub(super) fn reduction(&self) -> Option<ReduceOp> {
        reduces(self.collective).then_some(self.op)
    }

    /// Its name in messages.
    pub(super) fn name(&self) -> String {
        let place = match self.placement {
            Placement::OutOfPlace => "out of place",
            Placement::InPlace => "in place",
        };
        let (name, bytes) = (self.collective.name(), self.bytes());
        format!("{name} of {bytes} bytes, {place}")
    }
}

fn reduces(collective: Collective) -> bool {
    [Collective::AllReduce, Collective::ReduceScatter].contains(&collective)
}

fn is_divided(collective: Collective) -> bool {
    use Collective::{AllGather, AllToAll, ReduceScatter};
    [ReduceScatter, AllGather, AllToAll].contains(&collective)
}

impl Ground {
    /// Memory for points of up to so many bytes.
    pub(super) fn new(
        device: &dyn Device,
        (data_type, bytes): (DataType, u64),
        (rank, ranks): (Rank, u32),
    ) -> Result<Self, BackendError> {
        let size = data_type.size_bytes();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX / 2);
        let len = bytes.div_ceil(size).next_multiple_of(ALIGNMENT / size);
        let [send, area] = [
            device.allocate(data_type, len)?,
            device.allocate(data_type, len)?,
        ];
        let ground = Self {
            send: Slice::whole(&send),
            area: Slice::whole(&area),
            values: Values::summed(ranks),
            rank,
            ranks,
        };
        ground.write_send()?;
        Ok(ground)
    }

    fn write_send(&self) -> Result<(), BackendError> {
        let own = self.values.of_rank(self.rank, 0, self.send.len);
        own.write(&self.send)
    }

    /// Makes contributions ready for the calls of a collective. None may be on its way.
    pub(super) fn contribute(&mut self, to: Collective) -> Result<(), BackendError> {
        let values = match reduces(to) {
            true => Values::summed(self.ranks),
            false => Values::passed_on(self.ranks),
        };
        if values != self.values {
            self.values = values;
            self.write_send()?;
        }
        Ok(())
    }

    /// Elements from one slot to the next, and how many slots there are.
    fn slots(&self, point: &Point) -> (usize, usize) {
        let stride = point
            .elements
            .next_multiple_of(ALIGNMENT / point.data_type.size_bytes());
        (stride, (self.send.len / stride).clamp(1, MOST_SLOTS))
    }

    /// One step for each slot, of which calls take turns.
    pub(super) fn steps(&self, point: &Point) -> Result<Vec<Step>, BackendError> {
        let (stride, slots) = self.slots(point);
        let steps = (0..slots).map(|slot| self.step(point, slot * stride));
        steps.collect()
    }

    fn step(&self, point: &Point, at: usize) -> Result<Step, BackendError> {
        let n = self.ranks as usize;
        let whole = |memory: &Slice| memory.part(at..at + point.elements);
        let share = point.elements / n;
        let own = |memory: &Slice| {
            let begin = at + self.rank as usize * share;
            memory.part(begin..begin + share)
        };
        let first = |memory: &Slice| memory.part(at..at + share);
        let is_in_place = point.placement == Placement::InPlace;
        let source = if is_in_place { &self.area } else { &self.send };
        let counts = vec![share; n];
        Ok(Step::Meet(match point.collective {
            Collective::AllReduce => Call::AllReduce {
                send: whole(source)?,
                recv: whole(&self.area)?,
                op: point.op,
            },
            Collective::ReduceScatter => Call::ReduceScatter {
                send: whole(source)?,
                recv: if is_in_place {
                    own(&self.area)?
                } else {
                    first(&self.area)?
                },
                op: point.op,
                counts,
            },
            Collective::AllGather => Call::AllGather {
                send: if is_in_place {
                    own(&self.area)?
                } else {
                    first(&self.send)?
                },
                recv: whole(&self.area)?,
                counts,
            },
            Collective::AllToAll => Call::AllToAll {
                send: whole(source)?,
                recv: whole(&self.area)?,
                send_counts: counts.clone(),
                recv_counts: counts,
            },
            Collective::SendRecv => {
                return Ok(Step::PassOn {
                    send: Call::Send {
                        buffer: whole(&self.send)?,
                        to: (self.rank + 1) % self.ranks,
                    },
                    receive: Call::Receive {
                        buffer: whole(&self.area)?,
                        from: self.before(),
                    },
                });
            }
            _ => Call::Broadcast {
                buffer: whole(&self.area)?,
                root: 0,
            },
        }))
    }

    /// The rank that passes on to this one.
    fn before(&self) -> Rank {
        (self.rank + self.ranks - 1) % self.ranks
    }

    /// Makes calls ready that are timed: results that go back into sums begin as zeros, and so stay
    /// finite.
    pub(super) fn prepare_timing(&self, point: &Point) -> Result<(), BackendError> {
        if point.placement == Placement::OutOfPlace || point.reduction().is_none() {
            return Ok(());
        }
        let (stride, slots) = self.slots(point);
        clear(&self.area.part(0..(stride * slots).min(self.area.len))?)
    }

    /// Makes the first slot ready for a call whose results are then looked at.
    pub(super) fn prepare_check(&self, point: &Point) -> Result<(), BackendError> {
        let area = self.area.part(0..point.elements)?;
        let own = |len| self.values.of_rank(self.rank, 0, len);
        match (point.collective, point.placement) {
            (Collective::Broadcast, _) if self.rank == 0 => own(point.elements).write(&area),
            (Collective::Broadcast, _) | (_, Placement::OutOfPlace) => poison(&area),
            (Collective::AllGather, Placement::InPlace) => {
                poison(&area)?;
                let share = point.elements / self.ranks as usize;
                let begin = self.rank as usize * share;
                own(share).write(&area.part(begin..begin + share)?)
            }
            (_, Placement::InPlace) => own(point.elements).write(&area),
        }
    }

    /// Elements of the first slot's results that are wrong.
    pub(super) fn wrong(&self, point: &Point) -> Result<u64, BackendError> {
        let n = self.ranks as usize;
        let (elements, share) = (point.elements, point.elements / n);
        let me = self.rank as usize;
        let values = self.values;
        let (op, data_type) = (point.op, point.data_type);
        let area = self.area.part(0..elements)?;
        let blocks = |of: &dyn Fn(usize) -> Known| {
            let wrong = |block: usize| {
                let found = area.part(block * share..(block + 1) * share)?;
                of(block).wrong_in(&found)
            };
            (0..n).try_fold(0, |sum, block| Ok(sum + wrong(block)?))
        };
        match point.collective {
            Collective::AllReduce => values.reduced((op, data_type), 0, elements).wrong_in(&area),
            Collective::ReduceScatter => {
                let begin = match point.placement {
                    Placement::InPlace => me * share,
                    Placement::OutOfPlace => 0,
                };
                let found = area.part(begin..begin + share)?;
                values
                    .reduced((op, data_type), me * share, share)
                    .wrong_in(&found)
            }
            Collective::AllGather => blocks(&|block| values.of_rank(block as Rank, 0, share)),
            Collective::AllToAll => {
                blocks(&|block| values.of_rank(block as Rank, me * share, share))
            }
            Collective::SendRecv => values.of_rank(self.before(), 0, elements).wrong_in(&area),
            _ => values.of_rank(0, 0, elements).wrong_in(&area),
        }
    }
}
