//! The same under `mpirun` of Open MPI and `mpiexec` of MPICH: MPI carries control, NCCL the
//! collectives. Skips loudly where launcher or plugin is missing, unless `LAGGARD_REQUIRE` holds
//! `mpi`.

use super::launchers::launcher;
use super::{Launch, all_said, check_record, end};
use laggard_mpi::Flavor;

#[test]
fn processes_of_mpi_run_a_job_on_gpus() {
    for flavor in Flavor::ALL.into_iter().filter(|it| launcher(*it).is_some()) {
        let Some(launch) = Launch::of(2) else { return };
        let run = |arguments: &[&str]| {
            let mut command = launcher(flavor).expect("it was there");
            launch
                .put_on_stand_ins(&mut command)
                .args(["-n", "2", env!("CARGO_BIN_EXE_laggard"), "run"])
                .args(["--model", "tiny", "--device", "gpu", "-o"])
                .arg(launch.record())
                .args(arguments);
            end(command.spawn().expect("the launcher starts"))
        };
        let said = all_said(&[run(&["--steps", "5"])], 0);
        let expect = "2 ranks over NCCL 2.30.7";
        assert_eq!(said.matches(expect).count(), 1, "{}: {said}", flavor.name());
        check_record(&launch.record(), 0..2, 5);
    }
}
