//! What GPUs tell while `laggard run` runs on them, over stand-ins for the driver, NCCL and NVML,
//! whose readings are scripted: no GPU has told anything yet.

mod stand_ins;

use laggard_record::{DeviceReading, Record};
use laggard_types::{CaveatCode, Gauge};
use stand_ins::{cc, stand_ins};
use std::path::Path;
use std::process::{Command, Output};

const TWO_GPUS: &str = "devices=2,memory_bytes=2000000000";

/// Runs a small job on two GPUs, of which NVML tells what the script says.
fn run(script: &str, more: &[&str], record: &Path) -> Option<Output> {
    let folder = stand_ins()?;
    let nvml = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nvml");
    std::fs::create_dir_all(&nvml).expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../laggard-cuda/tests/fakes/nvml.c");
    cc::shared_library(&source, &nvml.join("libnvidia-ml.so.1"), &[]);
    let both = std::env::join_paths([folder, &nvml]).expect("folders");
    let output = Command::new(env!("CARGO_BIN_EXE_laggard"))
        .args(["run", "--device", "gpu", "--model", "tiny", "--steps", "6"])
        .args(["--layout", "dp2", "-o"])
        .arg(record)
        .args(more)
        .env("LD_LIBRARY_PATH", &both)
        .env("LAGGARD_CUDA_PATH", &both)
        .env("LAGGARD_FAKE_CUDA", TWO_GPUS)
        .env("LAGGARD_FAKE_NVML", script)
        .env_remove("CUDA_VISIBLE_DEVICES")
        .env_remove("NCCL_MULTI_RANK_GPU_ENABLE")
        .output();
    Some(output.expect("laggard starts"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn of_rank(record: &Record, rank: u32) -> Vec<DeviceReading> {
    let read = record.devices().expect("a table");
    assert!(read.caveats.is_empty(), "{:?}", read.caveats);
    let rows = read.rows.into_iter();
    rows.filter(|row| row.rank == rank).collect()
}

#[test]
fn what_gpus_tell_is_in_the_record() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("run");
    let script = "gpus=2 1.sm_clock=1200 1.reasons=0x4 1.power_limit=600000 0.xid=94@3 \
                  0.processes=3 1.temperature=hidden";
    let Some(output) = run(script, &[], &path) else {
        return;
    };
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let record = Record::open(&path).expect("a record");
    let [first, second] = [0, 1].map(|rank| of_rank(&record, rank));
    for rows in [&first, &second] {
        // One when the job began, one when it ended.
        assert!(rows.len() >= 2, "{rows:?}");
        assert!(rows.is_sorted_by_key(|row| row.at_ns));
        for row in [rows.first(), rows.last()].into_iter().flatten() {
            assert_eq!(row.state.get(Gauge::NvlinkSent), Some(1000 * 1024));
            assert_eq!(row.state.get(Gauge::NvlinkReceived), Some(1001 * 1024));
            assert_eq!(row.state.get(Gauge::EccUncorrected), Some(0));
        }
    }
    let shows = |rows: &[DeviceReading], gauge: Gauge, expect: Option<i64>| {
        let all = rows.iter().map(|row| row.state.get(gauge));
        assert!(all.clone().all(|value| value == expect), "{gauge:?}");
    };
    shows(&first, Gauge::SmClock, Some(1755));
    shows(&first, Gauge::Temperature, Some(60));
    shows(&first, Gauge::ClockReasons, Some(0));
    shows(&second, Gauge::SmClock, Some(1200));
    shows(&second, Gauge::ClockReasons, Some(4));
    shows(&second, Gauge::PowerLimit, Some(600_000));
    // What is hidden is absent, not zero.
    shows(&second, Gauge::Temperature, None);
    shows(&second, Gauge::XidEvents, Some(0));
    let last = first.last().map(|row| row.state);
    assert_eq!(last.and_then(|it| it.get(Gauge::XidEvents)), Some(1));
    assert_eq!(last.and_then(|it| it.get(Gauge::Xid)), Some(94));

    let places = &record.manifest.ranks;
    let identity = |rank: usize| places[rank].accelerator.as_ref().expect("a GPU");
    assert_eq!(identity(0).pci.as_deref(), Some("0000:01:00.0"));
    assert_eq!(identity(1).pci.as_deref(), Some("0000:02:00.0"));
    assert_ne!(identity(0).uuid, identity(1).uuid);
    assert_eq!(identity(0).is_mig, Some(false));
    assert_eq!(identity(0).not_visible, [""; 0]);
    let hidden = [
        "serial number (this GPU does not have it)",
        "temperature (no permission)",
    ];
    assert_eq!(identity(1).not_visible, hidden);
    // This process is one of three on the first GPU.
    let others: Vec<_> = places.iter().map(|place| place.other_processes).collect();
    assert_eq!(others, [Some(2), Some(0)]);
    let shared = record.caveats.iter();
    let shared: Vec<_> = shared
        .filter(|it| it.code == CaveatCode::SharedDevice)
        .collect();
    assert_eq!(shared.len(), 1);
    assert!(
        shared[0].message.contains("the GPUs of rank 0"),
        "{shared:?}"
    );
}

#[test]
fn a_gpu_of_which_nvml_knows_nothing_is_not_visible() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("run");
    let Some(output) = run("gpus=1", &[], &path) else {
        return;
    };
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let record = Record::open(&path).expect("a record");
    assert!(!of_rank(&record, 0).is_empty());
    assert!(of_rank(&record, 1).is_empty());
    let identity = record.manifest.ranks[1].accelerator.as_ref();
    let hidden = &identity.expect("what the driver says").not_visible;
    assert_eq!(hidden, &["its state (NVML knows no GPU at 0000:02:00.0)"]);
    assert_eq!(record.manifest.ranks[1].other_processes, None);
}

#[test]
fn ranks_that_share_a_gpu_are_refused_unless_that_is_allowed() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("run");
    let Some(folder) = stand_ins() else { return };
    let output = Command::new(env!("CARGO_BIN_EXE_laggard"))
        .args(["run", "--device", "gpu", "--model", "tiny", "--steps", "2"])
        .args(["--ranks", "2", "-o"])
        .arg(&path)
        .env("LD_LIBRARY_PATH", folder)
        .env("LAGGARD_CUDA_PATH", folder)
        .env("LAGGARD_FAKE_CUDA", "devices=1,memory_bytes=2000000000")
        // So that NCCL would not refuse them.
        .env("NCCL_MULTI_RANK_GPU_ENABLE", "1")
        .env_remove("CUDA_VISIBLE_DEVICES")
        .output()
        .expect("laggard starts");
    let words = said(&output);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("ranks 0 and 1 share it"), "{words}");
    assert!(words.contains("--allow-shared-gpu"), "{words}");
    assert!(!path.exists(), "nothing was run");
}

