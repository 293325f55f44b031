//! What one draw of steps says of each level, and what that takes beside the measurements.

use crate::Level;
use crate::bins::Sums;
use crate::shrinkage::Noise;
use crate::transfers::Transfers;
use laggard_record::TimeBasis;

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

/// Levels of the waterfall.
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
