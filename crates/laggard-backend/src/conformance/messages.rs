//! Messages outside of queues.

use super::Violation;
use super::fixture::{Fixture, LONG};
use crate::messenger::{all_gather, broadcast, gather};
use crate::{BackendError, World};
use std::time::{Duration, Instant};

/// How long nobody sends anything.
const SHORT: Duration = Duration::from_millis(50);

/// Messages keep their order and contents; trees of them reach everybody; silence and absent ranks
/// are errors.
pub(super) fn messages(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    let messenger = &*world.messenger;
    if (messenger.rank(), messenger.size()) != (f.rank, f.ranks) {
        return Err(f.violation("place", "is not that of the world"));
    }
    let deadline = Instant::now() + LONG;
    let next = (f.rank + 1) % f.ranks;
    let last = (f.rank + f.ranks - 1) % f.ranks;
    let of = |rank: u32, length: usize| vec![(rank as usize * 31 + length) as u8; length];
    for length in [0, 1, 8, 4096] {
        let case = format!("{length} bytes around the ring");
        f.must(&case, messenger.send(next, &of(f.rank, length), deadline))?;
        let mut came = vec![0; length];
        f.must(&case, messenger.receive(last, &mut came, deadline))?;
        if came != of(last, length) {
            return Err(f.violation(case, "other bytes came"));
        }
    }
    let own = of(f.rank, f.rank as usize * 3);
    let all: Vec<Vec<u8>> = (0..f.ranks)
        .map(|rank| of(rank, rank as usize * 3))
        .collect();
    let gathered = f.must("gather", gather(messenger, &own, deadline))?;
    if gathered != (f.rank == 0).then(|| all.clone()) {
        return Err(f.violation("gather", format!("gave {gathered:?}")));
    }
    let told = f.must("broadcast", broadcast(messenger, &of(f.rank, 77), deadline))?;
    if told != of(0, 77) {
        return Err(f.violation("broadcast", format!("gave {told:?}")));
    }
    if f.must("all_gather", all_gather(messenger, &own, deadline))? != all {
        return Err(f.violation("all_gather", "gave other messages"));
    }
    let silence = messenger.receive(last, &mut [0], Instant::now() + SHORT);
    f.fails(&"silence", silence, |error| {
        matches!(error, BackendError::Timeout { rank, missing, .. }
            if *rank == f.rank && *missing == [last])
    })?;
    let absent = messenger.send(f.ranks, &[0], deadline);
    f.fails(&"no such rank", absent, |error| {
        matches!(error, BackendError::Invalid { .. })
    })
}
