//! Where plugins are. Knows names and places, loads nothing.

use crate::MpiError;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The environment variable that names a plugin, as a path.
pub const PLUGIN_VARIABLE: &str = "LAGGARD_MPI_PLUGIN";

/// A family of MPI libraries with one binary interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// Open MPI.
    OpenMpi,
    /// MPICH and what descends from it.
    Mpich,
}

impl Flavor {
    /// Every flavor.
    pub const ALL: [Self; 2] = [Self::OpenMpi, Self::Mpich];

    /// The project's name for itself.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenMpi => "Open MPI",
            Self::Mpich => "MPICH",
        }
    }

    /// The lower-case name in file names and on command lines.
    pub const fn id(self) -> &'static str {
        match self {
            Self::OpenMpi => "openmpi",
            Self::Mpich => "mpich",
        }
    }

    /// The plugin's file name.
    pub fn file_name(self) -> String {
        format!("liblaggard_mpi_{}.so", self.id())
    }

    /// Whether a library that calls itself so is of this flavor. Only Open MPI names itself.
    pub(crate) fn is_of(self, library_version: &str) -> bool {
        library_version.contains("Open MPI") == (self == Self::OpenMpi)
    }
}

/// The plugin of a flavor: what `named` (the environment) says, else beside the executable or in
/// its `../lib/laggard`.
pub(crate) fn plugin(
    flavor: Flavor,
    named: Option<OsString>,
    executable: Option<&Path>,
) -> Result<PathBuf, MpiError> {
    let tried = places(flavor, named, executable);
    let found = tried.iter().find(|path| path.is_file()).cloned();
    found.ok_or(MpiError::NoPlugin { flavor, tried })
}

fn places(flavor: Flavor, named: Option<OsString>, executable: Option<&Path>) -> Vec<PathBuf> {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        return vec![PathBuf::from(named)];
    }
    let folder = executable.and_then(Path::parent);
    let beside = folder.map(|folder| folder.join(flavor.file_name()));
    let installed = folder
        .and_then(Path::parent)
        .map(|prefix| prefix.join("lib/laggard").join(flavor.file_name()));
    beside.into_iter().chain(installed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_comes_first_then_the_executable_then_the_prefix() {
        let executable = Path::new("/opt/bin/laggard");
        let check = |named: Option<&str>, want: &[&str]| {
            let found = places(Flavor::Mpich, named.map(OsString::from), Some(executable));
            let want: Vec<_> = want.iter().map(PathBuf::from).collect();
            assert_eq!(found, want);
        };
        check(Some("/x/plugin.so"), &["/x/plugin.so"]);
        let usual = [
            "/opt/bin/liblaggard_mpi_mpich.so",
            "/opt/lib/laggard/liblaggard_mpi_mpich.so",
        ];
        check(None, &usual);
        check(Some(""), &usual);
    }

    #[test]
    fn a_library_is_told_by_its_own_words() {
        assert!(Flavor::OpenMpi.is_of("Open MPI v4.1.4, package: Debian"));
        assert!(!Flavor::Mpich.is_of("Open MPI v4.1.4, package: Debian"));
        assert!(Flavor::Mpich.is_of("MPICH Version: 4.0.2"));
        assert!(!Flavor::OpenMpi.is_of("MPICH Version: 4.0.2"));
    }

    #[test]
    fn a_missing_plugin_is_said_with_the_command_that_builds_it() {
        let error = plugin(Flavor::OpenMpi, Some("/nowhere/x.so".into()), None).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/nowhere/x.so"), "{text}");
        assert!(
            text.contains("hint: build it with `scripts/build_mpi.sh openmpi`"),
            "{text}"
        );
    }
}
