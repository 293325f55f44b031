//! What travels over a connection: frames of a length, a tag and fields, all little-endian. Bytes
//! that are no frame are told as such and never trusted.

use super::Position;
use super::loss::{How, LastSeen, Loss};
use super::progress::{pack, unpack};
use crate::GroupId;
use laggard_types::Rank;
use std::time::Duration;

/// Longest payload of a message.
pub(super) const LONGEST_PAYLOAD_BYTES: usize = 16 << 20;
/// Longest frame: a payload and what stands around it.
const LONGEST_FRAME_BYTES: usize = LONGEST_PAYLOAD_BYTES + 1024;
/// The length in front of a frame.
const LENGTH_BYTES: usize = size_of::<u32>();

/// One rank's sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pulse {
    pub rank: Rank,
    /// How old it was when it was sent on.
    pub age: Duration,
    pub position: Option<Position>,
}

/// A message of a kind that its users agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub kind: u8,
    pub from: Rank,
    pub payload: Vec<u8>,
}

/// A question for who has come to a call of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub id: u64,
    pub origin: Rank,
    pub group: GroupId,
    pub members: Vec<Rank>,
}

/// The last call of the group that a rank has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub id: u64,
    pub origin: Rank,
    pub from: Rank,
    pub call: u64,
}

/// Everything that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Heartbeat(Vec<Pulse>),
    ToParent(Letter),
    ToRoot(Letter),
    ToAll(Letter),
    Loss(Loss),
    Abort {
        origin: Rank,
        reason: String,
    },
    Ask(Question),
    Answer(Answer),
    /// Child to parent: it and all below it have ended, and closing is no loss.
    Leaving,
    /// Parent to child: everybody has ended, and closing is no loss.
    Left,
    /// To witnesses: where a rank is.
    Seen(LastSeen),
    /// To one rank, wherever it is.
    ToRank(Rank, Letter),
}

/// Bytes that are no frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbled;

impl Frame {
    /// The frame with its length in front.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer(vec![0; LENGTH_BYTES]);
        match self {
            Self::Heartbeat(pulses) => {
                out.u8(0);
                out.list(pulses, |out, pulse| {
                    out.u32(pulse.rank);
                    out.duration(pulse.age);
                    out.u64(pack(pulse.position));
                });
            }
            Self::ToParent(letter) => out.letter(1, letter),
            Self::ToRoot(letter) => out.letter(2, letter),
            Self::ToAll(letter) => out.letter(3, letter),
            Self::Loss(loss) => {
                out.u8(4);
                out.loss(loss);
            }
            Self::Abort { origin, reason } => {
                out.u8(5);
                out.u32(*origin);
                out.bytes(reason.as_bytes());
            }
            Self::Ask(question) => {
                out.u8(6);
                out.u64(question.id);
                out.u32(question.origin);
                out.u64(question.group.0);
                out.list(&question.members, |out, rank| out.u32(*rank));
            }
            Self::Answer(answer) => {
                out.u8(7);
                out.u64(answer.id);
                out.u32(answer.origin);
                out.u32(answer.from);
                out.u64(answer.call);
            }
            Self::Leaving => out.u8(8),
            Self::Left => out.u8(9),
            Self::Seen(seen) => {
                out.u8(10);
                out.last_seen(seen);
            }
            Self::ToRank(to, letter) => {
                out.letter(11, letter);
                out.u32(*to);
            }
        }
        let length = (out.0.len() - LENGTH_BYTES) as u32;
        out.0[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        out.0
    }

    /// A frame without its length.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let frame = match fields.u8()? {
            0 => Self::Heartbeat(fields.list(|fields| {
                Some(Pulse {
                    rank: fields.u32()?,
                    age: fields.duration()?,
                    position: unpack(fields.u64()?),
                })
            })?),
            1 => Self::ToParent(fields.letter()?),
            2 => Self::ToRoot(fields.letter()?),
            3 => Self::ToAll(fields.letter()?),
            4 => Self::Loss(fields.loss()?),
            5 => Self::Abort {
                origin: fields.u32()?,
                reason: fields.string()?,
            },
            6 => Self::Ask(Question {
                id: fields.u64()?,
                origin: fields.u32()?,
                group: GroupId(fields.u64()?),
                members: fields.list(Fields::u32)?,
            }),
            7 => Self::Answer(Answer {
                id: fields.u64()?,
                origin: fields.u32()?,
                from: fields.u32()?,
                call: fields.u64()?,
            }),
            8 => Self::Leaving,
            9 => Self::Left,
            10 => Self::Seen(fields.last_seen()?),
            11 => {
                let letter = fields.letter()?;
                Self::ToRank(fields.u32()?, letter)
            }
            _ => return None,
        };
        fields.0.is_empty().then_some(frame)
    }
}

/// Bytes as they come in, cut into frames.
#[derive(Default)]
pub(super) struct Incoming(Vec<u8>);

impl Incoming {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Takes the frames that are complete.
    pub(super) fn frames(&mut self) -> Result<Vec<Frame>, Garbled> {
        let mut frames = Vec::new();
        let mut at = 0;
        while let Some((length, rest)) = self.0[at..].split_first_chunk::<LENGTH_BYTES>() {
            let length = u32::from_le_bytes(*length) as usize;
            if length > LONGEST_FRAME_BYTES {
                return Err(Garbled);
            }
            let Some(body) = rest.get(..length) else {
                break;
            };
            frames.push(Frame::decode(body).ok_or(Garbled)?);
            at += LENGTH_BYTES + length;
        }
        self.0.drain(..at);
        Ok(frames)
    }
}

