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
        port,
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
    let (door, port) = door();
    let doors: Vec<_> = ranks.iter().map(|_| std::sync::Mutex::new(None)).collect();
    *doors[0].lock().expect("no panic") = Some(door);
    on_all(ranks.len() as u32, |at| {
        let rank = ranks[at as usize];
        let door = doors[at as usize].lock().expect("no panic").take();
        point(rank, size, port).meet_behind(door, "here", limit, &Abort::default())
    })
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
fn who_does_not_come_is_named() {
    let met = meet(&[0, 2], 4, Duration::from_millis(300));
    match &met[0] {
        Err(BackendError::Timeout { missing, .. }) => {
            // On a busy machine the second may be late as well.
            assert!([vec![1, 3], vec![1, 2, 3]].contains(missing), "{missing:?}");
        }
        other => panic!("{:?}", other.as_ref().err()),
    }
    assert!(matches!(
        &met[1],
        Err(BackendError::Unreachable { other: 0, .. })
    ));
}

#[test]
fn two_processes_of_one_rank_are_refused() {
    let met = meet(&[0, 1, 1], 3, PATIENCE);
    let text = met[0].as_ref().err().map(ToString::to_string);
    let text = text.expect("an error");
    assert!(text.contains("two processes say that they are 1"), "{text}");
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
    assert_eq!((met.rank, met.size, met.port), (1, 4, 29500));
    assert_eq!(met.address, "node1");
    // torchrun's own store has the port.
    let torchrun = [&all[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
    assert_eq!(
        read(&torchrun).expect("no error").map(|it| it.port),
        Some(29501)
    );
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
}
