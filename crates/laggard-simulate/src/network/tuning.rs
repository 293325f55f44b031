//! NCCL's tuning constants, read from their table. Knows no equation.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::SimulateError;

const TABLE: &str = include_str!("../../data/network_nccl.toml");
/// The release that is used unless another is asked for.
const LATEST: &str = "2.30";

/// A generation of NVIDIA's GPUs, as NCCL tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Generation {
    /// Compute capability 7.x and older.
    Volta,
    /// 8.x.
    Ampere,
    /// 9.x.
    Hopper,
    /// 10.0 and newer.
    Blackwell,
}

/// How a collective moves its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// Two binary trees, each for half of the data.
    Tree,
    /// Rings.
    Ring,
    /// Switches of the network reduce; every rank of a node talks to its network card.
    CollnetDirect,
    /// Switches of the network reduce; a chain within the node.
    CollnetChain,
    /// The NVLink switch multicasts and reduces.
    Nvls,
    /// The NVLink switch within nodes, a tree between them.
    NvlsTree,
    /// Parallel aggregated trees, for one rank per node.
    Pat,
}

/// How a message is cut and signalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Low latency: a flag with every 4 bytes.
    Ll,
    /// Low latency: a flag with every 120 bytes.
    Ll128,
    /// Large chunks.
    Simple,
}

/// One number per generation.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ByGeneration<T> {
    volta: T,
    ampere: T,
    hopper: T,
    blackwell: T,
}

/// Latencies by algorithm, for the protocols in the order of [`Protocol`], in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Latencies {
    tree: [f64; 3],
    ring: [f64; 3],
    collnet_direct: [f64; 3],
    collnet_chain: [f64; 3],
    nvls: [f64; 3],
    nvls_tree: [f64; 3],
    pat: [f64; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TreeCorrection {
    ll: [f64; 24],
    ll128: [f64; 24],
    simple: [f64; 24],
}

/// What the graph search finds on usual servers.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GraphRules {
    pub(crate) ring_share_of_scale_up: f64,
    pub(crate) share_of_scale_out: f64,
    pub(crate) ring_channels: ByGeneration<f64>,
    pub(crate) nvls_channels: f64,
    pub(crate) nvls_share_of_scale_up: ByGeneration<f64>,
    pub(crate) nvls_channel_limit: ByGeneration<f64>,
}

/// The constants of one release of NCCL. Limits are in GB/s for one, two and more nodes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tuning {
    pub(crate) graph: GraphRules,
    pub(crate) nvls_efficiency: ByGeneration<f64>,
    pub(crate) base_latency: Latencies,
    pub(crate) nvlink_hop: Latencies,
    pub(crate) pci_hop: Latencies,
    pub(crate) network_hop: Latencies,
    pub(crate) ll_limit: ByGeneration<[f64; 3]>,
    pub(crate) ring_ll128_limit: ByGeneration<[f64; 3]>,
    pub(crate) tree_ll128_limit: ByGeneration<[f64; 3]>,
    pub(crate) tree_limit: ByGeneration<[f64; 3]>,
    pub(crate) nvls_tree_limit: ByGeneration<[f64; 3]>,
    pub(crate) tree_correction: TreeCorrection,
}

impl<T: Copy> ByGeneration<T> {
    pub(crate) fn of(&self, generation: Generation) -> T {
        match generation {
            Generation::Volta => self.volta,
            Generation::Ampere => self.ampere,
            Generation::Hopper => self.hopper,
            Generation::Blackwell => self.blackwell,
        }
    }
}

impl Latencies {
    pub(crate) fn of(&self, algorithm: Algorithm, protocol: Protocol) -> f64 {
        let row = match algorithm {
            Algorithm::Tree => &self.tree,
            Algorithm::Ring => &self.ring,
            Algorithm::CollnetDirect => &self.collnet_direct,
            Algorithm::CollnetChain => &self.collnet_chain,
            Algorithm::Nvls => &self.nvls,
            Algorithm::NvlsTree => &self.nvls_tree,
            Algorithm::Pat => &self.pat,
        };
        row[protocol as usize]
    }
}

#[cfg(test)]
impl TreeCorrection {
    /// The share of a tree's bandwidth at each power of two from 64 B on.
    pub(crate) fn of(&self, protocol: Protocol) -> &[f64; 24] {
        match protocol {
            Protocol::Ll => &self.ll,
            Protocol::Ll128 => &self.ll128,
            Protocol::Simple => &self.simple,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    graph: GraphRules,
    #[serde(rename = "version")]
    versions: Vec<Version>,
}

/// A release; what is absent is as in the release that it is `like`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    id: String,
    like: Option<String>,
    #[expect(dead_code, reason = "every entry of a table has a source")]
    source: String,
    nvls_efficiency: Option<ByGeneration<f64>>,
    base_latency: Option<Latencies>,
    nvlink_hop: Option<Latencies>,
    pci_hop: Option<Latencies>,
    network_hop: Option<Latencies>,
    ll_limit: Option<ByGeneration<[f64; 3]>>,
    ring_ll128_limit: Option<ByGeneration<[f64; 3]>>,
    tree_ll128_limit: Option<ByGeneration<[f64; 3]>>,
    tree_limit: Option<ByGeneration<[f64; 3]>>,
    nvls_tree_limit: Option<ByGeneration<[f64; 3]>>,
    tree_correction: Option<TreeCorrection>,
}

impl Tuning {
    /// The constants of a release, such as `2.30`; `None` is the latest that is known.
    ///
    /// # Errors
    /// An unknown release.
    pub(crate) fn of_release(release: Option<&str>) -> Result<Self, SimulateError> {
        let table: Table = toml::from_str(TABLE).map_err(|source| SimulateError::Parse {
            table: "network_nccl",
            source: Box::new(source),
        })?;
        let graph = table.graph;
        let versions: BTreeMap<&str, &Version> = table
            .versions
            .iter()
            .map(|version| (version.id.as_str(), version))
            .collect();
        let asked = release.unwrap_or(LATEST);
        let no_entry = |id: &str| SimulateError::NoEntry {
            table: "network_nccl",
            id: id.to_owned(),
        };
        let version = versions.get(asked).ok_or_else(|| no_entry(asked))?;
        let base = match &version.like {
            Some(id) => Some(*versions.get(id.as_str()).ok_or_else(|| no_entry(id))?),
            None => None,
        };
        Self::of(graph, version, base).ok_or_else(|| no_entry(asked))
    }

    fn of(graph: GraphRules, version: &Version, base: Option<&Version>) -> Option<Self> {
        macro_rules! either {
            ($field:ident) => {
                version
                    .$field
                    .or_else(|| base.and_then(|base| base.$field))?
            };
        }
        Some(Self {
            graph,
            nvls_efficiency: either!(nvls_efficiency),
            base_latency: either!(base_latency),
            nvlink_hop: either!(nvlink_hop),
            pci_hop: either!(pci_hop),
            network_hop: either!(network_hop),
            ll_limit: either!(ll_limit),
            ring_ll128_limit: either!(ring_ll128_limit),
            tree_ll128_limit: either!(tree_ll128_limit),
            tree_limit: either!(tree_limit),
            nvls_tree_limit: either!(nvls_tree_limit),
            tree_correction: either!(tree_correction),
        })
    }
}
