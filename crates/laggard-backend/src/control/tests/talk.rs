//! Messages, aborts and roll calls.

use super::*;

const HOSTS: [&str; 6] = ["a", "a", "b", "b", "b", "c"];

fn next(inbox: &Receiver<Envelope>) -> (Rank, Vec<u8>) {
    let envelope = inbox.recv_timeout(PATIENCE).expect("a message");
    (envelope.from, envelope.payload)
}

#[test]
fn an_abort_reaches_everybody_wherever_it_begins() {
    for from in 0..HOSTS.len() {
        let seats = seats(&HOSTS, CALM);
        seats[from].plane.abort("the disk is full");
        for (rank, seat) in seats.iter().enumerate() {
            let host = HOSTS[from];
            let told = format!("rank {from} on host {host} gave up: the disk is full");
            let expect = if rank == from {
                "the disk is full"
            } else {
                &told
            };
            assert_eq!(seat.reason(), expect);
        }
        // Everybody goes as it likes, and that is no loss.
        for seat in &seats {
            let end = seat.plane.leave(PATIENCE);
            assert!(matches!(end, Err(BackendError::Aborted { .. })), "{end:?}");
            assert_eq!(seat.plane.losses(), []);
        }
    }
}

#[test]
fn an_abort_before_the_join_is_told_too() {
    let worlds = worlds(2, &ThreadOptions::default()).expect("worlds");
    let aborts = [Abort::default(), Abort::default()].map(Arc::new);
    aborts[1].abort("too early");
    let heard = Arc::new(Heard::default());
    let listener: Weak<Heard> = Arc::downgrade(&heard);
    aborts[0].listen(listener);
    let planes = on_all(2, |rank| {
        let messenger = &*worlds[rank as usize].messenger;
        let abort = Arc::clone(&aborts[rank as usize]);
        ControlPlane::join(messenger, "a", abort, &ControlOptions::new(CALM)).expect("a plane")
    });
    let plane = Arc::clone(&planes[0]);
    let reason = Seat { plane, heard }.reason().to_owned();
    assert_eq!(reason, "rank 1 on host a gave up: too early");
}

#[test]
fn messages_go_up_to_the_root_and_down_in_order() {
    let seats = seats(&HOSTS, CALM);
    for (rank, seat) in seats.iter().enumerate() {
        for number in 0..3 {
            seat.plane
                .send_to_root(1, vec![rank as u8, number])
                .expect("sent");
        }
    }
    for number in 0..3 {
        seats[0].plane.send_down(2, vec![number]).expect("sent");
    }
    for rank in [3, 4] {
        seats[rank]
            .plane
            .send_up(1, vec![rank as u8])
            .expect("sent");
    }
    // Only now does anybody ask for them.
    let inbox = seats[0].plane.inbox(1);
    let mut counts = [0; HOSTS.len()];
    for _ in 0..3 * HOSTS.len() {
        let (from, payload) = next(&inbox);
        assert_eq!(payload, [from as u8, counts[from as usize]]);
        counts[from as usize] += 1;
    }
    for seat in &seats {
        let inbox = seat.plane.inbox(2);
        (0..3).for_each(|number| assert_eq!(next(&inbox), (0, vec![number])));
    }
    let inbox = seats[2].plane.inbox(1);
    let mut from = [next(&inbox), next(&inbox)];
    from.sort_unstable();
    assert_eq!(from, [(3, vec![3]), (4, vec![4])]);
    leave_all(&seats);
    assert!(inbox.recv().is_err(), "an inbox ends with its plane");
}

#[test]
fn what_was_sent_before_leaving_arrives() {
    let seats = seats(&HOSTS, CALM);
    let long = vec![7; 3 << 20];
    for rank in [1, 3, 4, 5] {
        for _ in 0..5 {
            seats[rank].plane.send_up(4, long.clone()).expect("sent");
        }
    }
    leave_all(&seats);
    for (rank, count) in [(0, 10), (2, 10), (1, 0)] {
        let inbox = seats[rank].plane.inbox(4);
        let got: Vec<_> = inbox.try_iter().collect();
        assert_eq!(got.len(), count, "rank {rank}");
        assert!(got.iter().all(|envelope| envelope.payload == long));
    }
}

#[test]
fn messages_that_cannot_be_sent_are_errors() {
    let seats = seats(&["a", "a"], Duration::from_millis(400));
    let is_invalid = |end| matches!(end, Err(BackendError::Invalid { .. }));
    assert!(is_invalid(seats[0].plane.send_up(1, vec![])));
    assert!(is_invalid(seats[1].plane.send_down(1, vec![])));
    assert!(is_invalid(
        seats[1].plane.send_to_root(1, vec![0; (16 << 20) + 1])
    ));
    // Nobody reads at the other end: senders wait, but not for ever.
    seats[0].freeze(true);
    let mut sent = (0..).map(|_| seats[1].plane.send_up(1, vec![0; 16 << 20]));
    let error = sent.find_map(Result::err).expect("an error");
    let is_late = matches!(
        error,
        BackendError::Timeout { .. } | BackendError::Unreachable { .. }
    );
    assert!(is_late, "{error}");
}

#[test]
fn a_roll_call_names_exactly_those_who_have_not_come() {
    let seats = seats(&HOSTS, CALM);
    let everybody: Vec<Rank> = (0..HOSTS.len() as Rank).collect();
    let (all, some) = (GroupId(1), GroupId(9));
    for seat in &seats {
        seat.plane.arrive(all, 1);
    }
    for rank in [0, 3, 5] {
        seats[rank].plane.arrive(all, 2);
    }
    for rank in [2, 4] {
        seats[rank].plane.arrive(some, 7);
    }
    for seat in &seats {
        let check = |group, call, members: &[Rank], expect: &[Rank]| {
            assert_eq!(seat.plane.missing(group, call, members, PATIENCE), expect);
        };
        check(all, 1, &everybody, &[]);
        check(all, 2, &everybody, &[1, 2, 4]);
        check(all, 3, &everybody, &everybody);
        check(some, 7, &[2, 3, 4], &[3]);
        check(some, 6, &[4, 2], &[]);
        check(some, 1, &[77], &[77]);
    }
    leave_all(&seats);
}

#[test]
fn who_does_not_answer_a_roll_call_is_missing() {
    let seats = seats(&HOSTS, CALM);
    let group = GroupId(1);
    seats.iter().for_each(|seat| seat.plane.arrive(group, 1));
    seats[4].freeze(true);
    let ask = |patience| seats[1].plane.missing(group, 1, &[0, 3, 4, 5], patience);
    let mut patience = Duration::from_millis(200);
    let mut missing = ask(patience);
    // On a busy machine others may not have answered yet. They are asked again with more patience,
    // which does not help who does not answer at all.
    while missing != [4] && patience < PATIENCE {
        assert!(missing.contains(&4), "{missing:?}");
        patience *= 2;
        missing = ask(patience);
    }
    assert_eq!(missing, [4]);
    seats[4].freeze(false);
    leave_all(&seats);
}
