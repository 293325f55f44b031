//! Splitting a group. Has a place of its own beside the calls, so that it works while queues use
//! the group.

use super::group::Group;
use crate::BackendError;
use laggard_types::Rank;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The splits under way, by their number.
#[derive(Default)]
pub(super) struct Splits {
    rounds: Mutex<BTreeMap<u64, Round>>,
}

/// A rank's wish: color and key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub color: Option<u32>,
    pub key: i64,
}

/// A rank's place in one of the new groups.
pub(super) type Place = Option<(Arc<Group>, Rank)>;

#[derive(Default)]
struct Round {
    wishes: BTreeMap<Rank, Wish>,
    /// Places not yet taken, once everybody's wish is known.
    places: Option<BTreeMap<Rank, Place>>,
}

/// Takes part in the `number`th split of a group.
pub(super) fn split(
    group: &Group,
    rank: Rank,
    number: u64,
    wish: Wish,
) -> Result<Place, BackendError> {
    group.check(rank)?;
    let is_complete = {
        let mut rounds = locked(&group.splits.rounds);
        let round = rounds.entry(number).or_default();
        round.wishes.insert(rank, wish);
        let is_complete = round.wishes.len() == group.size() as usize;
        if is_complete {
            round.places = Some(places(group, &round.wishes));
        }
        is_complete
    };
    if is_complete {
        group.gate.ring();
    }
    let mut place = None;
    group.gate.wait(group.patience(), || {
        place = take(group, rank, number);
        place.is_some() || group.has_failed()
    });
    if let Some(place) = place {
        return Ok(place);
    }
    group.check(rank)?;
    let missing = {
        let rounds = locked(&group.splits.rounds);
        let came = rounds.get(&number).map(|round| &round.wishes);
        (0..group.size())
            .filter(|r| came.is_none_or(|came| !came.contains_key(r)))
            .collect()
    };
    let missing: Vec<Rank> = missing;
    group
        .time_out(rank, "split".to_owned(), &missing)
        .map(|()| None)
}

fn take(group: &Group, rank: Rank, number: u64) -> Option<Place> {
    let mut rounds = locked(&group.splits.rounds);
    let places = rounds.get_mut(&number)?.places.as_mut()?;
    let place = places.remove(&rank)?;
    if places.is_empty() {
        rounds.remove(&number);
    }
    Some(place)
}

fn places(group: &Group, wishes: &BTreeMap<Rank, Wish>) -> BTreeMap<Rank, Place> {
    let mut by_color: BTreeMap<u32, Vec<(i64, Rank)>> = BTreeMap::new();
    for (rank, wish) in wishes {
        if let Some(color) = wish.color {
            by_color.entry(color).or_default().push((wish.key, *rank));
        }
    }
    let mut places: BTreeMap<Rank, Place> = wishes.keys().map(|rank| (*rank, None)).collect();
    for (_, mut members) in by_color {
        members.sort_unstable();
        let ranks: Vec<Rank> = members.iter().map(|(_, rank)| *rank).collect();
        let subgroup = group.subgroup(&ranks);
        for (position, rank) in (0..).zip(&ranks) {
            places.insert(*rank, Some((Arc::clone(&subgroup), position)));
        }
    }
    places
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
