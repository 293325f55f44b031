//! How long collectives take: NCCL's model on NVIDIA's machines, a latency and a bandwidth per
//! level on others. Knows groups and links, and nothing of models or steps.

mod calibration;
mod fabric;
mod flat;
mod nccl;
mod tuning;

use laggard_types::Collective;

pub use calibration::NetworkKind;
pub use fabric::{Fabric, FabricOptions, Link};
pub use nccl::{NetworkReduction, Processor};

use fabric::Engine;
use flat::TwoLevels;
use nccl::Shape;

/// What a barrier moves: the smallest all-reduce.
const BARRIER_BYTES: f64 = 4.0;

/// How the ranks of a group lie on the levels of a machine. Groups of one kind are taken to run
/// at the same time, so that each rank has its own share of the network cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Ranks of the group.
    pub ranks: u32,
    /// Ranks of the group within one scale-up domain (a node, a rack of NVLink), at least 1.
    pub ranks_per_domain: u32,
    /// Ranks of the group within one pod, below which the network is not oversubscribed.
    pub ranks_per_pod: u32,
    /// Ranks of the group within one site.
    pub ranks_per_site: u32,
}

impl Group {
    /// A group within one pod and site.
    #[must_use]
    pub fn new(ranks: u32, ranks_per_domain: u32) -> Self {
        let ranks = ranks.max(1);
        Self {
            ranks,
            ranks_per_domain: ranks_per_domain.clamp(1, ranks),
            ranks_per_pod: ranks,
            ranks_per_site: ranks,
        }
    }

    /// The group of every `stride`-th rank of a world that fills domain after domain: stride 1 for
    /// tensor-parallel groups, the product of the inner axes for outer ones.
    #[must_use]
    pub fn strided(ranks: u32, stride: u32, fabric: &Fabric) -> Self {
        let ranks = ranks.max(1);
        let within = |level: u32| (level / stride.max(1)).clamp(1, ranks);
        Self {
            ranks,
            ranks_per_domain: within(fabric.domain_ranks),
            ranks_per_pod: within(fabric.pod_ranks),
            ranks_per_site: within(fabric.site_ranks),
        }
    }

    /// The pairs of neighbours among so many blocks of `stride` ranks each, which fill domain after
    /// domain: a pair within a domain, one across domains, pods and sites, and how many of each.
    #[must_use]
    pub fn neighbours(blocks: u32, stride: u64, fabric: &Fabric) -> [(Self, u64); 4] {
        let borders = u64::from(blocks).saturating_sub(1);
        let crossing = |unit: u32| match u64::from(blocks) * stride <= u64::from(unit) {
            true => 0,
            false => (borders * stride / u64::from(unit.max(1))).clamp(1, borders.max(1)),
        };
        let units = [fabric.domain_ranks, fabric.pod_ranks, fabric.site_ranks];
        let [domains, pods, sites] = units.map(|unit| crossing(unit).min(borders));
        let pair = |stride: u32| Self::strided(2, stride, fabric);
        [
            (Self::new(2, 2), borders - domains),
            (pair(units[0]), domains.saturating_sub(pods)),
            (pair(units[1]), pods.saturating_sub(sites)),
            (pair(units[2]), sites),
        ]
    }

    /// Scale-up domains that hold the group.
    #[must_use]
    pub fn domains(&self) -> u32 {
        self.ranks.div_ceil(self.ranks_per_domain.max(1))
    }
}

/// Seconds of one collective of a group, with all ranks arriving at once and alone on their links.
///
/// `bytes` are counted as nccl-tests counts them: the vector of an all-reduce, the whole input of
/// a reduce-scatter, the whole output of an all-gather, all that one rank sends in an all-to-all,
/// the message otherwise. A group of one takes no time. Allocates nothing.
#[must_use]
pub fn collective_seconds(
    collective: Collective,
    bytes: f64,
    group: &Group,
    fabric: &Fabric,
) -> f64 {
    if group.ranks <= 1 {
        return 0.0;
    }
    let (collective, bytes) = match collective {
        Collective::Barrier => (Collective::AllReduce, BARRIER_BYTES),
        other => (other, bytes),
    };
    match &fabric.site_link {
        Some(link) if group.ranks > group.ranks_per_site => {
            across_sites(collective, bytes, group, fabric, link)
        }
        _ => fabric.time_factor * within_site(collective, bytes, group, fabric),
    }
}

