//! Planes whose ranks are threads of this process, on hosts by name alone.

mod ends;
mod losses;
mod post;
mod rendezvous;
mod strangers;
mod talk;

use super::*;
use crate::gate::{Abortable, Gate};
use crate::threads::{ThreadOptions, worlds};
use std::sync::OnceLock;

/// Long enough for a busy machine; reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// Silence where a test is not about it.
const CALM: Duration = Duration::from_secs(20);

/// One rank as its world would see the plane.
struct Seat {
    plane: Arc<ControlPlane>,
    heard: Arc<Heard>,
}

/// Stands for what an abort wakes in a process.
#[derive(Default)]
struct Heard {
    reason: OnceLock<String>,
    gate: Gate,
}

impl Abortable for Heard {
    fn abort(&self, reason: &str) {
        self.reason.get_or_init(|| reason.to_owned());
        self.gate.ring();
    }
}

impl Seat {
    /// The reason of the abort, which has to come.
    fn reason(&self) -> &str {
        wait(&self.heard.gate, || self.heard.reason.get().is_some());
        self.heard.reason.get().expect("an abort")
    }

    fn freeze(&self, is_frozen: bool) {
        let flag = &self.plane.shared.is_frozen;
        flag.store(is_frozen, Ordering::Release);
        self.plane.shared.wake();
    }
}

fn wait(gate: &Gate, ready: impl FnMut() -> bool) {
    let (spin, limit) = (Duration::ZERO, Some(PATIENCE));
    gate.wait(Patience { spin, limit }, ready);
}

/// Calls `each` for every rank, on threads of their own.
fn on_all<T: Send>(ranks: u32, each: impl Fn(Rank) -> T + Sync) -> Vec<T> {
    let each = &each;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..ranks)
            .map(|rank| scope.spawn(move || each(rank)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })
}

/// Planes of ranks on these hosts, by rank.
fn seats(hosts: &[&str], silence: Duration) -> Vec<Seat> {
    let ranks = hosts.len() as u32;
    let worlds = worlds(ranks, &ThreadOptions::default()).expect("worlds");
    let options = ControlOptions {
        join: PATIENCE,
        ..ControlOptions::new(silence)
    };
    on_all(ranks, |rank| {
        let abort = Arc::new(Abort::default());
        let heard = Arc::new(Heard::default());
        let listener: Weak<Heard> = Arc::downgrade(&heard);
        abort.listen(listener);
        let messenger = &*worlds[rank as usize].messenger;
        let host = hosts[rank as usize];
        let plane = ControlPlane::join(messenger, host, abort, &options).expect("a plane");
        Seat { plane, heard }
    })
}

/// Everybody leaves, and nothing has happened.
fn leave_all(seats: &[Seat]) {
    let ends = on_all(seats.len() as u32, |rank| {
        seats[rank as usize].plane.leave(PATIENCE)
    });
    for (rank, end) in ends.into_iter().enumerate() {
        assert_eq!(end, Ok(()), "rank {rank}");
    }
    for seat in seats {
        assert_eq!(seat.plane.losses(), []);
        assert_eq!(seat.heard.reason.get(), None);
    }
}

#[test]
fn planes_of_any_shape_join_and_leave_without_a_loss() {
    for ranks in 1..=9 {
        for hosts in 1..=4.min(ranks) {
            let in_turn: Vec<_> = (0..ranks)
                .map(|rank| ["a", "b", "c", "d"][rank % hosts])
                .collect();
            let mut in_blocks = in_turn.clone();
            in_blocks.sort_unstable();
            for names in [in_turn, in_blocks] {
                let seats = seats(&names, CALM);
                assert_eq!(seats[0].plane.hosts().len(), hosts);
                for (rank, seat) in seats.iter().enumerate() {
                    let host = &seat
                        .plane
                        .hosts()
                        .iter()
                        .find(|host| host.name == names[rank]);
                    let host = host.expect("the host");
                    assert_eq!(seat.plane.host_ranks(), host.ranks);
                    assert_eq!(seat.plane.is_leader(), host.leader() == rank as Rank);
                }
                leave_all(&seats);
            }
        }
    }
}
