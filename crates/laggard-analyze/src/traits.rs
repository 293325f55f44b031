//! What is special about each rank: how its own time compares with that of its peers, always, in
//! each part of the step, and from step to step.

use crate::cells::{Cells, Slot, Slots};
use crate::per_step::Inputs;
use laggard_record::Manifest;
use laggard_stats::{Change, ChangeOptions, ShuffleTest, find_changes, median_in_place, p_value};
use rayon::prelude::*;

/// Up to this many mates are compared with the median of the *others*; among more, the rank itself
/// hardly moves the median.
pub(crate) const FEW_MATES: usize = 16;
/// Smallest lasting change of a rank's ratio, in robust deviations. It is asked for only where a
/// rank is slow as a whole, so that less is needed than to find a change from nothing.
const CHANGE_MADS: f64 = 2.0;
/// Fewest steps before and after a lasting change.
const CHANGE_EDGE: usize = 20;
/// Shuffles of a test against chance, per cell that is tested: the smallest p-value must survive
/// the correction for several cells.
const SHUFFLES: usize = 400;
/// Shuffles at most.
const SHUFFLES_MAX: usize = 4000;
/// Units that are slow together are slow alike: each by at least this share of the slowest of them.
pub(crate) const ALIKE: f64 = 0.5;
/// Blocks of steps that a test against chance shuffles at most, and at least.
const BLOCKS_MAX: usize = 64;
const BLOCKS_MIN: usize = 16;

/// Own time over that of the peers, rank by rank and step by step.
pub(crate) struct Traits {
    steps: usize,
    /// `[rank][step]`: forward and backward time over the peers' median in that step, work evened
    /// out. The optimizer is left out: it is bound by memory that neighbours share.
    ratio: Vec<f64>,
    /// The same by slot, mean over steps, less 1: `[rank][slot]`.
    slot_excess: Vec<Slots>,
    /// Mean ratio less 1.
    pub(crate) excess: Vec<f64>,
    /// Spread of the rank's own compute time from step to step, relative to its median.
    pub(crate) spread: Vec<f64>,
    /// Seconds of host time above what is typical, in pauses.
    pub(crate) pauses: Vec<Pauses>,
    /// Whether the rank had peers of its own class.
    pub(crate) has_peers: Vec<bool>,
    /// The part of a rank's excess that all of its mates have alike: excess of their stage over
    /// what the split of the model makes of it.
    pub(crate) stage_excess: Vec<f64>,
}

/// Pauses of one rank's host.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Pauses {
    pub(crate) count: u32,
    pub(crate) seconds: f64,
}

impl Traits {
    pub(crate) fn new(inputs: &Inputs<'_>, manifest: &Manifest) -> Self {
        let cells = inputs.cells;
        let steps = inputs.measured.steps();
        let rate = relative_rates(manifest, cells);
        let reference = Reference::new(inputs, &rate);
        let columns: Vec<(Vec<f64>, Slots)> = (0..cells.ranks)
            .into_par_iter()
            .map(|rank| reference.compare(rank, &reference.others(rank)))
            .collect();
        let mut ratio = Vec::with_capacity(cells.ranks * steps);
        let mut slot_excess = Vec::with_capacity(cells.ranks);
        for (column, slots) in columns {
            ratio.extend(column);
            slot_excess.push(slots);
        }
        let mut stage_excess = vec![0.0; cells.ranks];
        for mates in cells.mates.iter().filter(|mates| mates.len() > 1) {
            let Some((column, slots)) = reference.compare_stage(mates) else {
                continue;
            };
            let excess = column.iter().sum::<f64>() / steps as f64 - 1.0;
            for &rank in mates {
                stage_excess[rank] = excess;
                let ratio = &mut ratio[rank * steps..][..steps];
                ratio
                    .iter_mut()
                    .zip(&column)
                    .for_each(|(ratio, stage)| *ratio *= stage);
                for (own, stage) in slot_excess[rank].iter_mut().zip(&slots) {
                    *own = (1.0 + *own) * (1.0 + stage) - 1.0;
                }
            }
        }
        let (mut excess, mut spread) = (Vec::new(), Vec::new());
        for (rank, column) in ratio.chunks(steps).enumerate() {
            excess.push(column.iter().sum::<f64>() / steps as f64 - 1.0);
            spread.push(step_spread(inputs, rank));
        }
        Self {
            steps,
            ratio,
            slot_excess,
            excess,
            spread,
            pauses: (0..cells.ranks).map(|rank| pauses(inputs, rank)).collect(),
            has_peers: (0..cells.ranks)
                .map(|rank| cells.peers(rank).len() > 1)
                .collect(),
            stage_excess,
        }
    }

