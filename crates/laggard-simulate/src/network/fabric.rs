//! The links that collectives run over, from an accelerator's datasheet and what a cluster adds.

use laggard_specs::Accelerator;
use laggard_types::{BytesPerSecond, Seconds};
use serde::Deserialize;

use super::calibration::{Calibration, NetworkKind};
use super::flat::Level;
use super::nccl::{Nccl, NetworkReduction, Processor, Wires};
use super::tuning::{Generation, Tuning};
use crate::error::{SimulateError, in_range, positive};

const TABLE: &str = include_str!("../../data/network_links.toml");
const GB_PER_S: f64 = 1e9;
const US: f64 = 1e-6;

/// A link between two places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// What one direction carries.
    pub bandwidth: BytesPerSecond,
    /// What one hop takes.
    pub latency: Seconds,
}

/// What a cluster says of its network beyond the accelerator's usual server. `None` keeps the
/// usual.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FabricOptions {
    /// Accelerators of one scale-up domain.
    pub domain_ranks: Option<u32>,
    /// Link rate of one accelerator within its domain, one direction.
    pub scale_up_bandwidth: Option<BytesPerSecond>,
    /// One accelerator's share of the network cards, one direction.
    pub scale_out_bandwidth: Option<BytesPerSecond>,
    /// Network cards per accelerator; 1 as a rule.
    pub network_cards_per_rank: Option<f64>,
    /// What the network adds to each hop between domains; 0 as a rule.
    pub network_latency: Option<Seconds>,
    /// Accelerators that share switches without oversubscription.
    pub pod_ranks: Option<u32>,
    /// How many times the rate into the pods exceeds that between them; 1 as a rule.
    pub oversubscription: Option<f64>,
    /// Accelerators of one site.
    pub site_ranks: Option<u32>,
    /// What one group has of the link between sites.
    pub site_link: Option<Link>,
    /// What joins the domains.
    pub network: NetworkKind,
    /// Whether its switches reduce.
    pub reduction: NetworkReduction,
    /// Who makes the hosts' processors.
    pub processor: Processor,
    /// Release of NCCL, such as `2.29`; the latest known as a rule.
    pub nccl_release: Option<String>,
}

/// The links of one class of accelerators, ready for [`super::collective_seconds`].
#[derive(Debug, Clone, PartialEq)]
pub struct Fabric {
    pub(super) engine: Engine,
    pub(super) domain_ranks: u32,
    pub(super) pod_ranks: u32,
    pub(super) site_ranks: u32,
    pub(super) oversubscription: f64,
    pub(super) site_link: Option<Link>,
    /// What ranks reach within a domain, point to point.
    pub(super) inner: Level,
    /// What ranks reach between domains, point to point.
    pub(super) outer: Level,
    /// Whether the domain is a mesh of direct links.
    pub(super) mesh: bool,
    /// Seconds that an operation takes to start, where NCCL's model does not say.
    pub(super) start_seconds: f64,
    /// Time of every operation within a site over what all this gives.
    pub(super) time_factor: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Engine {
    Nccl(Nccl),
    Flat,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(rename = "links")]
    entries: Vec<LinkRules>,
}

/// What software reaches of a vendor's link rates.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkRules {
    vendor: String,
    scale_up_share: f64,
    scale_out_share: f64,
    scale_up_hop_us: f64,
    scale_out_hop_us: f64,
    start_us: f64,
    /// Fabrics whose name begins so are meshes of direct links.
    #[serde(default)]
    mesh_fabrics: Vec<String>,
    /// Fabrics whose name begins so are tori of that many dimensions.
    #[serde(default)]
    torus_fabrics: Vec<(String, u32)>,
    #[expect(dead_code, reason = "every entry of a table has a source")]
    source: String,
}

