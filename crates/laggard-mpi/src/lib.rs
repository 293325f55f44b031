//! The MPI backend: one process is one rank, and MPI carries collectives and messages. Links no
//! MPI: what is asked of it goes through a plugin (`plugin/`, one build per MPI) that is loaded at
//! run time, so one binary starts everywhere. Knows nothing of records or of launchers' options.
//!
//! Calls are made by the queue threads of the rank's CPU device, which start a non-blocking
//! operation and then look whether it is complete, ever less often: the ranks of a machine may
//! share processors, so that a wait must cost little CPU time.

mod abi;
mod agreement;
mod cargo;
mod communicator;
mod counts;
mod error;
mod find;
mod flight;
mod group;
mod library;
mod line;
mod messenger;
mod transfer;
mod wait;
mod work;
mod world;

pub use error::MpiError;
pub use find::{Flavor, PLUGIN_VARIABLE};
pub use world::{Mpi, Place, WorldOptions};
