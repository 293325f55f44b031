//! Small messages between two ranks, outside of queues: what clocks are compared with, links probed
//! with and addresses exchanged with before anything else works.

use crate::BackendError;
use laggard_types::Rank;
use std::time::Instant;

/// Messages that the calling thread sends and receives itself, with as little between it and the
/// wire as the backend can do. Used before the first step and after the last, never inside a step.
///
/// Messages from one rank to another arrive in order. At most one thread of a rank uses a messenger
/// at a time.
pub trait Messenger: Send + Sync {
    /// This rank.
    fn rank(&self) -> Rank;

    /// How many ranks there are.
    fn size(&self) -> u32;

    /// Sends a message, and returns when its memory may be used again.
    ///
    /// # Errors
    /// [`BackendError::Timeout`] at the deadline, [`BackendError::Aborted`] if the world gives up,
    /// [`BackendError::Invalid`] if there is no rank `to`.
    fn send(&self, to: Rank, message: &[u8], deadline: Instant) -> Result<(), BackendError>;

    /// Receives the next message from a rank, which must be exactly as long as `message`.
    ///
    /// # Errors
    /// As for [`Messenger::send`]; [`BackendError::Mismatch`] for a message of another length.
    fn receive(
        &self,
        from: Rank,
        message: &mut [u8],
        deadline: Instant,
    ) -> Result<(), BackendError>;
}

/// Collects a message of any length from every rank on rank 0, in order of rank, over a binomial
/// tree; `None` on the other ranks. Collective.
///
/// # Errors
/// As for [`Messenger::receive`].
pub fn gather(
    messenger: &dyn Messenger,
    message: &[u8],
    deadline: Instant,
) -> Result<Option<Vec<Vec<u8>>>, BackendError> {
    let (rank, size) = (messenger.rank(), messenger.size());
    // Messages of ranks `rank..rank + held.len()`.
    let mut held = vec![message.to_vec()];
    let mut distance = 1;
    while distance < size {
        if rank & distance != 0 {
            send_sized(messenger, rank - distance, &pack(&held), deadline)?;
            return Ok(None);
        }
        if rank + distance < size {
            let packed = receive_sized(messenger, rank + distance, deadline)?;
            held.extend(unpack(&packed));
        }
        distance <<= 1;
    }
    Ok(Some(held))
}

/// Gives rank 0's message, of any length, to every rank, over a binomial tree; what other ranks
/// pass is not used. Collective.
///
/// # Errors
/// As for [`Messenger::receive`].
pub fn broadcast(
    messenger: &dyn Messenger,
    message: &[u8],
    deadline: Instant,
) -> Result<Vec<u8>, BackendError> {
    let (rank, size) = (messenger.rank(), messenger.size());
    let (mut held, mut distance) = match rank {
        0 => (message.to_vec(), size.next_power_of_two() / 2),
        _ => {
            let lowest = rank & rank.wrapping_neg();
            let held = receive_sized(messenger, rank - lowest, deadline)?;
            (held, lowest / 2)
        }
    };
    while distance > 0 {
        if rank + distance < size {
            send_sized(messenger, rank + distance, &held, deadline)?;
        }
        distance /= 2;
    }
    held.shrink_to_fit();
    Ok(held)
}

/// What every rank passes, on every rank, in order of rank. Collective.
///
/// # Errors
/// As for [`Messenger::receive`].
pub fn all_gather(
    messenger: &dyn Messenger,
    message: &[u8],
    deadline: Instant,
) -> Result<Vec<Vec<u8>>, BackendError> {
    let all = gather(messenger, message, deadline)?.unwrap_or_default();
    let packed = broadcast(messenger, &pack(&all), deadline)?;
    Ok(unpack(&packed))
}

/// Bytes that say how long a message is.
const LENGTH_BYTES: usize = size_of::<u64>();

fn send_sized(
    messenger: &dyn Messenger,
    to: Rank,
    message: &[u8],
    deadline: Instant,
) -> Result<(), BackendError> {
    messenger.send(to, &(message.len() as u64).to_le_bytes(), deadline)?;
    messenger.send(to, message, deadline)
}

fn receive_sized(
    messenger: &dyn Messenger,
    from: Rank,
    deadline: Instant,
) -> Result<Vec<u8>, BackendError> {
    let mut length = [0; LENGTH_BYTES];
    messenger.receive(from, &mut length, deadline)?;
    let mut message = vec![0; u64::from_le_bytes(length) as usize];
    messenger.receive(from, &mut message, deadline)?;
    Ok(message)
}

/// Messages as one.
pub(crate) fn pack(messages: &[Vec<u8>]) -> Vec<u8> {
    let sized = messages.iter().flat_map(|message| {
        let length = (message.len() as u64).to_le_bytes();
        length.into_iter().chain(message.iter().copied())
    });
    sized.collect()
}

/// What was packed.
pub(crate) fn unpack(mut packed: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = packed.split_first_chunk::<LENGTH_BYTES>() {
        let length = (u64::from_le_bytes(*length) as usize).min(rest.len());
        messages.push(rest[..length].to_vec());
        packed = &rest[length..];
    }
    messages
}