    /// Ratio of one rank to its peers, step by step.
    pub(crate) fn series(&self, rank: usize) -> &[f64] {
        &self.ratio[rank * self.steps..][..self.steps]
    }

    pub(crate) fn slot_excess(&self, rank: usize, slot: Slot) -> f64 {
        self.slot_excess[rank][slot as usize]
    }

    /// The largest lasting change of a rank's ratio.
    pub(crate) fn largest_change(&self, rank: usize) -> Option<Change> {
        let options = ChangeOptions {
            min_change_in_mads: CHANGE_MADS,
            ..ChangeOptions::default()
        };
        let changes = find_changes(self.series(rank), &options).ok()?;
        let edge = CHANGE_EDGE.max(self.steps / 8);
        let inside = |change: &Change| change.at >= edge && change.at + edge <= self.steps;
        let size = |change: &Change| (change.after / change.before).ln().abs();
        changes
            .into_iter()
            .filter(inside)
            .max_by(|a, b| size(a).total_cmp(&size(b)))
    }
}

/// Rate of each rank relative to the fastest class.
fn relative_rates(manifest: &Manifest, cells: &Cells) -> Vec<f64> {
    cells
        .class_of_rank
        .iter()
        .map(|&class| manifest.classes[class].relative_rate)
        .collect()
}

/// Standard deviation of a rank's compute time from step to step, relative to its median, from the
/// 80th percentile of the differences between neighbours: lasting changes and rare outliers do not
/// count, jitter that begins in the middle of the run does. Not relative to peers: with two ranks
/// the innocent one would vary as much as the jittery one.
fn step_spread(inputs: &Inputs<'_>, rank: usize) -> f64 {
    const QUANTILE: f64 = 0.8;
    /// 90th percentile of the normal distribution: where the 80th of its absolute value is.
    const NORMAL: f64 = 1.281_551_565_544_8;
    let time = |step: usize| {
        let own = inputs.own.of(step, rank);
        let work: f64 = own[Slot::Forward as usize] + own[Slot::Backward as usize];
        work * inputs.work.factor(step, rank)
    };
    let times: Vec<f64> = (0..inputs.measured.steps()).map(time).collect();
    let mut jumps: Vec<f64> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).abs())
        .collect();
    let jump = laggard_stats::quantile_in_place(&mut jumps, QUANTILE).unwrap_or(0.0);
    let median = laggard_stats::median(&times).unwrap_or(0.0);
    if median > 0.0 {
        jump / (NORMAL * std::f64::consts::SQRT_2 * median)
    } else {
        0.0
    }
}

/// Own times by step and rank, ready to compare with.
struct Reference<'a> {
    inputs: &'a Inputs<'a>,
    /// Compute time `[step][rank]`, work evened out, as if all stages had the same work, and
    /// multiplied by the class's relative rate.
    time: Vec<f64>,
    /// Its median over many mates, `[step][mates]`.
    mates_median: Vec<f64>,
    /// Mean over steps by slot, likewise normalised.
    slots: Vec<Slots>,
}

