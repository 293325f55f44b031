//! What a call takes with it into MPI: claims on memory, counts, and copies where MPI's idea of a
//! call in place is not ours. Its fields are private, because [`Cargo::operation`] promises that
//! all memory is as long as its counts: every constructor here sees to that.

use crate::abi::{Element, Kind, Operation, Reduction};
use crate::counts::{Blocks, Counts, count};
use laggard_backend::{BackendError, Call, ReadClaim, Scratch, Slice, WriteClaim, divide_sums};
use laggard_types::{DataType, Rank, ReduceOp};
use std::ffi::{c_int, c_void};
use std::ptr;

/// Memory that MPI reads or writes.
enum Memory {
    Nothing,
    Read(ReadClaim),
    Write(WriteClaim),
    /// With its length in bytes.
    Scratch(Scratch, usize),
    Bytes(Vec<u8>),
}

impl Memory {
    fn as_mut_ptr(&mut self) -> *mut c_void {
        match self {
            Self::Nothing => ptr::null_mut(),
            // Only ever passed on as memory to read.
            Self::Read(claim) => claim.as_ptr().cast_mut().cast(),
            Self::Write(claim) => claim.as_mut_ptr().cast(),
            Self::Scratch(scratch, len) => scratch.bytes(*len).as_mut_ptr().cast(),
            Self::Bytes(bytes) => bytes.as_mut_ptr().cast(),
        }
    }
}

/// What must be copied, because MPI cannot do the call in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Staging {
    None,
    /// What is sent goes into the scratch before.
    Before,
    /// What was received comes from the scratch afterwards.
    After,
}

/// One operation with its memory, which stays claimed until this is dropped.
pub(crate) struct Cargo {
    kind: Kind,
    element: Element,
    reduction: Reduction,
    peer: c_int,
    tag: c_int,
    counts: Counts,
    in_place: bool,
    send: Memory,
    recv: Memory,
    /// What else is read.
    _held: Vec<ReadClaim>,
    /// Where a staged result goes.
    target: Option<WriteClaim>,
    staging: Staging,
    staged_bytes: usize,
    /// Divides the result by so many ranks.
    average_over: Option<u32>,
}

impl Cargo {
    fn new(kind: Kind, element: Element) -> Self {
        Self {
            kind,
            element,
            reduction: Reduction::None,
            peer: 0,
            tag: 0,
            counts: Counts::default(),
            in_place: false,
            send: Memory::Nothing,
            recv: Memory::Nothing,
            _held: Vec::new(),
            target: None,
            staging: Staging::None,
            staged_bytes: 0,
            average_over: None,
        }
    }

    /// Claims what a checked call of `rank` of `size` ranks needs. `counts` are those of the call.
    pub(crate) fn of(
        call: &Call,
        counts: Counts,
        (rank, size): (Rank, u32),
        tag: c_int,
    ) -> Result<Self, BackendError> {
        let element = call.data_type().map_or(Element::Byte, element_of);
        let mut cargo = Self::new(kind_of(call), element);
        (cargo.counts, cargo.tag) = (counts, tag);
        match call {
            Call::AllReduce { send, recv, op } => {
                cargo.reduce(*op, size);
                cargo.send_and_receive(send, Some(recv), send.is_same(recv))?;
            }
            Call::Reduce {
                send,
                recv,
                op,
                root,
            } => {
                cargo.peer = rank_of(*root);
                let recv = recv.as_ref().filter(|_| rank == *root);
                cargo.reduce(*op, size);
                let in_place = recv.is_some_and(|recv| send.is_same(recv));
                cargo.send_and_receive(send, recv, in_place)?;
            }
            Call::ReduceScatter {
                send,
                recv,
                op,
                counts,
            } => {
                cargo.reduce(*op, size);
                cargo.reduce_scatter((send, recv), counts, rank)?;
            }
            Call::AllGather { send, recv, counts } => {
                let in_place = is_block(send, recv, counts, rank);
                cargo.send_and_receive(send, Some(recv), in_place)?;
            }
            Call::Gather {
                send,
                recv,
                counts,
                root,
            } => {
                cargo.peer = rank_of(*root);
                let recv = recv.as_ref().filter(|_| rank == *root);
                let in_place = recv.is_some_and(|recv| is_block(send, recv, counts, rank));
                cargo.send_and_receive(send, recv, in_place)?;
            }
            Call::Scatter {
                send,
                recv,
                counts,
                root,
            } => {
                cargo.peer = rank_of(*root);
                let send = send.as_ref().filter(|_| rank == *root);
                cargo.scatter((send, recv), counts, rank)?;
            }
            Call::AllToAll { send, recv, .. } => cargo.all_to_all(send, recv)?,
            Call::Broadcast { buffer, root } => cargo.broadcast(buffer, *root, rank)?,
            Call::Send { buffer, to } => {
                cargo.peer = rank_of(*to);
                cargo.send = Memory::Read(buffer.claim_read()?);
            }
            Call::Receive { buffer, from } => {
                cargo.peer = rank_of(*from);
                cargo.recv = Memory::Write(buffer.claim_write()?);
            }
            Call::Barrier => {}
        }
        Ok(cargo)
    }

