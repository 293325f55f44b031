//! The real binary on what needs no run: `simulate`, `plan`, `validate`, `mfu` and `specs`.

mod across;
mod again;
mod calibrate;
mod plan;
mod simulate;
mod site;
mod specs;
mod validate;

use serde_json::Value;
use std::process::{Command, Output};

fn laggard(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laggard"));
    command.args(args).env_remove("LAGGARD_LOG");
    command.output().expect("the binary starts")
}

#[track_caller]
fn works(args: &[&str]) -> String {
    let output = laggard(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}\n{stderr}");
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    serde_json::from_str(&works(&[args, &["--format", "json"]].concat())).expect("JSON")
}

#[track_caller]
fn refused(args: &[&str], code: i32, says: &[&str]) {
    let output = laggard(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{stderr}");
    assert!(output.stdout.is_empty(), "{args:?}");
    for part in says {
        assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
    }
}
