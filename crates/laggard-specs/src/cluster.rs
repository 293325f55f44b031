//! Clusters: sites, pools of one accelerator class each, and links between sites. Units are part of
//! the names of keys.

mod check;

use serde::{Deserialize, Serialize};

use crate::accelerator::Confidence;
use crate::error::SpecsError;
use crate::names::Names;
use crate::tables::Tables;

/// Clusters that laggard knows, by name.
const PRESETS: [(&str, &str); 7] = [
    (
        "colossus-1",
        include_str!("../data/clusters/colossus-1.toml"),
    ),
    (
        "colossus-1-30k",
        include_str!("../data/clusters/colossus-1-30k.toml"),
    ),
    (
        "colossus-2",
        include_str!("../data/clusters/colossus-2.toml"),
    ),
    ("h100-16k", include_str!("../data/clusters/h100-16k.toml")),
    ("orbital", include_str!("../data/clusters/orbital.toml")),
    ("portfolio", include_str!("../data/clusters/portfolio.toml")),
    ("small-lab", include_str!("../data/clusters/small-lab.toml")),
];

/// Accelerators at one or several sites.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Short name.
    pub id: String,
    /// Name to print.
    pub name: Option<String>,
    /// What a user of the numbers must know.
    pub note: Option<String>,
    /// The places.
    #[serde(rename = "site")]
    pub sites: Vec<Site>,
    /// What stands there.
    #[serde(rename = "pool")]
    pub pools: Vec<Pool>,
    /// What joins the places; sites without a link cannot train together.
    #[serde(rename = "link", default)]
    pub links: Vec<SiteLink>,
}

/// A place with power and a roof.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Short unique name.
    pub id: String,
    /// Power that it can draw in all.
    pub power_limit_watts: Option<f64>,
    /// Power drawn over power used by computers (PUE), at least 1.
    pub power_usage_effectiveness: Option<f64>,
    /// What all of it is said to be leased at, whatever the class.
    pub lease_dollars_per_device_hour: Option<Price>,
    /// How far the numbers are to be trusted.
    pub confidence: Option<Confidence>,
    /// Where they come from.
    #[serde(default)]
    pub sources: Vec<String>,
    /// What a user of the numbers must know.
    pub note: Option<String>,
}

/// Accelerators of one class at one site. What is absent is as the table of accelerators says, or
/// unknown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Short unique name.
    pub id: String,
    /// Id of the site.
    pub site: String,
    /// The class: read under any name of the table, held as its id.
    pub accelerator: String,
    /// How many.
    pub count: u64,
    /// Of them in one host.
    pub devices_per_node: Option<u64>,
    /// Of them joined by the fabric inside a box or rack.
    pub scale_up_domain_devices: Option<u64>,
    /// Of them joined by a network at full bandwidth; beyond, it is oversubscribed.
    pub pod_devices: Option<u64>,
    /// One device's share of the network cards, one direction.
    pub network_bytes_per_s_per_device: Option<f64>,
    /// The network in words.
    pub network: Option<String>,
    /// Bandwidth below over bandwidth above the pods, at least 1.
    pub oversubscription: Option<f64>,
    /// Power of one device with its share of the host, without cooling.
    pub power_watts_per_device: Option<f64>,
    /// Rent.
    pub price_dollars_per_device_hour: Option<Price>,
    /// Failures that end a job, per device.
    pub failures_per_device_year: Option<f64>,
    /// First day, `YYYY-MM-DD` or `YYYY-MM`.
    pub available_from: Option<String>,
    /// How many stand there from later days on.
    #[serde(default)]
    pub ramp: Vec<RampStep>,
    /// How far the numbers are to be trusted.
    pub confidence: Option<Confidence>,
    /// Where they come from.
    #[serde(default)]
    pub sources: Vec<String>,
    /// What a user of the numbers must know.
    pub note: Option<String>,
}

/// A price with its range: prices move by half within a year.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// What the cheapest take.
    pub low: f64,
    /// What is usual.
    pub typical: f64,
    /// What the dearest take.
    pub high: f64,
    /// When, `YYYY-MM-DD` or `YYYY-MM`.
    pub date: Option<String>,
    /// Where the numbers come from.
    pub source: Option<String>,
}

/// How many devices there are from a day on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RampStep {
    /// The day, `YYYY-MM-DD` or `YYYY-MM`.
    pub from: String,
    /// Devices from then on.
    pub count: u64,
}

/// A network between two sites.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteLink {
    /// Id of one site.
    pub from: String,
    /// Id of the other.
    pub to: String,
    /// Of all its lines, one direction.
    pub bandwidth_bytes_per_s: f64,
    /// One way.
    pub latency_s: f64,
    /// How far the numbers are to be trusted.
    pub confidence: Option<Confidence>,
    /// Where they come from.
    #[serde(default)]
    pub sources: Vec<String>,
    /// What a user of the numbers must know.
    pub note: Option<String>,
}

impl Cluster {
    /// A cluster file.
    ///
    /// # Errors
    /// Text that is no such file, an unknown accelerator or site, an impossible value, a name that
    /// stands twice; with line and column.
    pub fn from_toml_str(text: &str, tables: &Tables) -> Result<Self, SpecsError> {
        let mut cluster: Self = toml::from_str(text).map_err(|source| SpecsError::Parse {
            table: "cluster",
            source: Box::new(source),
        })?;
        check::check(&mut cluster, text, tables)?;
        Ok(cluster)
    }

    /// The names of the clusters that laggard knows.
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// The text of a cluster that laggard knows: a file to start from.
    ///
    /// # Errors
    /// No such name; the error lists close ones.
    pub fn preset_text(name: &str) -> Result<&'static str, SpecsError> {
        let mut names = Names::new("cluster");
        for (preset, _) in PRESETS {
            names.add(preset, std::iter::empty())?;
        }
        Ok(PRESETS[names.find(name)?].1)
    }

    /// A cluster that laggard knows.
    ///
    /// # Errors
    /// No such name; or tables without an accelerator that it needs.
    pub fn preset(name: &str, tables: &Tables) -> Result<Self, SpecsError> {
        Self::from_toml_str(Self::preset_text(name)?, tables)
    }

    /// All devices of all pools, once everything is there.
    #[must_use]
    pub fn devices(&self) -> u64 {
        self.pools.iter().map(|pool| pool.count).sum()
    }

    /// Power of all devices with their hosts and the cooling of their site, where all of it is
    /// known.
    #[must_use]
    pub fn power_watts(&self) -> Option<f64> {
        let of_pool = |pool: &Pool| {
            let site = self.sites.iter().find(|site| site.id == pool.site)?;
            let devices = pool.count as f64 * pool.power_watts_per_device?;
            Some(devices * site.power_usage_effectiveness?)
        };
        self.pools.iter().map(of_pool).sum()
    }
}

#[cfg(test)]
mod tests;
