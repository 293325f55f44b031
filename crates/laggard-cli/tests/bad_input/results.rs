//! Results of sound records: formats, thresholds and closed pipes.

use crate::{command, laggard, sound_record, text, works};
use serde_json::Value;
use std::fs;
use std::io::Read;

#[test]
fn json_has_its_figures_with_intervals() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let record = sound_record(folder.path(), "record");
    let done = laggard(&["analyze", text(&record), "--format", "json"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let analysis: Value = serde_json::from_str(&done.stdout).expect("valid JSON");
    let check = |name: &str, figure: &Value| {
        let part = |key: &str| {
            let part = figure.get(key).and_then(Value::as_f64);
            part.unwrap_or_else(|| panic!("{name} has no {key}: {figure}"))
        };
        let (value, low, high) = (part("value"), part("low"), part("high"));
        assert!(low <= value && value <= high, "{name}: {figure}");
    };
    check("penalty", &analysis["penalty"]);
    check("slowdown", &analysis["slowdown"]);
    // The peak of this record is stated as a datasheet's.
    check("mfu", &analysis["mfu"]["value"]);
}

#[test]
fn a_page_needs_nothing_from_elsewhere() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let record = sound_record(folder.path(), "record");
    let page = folder.path().join("report.html");
    works(&["analyze", text(&record), "--html", text(&page)]);
    let html = fs::read_to_string(&page).expect("the page was written");
    assert!(html.contains("<svg") && html.trim_end().ends_with("</html>"));
    assert!(!html.contains("http://"), "the page points elsewhere");
}

#[test]
fn thresholds_have_an_exit_code() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let record = sound_record(folder.path(), "record");
    let check = |limit: &str, expect: i32| {
        let done = laggard(&["analyze", text(&record), "--fail-over", limit]);
        assert_eq!(done.code, Some(expect), "{limit}: {}", done.stderr);
        assert!(done.stdout.contains("straggler penalty"), "{}", done.stdout);
    };
    check("0.0001", 4);
    check("99", 0);
}

#[test]
fn a_record_does_not_differ_from_itself() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let record = sound_record(folder.path(), "record");
    let done = laggard(&["compare", text(&record), text(&record), "--fail-over", "1"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let changes: Vec<&str> = done
        .stdout
        .lines()
        .filter(|line| line.contains('['))
        .skip(1)
        .collect();
    assert!(changes.len() >= 3, "{}", done.stdout);
    for line in changes {
        assert!(line.ends_with("within chance"), "{line}");
    }
}

#[test]
fn a_closed_pipe_is_success() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let record = sound_record(folder.path(), "record");
    for format in ["text", "json"] {
        let args = ["analyze", text(&record), "--format", format];
        let mut child = command(&args).spawn().expect("the binary starts");
        drop(child.stdout.take());
        let mut stderr = String::new();
        let mut pipe = child.stderr.take().expect("stderr is caught");
        pipe.read_to_string(&mut stderr).expect("stderr is read");
        let code = child.wait().expect("the binary was waited for").code();
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{format}");
    }
}
