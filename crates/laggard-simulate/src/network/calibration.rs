//! What published sweeps add to NCCL's own estimate.

use serde::Deserialize;

use super::tuning::Generation;
use crate::error::SimulateError;

const TABLE: &str = include_str!("../../data/network_fits.toml");

/// What joins the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// InfiniBand or RoCE.
    #[default]
    Rdma,
    /// Amazon's Elastic Fabric Adapter: higher latencies.
    Efa,
}

/// The fit for groups within a domain and for those over several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Calibration {
    pub(crate) domain: Fit,
    pub(crate) network: Fit,
    /// The ramp of one-way collectives over that of all-reduce.
    pub(crate) one_way_ramp: f64,
}

/// One fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fit {
    /// Factor on NCCL's latencies.
    pub(crate) latency_scale: f64,
    /// Microseconds times the cube root of MiB.
    pub(crate) ramp_us: f64,
    /// What multicast reaches of NCCL's estimate.
    pub(crate) multicast_share: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    one_way_ramp: f64,
    #[serde(rename = "fit")]
    fits: Vec<FitEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FitEntry {
    pub(super) generation: Generation,
    pub(super) span: Span,
    latency_scale: f64,
    ramp_us: f64,
    multicast_share: f64,
    /// Sweeps of the table of measurements that it was fitted on.
    #[serde(default)]
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for readers, and for the test that fits again")
    )]
    pub(super) sweeps: Vec<String>,
    /// The generation that it was taken over from.
    #[expect(dead_code, reason = "for readers of the table")]
    #[serde(rename = "as")]
    like: Option<Generation>,
}

/// What the ranks of a group are spread over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Span {
    Domain,
    Rdma,
    Efa,
}

impl Calibration {
    /// The fits of a generation on a network.
    ///
    /// # Errors
    /// A table without them.
    pub(crate) fn for_machine(
        generation: Generation,
        network: NetworkKind,
    ) -> Result<Self, SimulateError> {
        let table = table()?;
        let between = match network {
            NetworkKind::Rdma => Span::Rdma,
            NetworkKind::Efa => Span::Efa,
        };
        let find = |span: Span| {
            table
                .fits
                .iter()
                .find(|entry| entry.generation == generation && entry.span == span)
                .map(FitEntry::fit)
                .ok_or_else(|| SimulateError::NoEntry {
                    table: "network_fits",
                    id: format!("{generation:?} over {span:?}"),
                })
        };
        Ok(Self {
            domain: find(Span::Domain)?,
            network: find(between)?,
            one_way_ramp: table.one_way_ramp,
        })
    }

    pub(crate) fn of(&self, several_domains: bool) -> &Fit {
        if several_domains {
            &self.network
        } else {
            &self.domain
        }
    }
}

impl FitEntry {
    fn fit(&self) -> Fit {
        Fit {
            latency_scale: self.latency_scale,
            ramp_us: self.ramp_us,
            multicast_share: self.multicast_share,
        }
    }
}

fn table() -> Result<Table, SimulateError> {
    toml::from_str(TABLE).map_err(|source| SimulateError::Parse {
        table: "network_fits",
        source: Box::new(source),
    })
}

/// Every fit, for the test that fits again.
#[cfg(test)]
pub(super) fn fits() -> Vec<FitEntry> {
    table().unwrap().fits
}
