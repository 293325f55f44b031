//! Devices that are slower than others of their class at the same kernels at the same time.

use super::BenchOptions;
use crate::Estimate;
use laggard_record::{BenchRank, BenchSamples, ComputeSamples, ComputeWork};
use laggard_stats::{median, sorted_median_interval, sorted_quantile};
use laggard_types::Rank;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Chance that one of a class is named, at any kind of kernel, though all are equal.
const FALSE_ALARM: f64 = 0.05;

/// A device that is slower than its peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowDevice {
    /// Its rank.
    pub rank: Rank,
    /// Its host.
    pub host: String,
    /// Product name.
    pub device: String,
    /// At what it is slow.
    pub kind: KernelKind,
    /// By how much its rate is below the median of its peers, as a share.
    pub below: Estimate,
    /// Other devices of the class.
    pub peers: usize,
}

/// What kernels are bound by.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum KernelKind {
    /// Arithmetic: matrix products.
    Products,
    /// Memory: triads.
    Memory,
}

impl SlowDevice {
    pub(super) fn in_words(&self) -> String {
        let Self {
            rank, host, device, ..
        } = self;
        let at = match self.kind {
            KernelKind::Products => "products",
            KernelKind::Memory => "memory",
        };
        let Estimate { value, low, high } = self.below;
        let peers = match self.peers {
            1 => "its peer".to_owned(),
            peers => format!("its {peers} peers"),
        };
        format!(
            "rank {rank} ({device} of {host}) is {:.1} % [{:.1}, {:.1}] below {peers} at {at}",
            100.0 * value,
            100.0 * low,
            100.0 * high,
        )
    }
}

/// Ranks by class: by what they compute on, in order of first appearance.
pub(super) fn classes(ranks: &[BenchRank]) -> Vec<Vec<usize>> {
    let mut by_device: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, rank) in ranks.iter().enumerate() {
        by_device.entry(&rank.device).or_default().push(at);
    }
    let mut classes: Vec<Vec<usize>> = by_device.into_values().collect();
    classes.sort();
    classes
}

/// The devices whose rate is below their peers' by more than is ignored, with the interval of a
/// test that allows for looking at all of the class, at each kind of kernel; the slowest first.
pub(super) fn slow(samples: &BenchSamples, options: &BenchOptions) -> Vec<SlowDevice> {
    let mut slow = Vec::new();
    let kinds: BTreeSet<KernelKind> = samples.compute.iter().map(|it| kind_of(it.work)).collect();
    for kind in &kinds {
        let is_of = |it: &&ComputeSamples| kind_of(it.work) == *kind;
        let kernels: Vec<&ComputeSamples> = samples.compute.iter().filter(is_of).collect();
        for class in classes(&samples.ranks)
            .iter()
            .filter(|class| class.len() > 1)
        {
            for at in class {
                let rates = relative_rates(&kernels, class, *at);
                let below = below(&rates, class.len() * kinds.len());
                let is_named = |it: &Estimate| it.value >= options.name_over && it.low > 0.0;
                let Some(below) = below.filter(is_named) else {
                    continue;
                };
                let rank = &samples.ranks[*at];
                slow.push(SlowDevice {
                    rank: *at as Rank,
                    host: rank.host.clone(),
                    device: rank.device.clone(),
                    kind: *kind,
                    below,
                    peers: class.len() - 1,
                });
            }
        }
    }
    slow.sort_by(|a, b| b.below.value.total_cmp(&a.below.value));
    slow
}

fn kind_of(work: ComputeWork) -> KernelKind {
    match work {
        ComputeWork::Product { .. } => KernelKind::Products,
        ComputeWork::Triad { .. } => KernelKind::Memory,
    }
}

/// Round by round, a rank's rate over the median of its peers', as the geometric mean over kernels:
/// what slows all of them in a round says nothing of one.
fn relative_rates(kernels: &[&ComputeSamples], class: &[usize], rank: usize) -> Vec<f64> {
    let rounds = kernels
        .iter()
        .flat_map(|kernel| class.iter().filter_map(|it| kernel.seconds.get(*it)))
        .map(Vec::len)
        .min();
    let of_round = |round: usize| {
        let logs: Option<Vec<f64>> = kernels
            .iter()
            .map(|kernel| {
                let time = |at: usize| kernel.seconds.get(at)?.get(round).copied();
                let peers = class.iter().filter(|at| **at != rank);
                let peers: Vec<f64> = peers.filter_map(|at| time(*at)).collect();
                let ratio = median(&peers).ok()? / time(rank)?;
                (ratio > 0.0).then(|| ratio.ln())
            })
            .collect();
        let logs = logs?;
        Some((logs.iter().sum::<f64>() / logs.len() as f64).exp())
    };
    (0..rounds.unwrap_or(0)).filter_map(of_round).collect()
}

/// One less the median of relative rates, with an interval by order statistics that allows for so
/// many looks. It supposes no distribution, and that rounds do not depend on each other; intervals
/// by resampling came out too narrow for so many looks at so few rounds. `None` where the rounds
/// are too few.
fn below(rates: &[f64], looks: usize) -> Option<Estimate> {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    let interval = sorted_median_interval(&sorted, 1.0 - FALSE_ALARM / looks as f64)?;
    Some(Estimate {
        value: 1.0 - sorted_quantile(&sorted, 0.5).ok()?,
        low: 1.0 - interval.high,
        high: 1.0 - interval.low,
    })
}
