//! The commands: each takes what was typed and returns an exit code.

pub(crate) mod analyze;
pub(crate) mod bench;
mod calibrate;
mod cluster;
pub(crate) mod compare;
mod date;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod fleet;
pub(crate) mod import;
pub(crate) mod mfu;
mod operation_costs;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod simulate;
pub(crate) mod specs;
mod usual;
pub(crate) mod validate;
pub(crate) mod witness;
