//! NCCL's model of a collective's time, re-implemented from its equations: for each algorithm and
//! protocol a latency and a bandwidth, and the choice of the smallest time.
//!
//! Source: NVIDIA/nccl, src/graph/tuning.cc (ncclTopoTuneModel, ncclTopoGetAlgoTime), 2.29 and
//! 2.30. Where NCCL searches the machine for channels, rules of the table stand instead
//! ([`Nccl::channels`]). Times of measured systems are above NCCL's estimate below the plateau:
//! [`Nccl::seconds`] adds what was fitted on published sweeps. NCCL's estimate itself is what tests
//! hold the re-implementation against.

#[cfg(test)]
pub(crate) mod estimate;
mod latency;

use laggard_types::Collective;

use latency::ring_steps;

use super::calibration::Calibration;
use super::tuning::{Algorithm, Generation, Protocol, Tuning};

const ALL: &[Protocol] = &[Protocol::Ll, Protocol::Ll128, Protocol::Simple];
const SIMPLE: &[Protocol] = &[Protocol::Simple];

/// Algorithms with the protocols that NCCL implements for them.
const ALGORITHMS: [(Algorithm, &[Protocol]); 7] = [
    (Algorithm::Tree, ALL),
    (Algorithm::Ring, ALL),
    (Algorithm::CollnetDirect, SIMPLE),
    (Algorithm::CollnetChain, SIMPLE),
    (Algorithm::Nvls, SIMPLE),
    (Algorithm::NvlsTree, SIMPLE),
    (Algorithm::Pat, SIMPLE),
];

const BYTES_PER_US_OF_GB_PER_S: f64 = 1000.0;
const SECONDS_PER_US: f64 = 1e-6;
const MIB: f64 = 1_048_576.0;

/// Which wires join the ranks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wires {
    /// NVLink through a switch that can multicast from Hopper on.
    NvSwitch,
    /// NVLink from device to device.
    NvLink,
    /// PCI Express.
    Pci,
}

/// Who makes the hosts' processors: NCCL has other constants for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Processor {
    /// Intel, and whatever is not AMD.
    #[default]
    Intel,
    /// AMD.
    Amd,
}

/// Whether the switches of the network reduce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkReduction {
    /// They only forward.
    #[default]
    None,
    /// SHARP: NCCL's CollNet algorithms are in use.
    Sharp,
}

/// NCCL's model on one kind of machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Nccl {
    pub(crate) tuning: Box<Tuning>,
    pub(crate) calibration: Calibration,
    pub(crate) generation: Generation,
    pub(crate) wires: Wires,
    pub(crate) processor: Processor,
    pub(crate) reduction: NetworkReduction,
    /// Link rate of one rank within its node, GB/s.
    pub(crate) scale_up: f64,
    /// One rank's share of the network cards, GB/s.
    pub(crate) scale_out: f64,
    /// Network cards per rank.
    pub(crate) cards_per_rank: f64,
    /// What the network adds to each hop between nodes, microseconds.
    pub(crate) network_latency: f64,
}

/// How the ranks of a collective lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    /// Ranks in all, at least 2.
    pub(crate) ranks: f64,
    /// Nodes that hold them.
    pub(crate) nodes: f64,
    /// Share of the network cards' rate that the links above them leave, in (0, 1].
    pub(crate) network_share: f64,
}

/// Channels that the graph search finds.
#[derive(Debug, Clone, Copy)]
struct Channels {
    count: f64,
    /// GB/s of each within a node.
    intra: f64,
    /// GB/s of each between nodes.
    inter: f64,
}

impl Nccl {
    /// The time to expect: each algorithm with its lowest latency over the protocols, scaled, with
    /// the bandwidth of its large chunks, and with the slow rise to the plateau that published
    /// sweeps show where NCCL changes protocols. Grows with the bytes, unlike NCCL's estimate.
    pub(crate) fn seconds(&self, collective: Collective, bytes: f64, shape: Shape) -> f64 {
        let fit = self.calibration.of(shape.nodes > 1.0);
        let mut best = f64::INFINITY;
        for (algorithm, protocols) in ALGORITHMS {
            let Some(bandwidth) = self.bandwidth(collective, algorithm, Protocol::Simple, shape)
            else {
                continue;
            };
            let share = match algorithm {
                Algorithm::Nvls | Algorithm::NvlsTree => fit.multicast_share,
                _ => 1.0,
            };
            let latencies = protocols
                .iter()
                .filter(|&&protocol| self.enabled(collective, algorithm, protocol, shape))
                .map(|&protocol| self.latency(collective, algorithm, protocol, shape));
            let latency = latencies.fold(f64::INFINITY, f64::min);
            let transfer = bytes / (BYTES_PER_US_OF_GB_PER_S * share * bandwidth);
            best = best.min(fit.latency_scale * latency + transfer);
        }
        let ramp = match collective {
            Collective::AllReduce => fit.ramp_us,
            _ => fit.ramp_us * self.calibration.one_way_ramp,
        };
        (best + ramp * (bytes / MIB).cbrt()) * SECONDS_PER_US
    }

