//! Replays of every step: as measured, with work evened out, without pauses, and with every rank as
//! its class; and the airport game over who makes the step longer than the last of these.
//!
//! The airport game (Littlechild and Owen 1973) is the Shapley value of "the step is as long as the
//! latest of the ranks in the coalition makes it": the stretch between two arrivals is shared
//! equally by the ranks that are not yet there.

use crate::cells::{Cells, Slot, Slots};
use crate::intake::Measurements;
use crate::own_time::{OwnTime, WorkShare};
use laggard_schedule::Replay;
use rayon::prelude::*;

/// Steps that are evaluated at once.
pub(crate) const LANES: usize = 16;
/// Evaluations of a node in a step that the excesses of ranks may take: some seconds.
const ALONE_BUDGET: f64 = 5e8;

/// What is typical of a node, so that what exceeds it is a pause.
pub(crate) struct Typical {
    /// Median own time of host nodes; unused for others.
    pub(crate) host_own: Vec<f64>,
    /// Median delay of every node.
    pub(crate) delay: Vec<f64>,
}

impl Typical {
    pub(crate) fn new(measured: &Measurements, cells: &Cells) -> Self {
        let column = |table: &[f32], node: usize| {
            let values = table.iter().skip(node).step_by(measured.nodes);
            let mut values: Vec<f32> = values.copied().collect();
            median_in_place(&mut values)
        };
        let nodes = 0..measured.nodes;
        let host_own = nodes.clone().into_par_iter().map(|node| {
            let is_host = cells.slot_of_node[node] == Some(Slot::Host);
            if is_host {
                column(&measured.own, node)
            } else {
                0.0
            }
        });
        let delay = nodes
            .into_par_iter()
            .map(|node| column(&measured.delay, node));
        Self {
            host_own: host_own.collect(),
            delay: delay.collect(),
        }
    }
}

fn median_in_place(values: &mut [f32]) -> f64 {
    let (middle, odd) = (values.len() / 2, values.len() % 2 == 1);
    let (below, at, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    let at = f64::from(*at);
    let under = below.iter().copied().fold(f32::MIN, f32::max);
    if odd {
        at
    } else {
        f64::midpoint(at, f64::from(under))
    }
}

/// Lengths of every step under each replay, in seconds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Lengths {
    /// As measured.
    pub(crate) measured: Vec<f64>,
    /// With the work of a cell evened out.
    pub(crate) even_work: Vec<f64>,
    /// The same without pauses of hosts.
    pub(crate) no_pauses: Vec<f64>,
    /// The same, with every node starting as soon as it is ready.
    pub(crate) no_launch: Vec<f64>,
    /// With every rank as the mean of its cell in that step.
    pub(crate) as_class: Vec<f64>,
}

/// What each rank is charged, in seconds.
#[derive(Debug, Clone)]
pub(crate) struct RankBlame {
    /// Shapley value, `[step][rank]`.
    pub(crate) charged: Vec<f64>,
    /// Steps in which the rank was the last.
    pub(crate) last: Vec<u32>,
    /// What the rank alone, as its class, would have saved.
    pub(crate) alone: Vec<f64>,
}

/// Everything that the replays need.
pub(crate) struct Inputs<'a> {
    pub(crate) replay: &'a Replay,
    pub(crate) measured: &'a Measurements,
    pub(crate) cells: &'a Cells,
    pub(crate) own: &'a OwnTime,
    pub(crate) work: &'a WorkShare,
    pub(crate) typical: &'a Typical,
    /// What a healthy rank of each cell takes, over the cell's mean.
    pub(crate) healthy: Vec<Slots>,
}

/// How a rank's excess is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alone {
    /// By a walk over its own nodes, which is exact here.
    Walk,
    /// By a replay of everybody for each of so many ranks, those that the walk finds to cost most;
    /// for the others the walk, which is a lower bound here.
    Replay {
        /// All ranks, unless that would take too long.
        ranks: usize,
    },
}

impl Alone {
    pub(crate) fn of(inputs: &Inputs<'_>) -> Self {
        if inputs.replay.is_exact_alone() {
            return Self::Walk;
        }
        let per_rank = inputs.measured.steps() as f64 * inputs.measured.nodes as f64;
        let affordable = (ALONE_BUDGET / per_rank) as usize;
        Self::Replay {
            ranks: affordable.min(inputs.cells.ranks),
        }
    }
}

