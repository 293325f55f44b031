//! Launches that cannot work, and launches that end badly.

use super::{DEADLINE, beside_others, end, errors, launchers, start};
use laggard_record::Record;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

#[test]
fn a_launcher_that_mpi_does_not_know_is_explained() {
    let _turn = beside_others();
    for (name, mut launcher) in launchers() {
        let other = match name {
            "MPICH" => "openmpi",
            _ => "mpich",
        };
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        launcher.env("LAGGARD_MPI", other);
        let output = end(start(&mut launcher, 2, &["-o", &path.to_string_lossy()]));
        assert!(!output.status.success(), "{name}");
        let text = errors(&output);
        assert!(
            text.contains("sees 1 ranks") && text.contains("says 2"),
            "{name}: {text}"
        );
        assert!(text.contains("hint: "), "{name}: {text}");
        assert!(!path.exists(), "{name}: nothing is measured");
    }
}

#[test]
fn a_missing_plugin_is_explained() {
    let _turn = beside_others();
    for (name, mut launcher) in launchers() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        launcher.env("LAGGARD_MPI_PLUGIN", dir.path().join("nothing.so"));
        let output = end(start(&mut launcher, 2, &["-o", &path.to_string_lossy()]));
        assert!(!output.status.success(), "{name}");
        let text = errors(&output);
        assert!(text.contains("has started 2 processes"), "{name}: {text}");
        assert!(
            text.contains("build it with `scripts/build_mpi.sh"),
            "{name}: {text}"
        );
        assert!(!path.exists(), "{name}: nothing is measured");
    }
}

#[test]
fn a_wrong_command_line_is_said_once() {
    let _turn = beside_others();
    for (name, mut launcher) in launchers() {
        let output = end(start(&mut launcher, 3, &["--ranks", "2", "-o", "nowhere"]));
        assert!(!output.status.success(), "{name}");
        let text = errors(&output);
        assert_eq!(text.matches("error: ").count(), 1, "{name}: {text}");
        assert!(text.contains("has started 3 ranks"), "{name}: {text}");
    }
}

#[test]
fn a_record_that_cannot_be_made_ends_all_ranks() {
    let _turn = beside_others();
    for (name, mut launcher) in launchers() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "not a folder").expect("a file");
        let path = file.join("record");
        let output = end(start(&mut launcher, 2, &["-o", &path.to_string_lossy()]));
        assert!(!output.status.success(), "{name}");
        assert!(
            errors(&output).contains("file/record"),
            "{name}: {}",
            errors(&output)
        );
    }
}

/// The ids of the ranks' processes, in order of rank.
fn ranks(launcher: &Child, record: &Path, count: usize) -> Vec<u32> {
    let begin = Instant::now();
    let mark = record.to_string_lossy().into_owned();
    loop {
        let mut found: Vec<(u32, u32)> = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let read = |name| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let has = |file, text: &str| {
                let bytes: Vec<u8> = read(file);
                String::from_utf8_lossy(&bytes)
                    .split('\0')
                    .any(|part| part == text)
            };
            if id == launcher.id() || !has("cmdline", &mark) || !has("cmdline", "run") {
                continue;
            }
            let of = |rank: usize| {
                let names = ["OMPI_COMM_WORLD_RANK", "PMI_RANK"];
                names
                    .iter()
                    .any(|name| has("environ", &format!("{name}={rank}")))
            };
            if let Some(rank) = (0..count).find(|rank| of(*rank)) {
                found.push((rank as u32, id));
            }
        }
        found.sort_unstable();
        if found.len() == count && record.join("manifest.json").exists() {
            return found.into_iter().map(|(_, id)| id).collect();
        }
        assert!(begin.elapsed() < DEADLINE, "found {found:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn signal(name: &str, process: u32) {
    let status = Command::new("kill")
        .args(["-s", name, &process.to_string()])
        .status();
    assert!(status.expect("kill starts").success());
}

fn is_alive(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

/// A rank that is killed or stopped is named, everybody ends, and the record can be read.
#[test]
fn a_rank_that_is_gone_is_named_and_all_end() {
    let _turn = beside_others();
    // A rank that is stopped is known by its silence alone.
    let (closed, silent) = ("its connection closed", "no sign of life for ");
    for (victim, what, how) in [
        (1, "KILL", closed),
        (0, "KILL", closed),
        (1, "STOP", silent),
    ] {
        for (name, mut launcher) in launchers() {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("record");
            let path_text = path.to_string_lossy();
            let args = [
                "--steps",
                "1000000",
                "--timeout",
                "6",
                "--quiet",
                "-o",
                &path_text,
            ];
            let child = start(&mut launcher, 3, &args);
            let processes = ranks(&child, &path, 3);
            let case = format!("{name}: {what} of rank {victim}");
            std::thread::sleep(Duration::from_secs(1));
            signal(what, processes[victim]);
            let output = end(child);
            let gone = Instant::now();
            while processes.iter().any(|id| is_alive(*id)) {
                assert!(gone.elapsed() < DEADLINE, "{case}: processes are left");
                std::thread::sleep(Duration::from_millis(50));
            }
            // A launcher may end before it has passed on what ranks say; the record has it too.
            let noted = std::fs::read_to_string(path.join("failures.jsonl")).unwrap_or_default();
            let text = errors(&output) + &noted;
            assert!(!output.status.success(), "{case}: {text}");
            let is_named = |line: &str| {
                let named = format!("rank {victim} on host ");
                let words = line.split_once(&named).map_or("", |(_, words)| words);
                words.contains(&format!(" is gone: {how}"))
            };
            assert!(text.lines().any(is_named), "{case}: {text}");
            Record::open(&path).expect("a readable record");
        }
    }
}
