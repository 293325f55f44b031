//! Messages between pairs of ranks, and the ranks whose links are slow.

use super::Distribution;
use crate::links::slow_hosts;
use laggard_record::{BenchRank, Link, PairSamples};
use laggard_types::Rank;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

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

/// Which links of a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkScope {
    /// Those to ranks of its host.
    WithinHost,
    /// Those to ranks of other hosts.
    AcrossHosts,
}

/// A rank whose links are slow, where those of others are not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowRankLinks {
    /// The rank.
    pub rank: Rank,
    /// Which of its links: those within its host are held against others there, and those across
    /// hosts against all others across hosts.
    pub scope: LinkScope,
    /// Median bandwidth of these links, bytes per second.
    pub bandwidth_bytes_per_s: f64,
    /// Median bandwidth of like links that do not touch it, bytes per second.
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
            bandwidth_bytes_per_s: samples.bytes as f64 / seconds.median,
        })
    }
}

impl SlowRankLinks {
    pub(super) fn in_words(&self) -> String {
        let whereto = match self.scope {
            LinkScope::WithinHost => "within its host",
            LinkScope::AcrossHosts => "to other hosts",
        };
        format!(
            "the links of rank {} {whereto} have {:.2} GB/s, those among the others {:.2} GB/s",
            self.rank,
            1e-9 * self.bandwidth_bytes_per_s,
            1e-9 * self.others_bandwidth_bytes_per_s
        )
    }
}

/// The ranks whose links are slow, the slowest first; see [`slow_hosts`].
pub(super) fn slow(pairs: &[PairFigures], ranks: &[BenchRank]) -> Vec<SlowRankLinks> {
    let host = |rank: Rank| ranks.get(rank as usize).map(|it| it.host.as_str());
    let is_within = |pair: &PairFigures| host(pair.from) == host(pair.to);
    let hosts: BTreeSet<&str> = ranks.iter().map(|it| it.host.as_str()).collect();
    let of_host = |name: &str| {
        let is_there = |pair: &&PairFigures| is_within(pair) && host(pair.from) == Some(name);
        slow_among(pairs.iter().filter(is_there), LinkScope::WithinHost)
    };
    let mut slow: Vec<SlowRankLinks> = hosts.into_iter().flat_map(of_host).collect();
    let across = pairs.iter().filter(|pair| !is_within(pair));
    slow.extend(slow_among(across, LinkScope::AcrossHosts));
    let share = |it: &SlowRankLinks| it.bandwidth_bytes_per_s / it.others_bandwidth_bytes_per_s;
    slow.sort_by(|a, b| share(a).total_cmp(&share(b)));
    slow
}

/// The ranks whose links are slow among like ones.
fn slow_among<'a>(
    pairs: impl Iterator<Item = &'a PairFigures>,
    scope: LinkScope,
) -> Vec<SlowRankLinks> {
    let link = |pair: &PairFigures| Link {
        from_host: pair.from,
        to_host: pair.to,
        latency_ns: 0,
        bytes: pair.bytes,
        bandwidth_bytes_per_s: pair.bandwidth_bytes_per_s,
    };
    let links: Vec<Link> = pairs.map(link).collect();
    let ends = |link: &Link| [link.from_host, link.to_host];
    let ranks = links.iter().flat_map(ends).max().map_or(0, |last| last + 1);
    // A link has two ends: who has one other alone may be the wrong one of them.
    let others = |rank: Rank| {
        let its = links.iter().map(ends).filter(|ends| ends.contains(&rank));
        its.flatten()
            .filter(|end| *end != rank)
            .collect::<BTreeSet<_>>()
            .len()
    };
    let slow = slow_hosts(&links, ranks as usize).into_iter();
    slow.filter(|it| others(it.host) > 1)
        .map(|it| SlowRankLinks {
            rank: it.host,
            scope,
            bandwidth_bytes_per_s: it.bandwidth_bytes_per_s,
            others_bandwidth_bytes_per_s: it.others_bandwidth_bytes_per_s,
        })
        .collect()
}
