//! The real binary on `doctor`: every part of the machine gets a line, every gap a hint.

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
