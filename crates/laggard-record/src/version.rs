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
    /// What this laggard writes. Version 2 added machines, processors that ranks may use,
    /// `communication`, `links`, and the parts that several hosts write; version 3 sketches;
    /// version 4 the identity of accelerators and table `device_telemetry`.
    pub const CURRENT: Self = Self(4);

    /// The first version that says which machine a host is part of.
    pub(crate) const WITH_MACHINES: Self = Self(2);
}
