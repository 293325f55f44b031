//! The version of the record's format.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Version of the record's format. A reader accepts versions up to its own and refuses later ones,
/// naming both.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct SchemaVersion(pub u32);

impl SchemaVersion {
    /// What this laggard writes.
    pub const CURRENT: Self = Self(1);
}
