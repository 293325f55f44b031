//! Ranks that vanish: by a closed connection, by silence, alone or with their host.

use super::*;

const HOSTS: [&str; 7] = ["a", "a", "b", "b", "b", "c", "c"];
/// Short enough to wait for, long enough for a busy machine not to pass it.
const SILENCE: Duration = Duration::from_secs(2);

fn seats_at_step(silence: Duration) -> Vec<Seat> {
    let seats = seats(&HOSTS, silence);
    for seat in &seats {
        seat.plane
            .describe(|rank, at| format!("part {} of rank {rank}", at.operation));
        seat.plane.progress().set(Position {
            step: 17,
            operation: 4,
        });
    }
    // A leader has heard of its ranks, and rank 0 of the leaders' ranks.
    let is_heard = |seat: &Seat, ranks: &[Rank]| {
        ranks
            .iter()
            .all(|rank| lock(&seat.plane.shared.positions).contains(rank))
    };
    let begin = Instant::now();
    while !(is_heard(&seats[0], &[1, 2, 3, 4, 5, 6])
        && is_heard(&seats[2], &[0, 3, 4])
        && is_heard(&seats[3], &[2])
        && is_heard(&seats[4], &[2]))
    {
        assert!(begin.elapsed() < PATIENCE, "heartbeats do not get through");
        std::thread::sleep(Duration::from_millis(1));
    }
    seats
}

/// Lets ranks vanish; the losses that the others then know of.
fn lose(gone: &[Rank], vanish: impl Fn(Seat), silence: Duration) -> (Vec<Seat>, Vec<Vec<Loss>>) {
    let (lost, left): (Vec<_>, Vec<_>) = seats_at_step(silence)
        .into_iter()
        .partition(|seat| gone.contains(&seat.plane.rank()));
    lost.into_iter().for_each(vanish);
    let losses = left.iter().map(|seat| {
        seat.reason();
        // Of several losses the first aborts; the others may be on their way still.
        let all = || {
            let found = seat.plane.losses();
            gone.iter()
                .all(|rank| found.iter().any(|loss| loss.ranks.contains(rank)))
        };
        wait(&seat.plane.shared.gate, all);
        seat.plane.losses()
    });
    let losses = losses.collect();
    (left, losses)
}

fn close(seat: Seat) {
    drop(seat.plane);
}

#[test]
fn a_rank_whose_connection_closes_is_named_to_all() {
    for gone in [1, 3, 6] {
        let (left, losses) = lose(&[gone], close, CALM);
        for (seat, losses) in left.iter().zip(&losses) {
            let [loss] = losses.as_slice() else {
                panic!("rank {}: {losses:?}", seat.plane.rank());
            };
            assert_eq!(
                (&*loss.ranks, loss.how, loss.whole_host),
                (&[gone][..], How::Closed, false)
            );
            let position = Some(Position {
                step: 17,
                operation: 4,
            });
            assert_eq!(loss.last[0].position, position);
            let words = loss.to_string();
            assert!(
                words.ends_with(&format!("in step 17, part 4 of rank {gone}")),
                "{words}"
            );
            assert_eq!(seat.reason(), words);
        }
    }
}

#[test]
fn a_host_that_closes_is_named_as_a_host() {
    let (left, losses) = lose(&[2, 3, 4], close, CALM);
    for (seat, losses) in left.iter().zip(&losses) {
        let [loss] = losses.as_slice() else {
            panic!("rank {}: {losses:?}", seat.plane.rank());
        };
        assert_eq!((&*loss.ranks, loss.whole_host), (&[2, 3, 4][..], true));
        assert!(
            seat.reason().starts_with("host b (ranks 2 to 4) is gone"),
            "{}",
            seat.reason()
        );
    }
}

#[test]
fn a_leader_alone_is_no_host() {
    let (left, losses) = lose(&[2], close, CALM);
    for (seat, losses) in left.iter().zip(&losses) {
        let [loss] = losses.as_slice() else {
            panic!("rank {}: {losses:?}", seat.plane.rank());
        };
        assert_eq!((&*loss.ranks, loss.whole_host), (&[2][..], false));
        let how = "rank 2 on host b is gone: its connection closed";
        assert!(seat.reason().starts_with(how), "{}", seat.reason());
    }
}

#[test]
fn a_rank_that_goes_with_its_leader_is_named_beside_it() {
    let (left, losses) = lose(&[2, 4], close, CALM);
    for (seat, losses) in left.iter().zip(&losses) {
        let mut ranks: Vec<_> = losses.iter().flat_map(|loss| loss.ranks.clone()).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, [2, 4], "rank {}: {losses:?}", seat.plane.rank());
        assert!(losses.iter().all(|loss| !loss.whole_host));
    }
}

