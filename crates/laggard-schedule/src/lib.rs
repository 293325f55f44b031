//! The one description of a training step: `measure` executes it, `analyze` replays it with
//! measured durations. Knows nothing of where durations come from.

mod data_parallel;
mod graph;
mod layout;
mod replay;

pub use data_parallel::{LayerWork, data_parallel};
pub use graph::{Axis, Operation, OperationKind, Phase, Program, Schedule, ScheduleOrigin, Stream};
pub use layout::{Layout, LayoutError};
pub use replay::{Durations, Node, Replay, ReplayError, Times};
