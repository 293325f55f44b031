//! The waterfall: what the step time becomes when one kind of difference after the other is taken
//! away. Each term is the difference of two neighbouring replays, so the terms nest and sum by
//! construction.

use crate::bins::{Sums, bins};
use crate::interval::estimate;
use crate::per_step::{Inputs, Lengths};
use crate::scenarios::{Scenarios, typical_slots};
use crate::shrinkage::Noise;
use crate::transfers::Transfers;
use crate::{Estimate, ExposedAxis, Level, WaterfallTerm};
use laggard_record::TimeBasis;
use laggard_stats::{BlockBootstrap, Resampling};
use rayon::prelude::*;

/// Bootstrap replicates.
pub(crate) const REPLICATES: usize = 200;
/// Everything that one draw of steps says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draw {
    /// Mean step time.
    pub(crate) wall: f64,
    /// Mean of the replayed step time.
    pub(crate) replayed: f64,
    /// What typical delays between being ready and starting cost.
    pub(crate) launch: f64,
    /// Step time with everything spread evenly.
    pub(crate) balanced: f64,
    /// Step time with every class at its mean, and with generations evened out as well.
    pub(crate) as_class: f64,
    pub(crate) even_generations: f64,
    /// Share of each axis in exposed communication, in the order of [`Transfers::axes`].
    pub(crate) exposed: Vec<f64>,
    /// Share of each level, in the order of [`order`].
    pub(crate) shares: [f64; LEVELS],
}

pub(crate) const LEVELS: usize = 14;

/// The levels from the top of the waterfall to the bottom.
pub(crate) const fn order() -> [Level; LEVELS] {
    [
        Level::Rest,
        Level::UnevenWork,
        Level::HostPauses,
        Level::Transient,
        Level::Rank,
        Level::Node,
        Level::Generation,
        Level::Stage,
        Level::ExposedCommunication,
        Level::Bubble,
        Level::Host,
        Level::Optimizer,
        Level::KernelEfficiency,
        Level::Utilisation,
    ]
}

impl Draw {
    /// Seconds of a step that stragglers cost.
    pub(crate) fn loss(&self) -> f64 {
        self.replayed - self.launch - self.balanced
    }

    /// Step time over the step time with everything spread evenly, both without launch delays.
    pub(crate) fn slowdown(&self) -> f64 {
        (self.replayed - self.launch) / self.balanced
    }
}

/// The waterfall and what its intervals are made of.
pub(crate) struct Waterfall {
    /// From all steps.
    pub(crate) point: Draw,
    /// From resampled steps.
    pub(crate) draws: Vec<Draw>,
    /// Whether a peak is known.
    pub(crate) has_peak: bool,
    /// Number of steps in a block.
    pub(crate) block_length: usize,
    /// Axes that ranks communicate along.
    axes: Vec<String>,
}

impl Waterfall {
    /// A figure of a draw, with the interval that the draws give.
    pub(crate) fn estimate(&self, figure: impl Fn(&Draw) -> f64) -> Estimate {
        let value = figure(&self.point);
        let draws: Vec<f64> = self.draws.iter().map(figure).collect();
        estimate(value, &draws)
    }

    pub(crate) fn terms(&self) -> Vec<WaterfallTerm> {
        order()
            .into_iter()
            .enumerate()
            .map(|(at, level)| {
                let no_peak = level == Level::Utilisation && !self.has_peak;
                let level = if no_peak { Level::Computing } else { level };
                WaterfallTerm {
                    level,
                    share: self.estimate(|draw| draw.shares[at]),
                }
            })
            .filter(|term| self.has_peak || term.level != Level::KernelEfficiency)
            .collect()
    }

    /// What exposed communication is made of.
    pub(crate) fn exposed(&self) -> Vec<ExposedAxis> {
        let axes = self.axes.iter().enumerate();
        axes.map(|(at, axis)| ExposedAxis {
            axis: axis.clone(),
            share: self.estimate(|draw| draw.exposed[at]),
        })
        .collect()
    }

    /// Share of wall time that a level costs.
    pub(crate) fn loss(&self, level: Level) -> Estimate {
        let at = order()
            .iter()
            .position(|other| *other == level)
            .unwrap_or(0);
        self.estimate(|draw| draw.shares[at])
    }
}

/// Computes the waterfall with its intervals.
pub(crate) fn waterfall(
    inputs: &Inputs<'_>,
    lengths: &Lengths,
    settings: &Settings<'_>,
) -> Waterfall {
    let bins = bins(inputs, settings.sums, lengths, settings.basis);
    let per_bin = lengths.measured.len().div_ceil(bins.len());
    let block = settings.block_length.div_ceil(per_bin).clamp(1, bins.len());
    let all: Vec<f64> = vec![1.0; bins.len()];
    let weights = resamples(bins.len(), block, settings.seed);
    let typical = typical_slots(inputs);
    let scenarios = Scenarios {
        inputs,
        settings,
        typical: &typical,
        noise: settings.noise,
        transfers: &settings.transfers,
    };
    let draw = |weight: &Vec<f64>| scenarios.draw(&bins, weight);
    Waterfall {
        point: draw(&all),
        draws: weights.par_iter().map(draw).collect(),
        has_peak: settings.peak_sum.is_some(),
        block_length: settings.block_length,
        axes: settings.transfers.axes.clone(),
    }
}

/// How often each bin is drawn, for every replicate.
fn resamples(bins: usize, block_length: usize, seed: u64) -> Vec<Vec<f64>> {
    let resampling = Resampling {
        block_length,
        replicates: REPLICATES,
        seed,
    };
    let Ok(bootstrap) = BlockBootstrap::new(bins, resampling) else {
        return Vec::new();
    };
    let mut counts = Vec::new();
    (0..bootstrap.replicates())
        .map(|replicate| {
            bootstrap.fill_counts(replicate, &mut counts);
            counts.iter().map(|&count| f64::from(count)).collect()
        })
        .collect()
}

/// What the waterfall needs beside the measurements.
pub(crate) struct Settings<'a> {
    pub(crate) sums: &'a [Sums],
    pub(crate) noise: &'a Noise,
    pub(crate) basis: TimeBasis,
    /// Sum of the ranks' own peaks, FLOP/s.
    pub(crate) peak_sum: Option<f64>,
    pub(crate) block_length: usize,
    pub(crate) seed: u64,
    pub(crate) transfers: Transfers,
}
