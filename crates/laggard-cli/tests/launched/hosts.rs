//! Ranks on two hosts, which `scripts/testbed.sh` makes of this machine. Skips loudly where the
//! machine does not offer what that needs, unless `LAGGARD_REQUIRE` holds `testbed`.
#![expect(clippy::print_stderr, reason = "a test that skips says so")]

use super::{Launch, all_said, check_record, end};
use std::path::Path;

/// The testbed's code for a machine that cannot make hosts.
const SKIPPED: i32 = 77;

/// What a rank does whom the testbed's `mpirun` has started: what torchrun would on its host.
const AS_TORCHRUN: &str = "
    export RANK=$OMPI_COMM_WORLD_RANK WORLD_SIZE=$OMPI_COMM_WORLD_SIZE
    export MASTER_ADDR=h0 MASTER_PORT=29500
    for name in $(env | grep -oE '^(OMPI|PMIX|PMI)_[A-Z_0-9]*'); do unset $name; done
    case $(hostname) in
        h0) export CUDA_VISIBLE_DEVICES=0,1 ;;
        *) export CUDA_VISIBLE_DEVICES=2,3 ;;
    esac
    exec \"$@\"";

#[test]
fn each_host_writes_its_part_of_the_record() {
    let Some(launch) = Launch::of(4) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/testbed.sh");
    let mut command = launch.on_stand_ins(script);
    command
        .args(["run", "--hosts", "2", "--ranks-per-host", "2"])
        .args(["--timeout", "110", "--", "sh", "-c", AS_TORCHRUN, "sh"])
        .args([env!("CARGO_BIN_EXE_laggard"), "run", "--model", "tiny"])
        .args(["--device", "gpu", "--steps", "4", "-o"])
        .arg(launch.record());
    let output = end(command.spawn().expect("the testbed starts"));
    if output.status.code() == Some(SKIPPED) {
        let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|it| it == "testbed"));
        eprintln!("SKIPPED: this machine cannot make several hosts (hint: run as root)");
        return;
    }
    all_said(&[output], 0);
    let record = check_record(&launch.record(), 0..4, 4);
    let hosts: Vec<&str> = record
        .manifest
        .hosts
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(hosts, ["h0", "h1"]);
    let of_rank: Vec<u32> = record.manifest.ranks.iter().map(|it| it.host).collect();
    assert_eq!(of_rank, [0, 0, 1, 1]);
    let samples = launch.record().join("samples").read_dir().expect("samples");
    let names = samples.flatten().map(|it| it.file_name());
    let is_part = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("part-00001");
    assert!(names.into_iter().any(|name| is_part(&name)));
}