#[test]
fn steps_that_warm_gpus_up_are_not_recorded() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("run");
    let Some(output) = run("gpus=2", &["--soak", "1"], &path) else {
        return;
    };
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let record = Record::open(&path).expect("a record");
    assert_eq!(
        record.closing.as_ref().map(|it| it.steps_completed),
        Some(6)
    );
    let mut first_ns = i64::MAX;
    let reading = record.samples(|batch| {
        first_ns = batch.start_ns.iter().copied().fold(first_ns, i64::min);
    });
    assert!(reading.expect("samples").caveats.is_empty());
    // Steps that do not count were run for a second: GPUs were read meanwhile.
    let before = of_rank(&record, 0);
    let before = before.iter().filter(|row| row.at_ns < first_ns).count();
    assert!(before >= 2, "{before}");
}

#[test]
fn what_cannot_soak_is_said() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("run");
    let laggard = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_laggard"))
            .args(["run", "--model", "tiny", "--steps", "2", "--ranks", "1"])
            .args(["--device", "cpu", "-o"])
            .arg(&path)
            .args(arguments)
            .output()
            .expect("laggard starts");
        assert!(!path.exists());
        (output.status.code(), said(&output))
    };
    let (code, words) = laggard(&["--soak"]);
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("the time to soak is 120 s"), "{words}");
    assert!(words.contains("leave --soak out"), "{words}");
    let (code, words) = laggard(&["--soak", "0"]);
    assert_eq!(code, Some(2), "{words}");
}
