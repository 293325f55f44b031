//! From the MFU of kernels to that of a fleet, each cause as its own term.

use std::fmt;

use serde::Serialize;

use super::share;
use crate::error::SimulateError;

/// Why a fleet does less than its kernels could, in the order in which a waterfall takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Communication that nothing hides.
    Communication,
    /// Pipeline stages without work.
    Bubble,
    /// Fast classes waiting for slow ones.
    FastClassesWait,
    /// Ranks waiting for whoever is late in this step.
    Jitter,
    /// Failures: checkpoints, lost work, restarts, spares.
    Failures,
    /// Accelerators that the job was not given.
    Allocation,
}

/// What one cause leaves and takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WaterfallTerm {
    /// The cause.
    pub cause: Cause,
    /// What it leaves of what the causes before it left, in (0, 1].
    pub factor: f64,
    /// What it takes of the peak.
    pub points: f64,
}

/// A fleet's MFU by cause. The factors multiply to it from the start, and the points add up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FleetWaterfall {
    /// MFU of compute alone, all accelerators at the pace of their own class.
    pub start: f64,
    /// One term for each cause, in the order of [`Cause`].
    pub terms: Vec<WaterfallTerm>,
    /// MFU of the job while it steps: after communication, bubble, classes and jitter.
    pub job_mfu: f64,
    /// What failures leave of the job's time.
    pub goodput: f64,
    /// Share of the fleet's peak that the job was given.
    pub allocated_share: f64,
    /// MFU of the fleet: `job_mfu * goodput * allocated_share`.
    pub fleet_mfu: f64,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Communication => "communication",
            Self::Bubble => "bubble",
            Self::FastClassesWait => "fast classes wait",
            Self::Jitter => "jitter",
            Self::Failures => "failures",
            Self::Allocation => "allocation",
        })
    }
}

impl FleetWaterfall {
    /// Takes the causes in the order of [`Cause`]; one that is not given takes nothing.
    ///
    /// # Errors
    /// A start or factor outside (0, 1], or a cause given twice.
    pub fn new(start: f64, factors: &[(Cause, f64)]) -> Result<Self, SimulateError> {
        share("MFU of compute alone", start)?;
        let mut factors = factors.to_vec();
        factors.sort_by_key(|(cause, _)| *cause);
        if let Some(pair) = factors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(SimulateError::CauseTwice { cause: pair[0].0 });
        }
        let of = |wanted: Cause| {
            let found = factors.iter().find(|(cause, _)| *cause == wanted);
            found.map_or(1.0, |(_, factor)| *factor)
        };
        let mut left = start;
        let mut terms = Vec::with_capacity(factors.len());
        for (cause, factor) in &factors {
            share("factor of a cause", *factor)?;
            let after = left * factor;
            terms.push(WaterfallTerm {
                cause: *cause,
                factor: *factor,
                points: left - after,
            });
            left = after;
        }
        let while_stepping = [
            Cause::Communication,
            Cause::Bubble,
            Cause::FastClassesWait,
            Cause::Jitter,
        ];
        Ok(Self {
            start,
            terms,
            job_mfu: while_stepping.into_iter().map(of).product::<f64>() * start,
            goodput: of(Cause::Failures),
            allocated_share: of(Cause::Allocation),
            fleet_mfu: left,
        })
    }
}
