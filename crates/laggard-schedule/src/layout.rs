//! How a job is laid out over ranks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A parallel layout. Data parallel so far: `data_parallel` replicas, each with its own number of
/// micro-batches a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Number of replicas.
    pub data_parallel: u32,
    /// Micro-batches per step of each replica; uneven shares are allowed, zero is not.
    pub micro_batches: Vec<u32>,
    /// Gradients are reduced in buckets of at least this many bytes, except the last.
    pub bucket_bytes: u64,
    /// Whether a bucket is reduced while backward goes on (`true`), or all of them after it.
    pub overlap: bool,
}

/// A layout that cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The text form is not understood.
    #[error("cannot read layout `{text}`: {why}")]
    Unreadable {
        /// What was given.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// The product of the degrees is not the world size.
    #[error("layout `{layout}` needs {needed} ranks, but there are {ranks}")]
    WrongWorldSize {
        /// The layout, in text form.
        layout: String,
        /// Ranks that it needs.
        needed: u32,
        /// Ranks that there are.
        ranks: u32,
    },
    /// Shares of micro-batches do not fit the replicas.
    #[error("{given} micro-batch shares for {replicas} data-parallel replicas")]
    WrongShares {
        /// How many shares were given.
        given: usize,
        /// How many replicas there are.
        replicas: u32,
    },
    /// A replica without work would not take part in the step.
    #[error("data-parallel replica {replica} has no micro-batch")]
    EmptyShare {
        /// The replica.
        replica: u32,
    },
}
