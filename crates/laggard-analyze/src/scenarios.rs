//! Replays of mean durations, with one kind of difference after the other taken away.

use crate::bins::Bin;
use crate::cells::{Cells, Slot, Slots};
use crate::draw::{Draw, Settings};
use crate::per_step::{Inputs, rescale};
use crate::shrinkage::{Effects, Noise, Unit, typical};
use crate::transfers::Transfers;
use laggard_schedule::{Durations, Times};

/// Replays of mean durations per draw before communication is taken away: persistent, without rank,
/// node, generation and stage differences.
const WITH_COMMUNICATION: usize = 5;

/// Replays of mean durations.
pub(crate) struct Scenarios<'a> {
    pub(crate) inputs: &'a Inputs<'a>,
    pub(crate) settings: &'a Settings<'a>,
    pub(crate) typical: &'a [f64],
    pub(crate) noise: &'a Noise,
    pub(crate) transfers: &'a Transfers,
}

impl Scenarios<'_> {
    /// What some weighting of the bins says.
    pub(crate) fn draw(&self, bins: &[Bin<'_>], weight: &[f64]) -> Draw {
        let cells = self.inputs.cells;
        let sum = |of: &dyn Fn(&Bin<'_>) -> f64| {
            bins.iter()
                .zip(weight)
                .map(|(bin, weight)| weight * of(bin))
                .sum::<f64>()
        };
        let steps = sum(&|bin| bin.sums.steps);
        let mut own = vec![0.0; self.inputs.measured.nodes];
        let mut slots = vec![[0.0; Slot::COUNT]; cells.ranks];
        for (bin, weight) in bins.iter().zip(weight).filter(|(_, weight)| **weight > 0.0) {
            let weight = weight / steps;
            own.iter_mut()
                .zip(&bin.sums.own)
                .for_each(|(own, bin)| *own += weight * bin);
            for (slots, bin) in slots.iter_mut().zip(&bin.sums.slots) {
                for slot in 0..Slot::COUNT {
                    slots[slot] += weight * bin[slot];
                }
            }
        }
        for (slots, host) in slots.iter_mut().zip(self.typical) {
            slots[Slot::Host as usize] = *host;
        }
        let targets = self.targets(&slots);
        let finish = self.replay(&own, &slots, &targets);
        let mean = |of: &dyn Fn(&Bin<'_>) -> f64| sum(of) / steps;
        let tops = [
            mean(&|bin| bin.wall),
            mean(&|bin| bin.measured),
            mean(&|bin| bin.even_work),
            mean(&|bin| bin.no_pauses),
            mean(&|bin| bin.no_launch),
        ];
        self.shares(tops, &finish, &targets[4], mean(&|bin| bin.flop))
    }

    /// Own times of every rank and slot in the scenarios before communication is removed.
    fn targets(&self, mean: &[Slots]) -> [Vec<Slots>; WITH_COMMUNICATION] {
        let cells = self.inputs.cells;
        let blank = vec![[0.0; Slot::COUNT]; cells.ranks];
        let [mut persistent, mut no_rank, mut no_node] = [blank.clone(), blank.clone(), blank];
        let mean: Vec<Slots> = (0..cells.ranks).map(|r| cells.usual(r, &mean[r])).collect();
        for (cell, members) in cells.members.iter().enumerate() {
            let keep = self.noise.keep[cell];
            let n = members.len() as f64;
            let average =
                |of: &dyn Fn(usize) -> f64| members.iter().map(|&rank| of(rank)).sum::<f64>() / n;
            for slot in 0..Slot::COUNT {
                let value = |rank: usize| mean[rank][slot];
                let centre = average(&value);
                let host = Effects::new(cells, cell, Unit::Host, value);
                let of_host = |rank: usize| keep.host * host.of(rank);
                let rest = |rank: usize| value(rank) - centre - of_host(rank);
                let stage = Effects::new(cells, cell, Unit::Stage, rest);
                let of_stage = |rank: usize| keep.stage * stage.of(rank);
                let of_rank =
                    |rank: usize| of_stage(rank) + keep.rank * (rest(rank) - of_stage(rank));
                let (host_mean, rank_mean) = (average(&of_host), average(&of_rank));
                for &rank in members {
                    no_node[rank][slot] = centre;
                    no_rank[rank][slot] = centre + of_host(rank) - host_mean;
                    persistent[rank][slot] = no_rank[rank][slot] + of_rank(rank) - rank_mean;
                }
                if cells.across_stages {
                    let of = |time: &dyn Fn(usize) -> f64| {
                        typical(members.iter().map(|&rank| time(rank)).collect())
                    };
                    let (rank, host) = (of(&|rank| persistent[rank][slot]), of(&of_host));
                    for &member in members {
                        no_node[member][slot] = rank;
                        no_rank[member][slot] = rank + of_host(member) - host;
                    }
                }
            }
        }
        // Classes are evened out within a stage, or wherever they are if stages can be compared.
        let mut even_generations = average_over(cells, &no_node, |rank| {
            if cells.across_stages {
                0
            } else {
                cells.stage_of_rank[rank]
            }
        });
        for slots in [
            &mut persistent,
            &mut no_rank,
            &mut no_node,
            &mut even_generations,
        ] {
            for (slots, expected) in slots.iter_mut().zip(&cells.expected) {
                slots
                    .iter_mut()
                    .zip(expected)
                    .for_each(|(time, expected)| *time *= expected);
            }
        }
        let even_stages = average_over(cells, &even_generations, |_| 0);
        [persistent, no_rank, no_node, even_generations, even_stages]
    }

    /// Lengths of the scenarios: those of `targets`, then without the transfers of one axis more
    /// each, the last of all without any.
    fn replay(
        &self,
        own: &[f64],
        mean: &[Slots],
        targets: &[Vec<Slots>; WITH_COMMUNICATION],
    ) -> Vec<f64> {
        let cells = self.inputs.cells;
        let nodes = own.len();
        let scenarios = WITH_COMMUNICATION + self.transfers.axes.len().max(1);
        let mut lanes = vec![0.0; nodes * scenarios];
        for node in 0..nodes {
            let rank = cells.rank_of_node[node];
            let row = &mut lanes[node * scenarios..][..scenarios];
            match cells.slot_of_node[node] {
                None => {
                    // Gone with its axis, at the latest in the last scenario.
                    let axis = self.transfers.axis_of_node[node].min(scenarios - 1);
                    row[..(WITH_COMMUNICATION + axis).min(scenarios - 1)].fill(own[node]);
                }
                Some(slot) => {
                    let at = slot as usize;
                    let base = if slot == Slot::Host {
                        self.inputs.typical.host_own[node]
                    } else {
                        own[node]
                    };
                    let count = cells.nodes_in_slot[rank][at];
                    let value = |target: &Vec<Slots>| {
                        rescale(base, mean[rank][at], target[rank][at], count)
                    };
                    for (lane, target) in row.iter_mut().zip(targets) {
                        *lane = value(target);
                    }
                    let even = row[WITH_COMMUNICATION - 1];
                    row[WITH_COMMUNICATION..].fill(even);
                }
            }
        }
        let mut times = Times::default();
        let durations = Durations {
            lanes: scenarios,
            own: &lanes,
            delay: None,
        };
        self.inputs.replay.evaluate(durations, &mut times);
        times.finish
    }

    fn shares(&self, tops: [f64; 5], finish: &[f64], even: &[Slots], flop: f64) -> Draw {
        let cells = self.inputs.cells;
        let wall = tops[0];
        let busy =
            |slot: Slot| cells.weighted_mean(0..cells.ranks, |rank| even[rank][slot as usize]);
        let host = busy(Slot::Host);
        let launch = tops[3] - tops[4];
        let optimizer = busy(Slot::Optimizer);
        let kernels = busy(Slot::Forward) + busy(Slot::Backward);
        let useful = self.settings.peak_sum.map_or(kernels, |peak| flop / peak);
        let silent = finish[finish.len() - 1];
        let terms = [
            tops[0] - tops[1],
            tops[1] - tops[2],
            tops[2] - tops[3],
            tops[4] - finish[0],
            finish[0] - finish[1],
            finish[1] - finish[2],
            finish[2] - finish[3],
            finish[3] - finish[4],
            finish[4] - silent,
            silent - host - optimizer - kernels,
            host + launch,
            optimizer,
            kernels - useful,
            useful,
        ];
        Draw {
            wall,
            replayed: tops[1],
            launch,
            balanced: finish[4],
            as_class: finish[2],
            even_generations: finish[3],
            exposed: finish[WITH_COMMUNICATION - 1..]
                .windows(2)
                .map(|pair| (pair[0] - pair[1]) / wall)
                .collect(),
            shares: terms.map(|term| term / wall),
        }
    }
}

/// Replaces every rank's own times by the weighted mean over its group.
fn average_over(cells: &Cells, slots: &[Slots], group: impl Fn(usize) -> u32) -> Vec<Slots> {
    let groups = (0..cells.ranks)
        .map(&group)
        .max()
        .map_or(0, |last| last + 1);
    let mut averaged = slots.to_vec();
    for wanted in 0..groups {
        let ranks: Vec<usize> = (0..cells.ranks)
            .filter(|&rank| group(rank) == wanted)
            .collect();
        for slot in 0..Slot::COUNT {
            let mean = cells.weighted_mean(ranks.iter().copied(), |rank| slots[rank][slot]);
            ranks.iter().for_each(|&rank| averaged[rank][slot] = mean);
        }
    }
    averaged
}

/// Typical host time of every rank.
pub(crate) fn typical_slots(inputs: &Inputs<'_>) -> Vec<f64> {
    let mut host = vec![0.0; inputs.cells.ranks];
    for (node, slot) in inputs.cells.slot_of_node.iter().enumerate() {
        if *slot == Some(Slot::Host) {
            host[inputs.cells.rank_of_node[node]] += inputs.typical.host_own[node];
        }
    }
    host
}