    /// What NCCL's graph search would find for an algorithm.
    ///
    /// Within a node: channels that share the links. Between nodes: one channel per network card
    /// of the ranks. A tree over two nodes crosses the network once in each direction, a ring
    /// twice. NCCL splits few fast channels in two (ncclTopoDupChannels), except those of rings.
    fn channels(&self, algorithm: Algorithm, shape: Shape) -> Channels {
        let rules = &self.tuning.graph;
        let per_node = shape.ranks / shape.nodes;
        let multicast = matches!(algorithm, Algorithm::Nvls | Algorithm::NvlsTree);
        let count = if multicast {
            per_node.min(rules.nvls_channels)
        } else if shape.nodes > 1.0 {
            (per_node * self.cards_per_rank).floor().max(1.0)
        } else {
            rules.ring_channels.of(self.generation)
        };
        let intra = if multicast {
            let share = rules.nvls_share_of_scale_up.of(self.generation);
            let limit = rules.nvls_channel_limit.of(self.generation);
            (share * self.scale_up / count).min(limit)
        } else if shape.nodes > 1.0 {
            // A channel leaves each node over the network once, so it misses one link.
            let over_links = (per_node - 1.0) / per_node;
            rules.ring_share_of_scale_up * self.scale_up / count / over_links
        } else {
            rules.ring_share_of_scale_up * self.scale_up / count
        };
        if shape.nodes <= 1.0 {
            return Channels {
                count,
                intra,
                inter: f64::INFINITY,
            };
        }
        let cards = rules.share_of_scale_out * shape.network_share * self.scale_out * per_node;
        let inter = cards / count;
        if multicast {
            return Channels {
                count,
                intra,
                inter,
            };
        }
        let crossing = if algorithm == Algorithm::Tree && shape.nodes <= 2.0 {
            2.0 * inter
        } else {
            inter
        };
        let speed = intra.min(crossing);
        let splits = speed >= 25.0
            && (self.generation <= Generation::Ampere || speed >= 50.0 || count <= 4.0);
        let factor = if splits && algorithm != Algorithm::Ring {
            2.0
        } else {
            1.0
        };
        Channels {
            count: count * factor,
            intra: speed / factor,
            inter: intra.min(inter) / factor,
        }
    }

    /// Algorithm bandwidth in GB/s, `None` where NCCL does not implement or does not enable it.
    fn bandwidth(
        &self,
        collective: Collective,
        algorithm: Algorithm,
        protocol: Protocol,
        shape: Shape,
    ) -> Option<f64> {
        if !self.enabled(collective, algorithm, protocol, shape) {
            return None;
        }
        let channels = self.channels(algorithm, shape);
        let one_way = matches!(
            collective,
            Collective::AllGather | Collective::ReduceScatter
        );
        let per_channel = match algorithm {
            Algorithm::Nvls | Algorithm::NvlsTree => {
                self.multicast_channel(algorithm, one_way, channels, shape)?
            }
            Algorithm::CollnetDirect | Algorithm::CollnetChain => channels.intra,
            _ if shape.nodes <= 2.0 => channels.intra,
            _ => channels.inter,
        };
        let bus = self.refined(algorithm, protocol, (channels.count, per_channel), shape);
        let bus = match algorithm {
            Algorithm::Pat => 0.75 * bus,
            Algorithm::CollnetDirect => self.collnet_direct(one_way, bus, channels, shape),
            _ => bus,
        };
        let steps = ring_steps(collective, shape.ranks);
        Some(match algorithm {
            _ if one_way && algorithm != Algorithm::Ring => bus,
            Algorithm::Ring | Algorithm::Nvls | Algorithm::NvlsTree => bus * shape.ranks / steps,
            _ => bus * 0.5,
        })
    }