    /// A message of bytes to a rank.
    pub(crate) fn message(to: Rank, tag: c_int, bytes: Vec<u8>) -> Result<Self, String> {
        let mut cargo = Self::new(Kind::Send, Element::Byte);
        (cargo.peer, cargo.tag) = (rank_of(to), tag);
        cargo.counts.send = count(bytes.len())?;
        cargo.send = Memory::Bytes(bytes);
        Ok(cargo)
    }

    /// Memory for a message of at most so many bytes from a rank.
    pub(crate) fn letterbox(from: Rank, tag: c_int, len: usize) -> Result<Self, String> {
        let mut cargo = Self::new(Kind::Receive, Element::Byte);
        (cargo.peer, cargo.tag) = (rank_of(from), tag);
        cargo.counts.recv = count(len)?;
        cargo.recv = Memory::Bytes(vec![0; len]);
        Ok(cargo)
    }

    /// Bytes of every rank for every rank; rank `i` gives `lens[i]`, this one as many as `bytes`
    /// has.
    pub(crate) fn all_bytes(bytes: Vec<u8>, lens: &[usize]) -> Result<Self, String> {
        let mut cargo = Self::new(Kind::AllGather, Element::Byte);
        cargo.counts.send = count(bytes.len())?;
        cargo.counts.recv_blocks = Blocks::of(lens)?;
        cargo.send = Memory::Bytes(bytes);
        cargo.recv = Memory::Bytes(vec![0; lens.iter().sum()]);
        Ok(cargo)
    }

    /// Makes room for what will be staged, so that nothing is allocated while the clock runs.
    pub(crate) fn prepare(&self, scratch: &mut Scratch) {
        if self.staging != Staging::None {
            scratch.reserve(self.staged_bytes);
        }
    }

    /// Stages what is sent, and takes the scratch along if it is needed.
    pub(crate) fn stage(&mut self, scratch: &mut Scratch) {
        match (self.staging, &mut self.recv) {
            (Staging::None, _) => {}
            (Staging::Before, Memory::Write(claim)) => {
                let mut taken = std::mem::take(scratch);
                taken
                    .bytes(self.staged_bytes)
                    .copy_from_slice(claim.bytes_mut());
                self.send = Memory::Scratch(taken, self.staged_bytes);
            }
            (Staging::Before | Staging::After, _) => {
                let mut taken = std::mem::take(scratch);
                taken.reserve(self.staged_bytes);
                self.recv = Memory::Scratch(taken, self.staged_bytes);
            }
        }
    }

    /// The operation, for MPI. All memory is as long as its counts say, and stays where it is while
    /// this lives, wherever this is moved.
    pub(crate) fn operation(&mut self) -> Operation {
        let pointer = |numbers: &[c_int]| {
            if numbers.is_empty() {
                ptr::null()
            } else {
                numbers.as_ptr()
            }
        };
        let Counts {
            send,
            recv,
            send_blocks,
            recv_blocks,
        } = &self.counts;
        Operation {
            kind: self.kind,
            element: self.element,
            reduction: self.reduction,
            peer: self.peer,
            tag: self.tag,
            send_count: *send,
            recv_count: *recv,
            in_place: c_int::from(self.in_place),
            send: self.send.as_mut_ptr().cast_const(),
            recv: self.recv.as_mut_ptr(),
            send_counts: pointer(&send_blocks.counts),
            send_starts: pointer(&send_blocks.starts),
            recv_counts: pointer(&recv_blocks.counts),
            recv_starts: pointer(&recv_blocks.starts),
        }
    }

    /// After completion: brings results to where they belong, and the scratch back.
    pub(crate) fn unload(mut self, scratch: &mut Scratch) {
        for memory in [&mut self.send, &mut self.recv] {
            if let Memory::Scratch(taken, _) = memory {
                *scratch = std::mem::take(taken);
            }
        }
        if let (Staging::After, Some(target)) = (self.staging, &mut self.target) {
            let staged = scratch.bytes(self.staged_bytes);
            target.bytes_mut().copy_from_slice(staged);
        }
        if let Some(ranks) = self.average_over {
            match (&mut self.target, &mut self.recv) {
                (Some(sums), _) | (None, Memory::Write(sums)) => divide_sums(sums, ranks),
                _ => {}
            }
        }
    }

