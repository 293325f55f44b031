//! Traces of other tools, real and spoilt.

mod bytedance;
mod replayed;
mod small;
mod spoilt;

use std::path::PathBuf;

/// The directory of real traces, named by `LAGGARD_TRACES`. Without it a test that needs one says
/// so and is passed over, unless `LAGGARD_REQUIRE` holds `traces`.
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn traces() -> Option<PathBuf> {
    let dir = std::env::var_os("LAGGARD_TRACES").map(PathBuf::from);
    let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
    if dir.is_none() {
        assert!(
            !required.contains("traces"),
            "LAGGARD_REQUIRE asks for LAGGARD_TRACES"
        );
        eprintln!("skipped: set LAGGARD_TRACES to the directory of real traces to run this test");
    }
    dir
}
