//! What can go wrong before there is a world. Inside a world, errors are those of
//! `laggard-backend`.

use crate::Flavor;
use laggard_backend::BackendError;
use std::path::PathBuf;
use thiserror::Error;

/// An error of loading or starting MPI.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MpiError {
    /// There is no plugin for this MPI.
    #[error(
        "no plugin for {}: looked for {}\nhint: build it with `scripts/build_mpi.sh {}`, or set \
         LAGGARD_MPI_PLUGIN to its path",
        flavor.name(), list(tried), flavor.id()
    )]
    NoPlugin {
        /// The MPI.
        flavor: Flavor,
        /// Where it could have been.
        tried: Vec<PathBuf>,
    },
    /// The plugin, or the MPI library that it needs, cannot be loaded.
    #[error(
        "cannot load {}: {why}\nhint: if a library is missing, install {} or put its folder into \
         LD_LIBRARY_PATH; if a file is damaged, run `scripts/build_mpi.sh {}`",
        path.display(), flavor.name(), flavor.id()
    )]
    NotLoaded {
        /// The MPI.
        flavor: Flavor,
        /// The plugin.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The plugin was built with another version of laggard.
    #[error(
        "{} speaks version {found} of the plugin interface, not {wanted}\nhint: build it again \
         with `scripts/build_mpi.sh {}`",
        path.display(), flavor.id()
    )]
    WrongVersion {
        /// The MPI.
        flavor: Flavor,
        /// The plugin.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that is needed.
        wanted: u32,
    },
    /// The plugin uses another MPI than asked for.
    #[error(
        "{} uses {found}, not {}\nhint: build the right one with `scripts/build_mpi.sh {}`",
        path.display(), flavor.name(), flavor.id()
    )]
    WrongFlavor {
        /// The MPI.
        flavor: Flavor,
        /// The plugin.
        path: PathBuf,
        /// What it uses.
        found: String,
    },
    /// The launcher started another number of ranks than MPI sees: it belongs to another MPI.
    #[error(
        "{} sees {size} ranks, and {variable} says {wanted}: the launcher is not that of {}\n\
         hint: launch with the mpirun of the same MPI as the plugin, or with `srun --mpi=pmix` for \
         Open MPI and `srun --mpi=pmi2` for MPICH",
        flavor.name(), flavor.name()
    )]
    WrongLauncher {
        /// The MPI.
        flavor: Flavor,
        /// Ranks that MPI sees.
        size: u32,
        /// What the launcher set.
        variable: String,
        /// Ranks according to the launcher.
        wanted: String,
    },
    /// MPI refused something.
    #[error("{what}: {why}")]
    Refused {
        /// What was tried.
        what: String,
        /// What MPI says.
        why: String,
    },
    /// MPI was not initialised yet.
    #[error("MPI is not initialised")]
    NotInitialised,
    /// Something still uses MPI.
    #[error("MPI cannot be finalised while {communicators} communicators are in use")]
    InUse {
        /// How many there are.
        communicators: usize,
    },
    /// The world could not be made.
    #[error(transparent)]
    World(#[from] BackendError),
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    paths.join(", ")
}
