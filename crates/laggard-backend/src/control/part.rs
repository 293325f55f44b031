//! A part of a job's ranks as a job of its own: jobs beside each other that one launcher started.

use super::card::{Card, listen};
use super::tcp_messenger::TcpMessenger;
use crate::messenger::all_gather;
use crate::{Abort, Abortable, BackendError, Messenger};
use laggard_types::Rank;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Messages between some consecutive ranks, over TCP, which are then numbered from 0. Collective
/// over all ranks of a messenger; each passes the ranks that it is among. `host` is this rank's
/// host, for messages. An abort ends the waits of the messenger.
///
/// # Errors
/// As of the messenger; [`BackendError::Invalid`] for ranks that there are not, or that this one is
/// not among; [`BackendError::System`] if the system refuses a socket or a thread.
pub fn part_of(
    messenger: &dyn Messenger,
    ranks: Range<Rank>,
    host: &str,
    abort: &Abort,
    deadline: Instant,
) -> Result<Arc<dyn Messenger>, BackendError> {
    let rank = messenger.rank();
    let listener = listen(rank)?;
    let own = Card::write(rank, host, &listener)?;
    let all = all_gather(messenger, &own.encode(), deadline)?;
    let of_part = all.get(ranks.start as usize..ranks.end as usize);
    let cards = of_part.filter(|_| ranks.contains(&rank)).and_then(|part| {
        let cards = part.iter().map(|card| Card::decode(card));
        cards.collect::<Option<Vec<_>>>()
    });
    let cards = cards.ok_or_else(|| BackendError::Invalid {
        rank,
        call: "taking a part of the ranks".to_owned(),
        why: format!("ranks {} to {} of {}", ranks.start, ranks.end, all.len()),
    })?;
    let part = Arc::new(TcpMessenger::start(rank - ranks.start, cards, listener)?);
    let listener: Weak<dyn Abortable> = Arc::downgrade(&part) as Weak<dyn Abortable>;
    abort.listen(listener);
    Ok(part)
}