/// Every site does its part, then the sites exchange over their links, in rings.
fn across_sites(
    collective: Collective,
    bytes: f64,
    group: &Group,
    fabric: &Fabric,
    link: &Link,
) -> f64 {
    let local = Group {
        ranks: group.ranks_per_site,
        ..*group
    };
    let within = |collective, bytes| collective_seconds(collective, bytes, &local, fabric);
    let ranks = f64::from(group.ranks);
    let per_site = f64::from(group.ranks_per_site);
    let sites = (ranks / per_site).ceil();
    let over = |bytes: f64| bytes / link.bandwidth.0;
    let rounds = (sites - 1.0) * link.latency.0;
    match collective {
        Collective::AllReduce => {
            within(Collective::ReduceScatter, bytes)
                + 2.0 * (over(bytes * (sites - 1.0) / sites) + rounds)
                + within(Collective::AllGather, bytes)
        }
        Collective::ReduceScatter | Collective::AllGather => {
            within(collective, bytes) + over(bytes * (sites - 1.0) / sites) + rounds
        }
        Collective::AllToAll => {
            let leaving = per_site * bytes * (ranks - per_site) / ranks;
            within(collective, bytes * per_site / ranks) + over(leaving) + link.latency.0
        }
        Collective::Gather | Collective::Scatter => {
            let far = bytes * (ranks - per_site) / ranks;
            within(collective, bytes * per_site / ranks) + over(far) + link.latency.0
        }
        Collective::SendRecv => over(bytes) + link.latency.0,
        Collective::Broadcast | Collective::Reduce | Collective::Barrier => {
            within(collective, bytes) + over(bytes) + rounds
        }
    }
}

fn within_site(collective: Collective, bytes: f64, group: &Group, fabric: &Fabric) -> f64 {
    if let Engine::Nccl(nccl) = &fabric.engine {
        match collective {
            Collective::AllReduce
            | Collective::ReduceScatter
            | Collective::AllGather
            | Collective::Broadcast
            | Collective::Reduce => {
                return nccl.seconds(collective, bytes, shape(group, fabric));
            }
            _ => {}
        }
    }
    levels(collective, group, fabric).seconds(collective, bytes)
}

fn shape(group: &Group, fabric: &Fabric) -> Shape {
    Shape {
        ranks: f64::from(group.ranks),
        nodes: f64::from(group.domains()),
        network_share: ring_share(group, fabric),
    }
}

fn levels(collective: Collective, group: &Group, fabric: &Fabric) -> TwoLevels {
    let share = match collective {
        Collective::AllToAll => spread_share(group, fabric),
        _ => ring_share(group, fabric),
    };
    let mut inner = fabric.inner;
    if fabric.mesh && fabric.domain_ranks > 1 {
        // A device has a link to each other device of the domain; a smaller group uses fewer.
        inner.bandwidth *=
            f64::from(group.ranks_per_domain - 1) / f64::from(fabric.domain_ranks - 1);
    }
    let mut outer = fabric.outer;
    outer.bandwidth *= share;
    TwoLevels {
        ranks: f64::from(group.ranks),
        per_domain: f64::from(group.ranks_per_domain),
        inner,
        outer,
        start: fabric.start_seconds,
    }
}

/// What the links above the pods leave of the network cards' rate to rings and trees, which cross
/// from pod to pod once for each `ranks_per_pod` of the group.
fn ring_share(group: &Group, fabric: &Fabric) -> f64 {
    if group.ranks <= group.ranks_per_pod {
        return 1.0;
    }
    let hops = f64::from(group.ranks_per_pod) / f64::from(group.ranks_per_domain);
    (hops / fabric.oversubscription).min(1.0)
}

/// The same for exchanges of each with each: all blocks for ranks of other pods cross.
fn spread_share(group: &Group, fabric: &Fabric) -> f64 {
    if group.ranks <= group.ranks_per_pod {
        return 1.0;
    }
    let far = f64::from(group.ranks - group.ranks_per_domain);
    let crossing = f64::from(group.ranks - group.ranks_per_pod);
    (far / (crossing * fabric.oversubscription)).min(1.0)
}

#[cfg(test)]
mod tests;