impl Fabric {
    /// The links of an accelerator's usual server and network, with what a cluster changes.
    ///
    /// # Errors
    /// A bandwidth that neither the accelerator nor the options know, or a number that is not
    /// above zero.
    pub fn new(accelerator: &Accelerator, options: &FabricOptions) -> Result<Self, SimulateError> {
        let unknown = |link, key| SimulateError::UnknownBandwidth {
            accelerator: accelerator.id.clone(),
            link,
            key,
        };
        let scale_up = options
            .scale_up_bandwidth
            .or(accelerator.scale_up_bandwidth_bytes_per_s)
            .ok_or_else(|| unknown("scale-up", "scale_up_bandwidth_bytes_per_s"))?;
        let scale_out = options
            .scale_out_bandwidth
            .or(accelerator.scale_out_bandwidth_bytes_per_s)
            .ok_or_else(|| unknown("scale-out", "scale_out_bandwidth_bytes_per_s"))?;
        let rules = link_rules(&accelerator.vendor)?;
        let up = positive("scale-up bandwidth in bytes/s", scale_up.0)?;
        let out = positive("scale-out bandwidth in bytes/s", scale_out.0)?;
        let oversubscription = options.oversubscription.unwrap_or(1.0);
        let added = options.network_latency.unwrap_or(Seconds(0.0)).0;
        check(options, oversubscription, added)?;
        let name = accelerator.scale_up_fabric.as_deref().unwrap_or_default();
        let torus = rules
            .torus_fabrics
            .iter()
            .find(|(torus, _)| name.starts_with(torus));
        let engine = match generation(accelerator) {
            Some(generation) => Engine::Nccl(Nccl {
                tuning: Box::new(Tuning::of_release(options.nccl_release.as_deref())?),
                calibration: Calibration::for_machine(generation, options.network)?,
                generation,
                wires: wires(name),
                processor: options.processor,
                reduction: options.reduction,
                scale_up: up / GB_PER_S,
                scale_out: out / GB_PER_S,
                cards_per_rank: options.network_cards_per_rank.unwrap_or(1.0),
                network_latency: added / US,
            }),
            None => Engine::Flat,
        };
        Ok(Self {
            engine,
            domain_ranks: options
                .domain_ranks
                .or(accelerator.scale_up_domain_devices)
                .unwrap_or(1),
            pod_ranks: options.pod_ranks.unwrap_or(u32::MAX),
            site_ranks: options.site_ranks.unwrap_or(u32::MAX),
            oversubscription,
            site_link: options.site_link,
            inner: Level {
                bandwidth: rules.scale_up_share * up,
                latency: rules.scale_up_hop_us * US,
                dimensions: torus.map_or(1.0, |(_, dimensions)| f64::from(*dimensions)),
            },
            outer: Level {
                bandwidth: rules.scale_out_share * out,
                latency: rules.scale_out_hop_us * US + added,
                dimensions: 1.0,
            },
            mesh: rules.mesh_fabrics.iter().any(|mesh| name.starts_with(mesh)),
            start_seconds: rules.start_us * US,
            time_factor: 1.0,
        })
    }

    /// The same links with everything within a site taking `factor` times as long.
    pub(crate) fn slowed(&self, factor: f64) -> Self {
        Self {
            time_factor: self.time_factor * factor,
            ..self.clone()
        }
    }

    /// Times of collectives and transfers over what the links give.
    pub(crate) fn time_factor(&self) -> f64 {
        self.time_factor
    }

    /// Accelerators of one scale-up domain.
    #[must_use]
    pub fn domain_ranks(&self) -> u32 {
        self.domain_ranks
    }
}

fn check(options: &FabricOptions, oversubscription: f64, added: f64) -> Result<(), SimulateError> {
    let at_least_one = oversubscription >= 1.0 && oversubscription.is_finite();
    in_range(
        "oversubscription",
        oversubscription,
        at_least_one,
        "at least 1",
    )?;
    let not_negative = added >= 0.0 && added.is_finite();
    in_range(
        "network latency in seconds",
        added,
        not_negative,
        "at least 0",
    )?;
    if let Some(cards) = options.network_cards_per_rank {
        positive("network cards per rank", cards)?;
    }
    for (name, ranks) in [
        ("accelerators of a domain", options.domain_ranks),
        ("accelerators of a pod", options.pod_ranks),
        ("accelerators of a site", options.site_ranks),
    ] {
        if let Some(ranks) = ranks {
            positive(name, f64::from(ranks))?;
        }
    }
    if let Some(link) = options.site_link {
        positive("bandwidth between sites in bytes/s", link.bandwidth.0)?;
        let latency = link.latency.0;
        let not_negative = latency >= 0.0 && latency.is_finite();
        in_range(
            "latency between sites in seconds",
            latency,
            not_negative,
            "at least 0",
        )?;
    }
    Ok(())
}

/// NVIDIA's generation as NCCL tells it apart, by compute capability; `None` for other vendors.
fn generation(accelerator: &Accelerator) -> Option<Generation> {
    let capability = accelerator.compute_capability.as_deref()?;
    let major: u32 = capability.split('.').next()?.parse().ok()?;
    Some(match major {
        0..8 => Generation::Volta,
        8 => Generation::Ampere,
        9 => Generation::Hopper,
        _ => Generation::Blackwell,
    })
}

/// The wires by the datasheet's name of the fabric.
fn wires(fabric: &str) -> Wires {
    if fabric.contains("NVSwitch") || fabric.contains("NVL72") {
        Wires::NvSwitch
    } else if fabric.starts_with("NVLink") {
        Wires::NvLink
    } else {
        Wires::Pci
    }
}

fn link_rules(vendor: &str) -> Result<LinkRules, SimulateError> {
    let table: Table = toml::from_str(TABLE).map_err(|source| SimulateError::Parse {
        table: "network_links",
        source: Box::new(source),
    })?;
    table
        .entries
        .into_iter()
        .find(|rules| rules.vendor == vendor)
        .ok_or_else(|| SimulateError::NoEntry {
            table: "network_links",
            id: vendor.to_owned(),
        })
}
