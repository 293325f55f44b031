//! Machines without a model of their own: a latency per hop and a bandwidth per level.
//!
//! Times are those of the bandwidth-optimal algorithms (ring within a level, levels one after the
//! other): Thakur, Rabenseifner and Gropp, "Optimization of collective communication operations
//! in MPICH", IJHPCA 19(1), 2005.

use laggard_types::Collective;

/// One level of a machine: link rates that ranks reach, and the time of a hop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Level {
    /// Bytes per second that one rank reaches in one direction.
    pub(crate) bandwidth: f64,
    /// Seconds of one hop.
    pub(crate) latency: f64,
    /// Dimensions of the torus that the ranks form; 1 is a ring or a switch.
    pub(crate) dimensions: f64,
}

/// Ranks of a collective on two levels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TwoLevels {
    /// Ranks in all.
    pub(crate) ranks: f64,
    /// Ranks within one domain.
    pub(crate) per_domain: f64,
    /// Links within a domain.
    pub(crate) inner: Level,
    /// Links between domains, as one rank's share.
    pub(crate) outer: Level,
    /// Seconds that every operation takes to start.
    pub(crate) start: f64,
}

impl TwoLevels {
    /// Seconds of a collective on `bytes`, counted as nccl-tests counts them.
    pub(crate) fn seconds(&self, collective: Collective, bytes: f64) -> f64 {
        let start = self.start;
        match collective {
            Collective::AllReduce => start + 2.0 * self.one_way(bytes),
            Collective::ReduceScatter | Collective::AllGather => start + self.one_way(bytes),
            // A scatter and an all-gather, or the reverse.
            Collective::Broadcast | Collective::Reduce => {
                start + self.one_way(bytes) + self.rooted(bytes)
            }
            Collective::Gather | Collective::Scatter => start + self.rooted(bytes),
            Collective::AllToAll => start + self.all_to_all(bytes),
            Collective::SendRecv => start + self.point_to_point(bytes),
            Collective::Barrier => start + 2.0 * self.one_way(0.0),
        }
    }

    /// A reduce-scatter or all-gather: one domain's part first, then the rest in rings of one rank
    /// of each domain.
    fn one_way(&self, bytes: f64) -> f64 {
        let domains = (self.ranks / self.per_domain).ceil();
        ring(self.inner, self.per_domain, bytes)
            + ring(self.outer, domains, bytes / self.per_domain)
    }

    /// Every rank sends a block to each other one; both levels at once.
    fn all_to_all(&self, bytes: f64) -> f64 {
        let block = bytes / self.ranks;
        let near = self.per_domain - 1.0;
        let far = self.ranks - self.per_domain;
        exchange(self.inner, near, block).max(exchange(self.outer, far, block))
    }

    /// One root sends to or receives from all others: its links carry what every rank's do in an
    /// exchange of each with each.
    fn rooted(&self, bytes: f64) -> f64 {
        self.all_to_all(bytes)
    }

    /// One rank sends all bytes to one other, over the farthest link that the group has.
    fn point_to_point(&self, bytes: f64) -> f64 {
        let level = if self.ranks > self.per_domain {
            self.outer
        } else {
            self.inner
        };
        level.latency + bytes / level.bandwidth
    }
}

/// One pass over the ranks of a level; a torus has a ring in each dimension.
fn ring(level: Level, ranks: f64, bytes: f64) -> f64 {
    if ranks <= 1.0 {
        return 0.0;
    }
    let hops = level.dimensions * (ranks.powf(1.0 / level.dimensions) - 1.0);
    hops * level.latency + bytes * (ranks - 1.0) / ranks / level.bandwidth
}

/// A block for each of some peers of a level.
fn exchange(level: Level, peers: f64, block: f64) -> f64 {
    if peers <= 0.0 {
        return 0.0;
    }
    level.latency + peers * block / level.bandwidth
}
