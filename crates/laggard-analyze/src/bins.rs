//! Sums over neighbouring steps: resampling works on these instead of on steps.

use crate::cells::{Slot, Slots};
use crate::per_step::{Inputs, Lengths};
use laggard_record::TimeBasis;
use rayon::prelude::*;

/// Neighbouring steps are summed into at most this many bins before resampling.
const BINS_MAX: usize = 128;

/// Sums of own times over neighbouring steps.
pub(crate) struct Sums {
    /// How many steps.
    pub(crate) steps: f64,
    /// Own time of each node, with work evened out.
    pub(crate) own: Vec<f64>,
    /// Own time of each rank by slot, likewise.
    pub(crate) slots: Vec<Slots>,
}

/// Sums over the same steps of what replays give.
pub(crate) struct Bin<'a> {
    pub(crate) sums: &'a Sums,
    pub(crate) wall: f64,
    pub(crate) measured: f64,
    pub(crate) even_work: f64,
    pub(crate) no_pauses: f64,
    pub(crate) no_launch: f64,
    pub(crate) flop: f64,
}

/// Steps of each bin.
fn ranges(steps: usize) -> impl IndexedParallelIterator<Item = std::ops::Range<usize>> {
    let count = steps.min(BINS_MAX);
    let range = move |bin: usize| bin * steps / count..(bin + 1) * steps / count;
    (0..count).into_par_iter().map(range)
}

/// Sums own times of all steps.
pub(crate) fn sums(inputs: &Inputs<'_>) -> Vec<Sums> {
    ranges(inputs.measured.steps())
        .map(|range| {
            let mut own = vec![0.0; inputs.measured.nodes];
            let mut slots = vec![[0.0; Slot::COUNT]; inputs.cells.ranks];
            for step in range.clone() {
                add_even_work(inputs, step, &mut own, &mut slots);
            }
            Sums {
                steps: range.len() as f64,
                own,
                slots,
            }
        })
        .collect()
}

/// Sums what the replays of all steps gave.
pub(crate) fn bins<'a>(
    inputs: &Inputs<'_>,
    sums: &'a [Sums],
    lengths: &Lengths,
    basis: TimeBasis,
) -> Vec<Bin<'a>> {
    let wall = match basis {
        TimeBasis::Wall => &inputs.measured.step_time,
        TimeBasis::Virtual => &lengths.measured,
    };
    ranges(inputs.measured.steps())
        .zip(sums)
        .map(|(range, sums)| {
            let sum = |of: &[f64]| of[range.clone()].iter().sum::<f64>();
            Bin {
                sums,
                wall: sum(wall),
                measured: sum(&lengths.measured),
                even_work: sum(&lengths.even_work),
                no_pauses: sum(&lengths.no_pauses),
                no_launch: sum(&lengths.no_launch),
                flop: sum(&inputs.work.flop),
            }
        })
        .collect()
}

fn add_even_work(inputs: &Inputs<'_>, step: usize, own: &mut [f64], slots: &mut [Slots]) {
    let factor: Vec<f64> = (0..inputs.cells.ranks)
        .map(|rank| inputs.work.factor(step, rank))
        .collect();
    let row = inputs.measured.own_of_step(step);
    for (node, own) in own.iter_mut().enumerate() {
        let rank = inputs.cells.rank_of_node[node];
        let slot = inputs.cells.slot_of_node[node];
        let scales = slot.is_some_and(Slot::scales_with_work);
        let time = f64::from(row[node]) * if scales { factor[rank] } else { 1.0 };
        *own += time;
        if let Some(slot) = slot {
            slots[rank][slot as usize] += time;
        }
    }
}
