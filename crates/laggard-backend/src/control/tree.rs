//! Who is connected to whom: the ranks of a host to its leader, the leaders to rank 0. Knows names
//! and ranks alone.

use laggard_types::Rank;

/// The rank that the tree ends in.
pub(super) const ROOT: Rank = 0;

/// A host and the ranks that run on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRanks {
    /// The host's name.
    pub name: String,
    /// Its ranks in ascending order, at least one; the first leads.
    pub ranks: Vec<Rank>,
}

impl HostRanks {
    /// The rank that speaks for the host: its lowest.
    pub fn leader(&self) -> Rank {
        self.ranks[0]
    }
}

/// The tree as all ranks know it.
#[derive(Debug)]
pub(super) struct Tree {
    /// In order of their leaders, so the root's host is the first.
    pub hosts: Vec<HostRanks>,
    /// By rank, an index into `hosts`.
    place: Vec<usize>,
}

impl Tree {
    /// The tree of ranks on hosts of these names, by rank.
    pub(super) fn new(names: &[String]) -> Self {
        let mut hosts: Vec<HostRanks> = Vec::new();
        let mut place = Vec::with_capacity(names.len());
        for (rank, name) in (ROOT..).zip(names) {
            let found = hosts.iter().position(|host| host.name == *name);
            let at = found.unwrap_or_else(|| {
                let (name, ranks) = (name.clone(), Vec::new());
                hosts.push(HostRanks { name, ranks });
                hosts.len() - 1
            });
            hosts[at].ranks.push(rank);
            place.push(at);
        }
        Self { hosts, place }
    }

    pub(super) fn holds(&self, rank: Rank) -> bool {
        (rank as usize) < self.place.len()
    }

    /// The rank's host, by its index.
    pub(super) fn place_of(&self, rank: Rank) -> usize {
        self.place[rank as usize]
    }

    pub(super) fn host_of(&self, rank: Rank) -> &HostRanks {
        &self.hosts[self.place[rank as usize]]
    }

    pub(super) fn leader_of(&self, rank: Rank) -> Rank {
        self.host_of(rank).leader()
    }

    pub(super) fn parent_of(&self, rank: Rank) -> Option<Rank> {
        match self.leader_of(rank) {
            _ if rank == ROOT => None,
            leader if leader == rank => Some(ROOT),
            leader => Some(leader),
        }
    }

    pub(super) fn children_of(&self, rank: Rank) -> Vec<Rank> {
        let ranks = (ROOT..).take(self.place.len());
        ranks
            .filter(|other| self.parent_of(*other) == Some(rank))
            .collect()
    }

    /// "rank 3 on host h2".
    pub(super) fn name(&self, rank: Rank) -> String {
        format!("rank {rank} on host {}", self.host_of(rank).name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_hang_on_their_leader_and_leaders_on_the_root() {
        let names = ["a", "b", "a", "c", "b"].map(str::to_owned);
        let tree = Tree::new(&names);
        let parents: Vec<_> = (0..5).map(|rank| tree.parent_of(rank)).collect();
        assert_eq!(parents, [None, Some(0), Some(0), Some(0), Some(1)]);
        assert_eq!(tree.children_of(0), [1, 2, 3]);
        assert_eq!(tree.children_of(1), [4]);
        assert_eq!(tree.hosts[1].ranks, [1, 4]);
        assert_eq!(tree.name(3), "rank 3 on host c");
    }
}
