//! How far a rank's measured mean is its own, and how far it is noise.

use crate::bins::Sums;
use crate::cells::{Cells, Slot, Slots};

/// How far the measured mean of a rank can be trusted: 1 keeps it, 0 replaces it by its class.
pub(crate) struct Noise {
    /// By cell.
    pub(crate) keep: Vec<Keep>,
}

/// How much of each effect is kept in a cell.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Keep {
    pub(crate) host: f64,
    /// Of what the ranks of a stage have alike beyond their hosts', in cells that span stages.
    pub(crate) stage: f64,
    pub(crate) rank: f64,
}

impl Noise {
    pub(crate) fn of(bins: &[Sums], cells: &Cells) -> Self {
        let keep = (0..cells.members.len()).map(|cell| {
            let (mean, error) = deviations(bins, cells, &cells.members[cell]);
            shrinkage(cells, cell, &mean, &error)
        });
        Self {
            keep: keep.collect(),
        }
    }
}

/// What a healthy member of each cell takes, over the cell's mean. Where stages are compared, a
/// slow rank is not made up for by others that are as much faster: in a pipeline it may cost less
/// than if all were a little slower. Then the typical rank is the measure (the faster one, if half
/// of the ranks are slow), as far as differences are not noise. Elsewhere it is the mean.
pub(crate) fn healthy(noise: &Noise, bins: &[Sums], cells: &Cells) -> Vec<Slots> {
    let mut healthy = vec![[1.0; Slot::COUNT]; cells.members.len()];
    if !cells.across_stages {
        return healthy;
    }
    for (cell, healthy) in healthy.iter_mut().enumerate() {
        let members = &cells.members[cell];
        let keep = noise.keep[cell];
        let keep = keep.host.max(keep.stage).max(keep.rank);
        for (slot, healthy) in healthy.iter_mut().enumerate() {
            let time = |rank: &usize| {
                let sum: f64 = bins.iter().map(|bin| bin.slots[*rank][slot]).sum();
                sum / cells.expected[*rank][slot]
            };
            let times: Vec<f64> = members.iter().map(time).collect();
            let mean = times.iter().sum::<f64>() / times.len() as f64;
            if mean > 0.0 {
                *healthy = 1.0 - keep * (1.0 - typical(times) / mean);
            }
        }
    }
    healthy
}

/// The median; of two in the middle the smaller.
pub(crate) fn typical(mut values: Vec<f64>) -> f64 {
    let middle = values.len().saturating_sub(1) / 2;
    values.sort_unstable_by(f64::total_cmp);
    values.get(middle).copied().unwrap_or(0.0)
}

/// Mean deviation of every member from the cell's mean compute time, and its squared standard
/// error. Host time is left out: it counts with its median everywhere.
fn deviations(bins: &[Sums], cells: &Cells, members: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let total = |bin: &Sums, rank: usize| {
        cells.usual(rank, &bin.slots[rank])[Slot::Host as usize + 1..]
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
fn shrinkage(cells: &Cells, cell: usize, mean: &[f64], error: &[f64]) -> Keep {
    let members = &cells.members[cell];
    let value = |rank: usize| mean[members.binary_search(&rank).unwrap_or(0)];
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
    let host = Effects::new(cells, cell, Unit::Host, value);
    let after_host = |rank: usize| value(rank) - host.of(rank);
    let stage = Effects::new(cells, cell, Unit::Stage, after_host);
    let rest: Vec<f64> = members
        .iter()
        .map(|&r| after_host(r) - stage.of(r))
        .collect();
    let rank_variance = variance(&rest);
    Keep {
        host: host.keep(members.len(), rank_variance.max(noise)),
        stage: stage.keep(members.len(), rank_variance.max(noise)),
        rank: ranks.keep(rank_variance),
    }
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

/// What ranks may have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A host.
    Host,
    /// A pipeline stage, in cells that span stages.
    Stage,
}

/// What the ranks of each unit in a cell have alike: their median less that of the cell. Nothing
/// where a unit is not more than a rank.
pub(crate) struct Effects<'a> {
    unit_of_rank: &'a [usize],
    units: Vec<usize>,
    /// By unit.
    effects: Vec<f64>,
}

impl<'a> Effects<'a> {
    pub(crate) fn new(
        cells: &'a Cells,
        cell: usize,
        unit: Unit,
        value: impl Fn(usize) -> f64,
    ) -> Self {
        let members = &cells.members[cell];
        let unit_of_rank = match unit {
            Unit::Host => &cells.host_of_rank,
            Unit::Stage => &cells.mates_of_rank,
        };
        let mut units: Vec<usize> = members.iter().map(|&rank| unit_of_rank[rank]).collect();
        units.sort_unstable();
        units.dedup();
        if units.len() < 2 || units.len() == members.len() {
            units.clear();
        }
        let mut effects = vec![0.0; units.last().map_or(0, |last| last + 1)];
        let median = |ranks: &mut dyn Iterator<Item = usize>| {
            let values: Vec<f64> = ranks.map(&value).collect();
            laggard_stats::median(&values).unwrap_or(0.0)
        };
        if !units.is_empty() {
            let centre = median(&mut members.iter().copied());
            for &unit in &units {
                let mut of_unit = members.iter().copied().filter(|&r| unit_of_rank[r] == unit);
                effects[unit] = median(&mut of_unit) - centre;
            }
        }
        Self {
            unit_of_rank,
            units,
            effects,
        }
    }

    pub(crate) fn of(&self, rank: usize) -> f64 {
        self.effects
            .get(self.unit_of_rank[rank])
            .copied()
            .unwrap_or(0.0)
    }

    /// What to keep, if the ranks of a unit differ by a variance.
    fn keep(&self, ranks: usize, rank_variance: f64) -> f64 {
        /// Variance of a median over that of a mean, for many normal values.
        const MEDIAN_OVER_MEAN: f64 = std::f64::consts::FRAC_PI_2;
        if self.units.is_empty() {
            return 0.0;
        }
        let units = self.units.len() as f64;
        let spread = Spread {
            noise: rank_variance * MEDIAN_OVER_MEAN * units / ranks as f64,
            freedom: units - 1.0,
        };
        let effects: Vec<f64> = self.units.iter().map(|&unit| self.effects[unit]).collect();
        spread.keep(variance(&effects))
    }
}
