//! Doubts about data. A caveat is carried with a result to every output; it is never only logged.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything that may make a number of laggard's wrong, or narrower than it looks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CaveatCode {
    /// The record was not closed: the job was killed or is still running.
    NotClosed,
    /// Samples of some ranks, steps or operations are missing.
    MissingSamples,
    /// Samples with impossible times were dropped.
    DroppedSamples,
    /// There are too few steps for the interval that was asked for.
    TooFewSteps,
    /// Work from outside competed for the processors.
    OutsideContention,
    /// There are more ranks than cores: times are on a virtual clock driven by CPU time.
    VirtualClock,
    /// Replaying the schedule does not reproduce the measured step times.
    ReplayError,
    /// A class of accelerators is emulated.
    EmulatedClass,
    /// A synthetic job was measured, not the user's own.
    SyntheticJob,
    /// The peak in the denominator was measured, not taken from a datasheet.
    MeasuredPeak,
    /// No change of regime marks the end of warm-up.
    WarmUpUnclear,
    /// The step time was still changing when the run ended.
    NotStationary,
    /// The trace lacks something that the analysis would have used.
    IncompleteTrace,
    /// A figure is a bound, because computing it exactly would take too long.
    Bound,
    /// The state of accelerators, or part of it, could not be read: it says nothing, neither good
    /// nor bad.
    NotVisible,
    /// Several ranks, or other processes, compute on one accelerator.
    SharedDevice,
    /// Clocks or temperatures of accelerators were still changing.
    NotSteady,
    /// Ranks that share an accelerator were not shown to run at the same time: what they show of a
    /// mixed cluster is no proof.
    TimeSliced,
}

/// One doubt, with what it concerns, in a sentence a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Caveat {
    /// Which kind of doubt.
    pub code: CaveatCode,
    /// The sentence.
    pub message: String,
}

impl Caveat {
    /// A caveat with its sentence.
    pub fn new(code: CaveatCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