impl RankBlame {
    pub(crate) fn new(ranks: usize) -> Self {
        Self {
            charged: Vec::new(),
            last: vec![0; ranks],
            alone: vec![0.0; ranks],
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.charged.extend(&other.charged);
        for rank in 0..self.last.len() {
            self.last[rank] += other.last[rank];
            self.alone[rank] += other.alone[rank];
        }
    }

    /// Seconds that a rank is charged over all steps.
    pub(crate) fn total(&self, rank: usize) -> f64 {
        self.charged
            .iter()
            .skip(rank)
            .step_by(self.last.len())
            .sum()
    }

    /// Shares `loss` seconds of one more step by the excess of each rank.
    pub(crate) fn charge(&mut self, excess: &[f64], loss: f64) {
        let ranks = excess.len();
        let mut order: Vec<usize> = (0..ranks).collect();
        order.sort_unstable_by(|&a, &b| excess[a].total_cmp(&excess[b]).then(a.cmp(&b)));
        let worst = order[ranks - 1];
        let longest = excess[worst];
        if longest <= 0.0 {
            self.charged
                .extend(std::iter::repeat_n(loss / ranks as f64, ranks));
            return;
        }
        // Ranks that differ in more than one segment of the step together lose more than the worst
        // of them alone; that rest goes by the same shares.
        let scale = loss / longest;
        let first = self.charged.len();
        self.charged.resize(first + ranks, 0.0);
        let (mut share, mut before) = (0.0, 0.0);
        for (position, &rank) in order.iter().enumerate() {
            share += (excess[rank] - before) / (ranks - position) as f64;
            before = excess[rank];
            self.charged[first + rank] = share * scale;
        }
        self.last[worst] += 1;
        let second = if ranks > 1 {
            excess[order[ranks - 2]]
        } else {
            0.0
        };
        self.alone[worst] += (longest - second) * scale;
    }
}

/// Mean share of the step that each rank waits for the slowest rank of its stage.
pub(crate) fn wait_shares(inputs: &Inputs<'_>, lengths: &Lengths) -> Vec<f64> {
    let stages = inputs
        .cells
        .stage_of_rank
        .iter()
        .max()
        .map_or(1, |last| *last as usize + 1);
    let mut waits = vec![0.0; inputs.cells.ranks];
    for step in 0..inputs.own.steps() {
        let row = inputs.own.of_step(step);
        let mut longest = vec![0.0_f64; stages];
        for (rank, slots) in row.iter().enumerate() {
            let stage = inputs.cells.stage_of_rank[rank] as usize;
            longest[stage] = longest[stage].max(slots.iter().sum());
        }
        for (rank, slots) in row.iter().enumerate() {
            let stage = inputs.cells.stage_of_rank[rank] as usize;
            waits[rank] += longest[stage] - slots.iter().sum::<f64>();
        }
    }
    let total: f64 = lengths.measured.iter().sum();
    waits.iter().map(|wait| wait / total).collect()
}

/// A node's time when the time `is` of its rank and slot becomes `should`.
pub(crate) fn rescale(own: f64, is: f64, should: f64, nodes: u32) -> f64 {
    if is > 0.0 {
        own * (should / is)
    } else {
        should / f64::from(nodes.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_airport_game_shares_each_stretch_among_those_not_there() {
        let mut blame = RankBlame::new(3);
        blame.charge(&[1.0, 3.0, 2.0], 3.0);
        let want = [1.0 / 3.0, 1.0 / 3.0 + 0.5 + 1.0, 1.0 / 3.0 + 0.5];
        for (charged, want) in blame.charged.iter().zip(want) {
            assert!((charged - want).abs() < 1e-12);
        }
        assert_eq!(blame.last, [0, 1, 0]);
        assert!((blame.alone[1] - 1.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn charges_sum_to_the_loss(
            excess in prop::collection::vec(0.0f64..5.0, 1..20),
            loss in 0.0f64..9.0,
        ) {
            let mut blame = RankBlame::new(excess.len());
            blame.charge(&excess, loss);
            let sum: f64 = blame.charged.iter().sum();
            prop_assert!((sum - loss).abs() < 1e-9);
        }
    }
}
