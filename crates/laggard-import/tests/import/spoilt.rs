//! The small trace, and what becomes of it when something is wrong.

use crate::small::{BACKWARD, FORWARD, Row, trace, write};
use laggard_import::{ImportError, Imported, bytedance, read_trace};
use laggard_schedule::{OperationKind, Schedule};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

fn import_rows(rows: &[Row]) -> Result<Imported, ImportError> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("trace-small.parquet");
    write(&path, rows, "");
    read_trace(&path)
}

/// The trace is refused with this in the message once `spoil` has been at it.
fn check(spoil: impl FnOnce(&mut Vec<Row>), expect: &str) {
    let mut rows = trace();
    spoil(&mut rows);
    let message = import_rows(&rows).expect_err("refused").to_string();
    assert!(message.contains(expect), "{message}");
}

/// Position of an operation in the trace's first step.
fn at(replica: i32, stage: i32, kind: &str, sequence: i32) -> usize {
    let is = |row: &Row| {
        (row.replica, row.stage, row.kind, row.sequence) == (replica, stage, kind, sequence)
    };
    trace().iter().position(is).expect("an operation")
}

/// What an operation of a stage needs, by name.
fn needs(schedule: &Schedule, stage: u32, name: &str) -> Vec<String> {
    let program = schedule.program(stage);
    let operation = |id: &u32| &schedule.operations[*id as usize];
    let found = program
        .iter()
        .map(operation)
        .find(|operation| operation.name == name);
    let mut names: Vec<String> = found
        .expect(name)
        .after
        .iter()
        .map(|id| operation(id).name.clone())
        .collect();
    names.sort();
    names
}

#[test]
fn a_sound_trace_becomes_a_record() {
    let imported = import_rows(&trace()).expect("sound");
    assert_eq!((imported.samples.len(), imported.steps), (120, 2));
    let schedule = &imported.manifest.schedule;
    assert_eq!(schedule.stage_of_rank, [0, 1, 0, 1]);
    assert_eq!(schedule.axes[0].groups, [[0, 2], [1, 3]]);
    let check = |stage: u32, name: &str, expect: &[&str]| {
        assert_eq!(
            needs(schedule, stage, name),
            expect,
            "stage {stage}, {name}"
        );
    };
    check(0, "forward-compute 0", &["params-all-gather 0"]);
    check(0, "forward-send 1", &["forward-compute 1"]);
    check(0, "backward-recv 1", &["backward-compute 0"]);
    check(0, "backward-compute 1", &["backward-recv 1"]);
    // Two forwards come before the first backward: its transfer waits for the first of them.
    check(0, "backward-recv 0", &["forward-compute 0"]);
    check(1, "forward-recv 1", &["forward-compute 0"]);
    check(
        1,
        "forward-compute 0",
        &["forward-recv 0", "params-all-gather 0"],
    );
    check(1, "backward-send 0", &["backward-compute 0"]);
    check(1, "gc 0", &["backward-compute 1"]);
    check(1, "layernorm-grads-all-reduce 0", &["gc 0"]);
    check(1, "optimizer 0", &["optimizer-clip-main-grad 0"]);
    // The second step begins where the first has ended.
    let second = imported
        .samples
        .iter()
        .find(|sample| sample.step == 1)
        .expect("a sample");
    assert_eq!(second.stamp.start_ns, 12_000_000_000);
}

#[test]
fn overlapped_reductions_follow_their_backward() {
    let mut rows = trace();
    for row in &mut rows {
        if row.kind == "grads-reduce-scatter" {
            (row.start, row.duration) = (10.0, 0.5);
        }
    }
    let separate = rows.iter().filter(|row| row.kind == "gc").map(|row| Row {
        kind: "separate-grads-all-reduce",
        start: 11.25,
        duration: 0.25,
        ..*row
    });
    let separate: Vec<Row> = separate.collect();
    rows.extend(separate);
    let imported = import_rows(&rows).expect("sound");
    let schedule = &imported.manifest.schedule;
    let check = |name: &str, expect: &[&str]| assert_eq!(needs(schedule, 0, name), expect);
    check(
        "layernorm-grads-all-reduce 0",
        &["gc 0", "grads-reduce-scatter 0"],
    );
    check(
        "separate-grads-all-reduce 0",
        &["embedding-grads-all-reduce 0"],
    );
    check(
        "optimizer-clip-main-grad 0",
        &["separate-grads-all-reduce 0"],
    );
}

