//! Who has come to a collective call: counts of this rank, questions to the others along the tree,
//! and their answers.

use super::shared::{Shared, lock};
use super::wire::{Answer, Frame, Question};
use crate::GroupId;
use crate::gate::Patience;
use laggard_types::Rank;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

#[derive(Default)]
pub(super) struct Rolls {
    /// The last call that this rank has come to; written to only when a group is first seen.
    arrivals: RwLock<BTreeMap<GroupId, AtomicU64>>,
    open: Mutex<BTreeMap<u64, Roll>>,
    next_id: AtomicU64,
}

/// A wait for answers to a question.
#[derive(Default)]
struct Roll {
    /// The last call that each rank has come to.
    calls: BTreeMap<Rank, u64>,
}

impl Shared {
    /// This rank has come to a call.
    pub(super) fn arrive(&self, group: GroupId, call: u64) {
        let read = self
            .rolls
            .arrivals
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = read.get(&group) {
            last.fetch_max(call, Ordering::Relaxed);
            return;
        }
        drop(read);
        let mut write = self
            .rolls
            .arrivals
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        write
            .entry(group)
            .or_default()
            .fetch_max(call, Ordering::Relaxed);
    }

    /// The last call of a group that this rank has come to.
    pub(super) fn last_call(&self, group: GroupId) -> u64 {
        let read = self
            .rolls
            .arrivals
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        read.get(&group)
            .map_or(0, |last| last.load(Ordering::Relaxed))
    }

    /// Asks the members, and waits until all have answered or are known to be gone.
    pub(super) fn missing(
        &self,
        group: GroupId,
        call: u64,
        members: &[Rank],
        patience: Duration,
    ) -> Vec<Rank> {
        let id = self.rolls.next_id.fetch_add(1, Ordering::Relaxed);
        lock(&self.rolls.open).insert(id, Roll::default());
        let (origin, to) = (self.rank, members.to_vec());
        self.ask(Question {
            id,
            origin,
            group,
            members: to,
        });
        self.wake();
        let settled = |rank: &Rank| {
            lock(&self.rolls.open)
                .get(&id)
                .is_some_and(|roll| roll.calls.contains_key(rank))
                || self.is_lost(*rank)
                || !self.tree.holds(*rank)
        };
        let limit = Some(patience);
        let spin = Duration::ZERO;
        let all = || members.iter().all(settled) || self.has_ended.load(Ordering::Acquire);
        self.gate.wait(Patience { spin, limit }, all);
        let roll = lock(&self.rolls.open).remove(&id).unwrap_or_default();
        let has_come = |rank: &Rank| roll.calls.get(rank).is_some_and(|last| *last >= call);
        members
            .iter()
            .copied()
            .filter(|rank| !has_come(rank))
            .collect()
    }

    /// Answers a question for this rank, and passes it on towards the others that it is for.
    pub(super) fn ask(&self, question: Question) {
        let mut hops: BTreeMap<Rank, Vec<Rank>> = BTreeMap::new();
        for member in question
            .members
            .iter()
            .filter(|member| self.tree.holds(**member))
        {
            if *member == self.rank {
                let Question {
                    id, origin, group, ..
                } = question;
                let call = self.last_call(group);
                self.answer(Answer {
                    id,
                    origin,
                    from: self.rank,
                    call,
                });
            } else if let Some(hop) = self.next_hop(*member) {
                hops.entry(hop).or_default().push(*member);
            }
        }
        for (hop, members) in hops {
            self.push(
                hop,
                &Frame::Ask(Question {
                    members,
                    ..question
                }),
            );
        }
    }

    /// Takes an answer, or passes it on to who asked.
    pub(super) fn answer(&self, answer: Answer) {
        if answer.origin == self.rank {
            if let Some(roll) = lock(&self.rolls.open).get_mut(&answer.id) {
                roll.calls.insert(answer.from, answer.call);
            }
            self.gate.ring();
        } else if self.tree.holds(answer.origin)
            && let Some(hop) = self.next_hop(answer.origin)
        {
            self.push(hop, &Frame::Answer(answer));
        }
    }
}
