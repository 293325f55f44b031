//! Launchers of MPI. Who wants one that is missing is passed over loudly, unless `LAGGARD_REQUIRE`
//! holds `mpi`.

use laggard_mpi::Flavor;
use std::path::Path;
use std::process::{Command, Stdio};

/// A launcher that may run as root on a machine with fewer processors than ranks, if it and its
/// plugin are there.
#[expect(clippy::print_stderr, reason = "tests that are passed over say so")]
pub(crate) fn launcher(flavor: Flavor) -> Option<Command> {
    let program = match flavor {
        Flavor::OpenMpi => "mpirun.openmpi",
        Flavor::Mpich => "mpirun.mpich",
    };
    let plugin = Path::new(env!("CARGO_BIN_EXE_laggard")).with_file_name(flavor.file_name());
    let there = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if there && plugin.is_file() {
        let mut command = Command::new(program);
        command
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
            .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
            .env_remove("LAGGARD_LOG");
        return Some(command);
    }
    let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name == "mpi"),
        "LAGGARD_REQUIRE asks for {program} and {}",
        plugin.display()
    );
    eprintln!("SKIPPED: {program} or {} is missing", plugin.display());
    None
}
