//! Records of known truth, for tests and benchmarks of the analysis. Each binary of this package
//! prints raw figures and the limit that it is held against.

pub mod known_job;
pub mod known_layout;
mod known_manifest;
pub mod models;
pub mod peers;
pub mod rehearse;

pub use known_manifest::large_manifest;
