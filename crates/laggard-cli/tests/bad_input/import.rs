//! `laggard import` on foreign files, and on a real trace where there is one.

use crate::{laggard, refused, text, works};
use std::fs;
use std::path::PathBuf;

#[test]
fn a_foreign_file_is_refused() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let out = folder.path().join("out");
    let check = |name: &str, bytes: Option<&[u8]>, says: &str| {
        let path = folder.path().join(name);
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).expect("file");
        }
        refused(
            &["import", text(&path), "-o", text(&out)],
            3,
            &[text(&path), says],
        );
        assert!(!out.exists(), "{name} has become a record");
    };
    check("notes", Some(b"some notes"), "no Parquet file");
    check("empty", Some(b""), "no Parquet file");
    check(
        "broken",
        Some(b"PAR1 and then something else"),
        "as Parquet",
    );
    check("missing", None, "No such file");
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn a_real_trace_names_the_last_stage() {
    let Some(traces) = std::env::var_os("LAGGARD_TRACES").map(PathBuf::from) else {
        let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
        assert!(
            !required.contains("traces"),
            "LAGGARD_REQUIRE asks for LAGGARD_TRACES"
        );
        eprintln!("skipped: set LAGGARD_TRACES to the directory of real traces to run this test");
        return;
    };
    let folder = tempfile::tempdir().expect("temporary directory");
    let out = folder.path().join("out");
    let trace = traces.join("bytedance/trace-ST.parquet");
    let done = laggard(&["import", text(&trace), "-o", text(&out)]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let told = works(&["analyze", text(&out)]);
    assert!(told.contains("last pipeline stage"), "{told}");
}
