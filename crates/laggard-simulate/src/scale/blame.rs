//! Who the others waited for: arrivals of blocks at the end of a step.
//!
//! The airport game: a delay between two arrivals is shared by all who come after it (Littlechild
//! and Owen 1973, "A Simple Expression for the Shapley Value in a Special Case"). Arrivals are
//! rounded to 1023rds of the spread first, so that no sort is needed; shares still sum to
//! the spread.

use super::block::{Arrivals, Batch, RankState};
use super::pipeline::LANES;
use rayon::prelude::*;

/// Values that arrivals are rounded to.
const BINS: usize = 1024;

/// How blocks lie in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Blocks of a chunk.
    pub(super) chunk: usize,
    /// Ranks of a block.
    pub(super) block_ranks: usize,
}

/// Arrivals in one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    pub(super) first_s: f64,
    pub(super) mean_s: f64,
    pub(super) second_s: f64,
    pub(super) last_s: f64,
    pub(super) last_block: usize,
}

impl Spread {
    const NONE: Self = Self {
        first_s: f64::INFINITY,
        mean_s: 0.0,
        second_s: 0.0,
        last_s: -1.0,
        last_block: 0,
    };

    /// Adds one arrival; `mean_s` is a sum as yet.
    #[inline]
    fn add(&mut self, block: usize, at: f64) {
        self.first_s = self.first_s.min(at);
        self.mean_s += at;
        if at > self.last_s {
            (self.second_s, self.last_s, self.last_block) = (self.last_s.max(0.0), at, block);
        } else {
            self.second_s = self.second_s.max(at);
        }
    }

    /// Adds later blocks.
    fn merge(&mut self, later: &Self) {
        self.first_s = self.first_s.min(later.first_s);
        self.mean_s += later.mean_s;
        self.second_s = match later.last_s > self.last_s {
            true => self.last_s.max(later.second_s).max(0.0),
            false => self.second_s.max(later.last_s),
        };
        if later.last_s > self.last_s {
            (self.last_s, self.last_block) = (later.last_s, later.last_block);
        }
    }

    fn bin(&self, at: f64) -> usize {
        let spread = self.last_s - self.first_s;
        let scale = if spread > 0.0 {
            (BINS - 1) as f64 / spread
        } else {
            0.0
        };
        (((at - self.first_s) * scale).round() as usize).min(BINS - 1)
    }
}

/// First, mean and last arrivals of each step. Sums are made chunk by chunk, in order.
pub(super) fn spreads(arrivals: &[Arrivals], chunk: usize) -> [Spread; LANES] {
    let of_chunk = |(index, arrivals): (usize, &[Arrivals])| {
        let mut spreads = [Spread::NONE; LANES];
        for (at, arrival) in arrivals.iter().enumerate() {
            for (spread, at_s) in spreads.iter_mut().zip(&arrival.at) {
                spread.add(index * chunk + at, *at_s);
            }
        }
        spreads
    };
    let parts: Vec<[Spread; LANES]> = arrivals
        .par_chunks(chunk)
        .enumerate()
        .map(of_chunk)
        .collect();
    let mut all = [Spread::NONE; LANES];
    for part in &parts {
        all.iter_mut()
            .zip(part)
            .for_each(|(all, part)| all.merge(part));
    }
    for spread in &mut all {
        spread.mean_s /= arrivals.len() as f64;
        if arrivals.len() == 1 {
            spread.second_s = spread.last_s;
        }
    }
    all
}

/// Puts each block's share of the waiting on the rank that took longest in it.
pub(super) fn assign(
    arrivals: &[Arrivals],
    spreads: &[Spread; LANES],
    states: &mut [RankState],
    (batch, shape): (Batch, Shape),
) {
    let counts = counts(arrivals, spreads, (batch, shape));
    let shares: Vec<Vec<f64>> = counts
        .iter()
        .zip(spreads)
        .map(|(counts, spread)| shares(counts, arrivals.len(), spread))
        .collect();
    let chunks = states.par_chunks_mut(shape.chunk * shape.block_ranks);
    chunks
        .zip(arrivals.par_chunks(shape.chunk))
        .for_each(|(states, arrivals)| {
            for (ranks, arrival) in states.chunks_mut(shape.block_ranks).zip(arrivals) {
                for (lane, shares) in shares.iter().enumerate() {
                    let share = shares[spreads[lane].bin(arrival.at[lane])];
                    ranks[arrival.slowest[lane] as usize].tally.blamed_s += share;
                }
            }
        });
}

/// Arrivals in each bin of each step.
fn counts(
    arrivals: &[Arrivals],
    spreads: &[Spread; LANES],
    (batch, shape): (Batch, Shape),
) -> Vec<Vec<u32>> {
    let none = || vec![vec![0_u32; BINS]; batch.steps];
    // Few large pieces: each needs its own counts.
    let piece = shape.chunk.max(arrivals.len().div_ceil(64));
    let of_piece = |arrivals: &[Arrivals]| {
        let mut counts = none();
        for arrival in arrivals {
            for (lane, counts) in counts.iter_mut().enumerate() {
                counts[spreads[lane].bin(arrival.at[lane])] += 1;
            }
        }
        counts
    };
    arrivals
        .par_chunks(piece)
        .map(of_piece)
        .reduce(none, |mut a, b| {
            let pairs = a.iter_mut().flatten().zip(b.iter().flatten());
            pairs.for_each(|(a, b)| *a += b);
            a
        })
}

/// What one arrival in each bin is blamed for: each of the steps up to it, shared by those who are
/// not there yet.
fn shares(counts: &[u32], arrivals: usize, spread: &Spread) -> Vec<f64> {
    let width = (spread.last_s - spread.first_s) / (BINS - 1) as f64;
    let mut absent = arrivals as u32;
    let mut sum = 0.0;
    let mut shares = vec![0.0; BINS];
    for bin in 1..BINS {
        absent -= counts[bin - 1];
        if absent == 0 {
            break;
        }
        sum += width / f64::from(absent);
        shares[bin] = sum;
    }
    shares
}
