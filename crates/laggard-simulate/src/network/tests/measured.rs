//! The published sweeps.

use laggard_types::BytesPerSecond;
use serde::Deserialize;

use super::super::{Engine, calibration};
use super::*;

pub(super) fn measured() -> Vec<Sweep> {
    let table: Measured =
        toml::from_str(include_str!("../../../data/network_measured.toml")).unwrap();
    table.sweeps
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Measured {
    #[serde(rename = "sweep")]
    sweeps: Vec<Sweep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sweep {
    pub(super) id: String,
    accelerator: String,
    pub(super) collective: Collective,
    ranks: u32,
    ranks_per_domain: u32,
    network: NetworkKind,
    scale_out_bandwidth_bytes_per_s: Option<f64>,
    network_cards_per_rank: Option<f64>,
    #[expect(dead_code, reason = "every entry of a table has a source")]
    source: String,
    #[expect(dead_code, reason = "for readers of the table")]
    note: Option<String>,
    unit: Unit,
    points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Us,
    BusGbPerS,
}

impl Sweep {
    pub(super) fn setting(&self) -> (Fabric, Group) {
        let options = FabricOptions {
            scale_out_bandwidth: self.scale_out_bandwidth_bytes_per_s.map(BytesPerSecond),
            network_cards_per_rank: self.network_cards_per_rank,
            network: self.network,
            ..FabricOptions::default()
        };
        let group = Group::new(self.ranks, self.ranks_per_domain);
        (fabric(&self.accelerator, &options), group)
    }

    /// Mean absolute logarithm of expected over measured time, with a changed fit.
    pub(super) fn error(&self, change: &dyn Fn(&mut calibration::Fit)) -> f64 {
        let (mut fabric, group) = self.setting();
        let Engine::Nccl(nccl) = &mut fabric.engine else {
            panic!("{} has no fit", self.id);
        };
        change(&mut nccl.calibration.domain);
        change(&mut nccl.calibration.network);
        let errors = self.times().map(|(bytes, seconds)| {
            let expected = collective_seconds(self.collective, bytes, &group, &fabric);
            (expected / seconds).ln().abs()
        });
        errors.sum::<f64>() / self.points.len() as f64
    }

    /// Bytes and measured seconds.
    pub(super) fn times(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().map(|&(bytes, value)| match self.unit {
            Unit::Us => (bytes, value * 1e-6),
            Unit::BusGbPerS => {
                let factor = self.collective.bus_factor(self.ranks);
                (bytes, factor * bytes / (value * 1e9))
            }
        })
    }
}
