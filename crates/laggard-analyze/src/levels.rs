//! The waterfall: what the step time becomes when one kind of difference after the other is taken
//! away. Each term is the difference of two neighbouring replays, so the terms nest and sum by
//! construction.

use crate::bins::bins;
use crate::draw::{Draw, Settings, order};
use crate::interval::estimate;
use crate::per_step::{Inputs, Lengths};
use crate::scenarios::{Scenarios, typical_slots};
use crate::{Estimate, ExposedAxis, Level, WaterfallTerm};
use laggard_stats::{BlockBootstrap, Resampling};
use rayon::prelude::*;

/// Bootstrap replicates.
pub(crate) const REPLICATES: usize = 200;
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
