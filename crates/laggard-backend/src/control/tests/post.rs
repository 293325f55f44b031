//! Messages from any rank to any other.

use super::*;

#[test]
fn messages_find_every_rank_from_every_other_in_order() {
    let seats = seats(&["a", "a", "b", "b", "c"], CALM);
    let ranks = seats.len() as Rank;
    for (from, seat) in seats.iter().enumerate() {
        for to in 0..ranks {
            for number in 0..3 {
                let payload = vec![from as u8, to as u8, number];
                seat.plane.send_to(to, 5, payload).expect("sent");
            }
        }
    }
    for (to, seat) in seats.iter().enumerate() {
        let inbox = seat.plane.inbox(5);
        let mut counts = vec![0; seats.len()];
        for _ in 0..3 * seats.len() {
            let Envelope { from, payload } = inbox.recv_timeout(PATIENCE).expect("a message");
            let count = &mut counts[from as usize];
            assert_eq!(payload, [from as u8, to as u8, *count]);
            *count += 1;
        }
    }
    let nowhere = seats[1].plane.send_to(ranks, 5, Vec::new());
    assert!(
        matches!(nowhere, Err(BackendError::Invalid { .. })),
        "{nowhere:?}"
    );
    leave_all(&seats);
}
