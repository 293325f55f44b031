//! The rows of a record's tables.

use laggard_types::{DeviceState, Stamp};

/// One execution of one operation: the rows of table `samples`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Rank.
    pub rank: u32,
    /// Step, from 0.
    pub step: u32,
    /// Operation, by position in the schedule's table.
    pub operation: u32,
    /// Raw times.
    pub stamp: Stamp,
}

/// What one rank worked on in one step: the rows of table `steps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepWork {
    /// Rank.
    pub rank: u32,
    /// Step, from 0.
    pub step: u32,
    /// Tokens of this rank's micro-batches, without padding.
    pub tokens: i64,
    /// Sum of squared sequence lengths of this rank's micro-batches.
    pub tokens_squared: i64,
}

/// What one processor of one host did in an interval: the rows of table `telemetry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Telemetry {
    /// Host, by position in the manifest.
    pub host: u32,
    /// Logical processor.
    pub cpu: u32,
    /// Begin of the interval on the samples' clock.
    pub start_ns: i64,
    /// End of the interval.
    pub end_ns: i64,
    /// Time that the processor was busy with anything.
    pub busy_ns: i64,
    /// Time that this job used on the processor.
    pub own_ns: i64,
    /// Time that a hypervisor gave to other machines.
    pub steal_ns: i64,
}

/// What the accelerator of one rank told of itself at one moment: the rows of table
/// `device_telemetry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceReading {
    /// Rank.
    pub rank: u32,
    /// When, on the samples' clock.
    pub at_ns: i64,
    /// What was visible.
    pub state: DeviceState,
}
