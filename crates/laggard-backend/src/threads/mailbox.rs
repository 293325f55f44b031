//! Point to point: the sender puts a claim on its memory into the receiver's mailbox, and the
//! receiver copies once, straight from there. Both leave when the copy is done.

use super::group::{Group, Visit};
use crate::cpu::clock::Reading;
use crate::cpu::queue::{Meeting, Work};
use crate::memory::{ReadClaim, Scratch};
use crate::{BackendError, Call};
use laggard_types::{Rank, Stamp};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What has been sent to one rank and not been received yet.
#[derive(Default)]
pub(super) struct Mailbox {
    parcels: Mutex<Vec<Arc<Parcel>>>,
}

/// One send under way.
struct Parcel {
    label: Label,
    call: Arc<Call>,
    /// `None` when the sender has left.
    content: Mutex<Option<ReadClaim>>,
    outcome: OnceLock<Result<(), BackendError>>,
}

/// Which send meets which receive: the `number`th from one rank to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Label {
    from: Rank,
    number: u64,
}

impl Mailbox {
    fn put(&self, parcel: Arc<Parcel>) {
        locked(&self.parcels).push(parcel);
    }

    fn take(&self, label: Label) -> Option<Arc<Parcel>> {
        let mut parcels = locked(&self.parcels);
        let at = parcels.iter().position(|parcel| parcel.label == label)?;
        Some(parcels.swap_remove(at))
    }
}

/// A send or a receive, as work of a queue; `number` counts the transfers between the two ranks.
pub(super) struct Transfer {
    pub visit: Arc<Visit>,
    pub number: u64,
}

impl Work for Transfer {
    fn run(&mut self, _scratch: &mut Scratch) -> Result<Stamp, BackendError> {
        match &*self.visit.call {
            Call::Send { to, .. } => self.send(*to),
            Call::Receive { from, .. } => self.receive(*from),
            _ => Err(BackendError::Unknown {
                what: format!("transfer {}", self.visit.call),
            }),
        }
    }

    fn meeting(&self) -> Option<Arc<dyn Meeting>> {
        let meeting: Arc<Visit> = Arc::clone(&self.visit);
        Some(meeting)
    }
}

impl Transfer {
    fn send(&self, to: Rank) -> Result<Stamp, BackendError> {
        let Visit { group, rank, call } = &*self.visit;
        let Call::Send { buffer, .. } = &**call else {
            return Err(BackendError::Unknown {
                what: format!("send {call}"),
            });
        };
        let label = Label {
            from: *rank,
            number: self.number,
        };
        let parcel = Arc::new(Parcel {
            label,
            call: Arc::clone(call),
            content: Mutex::new(Some(buffer.claim_read()?)),
            outcome: OnceLock::new(),
        });
        let begin = Reading::begin()?;
        group.check(*rank)?;
        group.seat(to).mailbox.put(Arc::clone(&parcel));
        group.seat(to).gate.ring();
        let arrived = || parcel.outcome.get().is_some();
        group
            .seat(*rank)
            .gate
            .wait(group.patience(), || arrived() || group.has_failed());
        // Waits for a receiver that is just copying.
        locked(&parcel.content).take();
        group.seat(to).mailbox.take(label);
        match parcel.outcome.get() {
            Some(outcome) => outcome.clone().and_then(|()| begin.end()),
            None => Err(self.absent(group, to)),
        }
    }

    fn receive(&self, from: Rank) -> Result<Stamp, BackendError> {
        let Visit { group, rank, call } = &*self.visit;
        let Call::Receive { buffer, .. } = &**call else {
            return Err(BackendError::Unknown {
                what: format!("receive {call}"),
            });
        };
        let mut claim = buffer.claim_write()?;
        let label = Label {
            from,
            number: self.number,
        };
        let begin = Reading::begin()?;
        let seat = group.seat(*rank);
        let mut parcel = None;
        seat.gate.wait(group.patience(), || {
            parcel = seat.mailbox.take(label);
            parcel.is_some() || group.has_failed()
        });
        let parcel = parcel.ok_or_else(|| self.absent(group, from))?;
        let outcome = self.matches(&parcel, from);
        if outcome.is_ok() {
            match &*locked(&parcel.content) {
                Some(content) => claim.bytes_mut().copy_from_slice(content.bytes()),
                None => return Err(self.absent(group, from)),
            }
        }
        let for_sender = outcome
            .clone()
            .map_err(|error| swapped(error, group, (from, *rank)));
        // The receiver is the only one who sets it.
        let _ = parcel.outcome.set(for_sender);
        group.seat(from).gate.ring();
        let stamp = begin.end()?;
        outcome.map(|()| stamp)
    }

    fn matches(&self, parcel: &Parcel, from: Rank) -> Result<(), BackendError> {
        let Visit { group, rank, call } = &*self.visit;
        let sent = &parcel.call;
        let facts = |call: &Call| match call {
            Call::Send { buffer, .. } | Call::Receive { buffer, .. } => {
                Some((buffer.data_type(), buffer.len))
            }
            _ => None,
        };
        if facts(call) == facts(sent) {
            return Ok(());
        }
        Err(BackendError::Mismatch {
            rank: group.world_rank(*rank),
            call: call.to_string(),
            other: group.world_rank(from),
            other_call: sent.to_string(),
        })
    }

    /// The error when the peer did not come: the group's own failure, or the timeout.
    fn absent(&self, group: &Group, peer: Rank) -> BackendError {
        let Visit { rank, call, .. } = &*self.visit;
        let failed = group
            .check(*rank)
            .and_then(|()| group.time_out(*rank, call.to_string(), &[peer]));
        failed.err().unwrap_or_else(|| BackendError::Unknown {
            what: call.to_string(),
        })
    }
}

/// The same mismatch as the other side reports it.
fn swapped(error: BackendError, group: &Group, (from, to): (Rank, Rank)) -> BackendError {
    match error {
        BackendError::Mismatch {
            call, other_call, ..
        } => BackendError::Mismatch {
            rank: group.world_rank(from),
            call: other_call,
            other: group.world_rank(to),
            other_call: call,
        },
        other => other,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
