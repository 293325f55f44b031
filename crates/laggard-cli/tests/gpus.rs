//! `laggard run` on GPUs, over stand-ins for the driver and NCCL: ranks are threads of one process,
//! and so are the streams of their GPUs. What a GPU makes of it cannot be seen here.

mod stand_ins;

use laggard_record::{PeakKind, Record};
use stand_ins::stand_ins;
use std::path::Path;
use std::process::{Command, Output};

fn laggard(folder: &Path, gpus: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_laggard"))
        .args(arguments)
        .env("LD_LIBRARY_PATH", folder)
        .env("LAGGARD_CUDA_PATH", folder)
        .env("LAGGARD_FAKE_CUDA", gpus)
        .env_remove("CUDA_VISIBLE_DEVICES")
        .env_remove("NCCL_MULTI_RANK_GPU_ENABLE")
        .output()
        .expect("laggard starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_job_runs_on_gpus_and_is_analysed() {
    let Some(folder) = stand_ins() else { return };
    let home = tempfile::tempdir().expect("a folder");
    let record = home.path().join("run");
    let path = record.to_str().expect("a path");
    let gpus = "devices=2,memory_bytes=2000000000";
    let arguments = [
        "run", "--model", "tiny", "--steps", "6", "--layout", "tp2", "-o", path,
    ];
    let output = laggard(folder, gpus, &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let record = Record::open(&record).expect("a record");
    let manifest = &record.manifest;
    assert_eq!(manifest.workload.data_type, "bf16");
    let devices: Vec<&str> = manifest.ranks.iter().map(|it| it.device.as_str()).collect();
    assert_eq!(devices, ["Fake GPU 0", "Fake GPU 1"]);
    // Nobody's datasheet, and no processor's peak in its place.
    assert!(manifest.classes.iter().all(|class| class.peak.is_none()));
    assert!(!manifest.clock.thread_cpu_time);
    let communication = manifest.communication.as_ref().expect("what carried it");
    assert!(
        communication.backend.starts_with("NCCL 2."),
        "{}",
        communication.backend
    );
    let samples = record.samples(|_| ()).expect("samples");
    assert!(samples.caveats.is_empty(), "{:?}", samples.caveats);
    let output = laggard(folder, gpus, &["analyze", path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn processors_are_used_where_that_is_asked_for() {
    let Some(folder) = stand_ins() else { return };
    let home = tempfile::tempdir().expect("a folder");
    let record = home.path().join("run");
    let path = record.to_str().expect("a path");
    let arguments = [
        "run", "--device", "cpu", "--ranks", "1", "--model", "tiny", "--steps", "3",
    ];
    let output = laggard(
        folder,
        "devices=2",
        &[&arguments[..], &["-o", path]].concat(),
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let manifest = Record::open(&record).expect("a record").manifest.clone();
    assert_eq!(manifest.workload.data_type, "f32");
    let peak = manifest.classes[0].peak.as_ref().expect("a peak");
    assert_eq!(peak.kind, PeakKind::Measured);
}

#[test]
fn what_cannot_run_on_gpus_is_said() {
    let Some(folder) = stand_ins() else { return };
    let home = tempfile::tempdir().expect("a folder");
    let check = |folder: &Path, gpus: &str, more: &[&str], code: i32, expect: &str| {
        let record = home.path().join("run");
        let path = record.to_str().expect("a path");
        let arguments = [
            "run", "--device", "gpu", "--model", "tiny", "--steps", "2", "-o", path,
        ];
        let output = laggard(folder, gpus, &[&arguments[..], more].concat());
        let words = text(&output);
        assert_eq!(output.status.code(), Some(code), "{words}");
        assert!(words.contains(expect), "{words}");
        assert!(words.contains("hint: "), "{words}");
        assert!(!record.exists(), "nothing was run");
    };
    let usual = "devices=1,memory_bytes=2000000000";
    check(
        folder,
        usual,
        &["--ranks", "2"],
        5,
        "ranks 0 and 1 share the GPU",
    );
    check(folder, "devices=0", &[], 5, "there is no GPU 0");
    check(
        folder,
        usual,
        &["--data-type", "bf17"],
        2,
        "no data type is called `bf17`",
    );
    check(
        folder,
        usual,
        &["--data-type", "f64"],
        2,
        "no layer computes in it",
    );
    check(home.path(), usual, &[], 5, "not found");
    let two = "devices=2,memory_bytes=2000000000,launch_that_breaks=3";
    check(folder, two, &["--ranks", "2"], 5, "the device is lost");
}
