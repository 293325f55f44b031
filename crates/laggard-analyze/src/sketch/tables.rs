//! Tables of a sketch for people: classes, the ranks worth a row, blame.

use super::{SECONDS, Sketch};
use crate::figures::class_figures;
use crate::{BlameEntry, Charged, ClassFigures, Level, RankFigures};
use laggard_record::SketchRank;
use laggard_stats::normal_quantile;
use rayon::prelude::*;

/// Ranks with a row at most, and how many of them are typical ones.
const ROWS: usize = 1000;
const TYPICAL: usize = 100;
/// Own times that stand for those of a rank.
const POINTS: usize = 30;
/// Quantiles that are known of a rank, with the one that is drawn from the others.
const KNOWN: usize = 6;

impl Sketch<'_> {
    /// The ranks that have a row: those charged with most, and some evenly spaced among the others.
    pub(super) fn listed(&self) -> Vec<usize> {
        let charged = |rank: usize| self.charges.of_rank[rank];
        let mut order: Vec<usize> = (0..self.ranks.len()).collect();
        order.sort_by(|&a, &b| charged(b).total_cmp(&charged(a)).then(a.cmp(&b)));
        if order.len() > ROWS {
            let mut others = order.split_off(ROWS - TYPICAL);
            others.sort_unstable();
            let typical = (0..TYPICAL).map(|at| others[at * others.len() / TYPICAL]);
            order.extend(typical);
        }
        order.sort_unstable();
        order
    }

    pub(super) fn rank_figures(&self, listed: &[usize]) -> Vec<RankFigures> {
        let manifest = self.manifest;
        let waits = self.waits();
        let figures = |&rank: &usize| {
            let place = &manifest.ranks[rank];
            RankFigures {
                rank: rank as u32,
                host: manifest.hosts[place.host as usize].name.clone(),
                class: manifest.classes[place.class as usize].name.clone(),
                stage: manifest.schedule.stage_of_rank[rank],
                own_time: self.ranks[rank].mean_ns as f64 * SECONDS,
                excess: self.peers.excess[rank],
                wait_share: waits[rank],
                descheduled_share: None,
            }
        };
        listed.iter().map(figures).collect()
    }

    pub(super) fn classes(&self) -> Vec<ClassFigures> {
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); self.manifest.classes.len()];
        let interpolation = Interpolation::new(self.steps.count());
        for (row, place) in self.ranks.iter().zip(&self.manifest.ranks) {
            times[place.class as usize].extend(interpolation.times(row));
        }
        for times in &mut times {
            times.par_sort_unstable_by(f64::total_cmp);
        }
        class_figures(self.manifest, &times, &self.waits())
    }

    /// Charges that sum to the loss: ranks, the mix of classes, and what is left for all together.
    pub(super) fn blame(&self, listed: &[usize]) -> Vec<BlameEntry> {
        let wall = self.steps.wall_s();
        let entry = |charged, seconds: f64| BlameEntry {
            charged,
            share: seconds / wall,
            last_in_steps: None,
            leave_one_out: None,
        };
        let of_rank = |&rank: &usize| BlameEntry {
            last_in_steps: Some(f64::from(self.ranks[rank].last_steps) / self.steps.count() as f64),
            ..entry(Charged::Rank(rank as u32), self.charges.of_rank[rank])
        };
        let mut table: Vec<BlameEntry> = listed.iter().map(of_rank).collect();
        table.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.charged.cmp(&b.charged)));
        let shown: f64 = listed.iter().map(|&rank| self.charges.of_rank[rank]).sum();
        let others = self.ranks.len() - listed.len();
        if others > 0 {
            let seconds = self.charges.sum() - shown;
            table.push(entry(Charged::OtherRanks(others as u32), seconds));
        }
        let class_mix = self.steps.share(Level::Generation).value * wall;
        table.push(entry(Charged::ClassMix, class_mix));
        let loss = (1.0 - self.steps.share(Level::EvenStep).value) * wall;
        let of_all = loss - class_mix - self.charges.sum();
        table.push(entry(Charged::EveryRank, of_all));
        table
    }

    /// Share of a step that each rank waits for the slowest rank of its stage, by their means.
    fn waits(&self) -> Vec<f64> {
        let stage = |rank: usize| self.manifest.schedule.stage_of_rank[rank] as usize;
        let mut longest = vec![0; self.manifest.schedule.stages() as usize];
        for (rank, row) in self.ranks.iter().enumerate() {
            let longest = &mut longest[stage(rank)];
            *longest = row.mean_ns.max(*longest);
        }
        let wait = |(rank, row): (usize, &SketchRank)| {
            (longest[stage(rank)] - row.mean_ns) as f64 * SECONDS / self.steps.mean_s()
        };
        self.ranks.iter().enumerate().map(wait).collect()
    }
}

/// How own times that stand for all of a rank's lie between the quantiles that are known of it: as
/// those of a normal distribution do.
struct Interpolation {
    /// Normal quantiles of the known times, the shortest and the longest included; ascending.
    known: [f64; KNOWN],
    /// Normal quantiles of the times that are wanted.
    wanted: [f64; POINTS],
}

impl Interpolation {
    fn new(steps: usize) -> Self {
        let normal = |p: f64| normal_quantile(p).unwrap_or(0.0);
        // Of few steps the shortest and the longest may lie within the other quantiles.
        let end = (0.5 / steps as f64).min(0.005);
        Self {
            known: [end, 0.05, 0.5, 0.95, 0.99, 1.0 - end].map(normal),
            wanted: std::array::from_fn(|at| normal((at as f64 + 0.5) / POINTS as f64)),
        }
    }

    /// In seconds, each for as many steps. The 5th percentile is as far below the median as the
    /// 95th is above, by their ratio.
    fn times(&self, row: &SketchRank) -> [f64; POINTS] {
        let [shortest, middle, p95, p99, longest] = [
            row.shortest_ns,
            row.p50_ns,
            row.p95_ns,
            row.p99_ns,
            row.longest_ns,
        ]
        .map(|time| time as f64 * SECONDS);
        let p5 = if p95 > 0.0 {
            middle * middle / p95
        } else {
            0.0
        };
        let times = [shortest, p5.max(shortest), middle, p95, p99, longest];
        self.wanted.map(|wanted| {
            let after = self.known.partition_point(|known| *known < wanted);
            let after = after.clamp(1, KNOWN - 1);
            let (from, to) = (self.known[after - 1], self.known[after]);
            let place = ((wanted - from) / (to - from)).clamp(0.0, 1.0);
            times[after - 1] + (times[after] - times[after - 1]) * place
        })
    }
}