    fn enabled(
        &self,
        collective: Collective,
        algorithm: Algorithm,
        protocol: Protocol,
        shape: Shape,
    ) -> bool {
        let per_node = shape.ranks / shape.nodes;
        let several = shape.nodes > 1.0;
        let sharp = self.reduction == NetworkReduction::Sharp && several;
        let switch = self.wires == Wires::NvSwitch;
        let multicast = switch && self.generation >= Generation::Hopper && per_node >= 2.0;
        let reduces_all = collective == Collective::AllReduce;
        let one_way = matches!(
            collective,
            Collective::AllGather | Collective::ReduceScatter
        );
        let known = reduces_all
            || one_way
            || matches!(collective, Collective::Broadcast | Collective::Reduce);
        let fits = match algorithm {
            Algorithm::Ring => known,
            Algorithm::Tree => reduces_all,
            Algorithm::CollnetDirect => sharp && switch && (reduces_all || one_way),
            Algorithm::CollnetChain => sharp && reduces_all,
            // NCCL asks for one network card per rank for the one-way collectives.
            Algorithm::Nvls => multicast && (!several || sharp) && (reduces_all || one_way),
            Algorithm::NvlsTree => multicast && several && reduces_all,
            Algorithm::Pat => one_way && per_node <= 1.0,
        };
        fits && (protocol != Protocol::Ll128 || self.wires != Wires::Pci)
    }

    fn multicast_channel(
        &self,
        algorithm: Algorithm,
        one_way: bool,
        channels: Channels,
        shape: Shape,
    ) -> Option<f64> {
        if channels.count < 2.0 {
            return None;
        }
        let per_node = shape.ranks / shape.nodes;
        let efficiency = self.tuning.nvls_efficiency.of(self.generation);
        let intra = channels.intra * efficiency * (channels.count - 1.0) / channels.count;
        let intra = if one_way {
            intra * (per_node - 1.0) / per_node
        } else {
            2.0 * intra
        };
        if algorithm == Algorithm::Nvls {
            return Some(intra.min(channels.inter));
        }
        let limit = self.limit(&self.tuning.nvls_tree_limit, shape);
        let two_nodes = if shape.nodes <= 2.0 { 2.0 } else { 1.0 };
        Some(intra.min(two_nodes * channels.inter).min(limit))
    }

    /// Bus bandwidth after the corrections of NCCL for rings and trees.
    fn refined(
        &self,
        algorithm: Algorithm,
        protocol: Protocol,
        (count, per_channel): (f64, f64),
        shape: Shape,
    ) -> f64 {
        let bus = count * per_channel;
        match (algorithm, protocol) {
            (Algorithm::Ring, Protocol::Ll) => (0.5 * bus).min(self.ll_limit(shape)),
            (Algorithm::Ring, Protocol::Ll128) => {
                let limit = self.limit(&self.tuning.ring_ll128_limit, shape);
                (0.92 * bus).min(count * limit)
            }
            (Algorithm::Tree, _) => {
                let limit = self.limit(&self.tuning.tree_limit, shape);
                let bus = (0.92 * bus).min(count * limit);
                match protocol {
                    Protocol::Ll => (bus / 3.8).min(self.ll_limit(shape)),
                    Protocol::Ll128 => {
                        let payload = if shape.nodes <= 1.0 {
                            7.0 / 9.0
                        } else {
                            120.0 / 128.0
                        };
                        let limit = self.limit(&self.tuning.tree_ll128_limit, shape);
                        (payload * bus).min(count * limit)
                    }
                    Protocol::Simple => bus,
                }
            }
            _ => bus,
        }
    }

    fn collnet_direct(&self, one_way: bool, bus: f64, channels: Channels, shape: Shape) -> f64 {
        let per_node = shape.ranks / shape.nodes;
        if one_way {
            return per_node * channels.intra.min(0.9 * channels.inter);
        }
        let ratio = per_node / channels.count;
        let bus = bus / (ratio - (ratio - 1.0) / 2.0);
        if self.generation >= Generation::Hopper {
            0.85 * bus
        } else {
            bus
        }
    }

    fn ll_limit(&self, shape: Shape) -> f64 {
        let row = match (shape.nodes > 1.0, self.processor) {
            (false, _) => self.generation,
            (true, Processor::Intel) => Generation::Volta,
            (true, Processor::Amd) => Generation::Ampere,
        };
        self.tuning.ll_limit.of(row)[node_column(shape)]
    }

    fn limit(&self, limits: &super::tuning::ByGeneration<[f64; 3]>, shape: Shape) -> f64 {
        limits.of(self.generation)[node_column(shape)]
    }
}

/// Column of NCCL's tables of one, two and more nodes.
fn node_column(shape: Shape) -> usize {
    if shape.nodes <= 1.0 {
        0
    } else if shape.nodes <= 2.0 {
        1
    } else {
        2
    }
}
