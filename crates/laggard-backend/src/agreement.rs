//! What ranks of a group tell each other to act together, and what all conclude from it: whether
//! they are about to make the same call, and who is in which part of a split. Knows nothing of how
//! it travels.

use crate::Call;
use laggard_types::Rank;

/// Bytes of a number.
const NUMBER: usize = size_of::<u64>();

/// What a rank says about its call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallWords {
    /// The call in words.
    pub call: String,
    /// Block lengths of an all-to-all, which differ between ranks; else empty.
    sends: Vec<u64>,
    receives: Vec<u64>,
}

impl CallWords {
    /// What there is to be said of a call.
    pub fn of(call: &Call) -> Self {
        let numbers = |counts: &[usize]| counts.iter().map(|count| *count as u64).collect();
        let (sends, receives) = match call {
            Call::AllToAll {
                send_counts,
                recv_counts,
                ..
            } => (numbers(send_counts), numbers(recv_counts)),
            _ => (Vec::new(), Vec::new()),
        };
        Self {
            call: call.to_string(),
            sends,
            receives,
        }
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [self.call.len() as u64, self.sends.len() as u64];
        let numbers = numbers.iter().chain(&self.sends).chain(&self.receives);
        let mut bytes: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
        bytes.extend(self.call.as_bytes());
        bytes
    }

    /// From bytes; `None` if they are something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, _) = bytes.as_chunks::<NUMBER>();
        let mut numbers = numbers.iter().map(|number| u64::from_le_bytes(*number));
        let len = usize::try_from(numbers.next()?).ok()?;
        let blocks = usize::try_from(numbers.next()?).ok()?;
        let sends: Vec<u64> = numbers.by_ref().take(blocks).collect();
        let receives: Vec<u64> = numbers.take(blocks).collect();
        let call = bytes.get(bytes.len().checked_sub(len)?..)?;
        Some(Self {
            call: String::from_utf8_lossy(call).into_owned(),
            sends,
            receives,
        })
    }
}

/// A number that is the same on ranks whose calls agree, but for the blocks of an all-to-all.
pub fn signature(call: &Call) -> u64 {
    match call.data_type() {
        Some(data_type) if matches!(call, Call::AllToAll { .. }) => {
            hash(format!("all_to_all of {}", data_type.name()).into_bytes())
        }
        _ => hash(call.to_string().into_bytes()),
    }
}

/// The rank that `rank` names if the calls do not agree: `None` on every rank, or on none.
pub fn disagreement(rank: Rank, signatures: &[u64], calls: &[CallWords]) -> Option<Rank> {
    let me = rank as usize;
    let index = |at: usize| Rank::try_from(at).unwrap_or(0);
    let own = signatures.get(me)?;
    if let Some(other) = signatures.iter().position(|signature| signature != own) {
        return Some(index(other));
    }
    for (from, sender) in calls.iter().enumerate() {
        for (to, receiver) in calls.iter().enumerate() {
            if sender.sends.get(to) != receiver.receives.get(from) {
                return Some(index(if me == from { to } else { from }));
            }
        }
    }
    None
}

/// What a rank wants of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitWish {
    /// Which part it wants to be in, if in any.
    pub color: Option<u32>,
    /// Where it wants to be in the part's order.
    pub key: i64,
}

impl SplitWish {
    /// Bytes on the wire: key, color, and whether there is one.
    pub const BYTES: usize = 2 * NUMBER;

    /// As bytes.
    pub fn encode(self) -> Vec<u8> {
        let color = self.color.map_or(u64::MAX, u64::from);
        [self.key.to_le_bytes(), color.to_le_bytes()].concat()
    }

    /// From bytes.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let number = |at: usize| {
            let mut number = [0; NUMBER];
            number.copy_from_slice(&bytes[at..at + NUMBER]);
            number
        };
        Self {
            color: u32::try_from(u64::from_le_bytes(number(NUMBER))).ok(),
            key: i64::from_le_bytes(number(0)),
        }
    }

    /// The ranks of the part of a color, in its order, of what every rank wishes.
    pub fn part(wishes: &[Self], color: u32) -> Vec<Rank> {
        let mut ranks: Vec<(i64, Rank)> = (0..)
            .zip(wishes)
            .filter(|(_, wish)| wish.color == Some(color))
            .map(|(rank, wish)| (wish.key, rank))
            .collect();
        ranks.sort_unstable();
        ranks.into_iter().map(|(_, rank)| rank).collect()
    }
}

/// The 64-bit FNV-1a hash, the same on every machine.
/// Source: Fowler, Noll and Vo, draft-eastlake-fnv, section 5.
pub fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The hash of some numbers: how groups are named alike by all their members.
pub fn mixed(numbers: &[u64]) -> u64 {
    hash(numbers.iter().flat_map(|number| number.to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_its_authors() {
        // Test vectors of the draft's appendix.
        assert_eq!(hash([]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(*b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash(*b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn wishes_survive_the_wire_and_make_parts() {
        for color in [None, Some(0), Some(u32::MAX)] {
            for key in [i64::MIN, -1, 0, i64::MAX] {
                let wish = SplitWish { color, key };
                let bytes = wish.encode();
                let (bytes, _) = bytes.as_chunks();
                assert_eq!(SplitWish::decode(&bytes[0]), wish);
            }
        }
        let wish = |color, key| SplitWish { color, key };
        let wishes = [
            wish(Some(1), 5),
            wish(None, 0),
            wish(Some(1), -5),
            wish(Some(2), 0),
            wish(Some(1), 5),
        ];
        assert_eq!(SplitWish::part(&wishes, 1), [2, 0, 4]);
        assert!(SplitWish::part(&wishes, 7).is_empty());
    }

    fn words(sends: &[u64], receives: &[u64]) -> CallWords {
        CallWords {
            call: format!("all_to_all(sends {sends:?})"),
            sends: sends.to_vec(),
            receives: receives.to_vec(),
        }
    }

    #[test]
    fn words_survive_the_wire() {
        for words in [words(&[1, 2, 3], &[4, 5, u64::MAX]), words(&[], &[])] {
            assert_eq!(CallWords::decode(&words.encode()), Some(words));
        }
        assert_eq!(CallWords::decode(&[0; 7]), None);
        assert_eq!(CallWords::decode(&[255; 16]), None);
    }

    #[test]
    fn every_rank_names_another_that_disagrees_or_none_does() {
        let check = |signatures: &[u64], calls: &[CallWords], want: [Option<Rank>; 3]| {
            let found = [0, 1, 2].map(|rank| disagreement(rank, signatures, calls));
            assert_eq!(found, want);
        };
        let plain = vec![words(&[], &[]); 3];
        check(&[5, 5, 5], &plain, [None; 3]);
        check(&[5, 5, 6], &plain, [Some(2), Some(2), Some(0)]);
        let even = vec![words(&[2, 2, 2], &[2, 2, 2]); 3];
        check(&[5, 5, 5], &even, [None; 3]);
        let mut odd = even;
        odd[2] = words(&[3, 3, 3], &[2, 2, 2]);
        check(&[5, 5, 5], &odd, [Some(2), Some(2), Some(0)]);
    }
}