#[test]
fn transfers_that_lead_outside_meet_nobody() {
    let mut rows = trace();
    let extra = rows
        .iter()
        .filter(|row| row.stage == 0 && row.kind == FORWARD)
        .map(|row| Row {
            kind: "forward-recv",
            start: row.start - 0.5,
            duration: 0.5,
            ..*row
        });
    let extra: Vec<Row> = extra.collect();
    rows.extend(extra);
    let imported = import_rows(&rows).expect("sound");
    let schedule = &imported.manifest.schedule;
    let lonely = schedule.program(0).iter().filter(|id| {
        let operation = &schedule.operations[**id as usize];
        let axis = operation
            .axis
            .map(|axis| schedule.axes[axis as usize].name.as_str());
        operation.kind == OperationKind::Receive && axis == Some("not launched")
    });
    assert_eq!(lonely.count(), 2);
    assert_eq!(needs(schedule, 0, "forward-recv 1"), ["forward-compute 0"]);
}

#[test]
fn impossible_rows_are_named() {
    check(
        |rows| rows[5].duration = f32::NAN,
        "row 5: `duration` is NaN s",
    );
    check(
        |rows| rows[6].duration = -0.5,
        "row 6: `duration` is -0.5 s, not between 0 and a day",
    );
    check(
        |rows| rows[7].duration = f32::INFINITY,
        "row 7: `duration` has no value",
    );
    check(|rows| rows[8].start = -1.0, "row 8: `start_ts` is -1 s");
    check(|rows| rows[9].sequence = -2, "row 9: `seq_id` is -2");
    check(|rows| rows[9].replica = -1, "row 9: `dp_rank` is -1");
    check(
        |rows| rows[3].kind = "coffee-break",
        "row 3: unknown operation `coffee-break`",
    );
}

#[test]
fn operations_that_are_double_or_missing_are_named() {
    let first = at(0, 0, FORWARD, 0);
    let double = format!(
        "row {}: `{FORWARD}` 0 of replica 0, stage 0, step 7",
        first + 1
    );
    check(|rows| rows[first + 1].sequence = 0, &double);
    let last = at(1, 1, BACKWARD, 0);
    let double = format!("row 120: `{BACKWARD}` 0 of replica 1, stage 1, step 7 is in row {last}");
    check(|rows| rows.push(rows[last]), &double);
    let missing = format!("replica 1, stage 1 lacks `{BACKWARD}` 0 in step 7");
    check(
        |rows| {
            rows.remove(last);
        },
        &missing,
    );
    let stray = format!("row {last}: `{BACKWARD}` 5 is not in replica 0's step 7");
    check(|rows| rows[last].sequence = 5, &stray);
}

#[test]
fn workers_that_do_not_fit_together_are_named() {
    let cell = |row: &Row| (row.replica, row.stage) != (1, 1);
    let workers = "2 data-parallel replicas of 2 stages need 4 workers, but there are 3";
    check(|rows| rows.retain(cell), workers);
    let first_step = |row: &Row| (row.replica, row.stage, row.step) != (0, 1, 7);
    check(
        |rows| rows.retain(first_step),
        "replica 0 lacks a stage in its first step",
    );
    let receives = |row: &Row| (row.kind, row.sequence) != ("forward-recv", 1);
    let unequal = "stage 0 sends 2 times with `forward-send`, but stage 1 receives 1 times";
    check(|rows| rows.retain(receives), unequal);
    let sends = |row: &Row| row.kind != "forward-send" || row.sequence != 0;
    check(
        |rows| rows.retain(sends),
        "stage 0 sends 1 times with `forward-send`",
    );
}

