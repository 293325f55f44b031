//! Errors of this crate.

use laggard_types::Rank;
use thiserror::Error;

use crate::compute::Constant;
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
        name: String,
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
         hint: measure more steps, or state a lognormal deviation"
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
    /// A record that says nothing of how the job was laid out.
    #[error(
        "the record has no layout, so that nothing can be predicted to hold it against\nhint: \
         calibrate on a record of `laggard run`"
    )]
    NoLayoutInRecord,
    /// A record of another model than the one of this name.
    #[error(
        "the record's model {model} has {recorded} parameters, the one of that name {known}\nhint: \
         give the model that was run with --models"
    )]
    OtherModel {
        /// Its name.
        model: String,
        /// Parameters by the record.
        recorded: f64,
        /// Parameters of the table's.
        known: f64,
    },
    /// A record whose arithmetic tells nothing of the one that is forecast.
    #[error(
        "the record was computed in {data_type}, but {why}\nhint: calibrate on a run in the \
         arithmetic of the forecast (--precision)"
    )]
    OtherArithmetic {
        /// Element type by the record.
        data_type: String,
        /// Why that tells nothing.
        why: String,
    },
    /// A record of a class that was not there.
    #[error(
        "class `{class}` of the record was emulated, and says nothing of the real one\nhint: \
         calibrate on a run without --classes"
    )]
    EmulatedClass {
        /// Its name in the record.
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
    /// A schedule that cannot be evaluated.
    #[error(transparent)]
    Replay(#[from] laggard_schedule::ReplayError),
    /// A modelled duration is no time.
    #[error(
        "operation `{operation}` of rank {rank} is to take {seconds} s\nhint: durations must be \
         finite and not negative"
    )]
    Duration {
        /// The operation.
        operation: String,
        /// The rank.
        rank: Rank,
        /// What the model said.
        seconds: f64,
    },
    /// Too many ranks of a schedule differ from each other.
    #[error(
        "the step has {operations} operations on {ranks} ranks that are not alike, of which at \
         most {limit} can be evaluated\nhint: simulate it as a sketch, which needs no graph"
    )]
    LargeGraph {
        /// Ranks that no other rank stands for.
        ranks: usize,
        /// Their operations.
        operations: usize,
        /// The limit.
        limit: usize,
    },
    /// A list has not one entry for each of its subjects.
    #[error("{given} {what} for {needed} {subjects}")]
    Length {
        /// What is listed.
        what: &'static str,
        /// How many there are.
        given: usize,
        /// Who should have one.
        subjects: &'static str,
        /// How many should be there.
        needed: usize,
    },
    /// A jitter that cannot be drawn.
    #[error("{what} of the jitter {why}")]
    Jitter {
        /// The parameter.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A class, rank or step that is not there.
    #[error("{what} {index} is referred to, but there are only {count}")]
    Dangling {
        /// What is referred to.
        what: &'static str,
        /// The reference.
        index: u64,
        /// How many there are.
        count: u64,
    },
    /// More steps or ranks than fit in memory.
    #[error("{what}: {given}, of which at most {limit} can be simulated")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        given: u64,
        /// The limit.
        limit: u64,
    },
    /// A constant of the cost model is missing or stands twice.
    #[error("the table of constants has {count} entries for {constant:?}, not one")]
    ConstantEntries {
        /// Which constant.
        constant: Constant,
        /// How many entries it has.
        count: usize,
    },
    /// Numbers that no statistic has.
    #[error(transparent)]
    Stats(#[from] laggard_stats::StatsError),
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
pub(crate) fn positive(name: impl Into<String>, value: f64) -> Result<f64, SimulateError> {
    in_range(
        name,
        value,
        value > 0.0 && value.is_finite(),
        "above zero and finite",
    )
}

/// Refuses a number unless `accepted`.
pub(crate) fn in_range(
    name: impl Into<String>,
    value: f64,
    accepted: bool,
    allowed: &'static str,
) -> Result<f64, SimulateError> {
    if accepted {
        return Ok(value);
    }
    Err(SimulateError::OutOfRange {
        name: name.into(),
        value,
        allowed,
    })
}
