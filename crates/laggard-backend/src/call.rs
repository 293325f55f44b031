//! What can be said about a [`Call`] without any backend: whether one rank makes it right, whether
//! two ranks make the same one, and how it is written in messages.

use crate::{BackendError, Call, Slice};
use laggard_types::{DataType, Rank, ReduceOp};
use std::fmt;

/// What all ranks must agree on, besides the collective and the element type.
#[derive(Debug, Default, PartialEq, Eq)]
struct Facts<'a> {
    op: Option<ReduceOp>,
    root: Option<Rank>,
    len: Option<usize>,
    counts: Option<&'a [usize]>,
}

impl Call {
    /// Whether `rank` of `size` ranks can make this call, as far as that rank alone can see.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] with the reason.
    pub fn check(&self, rank: Rank, size: u32) -> Result<(), BackendError> {
        self.slices()
            .try_for_each(check_slice)
            .and_then(|()| self.check_types())
            .and_then(|()| self.check_shape(rank, size))
            .and_then(|()| self.check_aliasing(rank))
            .map_err(|why| BackendError::Invalid {
                rank,
                call: self.to_string(),
                why,
            })
    }

    /// The element type, if the call moves any.
    pub fn data_type(&self) -> Option<DataType> {
        self.slices().next().map(Slice::data_type)
    }

    /// Whether `self`, made by one rank, and `other`, made by another, are the same call. Block
    /// lengths of an all-to-all differ between ranks; [`Call::pairs_with`] compares those.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        if self.collective() != other.collective() || self.data_type() != other.data_type() {
            return false;
        }
        self.facts() == other.facts()
    }

    /// Whether the block that `rank` sends to `to` is as long as `to` expects; true for all but
    /// all-to-all.
    pub(crate) fn pairs_with(&self, rank: Rank, other: &Self, to: Rank) -> bool {
        match (self, other) {
            (Self::AllToAll { send_counts, .. }, Self::AllToAll { recv_counts, .. }) => {
                send_counts.get(to as usize) == recv_counts.get(rank as usize)
            }
            _ => true,
        }
    }

    fn facts(&self) -> Facts<'_> {
        let none = Facts::default();
        match self {
            Self::AllReduce { send, op, .. } => Facts {
                op: Some(*op),
                len: Some(send.len),
                ..none
            },
            Self::ReduceScatter { op, counts, .. } => Facts {
                op: Some(*op),
                counts: Some(counts),
                ..none
            },
            Self::AllGather { counts, .. } => Facts {
                counts: Some(counts),
                ..none
            },
            Self::Broadcast { buffer, root } => Facts {
                root: Some(*root),
                len: Some(buffer.len),
                ..none
            },
            Self::Reduce { send, op, root, .. } => Facts {
                op: Some(*op),
                root: Some(*root),
                len: Some(send.len),
                ..none
            },
            Self::Gather { counts, root, .. } | Self::Scatter { counts, root, .. } => Facts {
                root: Some(*root),
                counts: Some(counts),
                ..none
            },
            Self::Send { buffer, .. } | Self::Receive { buffer, .. } => Facts {
                len: Some(buffer.len),
                ..none
            },
            Self::AllToAll { .. } | Self::Barrier => none,
        }
    }

    fn slices(&self) -> impl Iterator<Item = &Slice> {
        let (first, second) = match self {
            Self::AllReduce { send, recv, .. }
            | Self::ReduceScatter { send, recv, .. }
            | Self::AllGather { send, recv, .. }
            | Self::AllToAll { send, recv, .. } => (Some(send), Some(recv)),
            Self::Broadcast { buffer, .. }
            | Self::Send { buffer, .. }
            | Self::Receive { buffer, .. } => (Some(buffer), None),
            Self::Reduce { send, recv, .. } | Self::Gather { send, recv, .. } => {
                (Some(send), recv.as_ref())
            }
            Self::Scatter { send, recv, .. } => (Some(recv), send.as_ref()),
            Self::Barrier => (None, None),
        };
        first.into_iter().chain(second)
    }

    fn check_types(&self) -> Result<(), String> {
        let mut types = self.slices().map(Slice::data_type);
        match (types.next(), types.next()) {
            (Some(a), Some(b)) if a != b => {
                Err(format!("sends {} and receives {}", a.name(), b.name()))
            }
            _ => Ok(()),
        }
    }

    fn check_shape(&self, rank: Rank, size: u32) -> Result<(), String> {
        let own = |counts: &[usize]| counts.get(rank as usize).copied().unwrap_or(0);
        match self {
            Self::AllReduce { send, recv, .. } => same("send and recv", send.len, recv.len),
            Self::ReduceScatter {
                send, recv, counts, ..
            } => {
                same("send and the sum of counts", send.len, sum(counts, size)?)?;
                same("recv and this rank's count", recv.len, own(counts))
            }
            Self::AllGather { send, recv, counts } => {
                same("recv and the sum of counts", recv.len, sum(counts, size)?)?;
                same("send and this rank's count", send.len, own(counts))
            }
            Self::AllToAll {
                send,
                recv,
                send_counts,
                recv_counts,
            } => {
                same(
                    "send and the sum of send_counts",
                    send.len,
                    sum(send_counts, size)?,
                )?;
                same(
                    "recv and the sum of recv_counts",
                    recv.len,
                    sum(recv_counts, size)?,
                )
            }
            Self::Broadcast { root, .. } => member("root", *root, size),
            Self::Reduce {
                send, recv, root, ..
            } => {
                member("root", *root, size)?;
                let recv = at_root("recv", recv.as_ref(), rank == *root)?;
                recv.map_or(Ok(()), |recv| same("send and recv", send.len, recv.len))
            }
            Self::Gather {
                send,
                recv,
                counts,
                root,
            } => {
                member("root", *root, size)?;
                let total = sum(counts, size)?;
                same("send and this rank's count", send.len, own(counts))?;
                let recv = at_root("recv", recv.as_ref(), rank == *root)?;
                recv.map_or(Ok(()), |recv| {
                    same("recv and the sum of counts", recv.len, total)
                })
            }
            Self::Scatter {
                send,
                recv,
                counts,
                root,
            } => {
                member("root", *root, size)?;
                let total = sum(counts, size)?;
                same("recv and this rank's count", recv.len, own(counts))?;
                let send = at_root("send", send.as_ref(), rank == *root)?;
                send.map_or(Ok(()), |send| {
                    same("send and the sum of counts", send.len, total)
                })
            }
            Self::Send { to, .. } => member("to", *to, size),
            Self::Receive { from, .. } => member("from", *from, size),
            Self::Barrier => Ok(()),
        }
    }

    /// `send` and `recv` may overlap only where the call is meant in place.
    fn check_aliasing(&self, rank: Rank) -> Result<(), String> {
        let (send, recv, in_place) = match self {
            Self::AllReduce { send, recv, .. }
            | Self::AllToAll { send, recv, .. }
            | Self::Reduce {
                send,
                recv: Some(recv),
                ..
            } => (send, recv, send.is_same(recv)),
            Self::ReduceScatter {
                send, recv, counts, ..
            }
            | Self::Scatter {
                send: Some(send),
                recv,
                counts,
                ..
            } => (send, recv, recv.is_same(&block(send, counts, rank))),
            Self::AllGather { send, recv, counts }
            | Self::Gather {
                send,
                recv: Some(recv),
                counts,
                ..
            } => (send, recv, send.is_same(&block(recv, counts, rank))),
            _ => return Ok(()),
        };
        if in_place || !send.overlaps(recv) {
            return Ok(());
        }
        Err("send and recv overlap, but not as a call in place does".to_owned())
    }
}

