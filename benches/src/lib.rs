//! Records of known truth, for tests and benchmarks of the analysis. Each binary of this package
//! prints raw figures and the limit that it is held against.

mod crowd;
pub mod known_job;
pub mod known_layout;
mod known_manifest;
pub mod models;
pub mod peers;
pub mod rehearse;
mod twin;

pub use crowd::share_one_processor;
pub use known_manifest::large_manifest;
pub use twin::{Twin, spreads};
