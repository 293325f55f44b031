//! Messages from any rank to any other, over the tree.

use super::ControlPlane;
use super::shared::Shared;
use super::wire::{Frame, Letter};
use crate::BackendError;
use laggard_types::Rank;

impl ControlPlane {
    /// Sends a message to a rank, which may be this one. It goes by hosts' leaders and by rank 0;
    /// messages from one rank to another arrive in order.
    ///
    /// # Errors
    /// As for [`ControlPlane::send_up`]; [`BackendError::Invalid`] if there is no such rank,
    /// [`BackendError::Unreachable`] if no connection leads to it any more.
    pub fn send_to(&self, to: Rank, kind: u8, payload: Vec<u8>) -> Result<(), BackendError> {
        let shared = &self.shared;
        if !shared.tree.holds(to) {
            return Err(shared.invalid(format!("there is no rank {to}")));
        }
        let letter = shared.letter(kind, payload)?;
        if to == shared.rank {
            shared.deliver(letter);
            return Ok(());
        }
        match shared.next_hop(to) {
            Some(hop) => shared.send(hop, &Frame::ToRank(to, letter)),
            None => Err(shared.unreachable(to, "the connection is closed")),
        }
    }
}

impl Shared {
    /// Delivers a message for this rank, or passes it on. One for a rank that is gone goes nowhere.
    pub(super) fn pass(&self, to: Rank, letter: Letter) {
        if to == self.rank {
            self.deliver(letter);
        } else if self.tree.holds(to)
            && let Some(hop) = self.next_hop(to)
        {
            self.push(hop, &Frame::ToRank(to, letter));
        }
    }
}
