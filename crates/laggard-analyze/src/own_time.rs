//! Own time of every rank in every step, by slot, and what unequal work does to it.

use crate::cells::{Cells, Slot, Slots};
use crate::intake::Measurements;
use crate::work::{NominalWork, Work, ranks_per_replica};
use laggard_record::Manifest;
use rayon::prelude::*;

/// Own time in seconds by `[step][rank][slot]`, without delays.
pub(crate) struct OwnTime {
    ranks: usize,
    table: Vec<Slots>,
}

impl OwnTime {
    pub(crate) fn new(measured: &Measurements, cells: &Cells) -> Self {
        let ranks = cells.ranks;
        let mut table = vec![[0.0; Slot::COUNT]; measured.steps() * ranks];
        table
            .par_chunks_mut(ranks)
            .enumerate()
            .for_each(|(step, row)| {
                let own = measured.own_of_step(step);
                for ((&own, &rank), slot) in
                    own.iter().zip(&cells.rank_of_node).zip(&cells.slot_of_node)
                {
                    if let Some(slot) = slot {
                        row[rank][*slot as usize] += f64::from(own);
                    }
                }
            });
        Self { ranks, table }
    }

    pub(crate) fn steps(&self) -> usize {
        self.table.len() / self.ranks
    }

    pub(crate) fn of(&self, step: usize, rank: usize) -> &Slots {
        &self.table[step * self.ranks + rank]
    }

    /// Median over steps of a rank's whole own time.
    pub(crate) fn median_step(&self, rank: usize) -> f64 {
        let mut totals: Vec<f64> = (0..self.steps())
            .map(|step| self.of(step, rank).iter().sum())
            .collect();
        laggard_stats::median_in_place(&mut totals).unwrap_or(0.0)
    }

    pub(crate) fn of_step(&self, step: usize) -> &[Slots] {
        &self.table[step * self.ranks..][..self.ranks]
    }
}

/// How much work each rank had, and how its time follows.
pub(crate) struct WorkShare {
    ranks: usize,
    /// Work over the mean of the mates in that step, `[step][rank]`; empty if all is equal.
    ratio: Vec<f64>,
    /// Model FLOP of all ranks in each step.
    pub(crate) flop: Vec<f64>,
    /// The part of it that is attention.
    pub(crate) attention_flop: Vec<f64>,
    /// FLOP that were done again in each step, on all ranks.
    pub(crate) recomputed_flop: Vec<f64>,
    /// Tokens of each step.
    pub(crate) tokens: Vec<f64>,
    /// Exponent of time as a power of work.
    pub(crate) exponent: f64,
    /// Share of the variance of own times among mates within steps that work explains.
    pub(crate) explained: f64,
    /// Whether the work of a rank changes from step to step (sequence lengths) rather than only
    /// from rank to rank (micro-batches).
    pub(crate) ragged: bool,
}

impl WorkShare {
    pub(crate) fn new(
        manifest: &Manifest,
        measured: &Measurements,
        cells: &Cells,
        own: &OwnTime,
    ) -> Self {
        let per_rank: Vec<NominalWork> = (0..cells.ranks)
            .map(|rank| NominalWork::of(manifest, rank))
            .collect();
        let steps = measured.steps();
        let mut share = Self {
            ranks: cells.ranks,
            ratio: vec![1.0; steps * cells.ranks],
            flop: vec![0.0; steps],
            attention_flop: vec![0.0; steps],
            recomputed_flop: vec![0.0; steps],
            tokens: vec![0.0; steps],
            exponent: 1.0,
            explained: 0.0,
            ragged: false,
        };
        let ranks_per_replica = ranks_per_replica(manifest);
        for step in 0..steps {
            let mut work = vec![0.0; cells.ranks];
            for (rank, nominal) in per_rank.iter().enumerate() {
                let given = measured.work.get(step * cells.ranks + rank);
                let (model, again) = (nominal.model.given(given), nominal.again.given(given));
                work[rank] = model.sum() + again.sum();
                share.flop[step] += model.sum();
                share.attention_flop[step] += model.attention;
                share.recomputed_flop[step] += again.sum();
                let tokens = given.map_or(nominal.tokens(), |work| work.tokens);
                share.tokens[step] += tokens / ranks_per_replica;
            }
            for members in &cells.mates {
                let mean = members.iter().map(|&r| work[r]).sum::<f64>() / members.len() as f64;
                for &rank in members.iter().filter(|_| mean > 0.0) {
                    share.ratio[step * cells.ranks + rank] = work[rank] / mean;
                }
            }
        }
        share.fit(cells, own);
        share
    }

    /// All steps together.
    pub(crate) fn total(&self) -> Work {
        Work {
            flop: self.flop.iter().sum(),
            attention_flop: self.attention_flop.iter().sum(),
            recomputed_flop: self.recomputed_flop.iter().sum(),
            tokens: self.tokens.iter().sum(),
        }
    }

    /// Factor that brings a rank's forward and backward to its mates' mean work.
    pub(crate) fn factor(&self, step: usize, rank: usize) -> f64 {
        match self.ratio.get(step * self.ranks + rank) {
            Some(ratio) if *ratio > 0.0 => ratio.powf(-self.exponent),
            _ => 1.0,
        }
    }

    /// Whether mates differ in work at all.
    pub(crate) fn is_uneven(&self) -> bool {
        !self.ratio.is_empty()
    }

    /// Fits time as a power of work, from differences within ranks where work changes from step to
    /// step: those cannot be confused with slow ranks.
    fn fit(&mut self, cells: &Cells, own: &OwnTime) {
        const EVEN: f64 = 1e-3;
        let steps = own.steps();
        if self.ratio.iter().all(|ratio| (ratio - 1.0).abs() < EVEN) {
            self.ratio.clear();
            return;
        }
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for members in &cells.mates {
            let xs = deviations(members, steps, |s, r| self.ratio[s * self.ranks + r].ln());
            let ys = deviations(members, steps, |s, r| {
                work_time(own.of(s, r)).max(1e-12).ln()
            });
            for (x, y) in xs.iter().zip(&ys) {
                xx += x * x;
                xy += x * y;
                yy += y * y;
            }
        }
        let spread = (xx / (steps * self.ranks) as f64).sqrt();
        self.ragged = spread > EVEN;
        if self.ragged {
            self.exponent = (xy / xx).clamp(0.0, 1.2);
            self.explained = if yy > 0.0 { xy * xy / (xx * yy) } else { 0.0 };
        }
    }
}

/// Forward and backward.
pub(crate) fn work_time(slots: &Slots) -> f64 {
    Slot::ALL
        .iter()
        .filter(|slot| slot.scales_with_work())
        .map(|slot| slots[*slot as usize])
        .sum()
}

/// Values less the mean of their step over the members, less the mean of their rank over the steps.
fn deviations(members: &[usize], steps: usize, value: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let width = members.len();
    let mut table = Vec::with_capacity(steps * width);
    for step in 0..steps {
        let row: Vec<f64> = members.iter().map(|&rank| value(step, rank)).collect();
        let mean = row.iter().sum::<f64>() / width as f64;
        table.extend(row.iter().map(|value| value - mean));
    }
    for column in 0..width {
        let mean = table.iter().skip(column).step_by(width).sum::<f64>() / steps as f64;
        table
            .iter_mut()
            .skip(column)
            .step_by(width)
            .for_each(|value| *value -= mean);
    }
    table
}
