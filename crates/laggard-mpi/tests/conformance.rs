//! The conformance suite over every MPI of this machine. Without a plugin or a launcher this says
//! so and passes; `LAGGARD_REQUIRE=mpi` makes that a failure.

use laggard_mpi::{Flavor, PLUGIN_VARIABLE};
use std::path::Path;
use std::process::{Command, Output};

/// What one launch may take before it counts as hung, in seconds.
const LIMIT: &str = "300";

const RANKS: [&str; 4] = ["1", "2", "3", "4"];

fn is_required() -> bool {
    let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
    required.split(',').any(|word| word.trim() == "mpi")
}

/// What keeps this flavor from being tested here.
fn gap(flavor: Flavor, program: &Path) -> Option<String> {
    let launcher = format!("mpirun.{}", flavor.id());
    let plugin = program.with_file_name(flavor.file_name());
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|folder| folder.join(&launcher).is_file()) {
        return Some(format!("there is no {launcher}"));
    }
    if !plugin.is_file() {
        return Some(format!("there is no {}", plugin.display()));
    }
    None
}

fn launch(flavor: Flavor, program: &Path, ranks: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args([LIMIT, &format!("mpirun.{}", flavor.id()), "-n", ranks]);
    if flavor == Flavor::OpenMpi {
        command.arg("--oversubscribe");
    }
    command
        .args([program.as_os_str(), flavor.id().as_ref()])
        .env_remove(PLUGIN_VARIABLE)
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .output()
        .expect("`timeout` of the coreutils")
}

#[expect(clippy::print_stderr, reason = "a skipped test says so loudly")]
fn conforms(flavor: Flavor) {
    let program = Path::new(env!("CARGO_BIN_EXE_mpi_conformance"));
    if let Some(gap) = gap(flavor, program) {
        assert!(!is_required(), "{gap}, and LAGGARD_REQUIRE asks for MPI");
        eprintln!(
            "!! SKIPPED: nothing is tested over {}: {gap}\n\
             hint: scripts/build_mpi.sh {} --profile dev",
            flavor.name(),
            flavor.id()
        );
        return;
    }
    for ranks in RANKS {
        let output = launch(flavor, program, ranks);
        let said = String::from_utf8_lossy(&output.stdout);
        let conforming = said.lines().filter(|line| line.ends_with(" conforms"));
        assert!(
            conforming.count().to_string() == ranks,
            "{ranks} ranks of {}: {}\n{said}{}",
            flavor.name(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn open_mpi_conforms() {
    conforms(Flavor::OpenMpi);
}

#[test]
fn mpich_conforms() {
    conforms(Flavor::Mpich);
}
