//! How far a rank's measured mean is its own, and how far it is noise.

use crate::bins::Bin;
use crate::cells::Cells;

/// How far the measured mean of a rank can be trusted: 1 keeps it, 0 replaces it by its class.
pub(crate) struct Noise {
    /// Shrinkage of host effects and of rank effects, per cell.
    pub(crate) keep: Vec<(f64, f64)>,
}

impl Noise {
    pub(crate) fn of(bins: &[Bin], cells: &Cells) -> Self {
        let total = |bin: &Bin, rank: usize| bin.slots[rank].iter().sum::<f64>() / bin.steps;
        let keep = (0..cells.members.len())
            .map(|cell| {
                let members = &cells.members[cell];
                let mut mean = vec![0.0; members.len()];
                let mut square = vec![0.0; members.len()];
                for bin in bins {
                    let centre = members.iter().map(|&rank| total(bin, rank)).sum::<f64>()
                        / members.len() as f64;
                    for (at, &rank) in members.iter().enumerate() {
                        let deviation = total(bin, rank) - centre;
                        mean[at] += deviation / bins.len() as f64;
                        square[at] += deviation * deviation / bins.len() as f64;
                    }
                }
                // Squared standard error of a rank's mean deviation.
                let n = bins.len() as f64;
                let error = mean
                    .iter()
                    .zip(&square)
                    .map(|(m, s)| (s - m * m).max(0.0) / n);
                let error = error.sum::<f64>() / members.len() as f64;
                shrinkage(cells, cell, &mean, error)
            })
            .collect();
        Self { keep }
    }
}

/// Shrinkage by the method of moments: the share of the observed variance that is not noise.
fn shrinkage(cells: &Cells, cell: usize, mean: &[f64], error: f64) -> (f64, f64) {
    let members = &cells.members[cell];
    let value = |rank: usize| mean[members.binary_search(&rank).unwrap_or(0)];
    let keep = |observed: f64, noise: f64| {
        if observed > 0.0 {
            (1.0 - noise / observed).clamp(0.0, 1.0)
        } else {
            0.0
        }
    };
    let host = host_effects(cells, cell, value);
    let rest: Vec<f64> = members
        .iter()
        .map(|&rank| value(rank) - host[cells.host_of_rank[rank]])
        .collect();
    let rank_variance = variance(&rest);
    let hosts = hosts_of(cells, cell);
    if hosts.len() < 2 || hosts.len() == members.len() {
        return (0.0, keep(variance(mean), error));
    }
    let per_host = members.len() as f64 / hosts.len() as f64;
    let effects: Vec<f64> = hosts.iter().map(|&h| host[h]).collect();
    (
        keep(variance(&effects), rank_variance.max(error) / per_host),
        keep(rank_variance, error),
    )
}

fn variance(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if n < 2.0 {
        return 0.0;
    }
    let mean = values.iter().sum::<f64>() / n;
    values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / (n - 1.0)
}

fn hosts_of(cells: &Cells, cell: usize) -> Vec<usize> {
    let mut hosts: Vec<usize> = cells.members[cell]
        .iter()
        .map(|&rank| cells.host_of_rank[rank])
        .collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// Effect of each host: the median of its ranks less the median of the cell. Zero where a host is
/// not more than a rank.
pub(crate) fn host_effects(cells: &Cells, cell: usize, value: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut effects = vec![0.0; cells.host_of_rank.iter().max().map_or(0, |last| last + 1)];
    let hosts = hosts_of(cells, cell);
    if hosts.len() < 2 || hosts.len() == cells.members[cell].len() {
        return effects;
    }
    let median = |ranks: &mut dyn Iterator<Item = usize>| {
        let values: Vec<f64> = ranks.map(&value).collect();
        laggard_stats::median(&values).unwrap_or(0.0)
    };
    let centre = median(&mut cells.members[cell].iter().copied());
    for host in hosts {
        effects[host] = median(&mut cells.on_host(cell, host)) - centre;
    }
    effects
}