/// Puts fields one after the other.
pub(super) struct Writer(pub Vec<u8>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn duration(&mut self, value: Duration) {
        self.u64(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.u32(items.len() as u32);
        items.iter().for_each(|each| item(self, each));
    }

    fn letter(&mut self, tag: u8, letter: &Letter) {
        self.u8(tag);
        self.u8(letter.kind);
        self.u32(letter.from);
        self.bytes(&letter.payload);
    }

    fn loss(&mut self, loss: &Loss) {
        self.list(&loss.ranks, |out, rank| out.u32(*rank));
        self.bytes(loss.host.as_bytes());
        self.u8(u8::from(loss.whole_host));
        match loss.how {
            How::Closed => self.u8(0),
            How::Silent(lasting) => {
                self.u8(1);
                self.duration(lasting);
            }
            How::Garbled => self.u8(2),
            How::Unheard => self.u8(3),
        }
        self.list(&loss.last, Self::last_seen);
    }

    fn last_seen(&mut self, last: &LastSeen) {
        self.u32(last.rank);
        self.duration(last.age);
        self.u64(pack(last.position));
        self.bytes(last.words.as_bytes());
    }
}

/// Takes fields off the front; `None` where there is none.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn duration(&mut self) -> Option<Duration> {
        self.u64().map(Duration::from_nanos)
    }

    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head.to_vec())
    }

    pub(super) fn string(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    /// Memory is taken item by item, so that a false length takes none.
    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let length = self.u32()?;
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(item(self)?);
        }
        Some(items)
    }

    fn letter(&mut self) -> Option<Letter> {
        Some(Letter {
            kind: self.u8()?,
            from: self.u32()?,
            payload: self.bytes()?,
        })
    }

    fn loss(&mut self) -> Option<Loss> {
        Some(Loss {
            ranks: self.list(Self::u32)?,
            host: self.string()?,
            whole_host: self.u8()? != 0,
            how: match self.u8()? {
                0 => How::Closed,
                1 => How::Silent(self.duration()?),
                2 => How::Garbled,
                3 => How::Unheard,
                _ => return None,
            },
            last: self.list(Self::last_seen)?,
        })
    }

    fn last_seen(&mut self) -> Option<LastSeen> {
        Some(LastSeen {
            rank: self.u32()?,
            age: self.duration()?,
            position: unpack(self.u64()?),
            words: self.string()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_frame() -> Vec<Frame> {
        let position = Some(Position {
            step: 17,
            operation: 4,
        });
        let age = Duration::from_millis(3);
        let letter = Letter {
            kind: 9,
            from: 2,
            payload: vec![1, 2, 3],
        };
        let last = LastSeen {
            rank: 4,
            age,
            position,
            words: "forward".to_owned(),
        };
        let loss = |how| Loss {
            ranks: vec![4, 5],
            host: "h2".to_owned(),
            whole_host: true,
            how,
            last: vec![last.clone()],
        };
        let members = vec![1, 2];
        vec![
            Frame::Heartbeat(vec![Pulse {
                rank: 1,
                age,
                position,
            }]),
            Frame::Heartbeat(vec![Pulse {
                rank: 2,
                age,
                position: None,
            }]),
            Frame::ToParent(letter.clone()),
            Frame::ToRoot(letter.clone()),
            Frame::ToAll(letter.clone()),
            Frame::ToRank(3, letter),
            Frame::Seen(last.clone()),
            Frame::Loss(loss(How::Closed)),
            Frame::Loss(loss(How::Silent(age))),
            Frame::Loss(loss(How::Garbled)),
            Frame::Loss(loss(How::Unheard)),
            Frame::Abort {
                origin: 3,
                reason: "it is over".to_owned(),
            },
            Frame::Ask(Question {
                id: 7,
                origin: 1,
                group: GroupId(5),
                members,
            }),
            Frame::Answer(Answer {
                id: 7,
                origin: 1,
                from: 2,
                call: 12,
            }),
            Frame::Leaving,
            Frame::Left,
        ]
    }

    #[test]
    fn frames_survive_the_wire_in_pieces_of_any_size() {
        let frames = every_frame();
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for size in [1, 3, 7, bytes.len()] {
            let mut incoming = Incoming::default();
            let mut got = Vec::new();
            for piece in bytes.chunks(size) {
                incoming.add(piece);
                got.extend(incoming.frames().expect("frames"));
            }
            assert_eq!(got, frames, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let check = |bytes: &[u8]| {
            let mut incoming = Incoming::default();
            incoming.add(bytes);
            assert_eq!(incoming.frames(), Err(Garbled), "{bytes:?}");
        };
        check(b"GET / HTTP/1.1\r\n");
        check(&u32::MAX.to_le_bytes());
        check(&[0, 0, 0, 0]);
        check(&[1, 0, 0, 0, 200]);
        // A heartbeat that says it holds more pulses than there are bytes.
        check(&[5, 0, 0, 0, 0, 255, 255, 255, 255]);
        for frame in every_frame() {
            let mut longer = frame.encode();
            longer[0] += 1;
            longer.push(0);
            check(&longer);
        }
    }
}
