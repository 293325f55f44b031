//! Who of a sketch is slower than those who do the same: ranks of one class and one program, which
//! have the same stage and the same share of the work.

use crate::Estimate;
use crate::causes::persistent::OUTLIER_DEVIATIONS;
use crate::causes::{Thresholds, median_of_others};
use crate::traits::FEW_MATES;
use laggard_record::{Manifest, SketchRank};
use laggard_stats::{MAD_TO_SIGMA, mad, median, normal_quantile};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Fewest other peers whose spread says how much equal ranks differ.
const ENOUGH_OTHERS: usize = 5;
/// 95th percentile of the normal distribution.
const NORMAL_P95: f64 = 1.644_853_626_951_5;
/// 97.5th percentile: the ends of a 95 % interval.
const NORMAL_P97_5: f64 = 1.959_963_984_540_1;

/// What a rank's own times are over those of its peers.
pub(super) struct Peers {
    /// Mean own time over the peers' median of it, less 1, by rank; 0 of a rank that is alone.
    pub(super) excess: Vec<f64>,
    /// The same of the median own time, which stops do not move.
    median_excess: Vec<f64>,
    /// Own time that is typical of a rank's peers, nanoseconds.
    pub(super) typical_ns: Vec<f64>,
    cell_of_rank: Vec<usize>,
    cells: Vec<Cell>,
}

struct Cell {
    ranks: Vec<usize>,
    /// Standard deviation of the excess, from the median absolute deviation.
    deviation: f64,
    centre: f64,
}

impl Peers {
    /// `ranks` has one entry for each rank of the manifest.
    pub(super) fn new(manifest: &Manifest, ranks: &[SketchRank]) -> Self {
        let mut members: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
        for (rank, place) in manifest.ranks.iter().enumerate() {
            let program = manifest.schedule.program_of_rank[rank];
            members
                .entry((place.class, program))
                .or_default()
                .push(rank);
        }
        let members: Vec<Vec<usize>> = members.into_values().collect();
        let mean = |rank: usize| ranks[rank].mean_ns as f64;
        let middle = |rank: usize| ranks[rank].p50_ns as f64;
        let compared: Vec<_> = members
            .par_iter()
            .map(|members| (compare(members, mean), compare(members, middle)))
            .collect();
        let count = ranks.len();
        let mut this = Self {
            excess: vec![0.0; count],
            median_excess: vec![0.0; count],
            typical_ns: vec![0.0; count],
            cell_of_rank: vec![0; count],
            cells: Vec::with_capacity(members.len()),
        };
        for (members, (means, middles)) in members.into_iter().zip(compared) {
            let over = |typical: f64, time: f64| {
                if typical > 0.0 {
                    time / typical - 1.0
                } else {
                    0.0
                }
            };
            for (at, &rank) in members.iter().enumerate() {
                this.excess[rank] = over(means[at], mean(rank));
                this.median_excess[rank] = over(middles[at], middle(rank));
                this.typical_ns[rank] = means[at];
                this.cell_of_rank[rank] = this.cells.len();
            }
            let excess: Vec<f64> = members.iter().map(|&rank| this.excess[rank]).collect();
            this.cells.push(Cell {
                ranks: members,
                deviation: MAD_TO_SIGMA * mad(&excess).unwrap_or(0.0),
                centre: median(&excess).unwrap_or(0.0),
            });
        }
        this
    }

    /// Ranks without any peer.
    pub(super) fn alone(&self) -> usize {
        let alone = |cell: &&Cell| cell.ranks.len() == 1;
        self.cells.iter().filter(alone).count()
    }

    /// A rank's excess with its interval, from how its own time varies in so many steps that know
    /// nothing of each other.
    pub(super) fn lasting(&self, row: &SketchRank, independent_steps: f64) -> Estimate {
        let value = self.excess[row.rank as usize];
        let deviation = (1.0 + value) * spread(row) / independent_steps.sqrt();
        Estimate {
            value,
            low: value - NORMAL_P97_5 * deviation,
            high: value + NORMAL_P97_5 * deviation,
        }
    }

    /// Whether a rank is always slower than its peers, by more than chance lets one of so many
    /// ranks be.
    pub(super) fn stands_out(
        &self,
        row: &SketchRank,
        lasting: Estimate,
        thresholds: &Thresholds,
    ) -> bool {
        let rank = row.rank as usize;
        let smallest = thresholds.excess;
        let cell = &self.cells[self.cell_of_rank[rank]];
        // Stops move the mean alone.
        let sure = lasting.low.min(self.median_excess[rank]) >= smallest / 2.0;
        if cell.ranks.len() < 2 || lasting.value < smallest || !sure {
            return false;
        }
        let deviation = if cell.ranks.len() > ENOUGH_OTHERS {
            let of_mean = (lasting.value - lasting.low) / NORMAL_P97_5;
            cell.deviation.max(of_mean)
        } else {
            // Few peers do not say how much the means of equal ranks differ, where neighbouring
            // steps are alike: at most by what single steps do.
            spread(row)
        };
        lasting.value - cell.centre >= self.deviations(thresholds) * deviation
    }

    /// By how many deviations the most extreme of all ranks may differ by chance, at the threshold
    /// for tests (Bonferroni's correction).
    fn deviations(&self, thresholds: &Thresholds) -> f64 {
        let p_value = thresholds.p_value / self.excess.len() as f64;
        let of_chance = normal_quantile(p_value).map_or(f64::INFINITY, f64::abs);
        of_chance.max(OUTLIER_DEVIATIONS / MAD_TO_SIGMA)
    }

    /// By how much peers of a rank differ from each other: a standard deviation.
    pub(super) fn deviation(&self, rank: usize) -> f64 {
        self.cells[self.cell_of_rank[rank]].deviation
    }

    /// How many others do what a rank does.
    pub(super) fn others(&self, rank: usize) -> usize {
        self.cells[self.cell_of_rank[rank]].ranks.len() - 1
    }
}

/// How a rank's own time varies from step to step, relative to its median: a standard deviation.
pub(super) fn spread(row: &SketchRank) -> f64 {
    let beyond = (row.p95_ns - row.p50_ns) as f64 / NORMAL_P95;
    if row.p50_ns > 0 {
        beyond / row.p50_ns as f64
    } else {
        0.0
    }
}

/// For each of the members what is typical of its peers.
fn compare(members: &[usize], time: impl Fn(usize) -> f64) -> Vec<f64> {
    let times: Vec<f64> = members.iter().map(|&rank| time(rank)).collect();
    if let [alone] = times[..] {
        return vec![alone];
    }
    if times.len() <= FEW_MATES {
        let others = |at| median_of_others(&times, at);
        return (0..times.len()).map(others).collect();
    }
    vec![median(&times).unwrap_or(0.0); times.len()]
}
