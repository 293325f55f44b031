//! How far a rank has come, cheap enough to be told in every operation.

use std::sync::atomic::{AtomicU64, Ordering};

/// Where a rank is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The step, counted as the run counts.
    pub step: u32,
    /// The operation or phase within the step, by a number that the run gives a meaning to; see
    /// [`ControlPlane::describe`](super::ControlPlane::describe).
    pub operation: u32,
}

/// This rank's position, which heartbeats carry to the others. Setting it is one store.
#[derive(Debug)]
pub struct Progress(AtomicU64);

/// No position yet.
const NOWHERE: u64 = u64::MAX;

impl Default for Progress {
    fn default() -> Self {
        Self(AtomicU64::new(NOWHERE))
    }
}

impl Progress {
    /// This rank is here now.
    pub fn set(&self, position: Position) {
        self.0.store(pack(Some(position)), Ordering::Relaxed);
    }

    /// Where this rank said last that it is; `None` before the first time.
    pub fn get(&self) -> Option<Position> {
        unpack(self.0.load(Ordering::Relaxed))
    }
}

/// A position in eight bytes.
pub(super) fn pack(position: Option<Position>) -> u64 {
    position.map_or(NOWHERE, |at| {
        (u64::from(at.step) << u32::BITS) | u64::from(at.operation)
    })
}

/// The opposite of [`pack`].
pub(super) fn unpack(packed: u64) -> Option<Position> {
    (packed != NOWHERE).then_some(Position {
        step: (packed >> u32::BITS) as u32,
        operation: packed as u32,
    })
}
