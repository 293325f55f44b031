//! Writing down one rank's operations.

use crate::graph::{Operation, Stream};
use std::collections::BTreeMap;

/// One rank's operations so far.
pub(super) struct Emitter {
    first: u32,
    operations: Vec<Operation>,
    last_on: [Option<u32>; Stream::COUNT],
    /// Next sequence number of each axis.
    sequences: BTreeMap<u32, u32>,
}

impl Emitter {
    /// Operations get ids from `first` on.
    pub(super) fn new(first: u32) -> Self {
        Self {
            first,
            operations: Vec::new(),
            last_on: [None; Stream::COUNT],
            sequences: BTreeMap::new(),
        }
    }

    /// Appends an operation that needs others beside the one before it on its stream. The first on
    /// each stream needs the first of all, because the host issues it after that.
    pub(super) fn push(&mut self, mut operation: Operation, needs: &[Option<u32>]) -> u32 {
        let id = self.first + self.operations.len() as u32;
        let stream = operation.stream;
        let mut after: Vec<u32> = needs.iter().copied().flatten().collect();
        if self.last_on[stream as usize].is_none() && id > self.first {
            after.push(self.first);
        }
        after.retain(|need| self.stream_of(*need) != stream);
        after.sort_unstable();
        after.dedup();
        operation.after = after;
        self.last_on[stream as usize] = Some(id);
        self.operations.push(operation);
        id
    }

    /// The last operation on a stream.
    pub(super) fn last_on(&self, stream: Stream) -> Option<u32> {
        self.last_on[stream as usize]
    }

    /// The number of the next collective of an axis, on all of its members.
    pub(super) fn next_sequence(&mut self, axis: u32) -> u32 {
        let next = self.sequences.entry(axis).or_insert(0);
        *next += 1;
        *next - 1
    }

    pub(super) fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    fn stream_of(&self, id: u32) -> Stream {
        self.operations[(id - self.first) as usize].stream
    }
}