impl<'a> Reference<'a> {
    fn new(inputs: &'a Inputs<'a>, rate: &[f64]) -> Self {
        let (ranks, steps) = (inputs.cells.ranks, inputs.measured.steps());
        let mut time = vec![0.0; steps * ranks];
        let mut slots = vec![[0.0; Slot::COUNT]; ranks];
        for step in 0..steps {
            for rank in 0..ranks {
                let own = inputs.own.of(step, rank);
                let factor = inputs.work.factor(step, rank);
                for slot in [Slot::Forward, Slot::Backward, Slot::Optimizer] {
                    let scale = if slot.scales_with_work() { factor } else { 1.0 };
                    let usual = scale / inputs.cells.expected[rank][slot as usize];
                    let value = own[slot as usize] * usual * rate[rank];
                    if slot.scales_with_work() {
                        time[step * ranks + rank] += value;
                    }
                    slots[rank][slot as usize] += value / steps as f64;
                }
            }
        }
        let mates = &inputs.cells.mates;
        let median_of = |step: usize, mates: &Vec<usize>| {
            if mates.len() <= FEW_MATES {
                return 0.0;
            }
            let mut values: Vec<f64> = mates.iter().map(|&r| time[step * ranks + r]).collect();
            median_in_place(&mut values).unwrap_or(0.0)
        };
        let mates_median = (0..steps)
            .into_par_iter()
            .flat_map_iter(|step| mates.iter().map(move |mates| median_of(step, mates)))
            .collect();
        Self {
            inputs,
            time,
            mates_median,
            slots,
        }
    }

    /// Others that a rank is compared with: its mates; where it is alone, its cell, which may span
    /// stages; else its stage, or everybody where stages can be compared.
    fn others(&self, rank: usize) -> Vec<usize> {
        let cells = self.inputs.cells;
        let without = |ranks: &[usize]| -> Vec<usize> {
            ranks
                .iter()
                .copied()
                .filter(|&other| other != rank)
                .collect()
        };
        for peers in [cells.mates(rank), cells.peers(rank)] {
            if peers.len() > 1 {
                return without(peers);
            }
        }
        let everybody: Vec<usize> = (0..cells.ranks).collect();
        let same_stage = |&other: &usize| {
            cells.across_stages || cells.stage_of_rank[other] == cells.stage_of_rank[rank]
        };
        without(&everybody).into_iter().filter(same_stage).collect()
    }

    fn compare(&self, rank: usize, others: &[usize]) -> (Vec<f64>, Slots) {
        let cells = self.inputs.cells;
        let (ranks, steps) = (cells.ranks, self.inputs.measured.steps());
        let group = cells.mates_of_rank[rank];
        let mut scratch = Vec::with_capacity(others.len());
        let mut column = Vec::with_capacity(steps);
        for step in 0..steps {
            let reference = if cells.mates[group].len() > FEW_MATES {
                self.mates_median[step * cells.mates.len() + group]
            } else {
                scratch.clear();
                scratch.extend(others.iter().map(|&other| self.time[step * ranks + other]));
                median_in_place(&mut scratch).unwrap_or(0.0)
            };
            let own = self.time[step * ranks + rank];
            column.push(if reference > 0.0 {
                own / reference
            } else {
                1.0
            });
        }
        let usual = self.median_slots(others);
        let mut slots = [0.0; Slot::COUNT];
        for (slot, reference) in usual
            .into_iter()
            .enumerate()
            .filter(|(_, usual)| *usual > 0.0)
        {
            slots[slot] = self.slots[rank][slot] / reference - 1.0;
        }
        (column, slots)
    }

