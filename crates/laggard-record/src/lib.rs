//! The run record: a directory with `manifest.json` and columnar samples. Knows nothing of where
//! events came from.

mod manifest;
mod table;
mod version;

pub use manifest::{
    Class, Clock, Host, InjectedFault, Manifest, Origin, Peak, PeakKind, RankPlace, TimeBasis,
    Workload,
};
pub use table::{Sample, StepWork, Telemetry};
pub use version::SchemaVersion;
