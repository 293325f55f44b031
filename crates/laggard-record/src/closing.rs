//! `closing.json`: written last. A record without it was killed, or is still being written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a run ended, and what it wrote. The counts are totals of all parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Closing {
    /// How the run ended.
    pub status: ClosingStatus,
    /// Steps that every rank completed.
    pub steps_completed: u32,
    /// Rows of table `samples`.
    pub samples: u64,
    /// Rows of table `steps`.
    pub steps: u64,
    /// Rows of tables `telemetry` and `device_telemetry`.
    pub telemetry: u64,
    /// How often a rank had to allocate because the writer lagged behind it.
    pub writer_lags: u64,
    /// What the hosts other than the root's wrote; a host that is not here was lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartClosing>,
}

/// What one host other than the root's wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartClosing {
    /// The part: the position of its writer's host in the manifest.
    pub part: u32,
    /// Rows of table `samples`.
    pub samples: u64,
    /// Rows of table `steps`.
    pub steps: u64,
    /// Rows of tables `telemetry` and `device_telemetry`.
    pub telemetry: u64,
    /// How often one of its ranks had to allocate because a writer or forwarder lagged behind it.
    pub writer_lags: u64,
    /// The first failure to write, after which nothing more was written.
    pub fault: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ClosingStatus {
    /// All steps were done.
    Finished,
    /// A signal ended the run early.
    Interrupted {
        /// Its name, such as `SIGTERM`.
        signal: String,
    },
    /// The run gave up.
    Failed {
        /// Why.
        why: String,
    },
}