    /// How much longer all ranks of a stage take than their class does in other stages: step by
    /// step, and in each slot. `None` unless they are all slower, and about alike.
    fn compare_stage(&self, mates: &[usize]) -> Option<(Vec<f64>, Slots)> {
        let cells = self.inputs.cells;
        let (ranks, steps) = (cells.ranks, self.inputs.measured.steps());
        let group = cells.mates_of_rank[mates[0]];
        let is_other = |other: &usize| cells.mates_of_rank[*other] != group;
        let class = cells.peers(mates[0]);
        let others: Vec<usize> = class.iter().copied().filter(is_other).collect();
        if others.is_empty() {
            return None;
        }
        let stages = cells
            .mates
            .iter()
            .filter(|it| is_other(&it[0]) && others.contains(&it[0]));
        let stages: Vec<&Vec<usize>> = stages.collect();
        let mut scratch = Vec::with_capacity(ranks);
        let mut level = |step: usize, mates: &[usize]| {
            scratch.clear();
            scratch.extend(mates.iter().map(|&rank| self.time[step * ranks + rank]));
            median_in_place(&mut scratch).unwrap_or(0.0)
        };
        let (mut column, mut excess) = (Vec::with_capacity(steps), vec![0.0; mates.len()]);
        for step in 0..steps {
            let mut usual: Vec<f64> = stages.iter().map(|mates| level(step, mates)).collect();
            let usual = median_in_place(&mut usual).unwrap_or(0.0);
            if usual <= 0.0 {
                return None;
            }
            column.push(level(step, mates) / usual);
            for (excess, &rank) in excess.iter_mut().zip(mates) {
                *excess += (self.time[step * ranks + rank] / usual - 1.0) / steps as f64;
            }
        }
        let largest = excess.iter().copied().fold(0.0, f64::max);
        let alike = excess
            .iter()
            .filter(|excess| **excess >= ALIKE * largest)
            .count();
        if largest <= 0.0 || alike * 4 < mates.len() * 3 {
            return None;
        }
        let (own, usual) = (self.median_slots(mates), self.median_slots(&others));
        let mut slots = [0.0; Slot::COUNT];
        for slot in (0..Slot::COUNT).filter(|slot| usual[*slot] > 0.0) {
            slots[slot] = own[slot] / usual[slot] - 1.0;
        }
        Some((column, slots))
    }

    fn median_slots(&self, ranks: &[usize]) -> Slots {
        let mut medians = [0.0; Slot::COUNT];
        for (slot, median) in medians.iter_mut().enumerate() {
            let mut values: Vec<f64> = ranks.iter().map(|&rank| self.slots[rank][slot]).collect();
            *median = median_in_place(&mut values).unwrap_or(0.0);
        }
        medians
    }
}

/// Host times and delays far beyond what is typical: above the median by six robust deviations, by
/// a tenth of a step, and by a millisecond. What is shorter comes from waking threads up: a
/// scheduler lets others finish their slice first, which is less than that where a processor is not
/// shared.
fn pauses(inputs: &Inputs<'_>, rank: usize) -> Pauses {
    const DEVIATIONS: f64 = 6.0;
    const STEP_SHARE: f64 = 0.1;
    const SECONDS: f64 = 1e-3;
    let nodes = inputs.replay.nodes_of_rank(rank as u32);
    let host_time = |step: usize| {
        let (own, delay) = (
            inputs.measured.own_of_step(step),
            inputs.measured.delay_of_step(step),
        );
        nodes
            .iter()
            .map(|&node| node as usize)
            .filter(|&node| inputs.cells.slot_of_node[node].is_some())
            .map(|node| {
                let is_host = inputs.cells.slot_of_node[node] == Some(Slot::Host);
                f64::from(delay[node]) + if is_host { f64::from(own[node]) } else { 0.0 }
            })
            .sum::<f64>()
    };
    let series: Vec<f64> = (0..inputs.measured.steps()).map(host_time).collect();
    let (Ok(typical), Ok(spread)) = (laggard_stats::median(&series), laggard_stats::mad(&series))
    else {
        return Pauses::default();
    };
    let step = inputs.own.median_step(rank);
    let threshold = (DEVIATIONS * spread).max(STEP_SHARE * step).max(SECONDS);
    let above = series
        .iter()
        .map(|time| time - typical)
        .filter(|excess| *excess > threshold);
    above.fold(Pauses::default(), |sum, excess| Pauses {
        count: sum.count + 1,
        seconds: sum.seconds + excess,
    })
}

