//! The real binary on `doctor`: every part of the machine gets a line, every gap a hint.

#[path = "../../laggard-cuda/tests/fakes/cc.rs"]
mod cc;

use std::path::Path;
use std::process::Command;

#[test]
fn every_library_of_cuda_has_a_line_and_every_gap_a_hint() {
    let output = Command::new(env!("CARGO_BIN_EXE_laggard"))
        .arg("doctor")
        .output();
    let output = output.expect("the binary starts");
    assert_eq!(output.status.code(), Some(0));
    let page = String::from_utf8(output.stdout).expect("output is UTF-8");
    let lines: Vec<&str> = page.lines().collect();
    for name in ["CUDA driver", "NVML", "NVRTC", "cuBLASLt", "NCCL"] {
        let at = lines
            .iter()
            .position(|line| line.starts_with(name))
            .expect(name);
        let is_gap = ["not found", "cannot be used"]
            .iter()
            .any(|gap| lines[at].contains(gap));
        assert!(!is_gap || lines[at + 1].starts_with("hint: "), "{page}");
    }
}

/// With a stand-in for NVML that shows two GPUs: one that is power-capped, and one that hides most.
#[test]
fn gpus_have_a_line_each_with_what_slows_them_and_what_is_not_visible() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../laggard-cuda/tests/fakes/nvml.c");
    let library = folder.path().join("libnvidia-ml.so.1");
    cc::shared_library(&source, &library, &[]);
    let output = Command::new(env!("CARGO_BIN_EXE_laggard"))
        .arg("doctor")
        .env("LAGGARD_CUDA_PATH", folder.path())
        .output();
    let page = String::from_utf8(output.expect("the binary starts").stdout);
    let page = page.expect("output is UTF-8");
    let line = |name: &str| {
        let found = page.lines().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("no {name}\n{page}"))
    };
    assert!(line("NVML").contains("580.65.06"), "{page}");
    let first = line("GPU 0 ");
    let expect = "Fake GPU 0, GPU-0, 00000000:1b:00.0, 1380 of 1980 MHz, 599 of 600 W, 71 C, \
                  PCIe 5 x8, power-capped at 600 W, software thermal slowdown, 1 uncorrected \
                  errors of memory, rows of memory to be replaced at a reset, 1 of 3 NVLinks down";
    assert!(first.contains(expect), "{first}");
    let second = line("GPU 1 ");
    assert!(
        second.contains("not visible: power (no permission)"),
        "{second}"
    );
    assert!(!second.contains("power-capped"), "{second}");
}
