//! Who was the first to go, from the ends of connections in the order in which they came. Later
//! ends are what the launcher made of the first. Takes values and returns values.

use crate::control::naming::WINDOW;
use crate::control::tree::Tree;
use laggard_types::Rank;
use std::time::Instant;

/// Whose connection ended without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    Rank(Rank),
    /// The witness of a host: a small process that nobody ends on purpose, so the host with it.
    Host(usize),
}

/// The ends so far, in their order.
#[derive(Debug, Default)]
pub(super) struct Case {
    ends: Vec<(Gone, Instant)>,
}

/// Who was first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Culprits {
    /// In ascending order, at least one; all of one host.
    pub ranks: Vec<Rank>,
    pub at: Instant,
}

impl Case {
    pub(super) fn add(&mut self, gone: Gone, at: Instant) {
        self.ends.push((gone, at));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// When all that went with the first has ended too.
    pub(super) fn due(&self) -> Option<Instant> {
        self.ends.first().map(|(_, at)| *at + WINDOW)
    }

    pub(super) fn has(&self, gone: Gone) -> bool {
        self.ends.iter().any(|(other, _)| *other == gone)
    }

    /// Who was first, as far as is known by now. `None` if nobody but witnesses is gone: a run goes
    /// on without them.
    pub(super) fn culprits(&self, tree: &Tree) -> Option<Culprits> {
        self.ends.iter().find_map(|(gone, at)| {
            let ended = |host: usize| {
                let ranks = tree.hosts[host].ranks.iter().copied();
                ranks.filter(|rank| self.has(Gone::Rank(*rank))).collect()
            };
            let ranks: Vec<Rank> = match *gone {
                Gone::Host(host) => ended(host),
                // Ranks may end before the witness of a host that is killed as a whole. While the
                // witness lives, the others of the host were ended by the launcher.
                Gone::Rank(rank) if self.has(Gone::Host(tree.place_of(rank))) => {
                    ended(tree.place_of(rank))
                }
                Gone::Rank(rank) => vec![rank],
            };
            (!ranks.is_empty()).then_some(Culprits { ranks, at: *at })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Gone::{Host, Rank as One};
    use super::*;

    #[test]
    fn the_first_end_is_the_cause_and_a_host_goes_with_its_witness() {
        let tree = Tree::new(&["a", "a", "b", "b", "c"].map(str::to_owned));
        let check = |ends: &[Gone], expect: &[Rank]| {
            let mut case = Case::default();
            let at = Instant::now();
            ends.iter().for_each(|gone| case.add(*gone, at));
            let found = case.culprits(&tree).map(|it| it.ranks).unwrap_or_default();
            assert_eq!(found, expect, "{ends:?}");
        };
        check(&[], &[]);
        check(&[One(3)], &[3]);
        // The launcher ends the others, those of the same host first.
        check(&[One(3), One(2), One(0), One(1), One(4)], &[3]);
        // A host: its witness may be seen before its ranks, between them or after them, and the
        // launcher may be quicker than the end of a large process.
        check(&[Host(1), One(2), One(3), One(0)], &[2, 3]);
        check(&[One(3), Host(1), One(2), One(0)], &[2, 3]);
        check(&[One(2), One(3), Host(1), One(4)], &[2, 3]);
        check(&[Host(1), One(0), One(1), One(3), One(2)], &[2, 3]);
        check(&[Host(2), One(4)], &[4]);
        // A witness alone is no loss, and leaves the next to be the first.
        check(&[Host(1)], &[]);
        check(&[Host(1), One(4), One(0)], &[4]);
        // Witnesses that end later accuse nobody.
        check(&[One(4), One(2), Host(1), One(3)], &[4]);
    }
}
