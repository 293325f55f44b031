//! Sums over neighbouring steps: resampling works on these instead of on steps.

use crate::cells::{Slot, Slots};
use crate::per_step::{Inputs, Lengths};
use laggard_record::TimeBasis;
use rayon::prelude::*;

/// Neighbouring steps are summed into at most this many bins before resampling.
const BINS_MAX: usize = 128;

/// Sums over neighbouring steps.
pub(crate) struct Bin {
    pub(crate) steps: f64,
    pub(crate) wall: f64,
    pub(crate) measured: f64,
    pub(crate) even_work: f64,
    pub(crate) no_pauses: f64,
    pub(crate) no_launch: f64,
    pub(crate) flop: f64,
    /// Own time of each node, with work evened out.
    pub(crate) own: Vec<f64>,
    /// Own time of each rank by slot, likewise.
    pub(crate) slots: Vec<Slots>,
}

/// Sums all steps.
pub(crate) fn bins(inputs: &Inputs<'_>, lengths: &Lengths, basis: TimeBasis) -> Vec<Bin> {
    let steps = lengths.measured.len();
    let count = steps.min(BINS_MAX);
    (0..count)
        .into_par_iter()
        .map(|bin| {
            let range = bin * steps / count..(bin + 1) * steps / count;
            let sum = |of: &[f64]| of[range.clone()].iter().sum::<f64>();
            let wall = match basis {
                TimeBasis::Wall => &inputs.measured.step_time,
                TimeBasis::Virtual => &lengths.measured,
            };
            let mut own = vec![0.0; inputs.measured.nodes];
            let mut slots = vec![[0.0; Slot::COUNT]; inputs.cells.ranks];
            for step in range.clone() {
                add_even_work(inputs, step, &mut own, &mut slots);
            }
            Bin {
                steps: range.len() as f64,
                wall: sum(wall),
                measured: sum(&lengths.measured),
                even_work: sum(&lengths.even_work),
                no_pauses: sum(&lengths.no_pauses),
                no_launch: sum(&lengths.no_launch),
                flop: sum(&inputs.work.flop),
                own,
                slots,
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
