//! Callers that are no ranks, and ranks that do not talk as they should.

use super::super::greeting::{Calling, Key, Reception};
use super::super::join::join;
use super::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;

const KEY: Key = [7; 16];

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

#[test]
fn strangers_are_hung_up_on_and_ranks_let_in() {
    let (listener, address) = listener();
    let mut reception = Reception::new(listener, KEY, 0).expect("a reception");
    let call = |key: Key, from, to, limit| {
        let addresses = &[address];
        let calling = Calling {
            key: &key,
            from,
            to,
            addresses,
        };
        calling.connect(Instant::now() + limit).map(drop)
    };
    let connect = || TcpStream::connect(address).expect("a connection");
    let (silent, mut rude, mut short) = (connect(), connect(), connect());
    rude.write_all(&[b'G'; 100]).expect("written");
    short.write_all(b"laggard\x01").expect("written");
    short.shutdown(std::net::Shutdown::Write).expect("shut");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let calls = scope.spawn(|| {
            let short = Duration::from_millis(200);
            let ends = [
                call([8; 16], 3, 0, short),
                call(KEY, 3, 1, short),
                call(KEY, 3, 0, PATIENCE),
            ];
            is_done.store(true, Ordering::SeqCst);
            ends
        });
        let mut greeted = Vec::new();
        let begin = Instant::now();
        while (!is_done.load(Ordering::SeqCst) || greeted.is_empty()) && begin.elapsed() < PATIENCE
        {
            greeted.extend(reception.turn(Instant::now()));
            std::thread::sleep(Duration::from_millis(1));
        }
        let ranks: Vec<_> = greeted.iter().map(|(rank, _)| *rank).collect();
        assert_eq!(ranks, [3]);
        let [wrong_key, wrong_rank, right] = calls.join().expect("no panic");
        assert!(wrong_key.is_err() && wrong_rank.is_err());
        assert_eq!(right, Ok(()));
    });
    let is_closed = |mut stream: &TcpStream| !matches!(stream.read(&mut [0]), Ok(1));
    assert!(is_closed(&rude) && is_closed(&short));
    // Who says nothing is not kept for ever.
    reception.turn(Instant::now() + CALM);
    assert!(is_closed(&silent));
}

#[test]
fn a_caller_goes_on_where_somebody_else_answers() {
    // The first only listens, the second says the wrong thing, the third is right.
    let (mute, first) = listener();
    let (rude, second) = listener();
    let (right, third) = listener();
    let mut reception = Reception::new(right, KEY, 5).expect("a reception");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = rude.accept().expect("a caller");
            drop(stream.write_all(&[b'X'; 200]));
        });
        let caller = scope.spawn(|| {
            let addresses = &[first, second, third];
            let calling = Calling {
                key: &KEY,
                from: 9,
                to: 5,
                addresses,
            };
            let end = calling.connect(Instant::now() + PATIENCE);
            is_done.store(true, Ordering::SeqCst);
            end.map(|stream| stream.peer_addr().expect("an address"))
        });
        let mut greeted = Vec::new();
        let begin = Instant::now();
        while (!is_done.load(Ordering::SeqCst) || greeted.is_empty()) && begin.elapsed() < PATIENCE
        {
            greeted.extend(reception.turn(Instant::now()));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(caller.join().expect("no panic"), Ok(third));
    });
    drop(mute);
}

#[test]
fn a_caller_that_is_refused_calls_again_until_the_end() {
    let (gone, address) = listener();
    drop(gone);
    let calling = Calling {
        key: &KEY,
        from: 1,
        to: 0,
        addresses: &[address],
    };
    // Time for more calls than a length of time can be doubled.
    let limit = Duration::from_secs(2);
    let begin = Instant::now();
    let why = calling.connect(begin + limit).expect_err("nobody is there");
    assert!(why.contains("refused"), "{why}");
    assert!(begin.elapsed() >= limit / 2);
}

/// A plane of rank 0, and rank 1 as a bare connection.
fn with_bare_rank(silence: Duration) -> (Seat, TcpStream) {
    let worlds = worlds(2, &ThreadOptions::default()).expect("worlds");
    let options = ControlOptions {
        join: PATIENCE,
        ..ControlOptions::new(silence)
    };
    let heard = Arc::new(Heard::default());
    let abort = Arc::new(Abort::default());
    let listener: Weak<Heard> = Arc::downgrade(&heard);
    abort.listen(listener);
    std::thread::scope(|scope| {
        let bare = scope.spawn(|| join(&*worlds[1].messenger, "b", PATIENCE));
        let plane = ControlPlane::join(&*worlds[0].messenger, "a", abort, &options);
        let plane = plane.expect("a plane");
        let mut joined = bare.join().expect("no panic").expect("joined");
        let (_, stream) = joined.streams.remove(0);
        (Seat { plane, heard }, stream)
    })
}

#[test]
fn what_is_no_message_ends_the_connection() {
    for garbage in [
        &[255_u8; 64][..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0, 0, 0, 0],
        &[1, 0, 0, 0, 99],
    ] {
        let (seat, mut stream) = with_bare_rank(CALM);
        stream.write_all(garbage).expect("written");
        let words = "rank 1 on host b is gone: it sent what is no message";
        assert_eq!(seat.reason(), words);
        assert_eq!(seat.plane.losses()[0].how, How::Garbled);
    }
}

#[test]
fn a_connection_that_is_open_at_one_end_only_is_silent() {
    let (seat, stream) = with_bare_rank(Duration::from_millis(300));
    assert!(
        seat.reason()
            .starts_with("rank 1 on host b is gone: no sign of life for ")
    );
    drop(stream);
}
