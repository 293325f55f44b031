//! Point to point, as work of a queue. The n-th send to a rank meets its n-th receive from here, on
//! whatever queues: tags carry the number.

use crate::cargo::{Cargo, rank_of};
use crate::counts::Counts;
use crate::group::{Group, Visit};
use crate::line::Stopped;
use laggard_backend::{BackendError, Call, Meeting, Reading, Scratch, Slice, Work};
use laggard_types::{DataType, Rank, Stamp};
use std::ffi::c_int;
use std::sync::Arc;
use std::time::Instant;

/// Transfers between two ranks that have tags of their own at the same time. MPI has tags up to
/// 32767 at least (MPI 4.0, section 9.1.2), and each transfer may need three.
const TAGS: u64 = 8192;

/// What a message is about.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// It is what is sent.
    Data,
    /// The sender says what it will send.
    Offer,
    /// The receiver says what it expects.
    Demand,
}

fn tag(number: u64, purpose: Purpose) -> c_int {
    let range = match purpose {
        Purpose::Data => 0,
        Purpose::Offer => 1,
        Purpose::Demand => 2,
    };
    rank_of(Rank::try_from(number % TAGS + range * TAGS).unwrap_or(0))
}

/// A send or a receive.
pub(crate) struct Transfer {
    pub visit: Arc<Visit>,
    pub counts: Counts,
}

impl Work for Transfer {
    fn run(&mut self, scratch: &mut Scratch) -> Result<Stamp, BackendError> {
        let visit = &*self.visit;
        let (group, settings) = (&*visit.group, &*visit.group.settings);
        let place = (group.rank(), group.size());
        let counts = std::mem::take(&mut self.counts);
        let cargo = Cargo::of(&visit.call, counts, place, tag(visit.number, Purpose::Data))?;

        let begin = Reading::begin()?;
        let deadline = settings.deadline();
        if settings.check_calls {
            agree(visit, deadline)?;
        }
        let landed = group.calls.fly(cargo, &visit.what, settings.pace, deadline);
        let (completion, cargo) = match landed {
            Ok(landed) => landed,
            Err(Stopped::Truncated) => return Err(mismatch(visit, "a longer send".to_owned())),
            Err(stopped) => return Err(visit.error(stopped)),
        };
        cargo.unload(scratch);
        if let Call::Receive { buffer, .. } = &visit.call {
            let came = usize::try_from(completion.received_bytes).unwrap_or(0);
            if came != buffer.len * buffer.data_type().size_bytes() {
                return Err(mismatch(visit, format!("send of {came} bytes")));
            }
        }
        begin.end()
    }

    fn meeting(&self) -> Option<Arc<dyn Meeting>> {
        let meeting: Arc<Visit> = Arc::clone(&self.visit);
        Some(meeting)
    }
}

/// The slice of a send or receive, the other rank, and what both say beforehand.
fn terms(call: &Call) -> Option<(&Slice, Rank, [Purpose; 2])> {
    match call {
        Call::Send { buffer, to } => Some((buffer, *to, [Purpose::Offer, Purpose::Demand])),
        Call::Receive { buffer, from } => Some((buffer, *from, [Purpose::Demand, Purpose::Offer])),
        _ => None,
    }
}

fn mismatch(visit: &Visit, other_call: String) -> BackendError {
    let peer = terms(&visit.call).map_or(0, |(_, peer, _)| peer);
    BackendError::Mismatch {
        rank: visit.group.calls.job_rank(),
        call: visit.what.clone(),
        other: visit.group.job_rank(peer),
        other_call,
    }
}

/// Compares lengths and types with the other rank before anything is sent.
fn agree(visit: &Visit, deadline: Instant) -> Result<(), BackendError> {
    let Some((slice, peer, purposes)) = terms(&visit.call) else {
        return Ok(());
    };
    let type_number = |t: DataType| DataType::ALL.iter().position(|of_all| *of_all == t);
    let numbers = [type_number(slice.data_type()).unwrap_or(0), slice.len].map(|n| n as u64);
    let mine: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let came = swap(visit, &mine, (peer, purposes), deadline)?;
    if came == mine {
        return Ok(());
    }
    let (numbers, _) = came.as_chunks();
    let mut numbers = numbers.iter().map(|n| u64::from_le_bytes(*n) as usize);
    let data_type = numbers.next().and_then(|at| DataType::ALL.get(at));
    let data_type = data_type.map_or("?", |data_type| data_type.name());
    let name = match purposes {
        [_, Purpose::Demand] => "receive",
        _ => "send",
    };
    let len = numbers.next().unwrap_or(0);
    let mismatch = mismatch(visit, format!("{name}({len} x {data_type})"));
    // The other rank finds it by itself, and an abort could come between.
    visit.group.fail(&mismatch);
    Err(mismatch)
}

/// Gives bytes to the other rank and takes as many from it.
fn swap(
    visit: &Visit,
    mine: &[u8],
    (peer, [ours, theirs]): (Rank, [Purpose; 2]),
    deadline: Instant,
) -> Result<Vec<u8>, BackendError> {
    let Group {
        calls, settings, ..
    } = &*visit.group;
    let (what, pace) = (&visit.what, settings.pace);
    let invalid = |why| BackendError::Invalid {
        rank: calls.rank(),
        call: what.clone(),
        why,
    };
    let letterbox = Cargo::letterbox(peer, tag(visit.number, theirs), mine.len());
    let message = Cargo::message(peer, tag(visit.number, ours), mine.to_vec());
    let (letterbox, message) = (letterbox.map_err(invalid)?, message.map_err(invalid)?);
    let stopped = |stopped| visit.error(stopped);
    let mut coming = calls.start(letterbox, what).map_err(stopped)?;
    let mut going = calls.start(message, what).map_err(stopped)?;
    let landed = calls.land(&mut going, what, pace, deadline);
    landed.map_err(stopped)?;
    let landed = calls.land(&mut coming, what, pace, deadline);
    Ok(landed.map_err(stopped)?.1.into_bytes())
}
