//! Messages between pairs of ranks, and the ranks whose links are slow.

use super::Distribution;
use crate::links::slow_hosts;
use laggard_record::{Link, PairSamples};
use laggard_types::Rank;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One direction of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PairFigures {
    /// Sender.
    pub from: Rank,
    /// Receiver.
    pub to: Rank,
    /// Bytes of a message.
    pub bytes: u64,
    /// From when both were ready to when both were done.
    pub seconds: Distribution,
    /// Bytes over the median time.
    pub bandwidth_bytes_per_s: f64,
}

/// A rank whose links are slow, where those of others are not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowRankLinks {
    /// The rank.
    pub rank: Rank,
    /// Median bandwidth of its links, bytes per second.
    pub bandwidth_bytes_per_s: f64,
    /// Median bandwidth of links that do not touch it, bytes per second.
    pub others_bandwidth_bytes_per_s: f64,
}

impl PairFigures {
    pub(super) fn of(samples: &PairSamples) -> Option<Self> {
        let seconds = Distribution::of(&samples.seconds)?;
        Some(Self {
            from: samples.from,
            to: samples.to,
            bytes: samples.bytes,
            seconds,
            bandwidth_bytes_per_s: samples.bytes as f64 / seconds.median.value,
        })
    }
}

impl SlowRankLinks {
    pub(super) fn in_words(&self) -> String {
        format!(
            "the links of rank {} have {:.2} GB/s, those among the others {:.2} GB/s",
            self.rank,
            1e-9 * self.bandwidth_bytes_per_s,
            1e-9 * self.others_bandwidth_bytes_per_s
        )
    }
}

/// The ranks whose links are slow; see [`slow_hosts`].
pub(super) fn slow(pairs: &[PairFigures], ranks: usize) -> Vec<SlowRankLinks> {
    let link = |pair: &PairFigures| Link {
        from_host: pair.from,
        to_host: pair.to,
        latency_ns: 0,
        bytes: pair.bytes,
        bandwidth_bytes_per_s: pair.bandwidth_bytes_per_s,
    };
    let links: Vec<Link> = pairs.iter().map(link).collect();
    let slow = slow_hosts(&links, ranks).into_iter();
    slow.map(|it| SlowRankLinks {
        rank: it.host,
        bandwidth_bytes_per_s: it.bandwidth_bytes_per_s,
        others_bandwidth_bytes_per_s: it.others_bandwidth_bytes_per_s,
    })
    .collect()
}
