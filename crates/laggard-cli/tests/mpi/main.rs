//! The real binary under real launchers: `mpirun` of Open MPI and `mpiexec` of MPICH. Skips loudly
//! where launcher or plugin is missing, unless `LAGGARD_REQUIRE` holds `mpi`.
#![cfg(target_os = "linux")]
#![expect(clippy::print_stderr, reason = "tests that are passed over say so")]

#[path = "../launchers/mod.rs"]
mod launchers;

mod failures;
mod pools;

use laggard_analyze::{Culprit, Finding, Options, analyze};
use laggard_mpi::Flavor;
use laggard_record::{ClosingStatus, Record};
use laggard_schedule::Phase;
use laggard_types::{Caveat, CaveatCode};
use launchers::launcher;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// A launch that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// Tests that judge times have the machine for themselves, as far as these tests go.
static MACHINE: RwLock<()> = RwLock::new(());

fn alone() -> impl Drop {
    // A test that failed has left nothing that another could stumble over.
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

fn beside_others() -> impl Drop {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Every launcher that is there, by name.
fn launchers() -> Vec<(&'static str, Command)> {
    let all = Flavor::ALL.into_iter();
    all.filter_map(|flavor| Some((flavor.name(), launcher(flavor)?)))
        .collect()
}

/// Starts `laggard run` on some ranks, with a small model.
fn start(launcher: &mut Command, ranks: u32, args: &[&str]) -> Child {
    launcher
        .args(["-n", &ranks.to_string(), env!("CARGO_BIN_EXE_laggard")])
        .args(
            match args.contains(&"--model") || args.contains(&"--plan") {
                true => &["run"][..],
                false => &["run", "--model", "tiny"],
            },
        )
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the launcher starts")
}

/// Waits for the end of a launch.
fn end(mut child: Child) -> Output {
    let begin = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if begin.elapsed() > DEADLINE {
            _ = child.kill();
            let output = child.wait_with_output().expect("a killed child");
            panic!(
                "the launch hangs: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("a child that has ended")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every rank has every operation of every step, and times of all ranks fit together.
fn check_record(path: &Path, ranks: u32, steps: u32) -> Record {
    let record = Record::open(path).expect("a readable record");
    assert_eq!(record.manifest.ranks.len(), ranks as usize);
    let of_rank = |rank| record.manifest.schedule.program(rank).len();
    let operations: usize = (0..ranks).map(of_rank).sum();
    let mut samples = 0;
    let reading = record.samples(|batch| samples += batch.len());
    assert_eq!(reading.expect("samples").caveats, []);
    assert_eq!(samples, operations * steps as usize);
    assert!(record.manifest.communication.is_some());
    record
}

#[test]
fn a_run_is_the_same_job_under_every_launcher() {
    let _turn = alone();
    for ranks in [1, 2, 3] {
        for (name, mut launcher) in launchers() {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("record");
            let path_text = path.to_string_lossy();
            let args = ["--steps", "40", "--quiet", "-o", &path_text];
            let output = end(start(&mut launcher, ranks, &args));
            assert!(
                output.status.success(),
                "{name}, {ranks}: {}",
                errors(&output)
            );
            let record = check_record(&path, ranks, 40);
            let closing = record.closing.as_ref().expect("a closing");
            assert_eq!(closing.status, ClosingStatus::Finished, "{name}");
            let analysis = analyze(&record, &Options::default()).expect("an analysis");
            let rest = &analysis.waterfall[0];
            assert!(rest.share.value.abs() < 0.05, "{name}, {ranks}: {rest:?}");
        }
    }
}

#[test]
fn layouts_run_under_every_launcher() {
    let _turn = beside_others();
    for layout in ["pp2", "tp2,sp", "cp2,zero3", "dp2,pp2,zero1", "dp2,ep2,tp2"] {
        for (name, mut launcher) in launchers() {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("record");
            let path_text = path.to_string_lossy();
            let ranks = if layout.starts_with("dp2") { 4 } else { 2 };
            let model = if layout.contains("ep") {
                "tiny-moe"
            } else {
                "tiny"
            };
            let job = ["--layout", layout, "--micro-batches", "2", "--model", model];
            let args = [&["--steps", "12", "--quiet", "-o", &path_text], &job[..]].concat();
            let output = end(start(&mut launcher, ranks, &args));
            let said = errors(&output);
            assert!(output.status.success(), "{name}, {layout}: {said}");
            check_record(&path, ranks, 12);
        }
    }
}

#[test]
fn a_time_limit_ends_all_ranks_with_a_complete_record() {
    let _turn = beside_others();
    for (name, mut launcher) in launchers() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        let args = [
            "--steps",
            "1000000",
            "--time-limit",
            "2",
            "-o",
            &path.to_string_lossy(),
        ];
        let output = end(start(&mut launcher, 2, &args));
        assert!(output.status.success(), "{name}: {}", errors(&output));
        let record = Record::open(&path).expect("a readable record");
        let closing = record.closing.as_ref().expect("a closing");
        let signal = "the time limit".to_owned();
        assert_eq!(
            closing.status,
            ClosingStatus::Interrupted { signal },
            "{name}"
        );
        assert!(closing.steps_completed > 0);
        check_record(&path, 2, closing.steps_completed);
    }
}

#[test]
fn a_slow_rank_is_named() {
    let _turn = alone();
    for (name, mut launcher) in launchers() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        let path_text = path.to_string_lossy();
        let inject = ["--inject", "slow-rank:1:1.6"];
        let args = [&["--steps", "150", "-o", &path_text], &inject[..]].concat();
        let output = end(start(&mut launcher, 2, &args));
        assert!(output.status.success(), "{name}: {}", errors(&output));
        let record = Record::open(&path).expect("a readable record");
        let analysis = analyze(&record, &Options::default()).expect("an analysis");
        let named = |it: &Finding| it.culprit == Culprit::Rank(1);
        if analysis.findings.iter().any(named) {
            continue;
        }
        // Whether the machine was left alone, the run's own telemetry knows. If not, what remains
        // decidable is that this rank and not the other was given more to compute.
        let is_outside = |it: &&Caveat| it.code == CaveatCode::OutsideContention;
        let Some(outside) = analysis.caveats.iter().find(is_outside) else {
            panic!("{name}: {:?}", analysis.findings);
        };
        eprintln!(
            "UNDECIDED whether {name} has a slow rank named: {}",
            outside.message
        );
        let cpu_ns = [0, 1].map(|rank| compute_ns(&record, rank));
        assert!(cpu_ns[1] > cpu_ns[0], "{name}: {cpu_ns:?}");
    }
}

/// CPU time that a rank computed for, in the whole run.
fn compute_ns(record: &Record, rank: i32) -> i64 {
    let operations = &record.manifest.schedule.operations;
    let mut sum_ns = 0;
    let reading = record.samples(|batch| {
        for index in 0..batch.len() {
            let phase = operations[batch.operation[index] as usize].phase;
            let computes = [Phase::Forward, Phase::Backward].contains(&phase);
            if computes && batch.rank[index] == rank {
                sum_ns += batch.cpu_end_ns[index] - batch.cpu_start_ns[index];
            }
        }
    });
    reading.expect("samples");
    sum_ns
}

#[test]
fn the_doctor_sees_every_mpi_that_is_there() {
    let _turn = beside_others();
    let output = Command::new(env!("CARGO_BIN_EXE_laggard"))
        .arg("doctor")
        .output()
        .expect("the binary starts");
    let text = String::from_utf8_lossy(&output.stdout);
    for flavor in Flavor::ALL.into_iter().filter(|it| launcher(*it).is_some()) {
        let is_it =
            |line: &str| line.starts_with(flavor.name()) && line.ends_with(&flavor.file_name());
        assert!(text.lines().any(is_it), "{}: {text}", flavor.name());
    }
}
