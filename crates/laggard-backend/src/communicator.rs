//! The seam to whatever moves data between ranks: shared memory here, MPI and NCCL later.

use crate::{BackendError, Device, Launch, Messenger, Slice, Token};
use laggard_types::{Collective, Rank, ReduceOp};
use std::sync::Arc;

/// One collective or point-to-point call, as one rank makes it. Counts are in elements. `send` and
/// `recv` may be the same slice where a call is meant in place.
#[derive(Debug, Clone)]
pub enum Call {
    /// `recv` (length as `send`) becomes the reduction of all ranks' `send`.
    AllReduce {
        /// Contribution.
        send: Slice,
        /// Result; may be the same slice as `send`.
        recv: Slice,
        /// Reduction.
        op: ReduceOp,
    },
    /// `recv` becomes this rank's block of the reduction; `counts[i]` is rank `i`'s block length,
    /// and `send` has their sum.
    ReduceScatter {
        /// Contribution: all blocks.
        send: Slice,
        /// This rank's block.
        recv: Slice,
        /// Reduction.
        op: ReduceOp,
        /// Block length per rank.
        counts: Vec<usize>,
    },
    /// `recv` becomes the concatenation of all ranks' `send`.
    AllGather {
        /// This rank's block.
        send: Slice,
        /// All blocks.
        recv: Slice,
        /// Block length per rank.
        counts: Vec<usize>,
    },
    /// `buffer` becomes the root's.
    Broadcast {
        /// Read on the root, written elsewhere.
        buffer: Slice,
        /// The root's rank in this communicator.
        root: Rank,
    },
    /// The root's `recv` becomes the reduction.
    Reduce {
        /// Contribution.
        send: Slice,
        /// Result, on the root only.
        recv: Option<Slice>,
        /// Reduction.
        op: ReduceOp,
        /// The root's rank in this communicator.
        root: Rank,
    },
    /// Block `j` of `send` goes to rank `j`; block `i` of `recv` comes from rank `i`.
    AllToAll {
        /// Blocks to send, concatenated.
        send: Slice,
        /// Blocks to receive, concatenated.
        recv: Slice,
        /// Block lengths of `send`.
        send_counts: Vec<usize>,
        /// Block lengths of `recv`.
        recv_counts: Vec<usize>,
    },
    /// The root's `recv` becomes the concatenation of all ranks' `send`.
    Gather {
        /// This rank's block.
        send: Slice,
        /// All blocks, on the root only.
        recv: Option<Slice>,
        /// Block length per rank.
        counts: Vec<usize>,
        /// The root's rank in this communicator.
        root: Rank,
    },
    /// `recv` becomes this rank's block of the root's `send`.
    Scatter {
        /// All blocks, on the root only.
        send: Option<Slice>,
        /// This rank's block.
        recv: Slice,
        /// Block length per rank.
        counts: Vec<usize>,
        /// The root's rank in this communicator.
        root: Rank,
    },
    /// Sends to one rank, which must receive the same length.
    Send {
        /// What is sent.
        buffer: Slice,
        /// Receiver's rank in this communicator.
        to: Rank,
    },
    /// Receives from one rank.
    Receive {
        /// Where it goes.
        buffer: Slice,
        /// Sender's rank in this communicator.
        from: Rank,
    },
    /// Returns when all ranks have come.
    Barrier,
}

impl Call {
    /// Which collective this is.
    pub const fn collective(&self) -> Collective {
        match self {
            Self::AllReduce { .. } => Collective::AllReduce,
            Self::ReduceScatter { .. } => Collective::ReduceScatter,
            Self::AllGather { .. } => Collective::AllGather,
            Self::Broadcast { .. } => Collective::Broadcast,
            Self::Reduce { .. } => Collective::Reduce,
            Self::AllToAll { .. } => Collective::AllToAll,
            Self::Gather { .. } => Collective::Gather,
            Self::Scatter { .. } => Collective::Scatter,
            Self::Send { .. } | Self::Receive { .. } => Collective::SendRecv,
            Self::Barrier => Collective::Barrier,
        }
    }
}

/// A group of ranks that act together. Calls are enqueued on the queues of the rank's own device,
/// in the same order on every member, and leave stamps there like any other work: the begin is this
/// rank's arrival, the end its completion.
pub trait Communicator: Send + Sync {
    /// This rank's position in the group.
    fn rank(&self) -> Rank;

    /// How many ranks the group has.
    fn size(&self) -> u32;

    /// Enqueues a call and returns at once.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] for a call that this rank alone can see to be wrong. What only the
    /// group can see (a mismatch, a missing rank) is the error of the token.
    fn enqueue(&self, call: Call, launch: Launch<'_>) -> Result<Token, BackendError>;

    /// Splits the group: ranks of one `color` form a new group, ordered by `key`, then by rank. A
    /// rank without color gets none. Collective and blocking.
    ///
    /// # Errors
    /// If a member does not come within the group's deadline.
    fn split(
        &self,
        color: Option<u32>,
        key: i64,
    ) -> Result<Option<Box<dyn Communicator>>, BackendError>;
}

/// What one rank sees of the job: control messages, data collectives, and its device. MPI control
/// with NCCL data fits as well as threads for both.
pub struct World {
    /// Small messages between hosts.
    pub control: Box<dyn Communicator>,
    /// The training job's collectives.
    pub data: Box<dyn Communicator>,
    /// This rank's device.
    pub device: Arc<dyn Device>,
    /// Messages outside of queues, between all ranks of the job, also after a split.
    pub messenger: Arc<dyn Messenger>,
}

impl World {
    /// Splits control and data alike; see [`Communicator::split`].
    ///
    /// # Errors
    /// If a member does not come within the group's deadline.
    pub fn split(&self, color: Option<u32>, key: i64) -> Result<Option<Self>, BackendError> {
        let control = self.control.split(color, key)?;
        let data = self.data.split(color, key)?;
        Ok(control.zip(data).map(|(control, data)| Self {
            control,
            data,
            device: Arc::clone(&self.device),
            messenger: Arc::clone(&self.messenger),
        }))
    }
}
