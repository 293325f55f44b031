//! Numbers of elements as MPI wants them: in C's `int`, with the begin of every block.

use laggard_backend::Call;
use std::ffi::c_int;

/// Lengths and begins of the blocks of all ranks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub counts: Vec<c_int>,
    pub starts: Vec<c_int>,
}

impl Blocks {
    /// Those of blocks that follow each other.
    pub(crate) fn of(counts: &[usize]) -> Result<Self, String> {
        let mut blocks = Self::default();
        let mut start = 0usize;
        for len in counts {
            blocks.counts.push(count(*len)?);
            blocks.starts.push(count(start)?);
            start = start.saturating_add(*len);
        }
        count(start)?;
        Ok(blocks)
    }
}

/// A number of elements as MPI counts.
pub(crate) fn count(len: usize) -> Result<c_int, String> {
    c_int::try_from(len).map_err(|_| {
        format!(
            "{len} elements are more than MPI counts, {}\nhint: use smaller buckets or a larger \
             element type",
            c_int::MAX
        )
    })
}

/// The numbers of a call as MPI wants them, worked out before anything is timed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub send: c_int,
    pub recv: c_int,
    pub send_blocks: Blocks,
    pub recv_blocks: Blocks,
}

impl Counts {
    /// Those of a call that has been checked; the error says what is too large.
    pub(crate) fn of(call: &Call) -> Result<Self, String> {
        let none = Self::default();
        Ok(match call {
            Call::AllReduce { send, .. } | Call::Reduce { send, .. } => Self {
                send: count(send.len)?,
                ..none
            },
            Call::ReduceScatter { counts, .. } => Self {
                recv_blocks: Blocks::of(counts)?,
                ..none
            },
            Call::AllGather { send, counts, .. } | Call::Gather { send, counts, .. } => Self {
                send: count(send.len)?,
                recv_blocks: Blocks::of(counts)?,
                ..none
            },
            Call::Scatter { recv, counts, .. } => Self {
                recv: count(recv.len)?,
                send_blocks: Blocks::of(counts)?,
                ..none
            },
            Call::AllToAll {
                send_counts,
                recv_counts,
                ..
            } => Self {
                send_blocks: Blocks::of(send_counts)?,
                recv_blocks: Blocks::of(recv_counts)?,
                ..none
            },
            Call::Broadcast { buffer, .. } | Call::Receive { buffer, .. } => Self {
                recv: count(buffer.len)?,
                ..none
            },
            Call::Send { buffer, .. } => Self {
                send: count(buffer.len)?,
                ..none
            },
            Call::Barrier => none,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_begin_where_the_last_ended() {
        let blocks = Blocks::of(&[3, 0, 4]).unwrap();
        assert_eq!(
            (blocks.counts, blocks.starts),
            (vec![3, 0, 4], vec![0, 3, 3])
        );
    }

    #[test]
    fn counts_beyond_those_of_mpi_are_refused_in_words() {
        let most = c_int::MAX as usize;
        assert_eq!(count(most), Ok(c_int::MAX));
        let halves = [most / 2 + 1, most / 2 + 1];
        for refused in [count(most + 1).err(), Blocks::of(&halves).err()] {
            let why = refused.unwrap();
            assert!(
                why.contains("2147483648 elements are more than MPI counts"),
                "{why}"
            );
        }
    }
}
