//! Replays of steps, some at a time, and their durations under one change after the other.

use crate::cells::{Cells, Slot, Slots};
use crate::per_step::{Alone, Inputs, LANES, Lengths, RankBlame, rescale};
use laggard_schedule::{Durations, Times};
use rayon::prelude::*;

/// Runs all replays.
pub(crate) fn replay_steps(inputs: &Inputs<'_>) -> (Lengths, RankBlame) {
    let steps: Vec<usize> = (0..inputs.measured.steps()).collect();
    let alone = Alone::of(inputs);
    let chunks: Vec<(Lengths, RankBlame)> = steps
        .par_chunks(LANES)
        .map(|steps| Chunk { inputs, steps }.run(alone))
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

/// Some steps that are evaluated at once.
pub(crate) struct Chunk<'a> {
    pub(crate) inputs: &'a Inputs<'a>,
    pub(crate) steps: &'a [usize],
}

/// Durations of every node, `[node][lane]`, in seconds.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    pub(crate) own: Vec<f64>,
    pub(crate) delay: Vec<f64>,
}

impl Tables {
    pub(crate) fn durations(&self, lanes: usize) -> Durations<'_> {
        Durations {
            lanes,
            own: &self.own,
            delay: Some(&self.delay),
        }
    }

    /// Exchanges what two tables have in some range.
    pub(crate) fn swap(&mut self, other: &mut Self, range: std::ops::Range<usize>) {
        self.own[range.clone()].swap_with_slice(&mut other.own[range.clone()]);
        self.delay[range.clone()].swap_with_slice(&mut other.delay[range]);
    }
}

