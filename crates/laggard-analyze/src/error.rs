//! What stands in the way of an analysis.

use laggard_record::RecordError;
use laggard_schedule::ReplayError;
use thiserror::Error;

/// A record that cannot be analysed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AnalyzeError {
    /// The record itself cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A record without samples.
    #[error(
        "the record is a sketch: it sums up steps and ranks, and has no samples of operations\n\
         hint: simulate a world small enough for all samples, or fewer `--steps`"
    )]
    Sketch,
    /// A prediction where a measurement is asked for.
    #[error(
        "the record is a prediction, and says nothing about devices\nhint: give records of \
         `laggard run`"
    )]
    NotMeasured,
    /// Runs without a device that can be compared.
    #[error("the runs have no device with forward and backward times")]
    NoDevices,
    /// One record under two names.
    #[error("{first} and {second} are the same run\nhint: give each record once")]
    SameRecord {
        /// One name.
        first: String,
        /// The other.
        second: String,
    },
    /// An option that must be a share.
    #[error("{what} is {value}, but must be above 0 and below 1")]
    NotAShare {
        /// Which.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// Statistics refused their numbers.
    #[error("the devices' times cannot be compared: {0}")]
    Statistics(#[from] laggard_stats::StatsError),
    /// A sketch whose steps, or whose step without anything random, take no time.
    #[error("the sketch gives steps that take no time")]
    TimelessSketch,
    /// The schedule in the manifest is not sound.
    #[error("the manifest's schedule cannot be replayed: {0}")]
    Schedule(#[from] ReplayError),
    /// Ranks without any sample.
    #[error(
        "no samples of {missing} of {ranks} ranks, the first of them rank {first}\nhint: was the \
         record copied from every host, and did every rank start?"
    )]
    MissingRanks {
        /// How many ranks have none.
        missing: usize,
        /// World size.
        ranks: usize,
        /// The first rank without samples.
        first: u32,
    },
    /// Fewer complete steps than any figure needs.
    #[error("only {complete} complete steps, {needed} are needed\nhint: run more `--steps`")]
    TooFewSteps {
        /// Steps with samples of every operation of every rank.
        complete: usize,
        /// Steps that an analysis needs at least.
        needed: usize,
    },
    /// The manifest contradicts itself.
    #[error("the manifest gives {given} {what}, but has {expected} ranks")]
    Inconsistent {
        /// What is listed.
        what: &'static str,
        /// How many.
        given: usize,
        /// World size.
        expected: usize,
    },
}