#[test]
fn the_loss_of_the_root_is_named_by_all() {
    let (left, losses) = lose(&[0], close, CALM);
    for (seat, losses) in left.iter().zip(&losses) {
        let [loss] = losses.as_slice() else {
            panic!("rank {}: {losses:?}", seat.plane.rank());
        };
        assert_eq!((&*loss.ranks, loss.how), (&[0][..], How::Closed));
    }
}

/// Freezes ranks; what the others say, once all have said it.
fn silence(gone: &[Rank], starts: &str) {
    let frozen = std::sync::Mutex::new(Vec::new());
    let freeze = |seat: Seat| {
        seat.freeze(true);
        frozen.lock().expect("no panic").push(seat);
    };
    let (left, losses) = lose(gone, freeze, SILENCE);
    for (seat, losses) in left.iter().zip(&losses) {
        let mut ranks: Vec<_> = losses.iter().flat_map(|loss| loss.ranks.clone()).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, gone, "rank {}: {losses:?}", seat.plane.rank());
        assert!(matches!(losses[0].how, How::Silent(lasting) if lasting >= SILENCE));
        assert_eq!(losses[0].last[0].position.map(|at| at.step), Some(17));
        assert!(seat.reason().starts_with(starts), "{}", seat.reason());
    }
    // Who wakes up hears that the others went on without it.
    for seat in frozen.into_inner().expect("no panic") {
        seat.freeze(false);
        assert!(!seat.reason().is_empty());
    }
}

#[test]
fn a_silent_rank_is_named() {
    silence(&[3], "rank 3 on host b is gone: no sign of life for ");
}

#[test]
fn a_silent_leader_is_named_without_its_ranks() {
    silence(&[2], "rank 2 on host b is gone: no sign of life for ");
}

#[test]
fn a_silent_host_is_named_as_a_host() {
    silence(
        &[5, 6],
        "host c (ranks 5 and 6) is gone: no sign of life for ",
    );
}

#[test]
fn a_silent_root_is_named() {
    silence(&[0], "rank 0 on host a is gone: no sign of life for ");
}

/// By instants that are given, not by a clock.
#[test]
fn silence_is_judged_when_it_has_lasted_and_named_a_window_later() {
    let options = ControlOptions {
        heartbeat: SILENCE / 2,
        ..ControlOptions::new(SILENCE)
    };
    let worlds = worlds(2, &ThreadOptions::default()).expect("worlds");
    let mut both = on_all(2, |rank| {
        let messenger = &*worlds[rank as usize].messenger;
        join::join(messenger, "a", PATIENCE).expect("joined")
    });
    let joined = both.remove(0);
    let (waker, alarm) = UnixStream::pair().expect("a pair of sockets");
    let shared = Arc::new(Shared::new(Parts {
        rank: 0,
        tree: joined.tree,
        options: options.clone(),
        abort: Arc::new(Abort::default()),
        waker,
        peers: vec![1],
    }));
    let mut engine = Engine::new(Start {
        shared: Arc::clone(&shared),
        streams: joined.streams,
        reception: None,
        way_to_root: None,
        alarm,
        launcher: 0,
        witnesses: Witnesses::none(),
    });
    let heard = engine.links[&1].heard;
    let (end, instant) = (heard + SILENCE, Duration::from_nanos(1));
    // The next sign of life of this rank is due later than the end of the other's silence.
    engine.beat(end - instant);
    assert_eq!(engine.wakes_at(), end);
    engine.judge_silence(end - instant);
    assert_eq!(engine.suspects.name_at(), None);
    engine.judge_silence(end);
    let named = end + naming::WINDOW.max(options.heartbeat.mul_f64(1.5));
    assert_eq!(engine.suspects.name_at(), Some(named));
    engine.beat(end + options.heartbeat);
    engine.beat(named - instant);
    assert_eq!(engine.wakes_at(), named);
    engine.name_the_lost(named - instant);
    assert_eq!(shared.losses(), []);
    engine.name_the_lost(named);
    let [loss] = &shared.losses()[..] else {
        panic!("{:?}", shared.losses());
    };
    assert_eq!((&*loss.ranks, loss.how), (&[1][..], How::Silent(SILENCE)));
}

#[test]
fn silence_is_told_before_it_is_named() {
    let mut seats = seats_at_step(SILENCE);
    let (sender, receiver) = std::sync::mpsc::channel();
    let shared = Arc::downgrade(&seats[0].plane.shared);
    seats[0].plane.on_silence(move |loss| {
        let named = shared.upgrade().map_or(0, |shared| shared.losses().len());
        drop(sender.send((loss.clone(), named)));
    });
    let silent = seats.remove(1);
    silent.freeze(true);
    let (first, named) = receiver.recv_timeout(PATIENCE).expect("a sign");
    assert_eq!((&*first.ranks, named), (&[1][..], 0));
    assert!(matches!(first.how, How::Silent(lasting) if lasting >= SILENCE));
    assert_eq!(seats[0].reason(), first.to_string());
    silent.freeze(false);
}