#[test]
fn an_order_that_waits_for_itself_is_refused() {
    // Stage 0 does its first backward before its second forward, stage 1 the other way round.
    let swap = |rows: &mut Vec<Row>| {
        for row in rows {
            match (row.stage, row.kind, row.sequence) {
                (0, BACKWARD, 0) => row.start = 1.5,
                (1, FORWARD, 1) => row.start = 3.0,
                _ => {}
            }
        }
    };
    check(
        swap,
        "the order of operations cannot be replayed: operations wait for each other",
    );
}

/// A directory with the small trace in it.
fn saved(skip: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("trace-small.parquet");
    write(&path, &trace(), skip);
    (dir, path)
}

#[test]
fn columns_that_are_missing_are_named() {
    for column in [
        "dp_rank", "stage", "rank", "step", "duration", "seq_id", "mc", "mb_id", "gmc",
    ] {
        let (_dir, path) = saved(column);
        let message = read_trace(&path).expect_err("refused").to_string();
        assert!(
            message.ends_with(&format!("column `{column}` is missing")),
            "{message}"
        );
    }
    for column in ["optype", "start_ts"] {
        let (_dir, path) = saved(column);
        let message = bytedance(&path).expect_err("refused").to_string();
        assert!(
            message.ends_with(&format!("column `{column}` is missing")),
            "{message}"
        );
        let message = read_trace(&path).expect_err("refused").to_string();
        assert!(message.contains("cannot tell which tool made"), "{message}");
        assert!(
            message.contains("a Parquet file with columns dp_rank, stage"),
            "{message}"
        );
        assert!(
            message.contains("hint: supported are: ByteDance"),
            "{message}"
        );
    }
}

#[test]
fn foreign_and_broken_files_are_refused() {
    let (dir, path) = saved("");
    let whole = fs::read(&path).expect("a trace");
    for keep in [4, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..keep]).expect("cut");
        let refused = read_trace(&path);
        assert!(
            matches!(refused, Err(ImportError::BrokenParquet { .. })),
            "{refused:?}"
        );
    }
    for text in ["", "hi", "{\"traceEvents\": []}"] {
        fs::write(&path, text).expect("foreign");
        assert!(matches!(
            read_trace(&path),
            Err(ImportError::UnknownFormat { .. })
        ));
    }
    let refused = read_trace(&dir.path().join("none"));
    assert!(matches!(refused, Err(ImportError::Io { .. })));
    write(&path, &[], "");
    assert!(matches!(read_trace(&path), Err(ImportError::Empty { .. })));
}

#[test]
fn no_flipped_byte_makes_the_reader_panic() {
    let (_dir, path) = saved("");
    let whole = fs::read(&path).expect("a trace");
    for at in 0..whole.len() {
        let mut broken = whole.clone();
        broken[at] ^= 0x55;
        fs::write(&path, &broken).expect("broken");
        // It may fail or not; it must come back.
        let _ = read_trace(&path);
    }
}

#[test]
fn the_meta_file_is_read_and_checked() {
    let (dir, path) = saved("");
    let meta = dir.path().join("meta-small.yaml");
    fs::write(
        &meta,
        "trial_name: small\ndp_size: 2\npp_size: 2\ntp_size: 8\n",
    )
    .expect("meta");
    let manifest = read_trace(&path).expect("sound").manifest;
    assert_eq!(manifest.workload.model, "small");
    assert!(
        manifest
            .caveats
            .iter()
            .any(|c| c.message.contains("stands for 8 GPUs"))
    );
    fs::write(&meta, "dp_size: 4\n").expect("meta");
    let message = read_trace(&path).expect_err("refused").to_string();
    assert!(
        message.contains("the meta file says dp_size 4, but the trace has 2"),
        "{message}"
    );
    fs::write(&meta, "dp_size: 2\npp_size: many\n").expect("meta");
    let message = read_trace(&path).expect_err("refused").to_string();
    assert!(
        message.contains("meta-small.yaml, line 2: `pp_size` is `many`"),
        "{message}"
    );
}
