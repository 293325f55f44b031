//! NCCL's own estimate, without what measurements add: what its comparison prints.

use laggard_types::Collective;

use super::{ALGORITHMS, BYTES_PER_US_OF_GB_PER_S, Nccl, SECONDS_PER_US, Shape};
use crate::network::tuning::{Algorithm, Generation, Protocol};

/// What NCCL would choose, and the time that it expects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NcclEstimate {
    /// The chosen algorithm.
    pub(crate) algorithm: Algorithm,
    /// The chosen protocol.
    pub(crate) protocol: Protocol,
    /// The expected time in seconds.
    pub seconds: f64,
}

/// Latency in microseconds and algorithm bandwidth in GB/s.
#[derive(Debug, Clone, Copy)]
struct Cost {
    latency: f64,
    bandwidth: f64,
}

impl Nccl {
    /// NCCL's own estimate; `None` for a collective that its model does not have.
    pub(crate) fn estimate(
        &self,
        collective: Collective,
        bytes: f64,
        shape: Shape,
    ) -> Option<NcclEstimate> {
        let times = self
            .costs(collective, shape)
            .map(|(algorithm, protocol, cost)| {
                let corrected = cost.bandwidth * self.stepped(algorithm, protocol, bytes);
                let plateau = match (collective, algorithm, protocol) {
                    (Collective::AllReduce, Algorithm::Ring, Protocol::Simple) => {
                        self.ring_plateau(bytes, shape)
                    }
                    _ => 1.0,
                };
                let latency = cost.latency * plateau;
                let time = latency + bytes / (BYTES_PER_US_OF_GB_PER_S * corrected);
                NcclEstimate {
                    algorithm,
                    protocol,
                    seconds: time * SECONDS_PER_US,
                }
            });
        times.min_by(|a, b| a.seconds.total_cmp(&b.seconds))
    }

    fn costs(
        &self,
        collective: Collective,
        shape: Shape,
    ) -> impl Iterator<Item = (Algorithm, Protocol, Cost)> {
        let pairs = ALGORITHMS
            .into_iter()
            .flat_map(|(algorithm, protocols)| protocols.iter().map(move |p| (algorithm, *p)));
        pairs.filter_map(move |(algorithm, protocol)| {
            let bandwidth = self.bandwidth(collective, algorithm, protocol, shape)?;
            let latency = self.latency(collective, algorithm, protocol, shape);
            Some((algorithm, protocol, Cost { latency, bandwidth }))
        })
    }

    /// NCCL's correction of trees at a size: constant between powers of two.
    fn stepped(&self, algorithm: Algorithm, protocol: Protocol, bytes: f64) -> f64 {
        let power = (bytes / 64.0).max(1.0).log2().floor() as usize;
        // NCCL's comparison of the size leaves the last entry out for trees.
        let entries = match algorithm {
            Algorithm::Tree => 23,
            Algorithm::NvlsTree if self.generation >= Generation::Blackwell => 24,
            _ => 0,
        };
        if power < entries {
            self.tuning.tree_correction.of(protocol)[power]
        } else {
            1.0
        }
    }

    /// The factor on the latency of rings over several nodes at large sizes.
    fn ring_plateau(&self, bytes: f64, shape: Shape) -> f64 {
        let channels = self.channels(Algorithm::Ring, shape).count;
        if shape.nodes <= 1.0 || bytes / (channels * shape.ranks) < 64.0 {
            1.0
        } else if self.generation == Generation::Volta {
            1.9
        } else {
            1.4
        }
    }
}
