//! Leaving, and not being able to.

use super::*;
use std::sync::atomic::AtomicBool;

#[test]
fn leaving_names_those_who_do_not() {
    let seats = seats(&["a", "a", "b", "b"], CALM);
    // Time enough for the control thread to say for whom it waits.
    let short = Duration::from_secs(1);
    let check = |rank: usize, expect: &[Rank]| match seats[rank].plane.leave(short) {
        Err(BackendError::Timeout { missing, .. }) => assert_eq!(missing, expect),
        other => panic!("rank {rank}: {other:?}"),
    };
    // Rank 3 stays.
    check(2, &[3]);
    check(1, &[0]);
    // Rank 2 has given up waiting, and said so; that is no loss to anybody.
    assert_eq!(seats[0].plane.leave(PATIENCE), Ok(()));
    assert_eq!(seats[3].plane.leave(PATIENCE), Ok(()));
    assert!(seats.iter().all(|seat| seat.plane.losses().is_empty()));
}

#[test]
fn who_leaves_waits_for_the_last() {
    let seats = seats(&["a", "b", "b"], CALM);
    let left = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let early = [0, 1].map(|rank: usize| {
            let (plane, left) = (&seats[rank].plane, &left);
            scope.spawn(move || {
                let end = plane.leave(PATIENCE);
                (end, left.load(Ordering::SeqCst))
            })
        });
        // Both have said that they leave, and wait for rank 2.
        let awaits = |rank: usize, whom: &[Rank]| *lock(&seats[rank].plane.shared.awaited) == whom;
        let begin = Instant::now();
        while !(awaits(0, &[1]) && awaits(1, &[2])) {
            assert!(begin.elapsed() < PATIENCE, "nobody waits");
            std::thread::sleep(Duration::from_millis(1));
        }
        left.store(true, Ordering::SeqCst);
        assert_eq!(seats[2].plane.leave(PATIENCE), Ok(()));
        for thread in early {
            assert_eq!(thread.join().expect("no panic"), (Ok(()), true));
        }
    });
}

#[test]
fn a_rank_lost_while_others_leave_ends_their_wait() {
    let mut seats = seats(&["a", "a", "b"], CALM);
    let gone = seats.pop().expect("rank 2");
    let ends = std::thread::scope(|scope| {
        let leave = |seat| scope.spawn(move || Seat::leave(seat));
        let threads: Vec<_> = seats.iter().map(leave).collect();
        drop(gone.plane);
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect::<Vec<_>>()
    });
    for end in ends {
        let error = end.expect_err("an abort").to_string();
        let how = "rank 2 on host b is gone: its connection closed";
        assert!(error.contains(how), "{error}");
    }
}

impl Seat {
    fn leave(seat: &Self) -> Result<(), BackendError> {
        seat.plane.leave(PATIENCE)
    }
}

#[test]
fn threads_end_with_their_plane() {
    let seats = seats(&["a", "a", "b"], CALM);
    let shared: Vec<_> = seats
        .iter()
        .map(|seat| Arc::downgrade(&seat.plane.shared))
        .collect();
    drop(seats);
    assert!(shared.iter().all(|shared| shared.upgrade().is_none()));
}

#[test]
fn joining_names_who_does_not_come() {
    let worlds = worlds(3, &ThreadOptions::default()).expect("worlds");
    let options = ControlOptions {
        // Time enough for cards and connections of those who come.
        join: Duration::from_secs(3),
        ..ControlOptions::new(CALM)
    };
    let abort = || Arc::new(Abort::default());
    // Rank 2 gives its card, and then calls nobody.
    let ends = on_all(3, |rank| {
        let messenger = &*worlds[rank as usize].messenger;
        if rank < 2 {
            return ControlPlane::join(messenger, ["a", "b"][rank as usize], abort(), &options)
                .err();
        }
        let listener = super::super::card::listen(rank).expect("a socket");
        let card = super::super::card::Card::write(rank, "b", &listener).expect("a card");
        let deadline = Instant::now() + PATIENCE;
        crate::messenger::all_gather(messenger, &card.encode(), deadline).expect("cards");
        None
    });
    let Some(BackendError::Timeout {
        missing,
        waiting_for,
        ..
    }) = &ends[1]
    else {
        panic!("{:?}", ends[1]);
    };
    assert_eq!(missing, &[2]);
    assert_eq!(waiting_for, "rank 2 on host b to join the control plane");
    let words = ends[0].as_ref().expect("an error").to_string();
    assert!(words.contains("rank 1 on host b"), "{words}");
}

#[test]
fn a_heartbeat_that_does_not_fit_the_silence_is_refused() {
    let worlds = worlds(1, &ThreadOptions::default()).expect("worlds");
    for heartbeat in [Duration::ZERO, CALM] {
        let options = ControlOptions {
            heartbeat,
            ..ControlOptions::new(CALM)
        };
        let abort = Arc::new(Abort::default());
        let end = ControlPlane::join(&*worlds[0].messenger, "a", abort, &options);
        assert!(matches!(end, Err(BackendError::Invalid { .. })));
    }
}
