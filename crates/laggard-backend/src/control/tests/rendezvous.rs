//! Ranks that meet by a launcher's variables.

use super::*;
use crate::conformance::{CHECKS, Violation};
use crate::control::rendezvous::MeetingPoint;
use std::net::TcpListener;

fn point(rank: Rank, size: u32, port: u16) -> MeetingPoint {
    MeetingPoint {
        rank,
        size,
        address: "127.0.0.1".to_owned(),
        ports: port..=port,
        job: "test".to_owned(),
    }
}

/// A door on a port that the system picks.
fn door() -> (TcpListener, u16) {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = door.local_addr().expect("an address").port();
    (door, port)
}

type Met = Result<Arc<dyn Messenger>, BackendError>;

/// Has these ranks of so many meet.
fn meet(ranks: &[Rank], size: u32, limit: Duration) -> Vec<Met> {
    meet_as(ranks, limit, |rank, port| point(rank, size, port))
}

/// Has these ranks meet, each where it believes to.
fn meet_as(
    ranks: &[Rank],
    limit: Duration,
    point: impl Fn(Rank, u16) -> MeetingPoint + Sync,
) -> Vec<Met> {
    let (door, port) = door();
    let doors: Vec<_> = ranks.iter().map(|_| std::sync::Mutex::new(None)).collect();
    *doors[0].lock().expect("no panic") = Some(door);
    on_all(ranks.len() as u32, |at| {
        let rank = ranks[at as usize];
        let door = doors[at as usize].lock().expect("no panic").take();
        let host = ["h0", "h1"][rank as usize % 2];
        point(rank, port).meet_behind(door, host, limit, &Abort::default())
    })
}

/// What the meeting of a rank failed with.
fn failure(met: &Met) -> String {
    let error = met.as_ref().err().map(ToString::to_string);
    error.expect("an error")
}

#[test]
fn messengers_of_a_meeting_do_what_messengers_must() {
    let check = CHECKS.iter().find(|check| check.name == "messages");
    let check = check.expect("the check");
    for size in [1, 2, 3, 5] {
        let ranks: Vec<Rank> = (0..size).collect();
        let met = meet(&ranks, size, PATIENCE);
        let worlds = worlds(size, &ThreadOptions::default()).expect("worlds");
        let worlds: Vec<_> = worlds
            .into_iter()
            .zip(met)
            .map(|(world, messenger)| crate::World {
                messenger: messenger.expect("a meeting"),
                ..world
            })
            .collect();
        let ends = on_all(size, |rank| (check.body)(&worlds[rank as usize]));
        let end: Result<(), Violation> = ends.into_iter().collect();
        assert_eq!(end, Ok(()), "{size} ranks");
    }
}

#[test]
fn planes_are_joined_over_a_meeting() {
    let met = meet(&[0, 1, 2], 3, PATIENCE);
    let met: Vec<_> = met.into_iter().map(|it| it.expect("a meeting")).collect();
    let ends = on_all(3, |rank| {
        let messenger = &*met[rank as usize];
        let options = ControlOptions {
            join: PATIENCE,
            ..ControlOptions::new(CALM)
        };
        let plane = ControlPlane::join(messenger, "a", Arc::default(), &options)?;
        plane.leave(PATIENCE)
    });
    assert_eq!(ends, [Ok(()), Ok(()), Ok(())]);
}

#[test]
fn parts_of_a_meeting_are_jobs_of_their_own() {
    let met = meet(&[0, 1, 2, 3, 4], 5, PATIENCE);
    let met: Vec<_> = met.into_iter().map(|it| it.expect("a meeting")).collect();
    let part_of = |rank: Rank, ranks| {
        let (all, abort) = (&*met[rank as usize], Abort::default());
        let deadline = Instant::now() + PATIENCE;
        crate::control::part_of(all, ranks, "here", &abort, deadline)
    };
    let said = on_all(5, |rank| {
        let ranks = if rank < 2 { 0..2 } else { 2..5 };
        let part = part_of(rank, ranks).expect("a part");
        let deadline = Instant::now() + PATIENCE;
        let all = crate::messenger::all_gather(&*part, &[rank as u8], deadline);
        (
            part.rank(),
            part.size(),
            all.expect("what all say").concat(),
        )
    });
    let expect = [
        (0, 2, vec![0, 1]),
        (1, 2, vec![0, 1]),
        (0, 3, vec![2, 3, 4]),
        (1, 3, vec![2, 3, 4]),
        (2, 3, vec![2, 3, 4]),
    ];
    assert_eq!(said, expect);
    // Ranks that are not there, and a part without this rank.
    let refused = on_all(5, |rank| {
        part_of(rank, [3..6, 0..1][(rank % 2) as usize].clone())
    });
    for end in refused {
        assert!(matches!(end.err(), Some(BackendError::Invalid { .. })));
    }
}

