//! What a comparison of two records says: the published JSON of `laggard compare`.

use crate::Estimate;
use laggard_types::Caveat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What changed from record A to record B.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Version of this format.
    pub schema_version: u32,
    /// One row per figure.
    pub rows: Vec<ComparisonRow>,
    /// Whether B is significantly slower than A.
    pub regression: bool,
    /// The answer in a sentence.
    pub verdict: String,
    /// Doubts, such as different models or hosts.
    pub caveats: Vec<Caveat>,
}

/// One figure of both records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComparisonRow {
    /// The figure's name, with its unit.
    pub name: String,
    /// In record A.
    pub a: f64,
    /// In record B.
    pub b: f64,
    /// B over A, with its 95 % interval.
    pub ratio: Estimate,
    /// Whether the interval excludes 1.
    pub significant: bool,
}
