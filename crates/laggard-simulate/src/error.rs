//! Errors of this crate.

use thiserror::Error;

use crate::lockstep::Cause;

/// Why nothing could be predicted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SimulateError {
    /// A table is not the TOML that it should be.
    #[error("cannot read the {table} table: {source}")]
    Parse {
        /// Which table.
        table: &'static str,
        /// What the TOML reader says, with line and column.
        source: Box<toml::de::Error>,
    },
    /// A table lacks an entry.
    #[error("the {table} table has no entry '{id}'")]
    NoEntry {
        /// Which table.
        table: &'static str,
        /// The entry that was asked for.
        id: String,
    },
    /// A number is outside what the model is defined for.
    #[error("{name} is {value}, but must be {allowed}")]
    OutOfRange {
        /// What the number is, with its unit.
        name: &'static str,
        /// The refused number.
        value: f64,
        /// The range that is accepted.
        allowed: &'static str,
    },
    /// An accelerator without a rate that every prediction needs.
    #[error(
        "the {what} of {accelerator} is unknown\n\
         hint: state {key} of the accelerator"
    )]
    UnknownRate {
        /// The accelerator's id.
        accelerator: String,
        /// Which rate.
        what: &'static str,
        /// The key that is missing.
        key: &'static str,
    },
    /// Checkpoints and restarts too long for a first-order formula.
    #[error(
        "checkpoint and restart are {share:.2} of the time between failures, above the {limit} up \
         to which first-order formulas hold: they neglect failures during either\n\
         hint: use the exact optimum"
    )]
    NotFirstOrder {
        /// Their share of the mean time between failures.
        share: f64,
        /// The largest share that is accepted.
        limit: f64,
    },
    /// A sample with fewer times than ranks.
    #[error(
        "{samples} times say nothing of the longest of {ranks} ranks\n\
         hint: measure more steps, or state a normal or lognormal deviation"
    )]
    TooFewSamples {
        /// Times of the sample.
        samples: usize,
        /// Ranks that were asked for.
        ranks: u64,
    },
    /// A fleet or job of no classes.
    #[error("no accelerator classes")]
    NoClasses,
    /// A job with more ranks than there are accelerators.
    #[error(
        "the job has {ranks} ranks, the cluster {devices} accelerators\nhint: make a degree of the \
         layout smaller"
    )]
    TooFewDevices {
        /// Accelerators.
        devices: u64,
        /// Ranks.
        ranks: u64,
    },
    /// No run of the calibration had an operation like one that is to be predicted.
    #[error(
        "no run of the calibration had an operation like `{operation}` on class `{class}`\nhint: \
         calibrate on layouts that use each kind of parallelism of this one"
    )]
    NotCalibrated {
        /// The operation.
        operation: String,
        /// The class of its device.
        class: String,
    },
    /// A batch that replicas cannot share evenly.
    #[error(
        "a step of {sequences} sequences cannot be shared out over replicas and micro-batches that \
         take {at_once} at once\nhint: give a multiple of {at_once}, and at most 4294967295 times \
         that"
    )]
    BatchNotShared {
        /// Sequences of a step.
        sequences: u64,
        /// Sequences of one micro-batch of every replica.
        at_once: u64,
    },
    /// A layout that does not fit the model.
    #[error(transparent)]
    Layout(#[from] laggard_schedule::LayoutError),
    /// A step that cannot be evaluated.
    #[error(transparent)]
    Graph(#[from] crate::graph::GraphError),
    /// Ranks that cannot be simulated.
    #[error(transparent)]
    Scale(#[from] crate::scale::ScaleError),
    /// A name that is in no table.
    #[error(transparent)]
    Specs(#[from] laggard_specs::SpecsError),
    /// A cause given twice.
    #[error("{cause} is given twice in a waterfall")]
    CauseTwice {
        /// The cause.
        cause: Cause,
    },
    /// An accelerator without the rate of a link that its ranks would need.
    #[error(
        "the {link} bandwidth of {accelerator} is unknown\n\
         hint: state {key} of the accelerator or of the cluster"
    )]
    UnknownBandwidth {
        /// The accelerator's id.
        accelerator: String,
        /// Scale-up or scale-out.
        link: &'static str,
        /// The key that is missing.
        key: &'static str,
    },
}

/// Refuses a number that is not finite and above zero.
pub(crate) fn positive(name: &'static str, value: f64) -> Result<f64, SimulateError> {
    in_range(
        name,
        value,
        value > 0.0 && value.is_finite(),
        "above zero and finite",
    )
}

/// Refuses a number unless `accepted`.
pub(crate) fn in_range(
    name: &'static str,
    value: f64,
    accepted: bool,
    allowed: &'static str,
) -> Result<f64, SimulateError> {
    if accepted {
        return Ok(value);
    }
    Err(SimulateError::OutOfRange {
        name,
        value,
        allowed,
    })
}
