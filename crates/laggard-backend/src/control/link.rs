//! One connection as the control thread sees it: bytes in and out, never blocking.

use super::shared::Queue;
use super::wire::{Frame, Incoming};
use laggard_types::Rank;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

/// Bytes read at a time, and how often in a row before other connections get their turn.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS_PER_TURN: usize = 16;

pub(super) struct Link {
    pub peer: Rank,
    pub stream: TcpStream,
    incoming: Incoming,
    /// When the peer last sent anything.
    pub heard: Instant,
    /// The peer said why it will close, so that this is no loss.
    pub is_excused: bool,
    /// The peer has ended, and all behind it.
    pub has_left: bool,
    /// Nothing more is written.
    pub is_shut: bool,
}

/// What reading found.
pub(super) struct Input {
    pub frames: Vec<Frame>,
    /// No more will come, because of this.
    pub end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Garbled,
}

impl Link {
    pub(super) fn new(peer: Rank, stream: TcpStream, now: Instant) -> Self {
        Self {
            peer,
            stream,
            incoming: Incoming::default(),
            heard: now,
            is_excused: false,
            has_left: false,
            is_shut: false,
        }
    }

    /// Whether silence or an end of this connection would be a loss.
    pub(super) fn is_due(&self) -> bool {
        !self.is_excused && !self.has_left
    }

    /// Takes what has come in, by way of memory that is used for nothing else.
    pub(super) fn read(&mut self, chunk: &mut [u8], now: Instant) -> Input {
        let mut end = None;
        for _ in 0..CHUNKS_PER_TURN {
            match self.stream.read(chunk) {
                Ok(0) => end = Some(End::Closed),
                Ok(count) => {
                    self.heard = now;
                    self.incoming.add(&chunk[..count]);
                    if count == chunk.len() {
                        continue;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => end = Some(End::Closed),
            }
            break;
        }
        match self.incoming.frames() {
            Ok(frames) => Input { frames, end },
            Err(_) => Input {
                frames: Vec::new(),
                end: Some(End::Garbled),
            },
        }
    }

    /// Writes what the connection takes at once; whether there was anything to write.
    pub(super) fn write(&mut self, queue: &mut Queue) -> bool {
        let had_frames = !queue.frames.is_empty();
        while let Some(frame) = queue.frames.front() {
            if self.is_shut {
                *queue = Queue::default();
                break;
            }
            match self.stream.write(&frame[queue.sent_bytes..]) {
                Ok(count) => queue.sent_bytes += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // What the peer sent before it went is read all the same.
                Err(_) => self.is_shut = true,
            }
            if queue.sent_bytes == frame.len() {
                queue.held_bytes -= frame.len();
                queue.sent_bytes = 0;
                queue.frames.pop_front();
            }
        }
        had_frames
    }

    /// Tells the peer that nothing more will come.
    pub(super) fn shut(&mut self) {
        if !self.is_shut {
            self.is_shut = true;
            drop(self.stream.shutdown(Shutdown::Write));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_a_closed_connection_did_not_take_is_forgotten() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let stream = TcpStream::connect(address).expect("a connection");
        let mut link = Link::new(1, stream, Instant::now());
        let mut queue = Queue::default();
        queue.push(vec![0; 100]);
        // Part of a frame was sent when the connection broke.
        queue.sent_bytes = 60;
        link.shut();
        link.write(&mut queue);
        assert!(queue.frames.is_empty());
        // A shorter one is begun at its beginning.
        queue.push(vec![0; 10]);
        assert_eq!((queue.sent_bytes, queue.held_bytes), (0, 10));
        link.write(&mut queue);
    }
}
