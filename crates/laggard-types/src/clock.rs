//! Raw times: integer nanoseconds that name the clock that they were read from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which clock a time was read from. Times of different domains are never subtracted from each
/// other without an alignment.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ClockDomain {
    /// The monotonic clock of one host; shared by all processes of that host.
    HostMonotonic,
    /// A device's own clock (a GPU's global timer).
    Device,
    /// A foreign trace's clock, of which only differences on one rank are trusted.
    Trace,
}

/// When a piece of work began and ended, raw, on the clock of the queue that ran it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Begin, nanoseconds on the queue's clock.
    pub start_ns: i64,
    /// End, nanoseconds on the same clock.
    pub end_ns: i64,
    /// CPU time of the executing thread at the begin, nanoseconds; zero where there is none.
    pub cpu_start_ns: i64,
    /// CPU time of the executing thread at the end, nanoseconds; zero where there is none.
    pub cpu_end_ns: i64,
}