    /// After completion: the bytes received.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self.recv {
            Memory::Bytes(bytes) => bytes,
            _ => Vec::new(),
        }
    }

    fn reduce(&mut self, op: ReduceOp, size: u32) {
        self.reduction = match op {
            ReduceOp::Sum | ReduceOp::Avg => Reduction::Sum,
            ReduceOp::Min => Reduction::Min,
            ReduceOp::Max => Reduction::Max,
        };
        self.average_over = (op == ReduceOp::Avg).then_some(size);
    }

    fn send_and_receive(
        &mut self,
        send: &Slice,
        recv: Option<&Slice>,
        in_place: bool,
    ) -> Result<(), BackendError> {
        self.in_place = in_place;
        if !in_place {
            self.send = Memory::Read(send.claim_read()?);
        }
        if let Some(recv) = recv {
            self.recv = Memory::Write(recv.claim_write()?);
        }
        Ok(())
    }

    fn broadcast(&mut self, buffer: &Slice, root: Rank, rank: Rank) -> Result<(), BackendError> {
        self.peer = rank_of(root);
        self.recv = if rank == root {
            Memory::Read(buffer.claim_read()?)
        } else {
            Memory::Write(buffer.claim_write()?)
        };
        Ok(())
    }

    /// MPI's reduce-scatter in place overwrites the first block, whichever the rank; ours leaves
    /// all blocks but the rank's own as they are.
    fn reduce_scatter(
        &mut self,
        (send, recv): (&Slice, &Slice),
        counts: &[usize],
        rank: Rank,
    ) -> Result<(), BackendError> {
        if !is_block(recv, send, counts, rank) {
            return self.send_and_receive(send, Some(recv), false);
        }
        let start = start_of(counts, rank);
        // An empty claim, for where the memory begins; the other three are what is claimed of it.
        self.send = Memory::Read(send.part(0..0)?.claim_read()?);
        let (before, after) = (0..start, start + recv.len..send.len);
        self._held = vec![
            send.part(before)?.claim_read()?,
            send.part(after)?.claim_read()?,
        ];
        self.target = Some(recv.claim_write()?);
        self.staging = Staging::After;
        self.staged_bytes = bytes_of(recv);
        Ok(())
    }

    /// The root's own block stays where it is, if it is there already.
    fn scatter(
        &mut self,
        (send, recv): (Option<&Slice>, &Slice),
        counts: &[usize],
        rank: Rank,
    ) -> Result<(), BackendError> {
        self.in_place = send.is_some_and(|send| is_block(recv, send, counts, rank));
        if let Some(send) = send {
            self.send = Memory::Read(send.claim_read()?);
        }
        if !self.in_place {
            self.recv = Memory::Write(recv.claim_write()?);
        }
        Ok(())
    }

    /// MPI's all-to-all in place wants as much to come from a rank as goes to it, and all ranks to
    /// do it in place; ours wants neither.
    fn all_to_all(&mut self, send: &Slice, recv: &Slice) -> Result<(), BackendError> {
        self.recv = Memory::Write(recv.claim_write()?);
        if send.is_same(recv) {
            self.staging = Staging::Before;
            self.staged_bytes = bytes_of(send);
        } else {
            self.send = Memory::Read(send.claim_read()?);
        }
        Ok(())
    }
}

/// Ranks are numbered by MPI itself, in `c_int`.
pub(crate) fn rank_of(rank: Rank) -> c_int {
    c_int::try_from(rank).unwrap_or(c_int::MAX)
}

fn bytes_of(slice: &Slice) -> usize {
    slice.len * slice.data_type().size_bytes()
}

fn start_of(counts: &[usize], rank: Rank) -> usize {
    counts.iter().take(rank as usize).sum()
}

/// Whether `part` is the block of `rank` in `whole`.
fn is_block(part: &Slice, whole: &Slice, counts: &[usize], rank: Rank) -> bool {
    let start = start_of(counts, rank);
    let block = whole.part(start..start + counts.get(rank as usize).copied().unwrap_or(0));
    block.is_ok_and(|block| part.is_same(&block))
}

fn kind_of(call: &Call) -> Kind {
    match call {
        Call::AllReduce { .. } => Kind::AllReduce,
        Call::ReduceScatter { .. } => Kind::ReduceScatter,
        Call::AllGather { .. } => Kind::AllGather,
        Call::Broadcast { .. } => Kind::Broadcast,
        Call::Reduce { .. } => Kind::Reduce,
        Call::AllToAll { .. } => Kind::AllToAll,
        Call::Gather { .. } => Kind::Gather,
        Call::Scatter { .. } => Kind::Scatter,
        Call::Send { .. } => Kind::Send,
        Call::Receive { .. } => Kind::Receive,
        Call::Barrier => Kind::Barrier,
    }
}

fn element_of(data_type: DataType) -> Element {
    match data_type {
        DataType::Bf16 => Element::Bf16,
        DataType::F16 => Element::F16,
        DataType::F32 => Element::F32,
        DataType::F64 => Element::F64,
        DataType::I32 => Element::I32,
        DataType::I64 => Element::I64,
    }
}
