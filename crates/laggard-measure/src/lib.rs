//! Executes the schedule of a training step with real kernels on the ranks of a backend, and writes
//! what happened as a run record: the engine of `laggard run`.
//!
//! | to | use |
//! |---|---|
//! | say what to run | [`Settings`], [`ClassShare::parse_list`], [`Fault`] (`str::parse`) |
//! | run several at the same time, each in a world of its own | [`run_together`] |
//! | run several in turns of a few steps, to compare them | [`run_in_turns`] |
//! | run it on ranks of this process | [`run`] with [`Hooks`] for signals and progress |
//! | run it on devices of the caller's, such as GPUs | [`run_on`] |
//! | execute a step in another way, and compare | [`probe_steps`] |
//! | benchmark single calls on them | [`sweep_here`], [`sweep_on`], [`sweep_member`] |
//! | run one rank of several processes | [`Places::exchange`], then [`run_member`] |
//!
//! The step that is executed is the schedule of `laggard-schedule`, operation by operation; nothing
//! here knows the order of a step. Every step is recorded from the first on: where warm-up ends is
//! for the analysis to say.

mod batches;
mod classes;
mod clock_sync;
mod cpu_quota;
mod crew;
mod devices;
mod error;
mod groups;
mod handover;
mod inject;
mod input;
mod job;
mod last_step;
mod links;
mod manifest;
mod member;
mod memory;
mod network;
mod place;
mod portion;
mod processors;
mod program;
mod rank;
mod rows;
mod run;
mod settings;
mod shape;
mod sharing;
mod stream;
mod sweep;
mod team;
mod telemetry;
#[cfg(test)]
mod testing;
mod together;
mod tokens;
mod turns;

pub use classes::ClassShare;
pub use error::MeasureError;
pub use inject::Fault;
pub use member::{Member, run_member};
pub use place::Places;
pub use processors::host_name;
pub use rank::{StepOperation, StepProbe, probe_steps};
pub use run::{Hooks, Signal, Summary, run, run_on};
pub use settings::Settings;
pub use sweep::{
    Late, ProductShape, Repetitions, Sizes, SweepHooks, SweepSettings, sweep_here, sweep_member,
    sweep_on,
};
pub use together::{run_in_turns, run_together};