#[test]
fn who_does_not_come_is_named_to_all() {
    let met = meet(&[0, 2], 4, Duration::from_millis(300));
    let Err(BackendError::Timeout { missing, .. }) = &met[0] else {
        panic!("{:?}", met[0].as_ref().err());
    };
    let text = failure(&met[1]);
    if missing.contains(&2) {
        // On a busy machine the second may be late as well.
        assert!(text.contains("cannot reach rank 0"), "{text}");
        return;
    }
    assert_eq!(*missing, [1, 3]);
    for part in [
        "4 ranks to meet at 127.0.0.1 on port",
        "rank 2 of host h0 came",
        "missing: 1, 3",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_rank_0_that_is_not_there_is_named() {
    // Nobody listens where somebody did.
    let (_, port) = door();
    let limit = Duration::from_millis(100);
    let met = point(1, 2, port).meet("h1", limit, &Abort::default());
    let text = failure(&met);
    assert!(
        text.contains("rank 1 cannot reach rank 0 on host 127.0.0.1"),
        "{text}"
    );
}

#[test]
fn two_processes_of_one_rank_are_refused() {
    let met = meet(&[0, 1, 1], 3, PATIENCE);
    for met in &met {
        let text = failure(met);
        let expect = "two processes say that they are 1, on hosts h1 and h1";
        assert!(text.contains(expect), "{text}");
    }
}

#[test]
fn ranks_that_count_differently_are_refused() {
    let met = meet_as(&[0, 1], PATIENCE, |rank, port| point(rank, 3 + rank, port));
    for met in &met {
        let text = failure(met);
        let expect = "WORLD_SIZE is 4 on rank 1 (host h1), and 3 on rank 0";
        assert!(text.contains(expect), "{text}");
    }
}

/// The first port is another job's, which may even call there.
#[test]
fn a_port_that_is_taken_is_passed_over() {
    // Two ports, one after the other, that were free a moment ago; others may be quicker.
    let (other, port) = loop {
        let (other, port) = door();
        let next = port.checked_add(1);
        if next.is_some_and(|next| TcpListener::bind(("127.0.0.1", next)).is_ok()) {
            break (other, port);
        }
    };
    let point = |rank| MeetingPoint {
        ports: port..=port.saturating_add(8),
        ..point(rank, 2, port)
    };
    let met = on_all(2, |rank| {
        point(rank).meet("here", PATIENCE, &Abort::default())
    });
    drop(other);
    for met in met {
        assert_eq!(met.map(|it| it.size()).ok(), Some(2));
    }
}

#[test]
fn jobs_with_a_port_in_common_do_not_meet() {
    // Each believes its first port to be another one, but only one is there.
    let limit = Duration::from_millis(300);
    let met = meet_as(&[0, 1], limit, |rank, port| MeetingPoint {
        ports: match rank {
            0 => port..=port,
            _ => port - 1..=port,
        },
        ..point(rank, 2, port)
    });
    assert!(met.iter().all(Result::is_err));
}

#[test]
fn variables_are_read_and_bad_ones_named() {
    let read = |variables: &[(&str, &str)]| {
        MeetingPoint::from_variables(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    let all = [
        ("RANK", "1"),
        ("WORLD_SIZE", "4"),
        ("MASTER_ADDR", "node1"),
        ("MASTER_PORT", "29500"),
    ];
    let met = read(&all).expect("no error").expect("a place");
    assert_eq!((met.rank, met.size, &met.ports), (1, 4, &(29500..=29500)));
    assert_eq!(met.address, "node1");
    // torchrun's own store has the port.
    let torchrun = [&all[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
    let first = read(&torchrun).expect("no error").expect("a place");
    assert_eq!(first.ports, 29501..=29508);
    // Jobs that are started anew do not meet their former selves.
    let again = [&torchrun[..], &[("TORCHELASTIC_RESTART_COUNT", "1")]].concat();
    let again = read(&again).expect("no error").expect("a place");
    assert_ne!(again.job, first.job);
    assert_eq!(read(&[]), Ok(None));
    let fails = |change: usize, value: Option<&'static str>, expect: &str| {
        let mut variables = all.to_vec();
        match value {
            Some(value) => variables[change].1 = value,
            None => drop(variables.remove(change)),
        }
        let text = read(&variables).expect_err("an error").to_string();
        assert!(text.contains(expect), "{text}");
    };
    fails(0, Some("4"), "RANK: it is 4, and WORLD_SIZE 4");
    fails(0, Some("x"), "RANK: `x` is no such number");
    fails(2, None, "MASTER_ADDR: it is not set");
    fails(3, Some("70000"), "MASTER_PORT: `70000`");
    fails(0, Some("x"), "none to run on this machine alone");
}
