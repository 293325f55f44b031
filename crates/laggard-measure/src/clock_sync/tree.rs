//! Who learns the common time from whom, and how it is passed down.

use super::ping_pong::{Classroom, Lesson};
use super::{Method, Sync, exchange_error, unreadable};
use crate::MeasureError;
use laggard_types::Rank;
use std::collections::BTreeMap;
use std::time::Instant;

/// Who learns from whom.
pub(super) struct Family {
    /// From whom this rank learns.
    pub teacher: Option<Rank>,
    /// Whom it teaches then, in this order.
    pub pupils: Vec<Rank>,
    /// Ranks with the same clock, to which the result is told.
    siblings: Vec<Rank>,
    /// The one that learns for this rank.
    elder: Rank,
    /// Whether there is one clock in all.
    is_shared: bool,
}

impl Family {
    /// A binomial tree over the lowest ranks of machines, in order of rank.
    pub(super) fn new(rank: Rank, machine_of_rank: &[u32], every_rank: bool) -> Self {
        let mut members: BTreeMap<u32, Vec<Rank>> = BTreeMap::new();
        for (other, &machine) in (0..).zip(machine_of_rank) {
            let key = if every_rank { other } else { machine };
            members.entry(key).or_default().push(other);
        }
        let mut machines: Vec<Vec<Rank>> = members.into_values().collect();
        machines.sort_unstable();
        let own = machines.iter().position(|ranks| ranks.contains(&rank));
        let own = own.unwrap_or(0);
        let elder = machines[own][0];
        let is_shared = machines.len() == 1;
        let siblings = machines[own][1..].to_vec();
        let elder_at = |index: usize| machines[index][0];
        let lowest_bit = own & own.wrapping_neg();
        let mut distance = match own {
            0 => machines.len().next_power_of_two() / 2,
            _ => lowest_bit / 2,
        };
        let mut pupils = Vec::new();
        while distance > 0 && rank == elder {
            if own + distance < machines.len() {
                pupils.push(elder_at(own + distance));
            }
            distance /= 2;
        }
        Self {
            teacher: (own != 0).then(|| elder_at(own - lowest_bit)),
            pupils,
            siblings,
            elder,
            is_shared,
        }
    }
}

/// Passes the common time down the tree.
pub(super) fn hand_down(
    classroom: &Classroom<'_>,
    machine_of_rank: &[u32],
    method: Method,
    conclude: impl Fn(&Lesson) -> Option<Sync>,
) -> Result<Sync, MeasureError> {
    let begin = Instant::now();
    let messenger = classroom.messenger;
    let rank = messenger.rank();
    assert_eq!(machine_of_rank.len(), messenger.size() as usize);
    let family = Family::new(rank, machine_of_rank, classroom.options.every_rank);
    if family.is_shared {
        return Ok(Sync::exact(Method::SharedClock));
    }
    let mut sync = match family.teacher {
        None => Sync::exact(method),
        Some(_) if rank != family.elder => be_told(classroom, family.elder)?,
        Some(teacher) => {
            let lesson = classroom.learn(teacher)?;
            // A lesson has at least one round trip.
            conclude(&lesson).unwrap_or_else(|| Sync::exact(method))
        }
    };
    for &pupil in &family.pupils {
        classroom.teach(pupil, |raw_ns| sync.common_at(raw_ns))?;
    }
    if rank == family.elder && family.teacher.is_some() {
        for &sibling in &family.siblings {
            tell(classroom, sibling, &sync)?;
        }
    }
    sync.elapsed = begin.elapsed();
    Ok(sync)
}

fn tell(classroom: &Classroom<'_>, sibling: Rank, sync: &Sync) -> Result<(), MeasureError> {
    let message = serde_json::to_vec(sync).map_err(|error| unreadable(&error))?;
    let length = (message.len() as u64).to_le_bytes();
    for part in [&length[..], &message] {
        let sent = classroom.messenger.send(sibling, part, classroom.deadline);
        sent.map_err(exchange_error(classroom.messenger))?;
    }
    Ok(())
}

fn be_told(classroom: &Classroom<'_>, elder: Rank) -> Result<Sync, MeasureError> {
    let receive = |part: &mut [u8]| {
        let received = classroom.messenger.receive(elder, part, classroom.deadline);
        received.map_err(exchange_error(classroom.messenger))
    };
    let mut length = [0; size_of::<u64>()];
    receive(&mut length)?;
    let mut message = vec![0; u64::from_le_bytes(length) as usize];
    receive(&mut message)?;
    serde_json::from_slice(&message).map_err(|error| unreadable(&error))
}