impl Chunk<'_> {
    pub(crate) fn lanes(&self) -> usize {
        self.steps.len()
    }

    /// All replays of these steps, and who is to blame.
    pub(crate) fn run(&self, alone: Alone) -> (Lengths, RankBlame) {
        let measured = self.as_measured();
        let (mut times, mut lengths) = (Times::default(), Lengths::default());
        let run = |tables: &Tables, times: &mut Times| {
            self.inputs
                .replay
                .evaluate(tables.durations(self.lanes()), times);
            times.finish.clone()
        };
        lengths.measured = run(&measured, &mut times);
        let mut changed = measured.clone();
        lengths.even_work = if self.inputs.work.is_uneven() {
            self.even_work(&mut changed.own);
            run(&changed, &mut times)
        } else {
            lengths.measured.clone()
        };
        self.take_pauses(&mut changed);
        lengths.no_pauses = run(&changed, &mut times);
        let typical_delay = std::mem::take(&mut changed.delay);
        changed.delay = vec![0.0; typical_delay.len()];
        lengths.no_launch = run(&changed, &mut times);
        changed.delay = typical_delay;
        let as_class = self.as_class(&measured.own, changed.delay);
        lengths.as_class = run(&as_class, &mut times);
        let excess = match alone {
            Alone::Replay { ranks } if ranks == self.inputs.cells.ranks => {
                let all: Vec<usize> = (0..ranks).collect();
                let mut excess = vec![0.0; self.lanes() * ranks];
                self.replay_alone(measured, as_class, &all, (&lengths, &mut excess));
                excess
            }
            Alone::Replay { ranks } => {
                let mut excess = self.walk_alone(&measured, &times, &lengths);
                let most = self.most_costly(&excess, ranks);
                self.replay_alone(measured, as_class, &most, (&lengths, &mut excess));
                excess
            }
            Alone::Walk => self.walk_alone(&measured, &times, &lengths),
        };
        let ranks = self.inputs.cells.ranks;
        let mut blame = RankBlame::new(ranks);
        for lane in 0..self.lanes() {
            let loss = lengths.measured[lane] - lengths.as_class[lane];
            blame.charge(&excess[lane * ranks..][..ranks], loss);
        }
        (lengths, blame)
    }

    pub(crate) fn as_measured(&self) -> Tables {
        let (nodes, lanes) = (self.inputs.measured.nodes, self.lanes());
        let mut own = vec![0.0; nodes * lanes];
        let mut delay = vec![0.0; nodes * lanes];
        for (lane, &step) in self.steps.iter().enumerate() {
            let own_row = self.inputs.measured.own_of_step(step);
            let delay_row = self.inputs.measured.delay_of_step(step);
            for node in 0..nodes {
                own[node * lanes + lane] = f64::from(own_row[node]);
                delay[node * lanes + lane] = f64::from(delay_row[node]);
            }
        }
        Tables { own, delay }
    }

    /// Every rank's compute as the mean of its cell in that step, and typical host times.
    pub(crate) fn as_class(&self, own: &[f64], delay: Vec<f64>) -> Tables {
        let (cells, lanes) = (self.inputs.cells, self.lanes());
        let mut scaled = own.to_vec();
        for (lane, &step) in self.steps.iter().enumerate() {
            let row = self.inputs.own.of_step(step);
            let mean = cell_means(cells, row);
            for (node, slot) in cells.slot_of_node.iter().enumerate() {
                let Some(slot) = *slot else { continue };
                let at = node * lanes + lane;
                let rank = cells.rank_of_node[node];
                if slot == Slot::Host {
                    scaled[at] = self.inputs.typical.host_own[node];
                    continue;
                }
                let slot = slot as usize;
                let cell = cells.of_rank[rank];
                let should = mean[cell][slot] * self.inputs.healthy[cell][slot];
                let should = should * cells.expected[rank][slot];
                let nodes = cells.nodes_in_slot[rank][slot];
                scaled[at] = rescale(scaled[at], row[rank][slot], should, nodes);
            }
        }
        Tables { own: scaled, delay }
    }

    /// Typical delay of every node.
    pub(crate) fn typical_delay(&self) -> Vec<f64> {
        let typical = self.inputs.typical.delay.iter();
        typical
            .flat_map(|delay| std::iter::repeat_n(*delay, self.lanes()))
            .collect()
    }

    /// Where a rank's nodes are in a table.
    pub(crate) fn range_of(&self, rank: usize) -> std::ops::Range<usize> {
        let nodes = self.inputs.replay.nodes_of_rank(rank as u32);
        let first = nodes.first().map_or(0, |first| *first as usize);
        first * self.lanes()..(first + nodes.len()) * self.lanes()
    }

    fn even_work(&self, own: &mut [f64]) {
        let cells = self.inputs.cells;
        for (lane, &step) in self.steps.iter().enumerate() {
            let factor: Vec<f64> = (0..cells.ranks)
                .map(|rank| self.inputs.work.factor(step, rank))
                .collect();
            for (node, slot) in cells.slot_of_node.iter().enumerate() {
                if slot.is_some_and(Slot::scales_with_work) {
                    own[node * self.lanes() + lane] *= factor[cells.rank_of_node[node]];
                }
            }
        }
    }

    fn take_pauses(&self, tables: &mut Tables) {
        for (node, slot) in self.inputs.cells.slot_of_node.iter().enumerate() {
            if *slot == Some(Slot::Host) {
                let lanes = node * self.lanes()..(node + 1) * self.lanes();
                tables.own[lanes].fill(self.inputs.typical.host_own[node]);
            }
        }
        tables.delay = self.typical_delay();
    }

    /// Excess of each rank alone, `[lane][rank]`, by a walk over its own nodes.
    fn walk_alone(&self, measured: &Tables, class: &Times, lengths: &Lengths) -> Vec<f64> {
        let (ranks, lanes) = (self.inputs.cells.ranks, self.lanes());
        let mut excess = vec![0.0; lanes * ranks];
        let mut finish = Vec::new();
        for rank in 0..ranks {
            let range = self.range_of(rank);
            if range.is_empty() {
                continue;
            }
            let alone = Durations {
                lanes,
                own: &measured.own[range.clone()],
                delay: Some(&measured.delay[range]),
            };
            self.inputs
                .replay
                .evaluate_alone(rank as u32, alone, class, &mut finish);
            for lane in 0..lanes {
                excess[lane * ranks + rank] = finish[lane] - lengths.as_class[lane];
            }
        }
        excess
    }

    /// The same for some ranks, by replays of everybody with one rank as measured each.
    fn replay_alone(
        &self,
        mut measured: Tables,
        mut class: Tables,
        which: &[usize],
        (lengths, excess): (&Lengths, &mut [f64]),
    ) {
        let (ranks, lanes) = (self.inputs.cells.ranks, self.lanes());
        let mut times = Times::default();
        for &rank in which {
            let range = self.range_of(rank);
            class.swap(&mut measured, range.clone());
            self.inputs
                .replay
                .evaluate(class.durations(lanes), &mut times);
            class.swap(&mut measured, range);
            for lane in 0..lanes {
                excess[lane * ranks + rank] = times.finish[lane] - lengths.as_class[lane];
            }
        }
    }

    /// The ranks with the largest excess over these steps.
    fn most_costly(&self, excess: &[f64], count: usize) -> Vec<usize> {
        let ranks = self.inputs.cells.ranks;
        let total = |rank: usize| excess.iter().skip(rank).step_by(ranks).sum::<f64>();
        let totals: Vec<f64> = (0..ranks).map(total).collect();
        let mut order: Vec<usize> = (0..ranks).collect();
        order.sort_by(|&a, &b| totals[b].total_cmp(&totals[a]).then(a.cmp(&b)));
        order.truncate(count);
        order
    }
}

/// Mean over each cell of its ranks' times in one step, as if all had the work that is usual.
pub(crate) fn cell_means(cells: &Cells, row: &[Slots]) -> Vec<Slots> {
    let mut mean = vec![[0.0; Slot::COUNT]; cells.members.len()];
    for (mean, members) in mean.iter_mut().zip(&cells.members) {
        for &rank in members {
            for slot in 0..Slot::COUNT {
                let usual = row[rank][slot] / cells.expected[rank][slot];
                mean[slot] += usual / members.len() as f64;
            }
        }
    }
    mean
}
