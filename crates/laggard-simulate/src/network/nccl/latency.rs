//! The latencies of NCCL's tuning model.

use laggard_types::Collective;

use super::{Nccl, Processor, Shape, Wires};
use crate::network::tuning::{Algorithm, Protocol};

/// Microseconds of a hop within a node and of one between nodes.
struct Hop {
    intra: f64,
    inter: f64,
}

impl Nccl {
    /// Latency in microseconds.
    pub(super) fn latency(
        &self,
        collective: Collective,
        algorithm: Algorithm,
        protocol: Protocol,
        shape: Shape,
    ) -> f64 {
        let per_node = shape.ranks / shape.nodes;
        // NCCL divides integers here.
        let others = per_node.floor() - 1.0;
        let levels = shape.nodes.log2().floor();
        let base = self.tuning.base_latency.of(algorithm, protocol);
        let hops = match self.wires {
            Wires::Pci => &self.tuning.pci_hop,
            Wires::NvSwitch | Wires::NvLink => &self.tuning.nvlink_hop,
        };
        let intra = hops.of(algorithm, protocol);
        let inter_row = if per_node <= 1.0 {
            Algorithm::Tree
        } else {
            algorithm
        };
        let flush = if protocol == Protocol::Simple {
            2.0
        } else {
            1.0
        };
        let inter = self.tuning.network_hop.of(inter_row, protocol) + flush * self.network_latency;
        match algorithm {
            Algorithm::Ring => {
                base + self.ring_latency(collective, protocol, Hop { intra, inter }, shape)
            }
            Algorithm::Tree => base + 2.0 * (others * intra + levels * inter),
            Algorithm::CollnetDirect => {
                base + 2.0 * (others.min(1.0) * intra + others * 0.4) + inter
            }
            Algorithm::CollnetChain => base + 2.0 * others * intra + inter,
            Algorithm::Nvls if shape.nodes <= 1.0 => intra,
            Algorithm::Nvls => intra + inter,
            Algorithm::NvlsTree => base + intra + 2.0 * levels * inter,
            Algorithm::Pat => base + levels * inter / 3.5 + 2.8 * shape.ranks,
        }
    }

    fn ring_latency(
        &self,
        collective: Collective,
        protocol: Protocol,
        hop: Hop,
        shape: Shape,
    ) -> f64 {
        let Hop { intra, inter } = hop;
        let several = shape.nodes > 1.0;
        if matches!(collective, Collective::Broadcast | Collective::Reduce) {
            // Channels are the same on every node of the usual servers: one hop.
            return if several {
                self.tuning.network_hop.of(Algorithm::Ring, protocol)
            } else {
                intra
            };
        }
        let steps = ring_steps(collective, shape.ranks);
        let between = steps * (shape.nodes - 1.0) / (shape.ranks - 1.0);
        let overhead = match (several, self.processor) {
            (false, _) => 0.0,
            (true, Processor::Intel) => 1.0,
            (true, Processor::Amd) => 2.0,
        };
        let overhead = if protocol == Protocol::Simple {
            3.0 * overhead
        } else {
            overhead
        };
        (steps - between) * intra.max(overhead) + between * inter
    }
}

/// Steps of a ring.
pub(super) fn ring_steps(collective: Collective, ranks: f64) -> f64 {
    match collective {
        Collective::AllReduce => 2.0 * (ranks - 1.0),
        Collective::AllGather | Collective::ReduceScatter => ranks - 1.0,
        _ => ranks,
    }
}
