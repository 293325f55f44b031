//! The same under `mpirun` of Open MPI and `mpiexec` of MPICH: MPI carries control, NCCL the
//! collectives. Skips loudly where launcher or plugin is missing, unless `LAGGARD_REQUIRE` holds
//! `mpi`.
#![expect(clippy::print_stderr, reason = "tests that are passed over say so")]

use super::{Launch, all_said, check_record, end};
use laggard_mpi::Flavor;
use std::path::Path;
use std::process::{Command, Stdio};

/// The launcher of a flavor, if it and its plugin are there.
fn launcher(flavor: Flavor) -> Option<&'static str> {
    let program = match flavor {
        Flavor::OpenMpi => "mpirun.openmpi",
        Flavor::Mpich => "mpirun.mpich",
    };
    let plugin = Path::new(env!("CARGO_BIN_EXE_laggard")).with_file_name(flavor.file_name());
    let mut version = Command::new(program);
    version.arg("--version").stdout(Stdio::null());
    let there = version.stderr(Stdio::null()).status();
    if there.is_ok_and(|status| status.success()) && plugin.is_file() {
        return Some(program);
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

#[test]
fn processes_of_mpi_run_a_job_on_gpus() {
    for program in Flavor::ALL.into_iter().filter_map(launcher) {
        let Some(launch) = Launch::of(2) else { return };
        let run = |arguments: &[&str]| {
            let mut command = launch.on_stand_ins(program);
            command
                .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
                .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
                .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
                .args(["-n", "2", env!("CARGO_BIN_EXE_laggard"), "run"])
                .args(["--model", "tiny", "--device", "gpu", "-o"])
                .arg(launch.record())
                .args(arguments);
            end(command.spawn().expect("the launcher starts"))
        };
        let said = all_said(&[run(&["--steps", "5"])], 0);
        let expect = "2 ranks over NCCL 2.30.7";
        assert_eq!(said.matches(expect).count(), 1, "{program}: {said}");
        check_record(&launch.record(), 0..2, 5);
    }
}
