//! Replays of every step: as measured, with work evened out, without pauses, and with every rank as
//! its class; and the airport game over who makes the step longer than the last of these.
//!
//! The airport game (Littlechild and Owen 1973) is the Shapley value of "the step is as long as the
//! latest of the ranks in the coalition makes it": the stretch between two arrivals is shared
//! equally by the ranks that are not yet there.

use crate::cells::{Cells, Slot};
use crate::intake::Measurements;
use crate::own_time::{OwnTime, WorkShare};
use laggard_schedule::{Durations, Replay, Times};
use rayon::prelude::*;

/// Steps that are evaluated at once.
const LANES: usize = 16;

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
}

/// Runs all replays.
pub(crate) fn replay_steps(inputs: &Inputs<'_>) -> (Lengths, RankBlame) {
    let steps = inputs.measured.steps();
    let starts: Vec<usize> = (0..steps).step_by(LANES).collect();
    let chunks: Vec<(Lengths, RankBlame)> = starts
        .par_iter()
        .map(|&first| {
            Chunk {
                inputs,
                first,
                lanes: LANES.min(steps - first),
            }
            .run()
        })
        .collect();
    let mut lengths = Lengths::default();
    let mut blame = RankBlame::new(inputs.cells.ranks);
    for (part, charged) in chunks {
        lengths.measured.extend(part.measured);
        lengths.even_work.extend(part.even_work);
        lengths.no_pauses.extend(part.no_pauses);
        lengths.no_launch.extend(part.no_launch);
        lengths.as_class.extend(part.as_class);
        blame.add(&charged);
    }
    (lengths, blame)
}

impl RankBlame {
    fn new(ranks: usize) -> Self {
        Self {
            charged: Vec::new(),
            last: vec![0; ranks],
            alone: vec![0.0; ranks],
        }
    }

    fn add(&mut self, other: &Self) {
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
    fn charge(&mut self, excess: &[f64], loss: f64) {
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

/// Some neighbouring steps.
struct Chunk<'a> {
    inputs: &'a Inputs<'a>,
    first: usize,
    lanes: usize,
}

impl Chunk<'_> {
    fn run(&self) -> (Lengths, RankBlame) {
        let lanes = self.lanes;
        let (own, delay) = self.as_measured();
        let (mut times, mut lengths) = (Times::default(), Lengths::default());
        let run = |own: &[f64], delay: &[f64], times: &mut Times| {
            self.inputs.replay.evaluate(
                Durations {
                    lanes,
                    own,
                    delay: Some(delay),
                },
                times,
            );
            times.finish.clone()
        };
        lengths.measured = run(&own, &delay, &mut times);
        let mut changed = own.clone();
        lengths.even_work = if self.inputs.work.is_uneven() {
            self.even_work(&mut changed);
            run(&changed, &delay, &mut times)
        } else {
            lengths.measured.clone()
        };
        let (own_calm, delay_calm) = self.no_pauses(changed);
        lengths.no_pauses = run(&own_calm, &delay_calm, &mut times);
        lengths.no_launch = run(&own_calm, &vec![0.0; own_calm.len()], &mut times);
        let (own_class, delay_class) = self.as_class(&own, delay_calm);
        lengths.as_class = run(&own_class, &delay_class, &mut times);
        let blame = self.blame(&own, &delay, &times, &lengths);
        (lengths, blame)
    }

    fn as_measured(&self) -> (Vec<f64>, Vec<f64>) {
        let nodes = self.inputs.measured.nodes;
        let mut own = vec![0.0; nodes * self.lanes];
        let mut delay = vec![0.0; nodes * self.lanes];
        for lane in 0..self.lanes {
            let step = self.first + lane;
            let own_row = self.inputs.measured.own_of_step(step);
            let delay_row = self.inputs.measured.delay_of_step(step);
            for node in 0..nodes {
                own[node * self.lanes + lane] = f64::from(own_row[node]);
                delay[node * self.lanes + lane] = f64::from(delay_row[node]);
            }
        }
        (own, delay)
    }

    fn even_work(&self, own: &mut [f64]) {
        let cells = self.inputs.cells;
        for lane in 0..self.lanes {
            let step = self.first + lane;
            let factor: Vec<f64> = (0..cells.ranks)
                .map(|rank| self.inputs.work.factor(step, rank))
                .collect();
            for (node, slot) in cells.slot_of_node.iter().enumerate() {
                if slot.is_some_and(Slot::scales_with_work) {
                    own[node * self.lanes + lane] *= factor[cells.rank_of_node[node]];
                }
            }
        }
    }

    fn no_pauses(&self, mut own: Vec<f64>) -> (Vec<f64>, Vec<f64>) {
        let typical = self.inputs.typical;
        let mut delay = vec![0.0; own.len()];
        for (node, slot) in self.inputs.cells.slot_of_node.iter().enumerate() {
            let lanes = node * self.lanes..(node + 1) * self.lanes;
            if *slot == Some(Slot::Host) {
                own[lanes.clone()].fill(typical.host_own[node]);
            }
            delay[lanes].fill(typical.delay[node]);
        }
        (own, delay)
    }

    /// Every rank's compute as the mean of its cell in that step, and no pauses.
    fn as_class(&self, own: &[f64], delay: Vec<f64>) -> (Vec<f64>, Vec<f64>) {
        let cells = self.inputs.cells;
        let mut scaled = own.to_vec();
        for lane in 0..self.lanes {
            let row = self.inputs.own.of_step(self.first + lane);
            let mut mean = vec![[0.0; Slot::COUNT]; cells.members.len()];
            for (mean, members) in mean.iter_mut().zip(&cells.members) {
                for &rank in members {
                    for slot in 0..Slot::COUNT {
                        mean[slot] += row[rank][slot] / members.len() as f64;
                    }
                }
            }
            for (node, slot) in cells.slot_of_node.iter().enumerate() {
                let Some(slot) = slot else { continue };
                let at = node * self.lanes + lane;
                let rank = cells.rank_of_node[node];
                scaled[at] = if *slot == Slot::Host {
                    self.inputs.typical.host_own[node]
                } else {
                    let (is, should) = (
                        row[rank][*slot as usize],
                        mean[cells.of_rank[rank]][*slot as usize],
                    );
                    rescale(
                        scaled[at],
                        is,
                        should,
                        cells.nodes_in_slot[rank][*slot as usize],
                    )
                };
            }
        }
        (scaled, delay)
    }

    fn blame(&self, own: &[f64], delay: &[f64], class: &Times, lengths: &Lengths) -> RankBlame {
        let (ranks, lanes) = (self.inputs.cells.ranks, self.lanes);
        let mut excess = vec![0.0; lanes * ranks];
        let mut finish = Vec::new();
        for rank in 0..ranks {
            let nodes = self.inputs.replay.nodes_of_rank(rank as u32);
            let Some(&first) = nodes.first() else {
                continue;
            };
            let range = first as usize * lanes..(first as usize + nodes.len()) * lanes;
            let alone = Durations {
                lanes,
                own: &own[range.clone()],
                delay: Some(&delay[range]),
            };
            self.inputs
                .replay
                .evaluate_alone(rank as u32, alone, class, &mut finish);
            for lane in 0..lanes {
                excess[lane * ranks + rank] = finish[lane] - lengths.as_class[lane];
            }
        }
        let mut blame = RankBlame::new(ranks);
        for lane in 0..lanes {
            let loss = lengths.measured[lane] - lengths.as_class[lane];
            blame.charge(&excess[lane * ranks..][..ranks], loss);
        }
        blame
    }
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