/// The largest persistent excess in a cell, over units that may be ranks or hosts, against
/// shuffled labels.
pub(crate) struct Chance {
    /// Largest excess over the cell's mean, relative.
    pub(crate) observed: f64,
    /// Mean of the same under shuffling.
    pub(crate) null_mean: f64,
    /// Share of shuffles that reach it.
    pub(crate) p_value: f64,
}

/// Tests whether the ranks of any cell differ persistently. Cells of one rank cannot be tested.
pub(crate) fn chance(inputs: &Inputs<'_>, block_length: usize, seed: u64) -> Option<Chance> {
    let cells = inputs.cells;
    let testable = cells
        .members
        .iter()
        .filter(|members| members.len() > 1)
        .count();
    let plan = Plan {
        shuffles: (SHUFFLES * testable).min(SHUFFLES_MAX),
        seed,
    };
    let tests = cells.members.iter().filter(|members| members.len() > 1);
    let worst = tests
        .filter_map(|members| cell_chance(inputs, members, block_length, &plan))
        .min_by(|a, b| {
            a.p_value
                .total_cmp(&b.p_value)
                .then(b.observed.total_cmp(&a.observed))
        })?;
    // Bonferroni: the worst of several cells was picked.
    Some(Chance {
        p_value: (worst.p_value * testable as f64).min(1.0),
        ..worst
    })
}

/// How often labels are shuffled.
struct Plan {
    shuffles: usize,
    seed: u64,
}

fn cell_chance(
    inputs: &Inputs<'_>,
    members: &[usize],
    block_length: usize,
    plan: &Plan,
) -> Option<Chance> {
    let steps = inputs.measured.steps();
    let longest = (steps / BLOCKS_MIN).max(1);
    let width = block_length.min(longest).max(steps.div_ceil(BLOCKS_MAX));
    let blocks = steps / width;
    let columns = members.len();
    let mut table = vec![0.0; blocks * columns];
    for step in 0..blocks * width {
        for (column, &rank) in members.iter().enumerate() {
            let own = inputs.own.of(step, rank);
            let factor = inputs.work.factor(step, rank);
            let work: f64 = [Slot::Forward as usize, Slot::Backward as usize]
                .iter()
                .map(|&slot| own[slot] / inputs.cells.expected[rank][slot])
                .sum();
            table[step / width * columns + column] += work * factor;
        }
    }
    let mean = table.iter().sum::<f64>() / table.len() as f64;
    let largest = |source: &dyn Fn(usize) -> Option<Vec<u32>>| {
        let mut sums = vec![0.0; columns];
        for block in 0..blocks {
            let row = &table[block * columns..][..columns];
            match source(block) {
                None => sums
                    .iter_mut()
                    .zip(row)
                    .for_each(|(sum, value)| *sum += value),
                Some(from) => {
                    sums.iter_mut()
                        .zip(from)
                        .for_each(|(sum, at)| *sum += row[at as usize]);
                }
            }
        }
        sums.iter().copied().fold(f64::MIN, f64::max) / blocks as f64 / mean - 1.0
    };
    let observed = largest(&|_| None);
    let test = ShuffleTest {
        steps: blocks,
        columns,
        block_length: 1,
        shuffles: plan.shuffles,
        seed: plan.seed,
    };
    let null = test
        .null_distribution(|assignment| largest(&|block| Some(assignment.row(block).to_vec())))
        .ok()?;
    let null_mean = null.iter().sum::<f64>() / null.len() as f64;
    Some(Chance {
        observed,
        null_mean,
        p_value: p_value(observed, &null).ok()?,
    })
}