/// The part of `whole` that is block `rank` of blocks of these lengths.
pub(crate) fn block(whole: &Slice, counts: &[usize], rank: Rank) -> Slice {
    let rank = rank as usize;
    let start = counts.iter().take(rank).sum::<usize>();
    let len = counts.get(rank).copied().unwrap_or(0);
    Slice {
        buffer: whole.buffer.clone(),
        offset: whole.offset + start,
        len,
    }
}

impl fmt::Display for Call {
    /// `all_reduce(sum, 1024 x f32)`, `gather(counts [1, 2], f32, root 0)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Send { .. } => "send",
            Self::Receive { .. } => "receive",
            _ => self.collective().name(),
        };
        let data_type = self.data_type().map_or("", DataType::name);
        let Facts {
            op,
            root,
            len,
            counts,
        } = self.facts();
        let mut parts = Vec::new();
        parts.extend(op.map(|op| format!("{op:?}").to_lowercase()));
        parts.extend(len.map(|len| format!("{len} x {data_type}")));
        parts.extend(counts.map(|counts| format!("counts {counts:?} of {data_type}")));
        if let Self::AllToAll {
            send_counts,
            recv_counts,
            ..
        } = self
        {
            parts.push(format!(
                "sends {send_counts:?}, receives {recv_counts:?} of {data_type}"
            ));
        }
        parts.extend(root.map(|root| format!("root {root}")));
        match self {
            Self::Send { to, .. } => parts.push(format!("to {to}")),
            Self::Receive { from, .. } => parts.push(format!("from {from}")),
            _ => {}
        }
        write!(f, "{name}({})", parts.join(", "))
    }
}

fn check_slice(slice: &Slice) -> Result<(), String> {
    match slice.offset.checked_add(slice.len) {
        Some(end) if end <= slice.buffer.len() => Ok(()),
        _ => Err(format!(
            "{} elements from {} of a buffer of {}",
            slice.len,
            slice.offset,
            slice.buffer.len()
        )),
    }
}

fn same(what: &str, a: usize, b: usize) -> Result<(), String> {
    if a == b {
        Ok(())
    } else {
        Err(format!("{what} differ: {a} and {b}"))
    }
}

fn sum(counts: &[usize], size: u32) -> Result<usize, String> {
    same(
        "the number of counts and of ranks",
        counts.len(),
        size as usize,
    )?;
    counts
        .iter()
        .try_fold(0usize, |sum, count| sum.checked_add(*count))
        .ok_or_else(|| "the counts overflow".to_owned())
}

fn member(what: &str, rank: Rank, size: u32) -> Result<(), String> {
    if rank < size {
        Ok(())
    } else {
        Err(format!("{what} is {rank} of {size} ranks"))
    }
}

fn at_root<'a>(
    what: &str,
    slice: Option<&'a Slice>,
    is_root: bool,
) -> Result<Option<&'a Slice>, String> {
    match (slice, is_root) {
        (None, true) => Err(format!("the root needs {what}")),
        // NCCL and MPI ignore it there, and so do we.
        (_, false) => Ok(None),
        (some, true) => Ok(some),
    }
}
