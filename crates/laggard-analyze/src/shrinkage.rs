//! How far a rank's measured mean is its own, and how far it is noise.

use crate::bins::Bin;
use crate::cells::{Cells, Slot};

/// How far the measured mean of a rank can be trusted: 1 keeps it, 0 replaces it by its class.
pub(crate) struct Noise {
    /// Shrinkage of host effects and of rank effects, per cell.
    pub(crate) keep: Vec<(f64, f64)>,
}

impl Noise {
    pub(crate) fn of(bins: &[Bin], cells: &Cells) -> Self {
        let keep = (0..cells.members.len()).map(|cell| {
            let (mean, error) = deviations(bins, &cells.members[cell]);
            shrinkage(cells, cell, &mean, &error)
        });
        Self {
            keep: keep.collect(),
        }
    }
}

/// Mean deviation of every member from the cell's mean compute time, and its squared standard
/// error. Host time is left out: it counts with its median everywhere.
fn deviations(bins: &[Bin], members: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let total = |bin: &Bin, rank: usize| {
        bin.slots[rank][Slot::Host as usize + 1..]
            .iter()
            .sum::<f64>()
            / bin.steps
    };
    let (mut mean, mut square) = (vec![0.0; members.len()], vec![0.0; members.len()]);
    let n = bins.len() as f64;
    for bin in bins {
        let row: Vec<f64> = members.iter().map(|&rank| total(bin, rank)).collect();
        let centre = row.iter().sum::<f64>() / row.len() as f64;
        for (at, value) in row.iter().enumerate() {
            mean[at] += (value - centre) / n;
            square[at] += (value - centre).powi(2) / n;
        }
    }
    let error = mean
        .iter()
        .zip(&square)
        .map(|(m, s)| (s - m * m).max(0.0) / n)
        .collect();
    (mean, error)
}

/// Shrinkage by the method of moments: the share of the observed variance that is not noise.
fn shrinkage(cells: &Cells, cell: usize, mean: &[f64], error: &[f64]) -> (f64, f64) {
    /// Variance of a median over that of a mean, for many normal values.
    const MEDIAN_OVER_MEAN: f64 = std::f64::consts::FRAC_PI_2;
    let members = &cells.members[cell];
    let value = |rank: usize| mean[members.binary_search(&rank).unwrap_or(0)];
    let host = host_effects(cells, cell, value);
    let rest: Vec<f64> = members
        .iter()
        .map(|&rank| value(rank) - host[cells.host_of_rank[rank]])
        .collect();
    let noise = error.iter().sum::<f64>() / error.len() as f64;
    let squares: f64 = error.iter().map(|error| error * error).sum();
    // Satterthwaite: one noisy rank leaves hardly more than one degree of freedom.
    let noisy = if squares > 0.0 {
        error.iter().sum::<f64>().powi(2) / squares
    } else {
        1.0
    };
    let ranks = Spread {
        noise,
        freedom: noisy - 1.0,
    };
    let hosts = hosts_of(cells, cell);
    if hosts.len() < 2 || hosts.len() == members.len() {
        return (0.0, ranks.keep(variance(mean)));
    }
    let rank_variance = variance(&rest);
    let per_host = members.len() as f64 / hosts.len() as f64;
    let effects: Vec<f64> = hosts.iter().map(|&h| host[h]).collect();
    let spread = Spread {
        noise: rank_variance.max(noise) * MEDIAN_OVER_MEAN / per_host,
        freedom: hosts.len() as f64 - 1.0,
    };
    (spread.keep(variance(&effects)), ranks.keep(rank_variance))
}

/// How much units would differ by noise alone.
struct Spread {
    noise: f64,
    freedom: f64,
}

impl Spread {
    /// What to keep of differences with an observed variance: nothing, unless it exceeds the 99th
    /// percentile of what noise gives.
    fn keep(&self, observed: f64) -> f64 {
        /// 99th percentile of the normal distribution.
        const NORMAL_99: f64 = 2.326_347_874;
        // Wilson and Hilferty 1931: the cube root of a chi-square over its degrees is near normal.
        let width = 2.0 / (9.0 * self.freedom.max(1.0));
        let limit = self.noise * (1.0 - width + NORMAL_99 * width.sqrt()).powi(3);
        if observed > limit {
            1.0 - self.noise / observed
        } else {
            0.0
        }
    }
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
