//! The one description of a training step: `measure` executes it, `analyze` replays it with
//! measured durations. Knows nothing of where durations come from.
//!
//! | to | use |
//! |---|---|
//! | say how ranks share a model | [`Layout`] |
//! | get the step of a layout | [`generate`], of each layer's [`LayerWork`] |
//! | know what lies together in memory | [`buckets`], [`chunks`], [`slots`] |
//! | evaluate a step | [`Replay`] |

mod buckets;
mod generate;
mod graph;
mod layout;
mod passes;
mod replay;
mod work;

pub use buckets::{Bucket, buckets, chunks};
pub use generate::generate;
pub use graph::{
    Axis, Operation, OperationKind, Payload, Phase, Program, Schedule, ScheduleOrigin, Stream,
};
pub use layout::{Coordinates, LayerSplit, Layout, LayoutError, Recompute, Zero};
pub use passes::{Pass, passes, slots};
pub use replay::{Durations, Node, Replay, ReplayError, Times};
pub use work::{LayerWork, ModelWork, Part, PartWork};
