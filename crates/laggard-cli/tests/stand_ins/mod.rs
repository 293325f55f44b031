//! Stand-ins for the driver and NCCL, under the names of what they stand in for.

#[path = "../../../laggard-cuda/tests/fakes/cc.rs"]
pub(crate) mod cc;

use std::path::{Path, PathBuf};

/// A folder with the stand-ins, if they are made.
pub(crate) fn stand_ins() -> Option<&'static Path> {
    static FOLDER: std::sync::OnceLock<Option<PathBuf>> = std::sync::OnceLock::new();
    FOLDER.get_or_init(make).as_deref()
}

/// Makes NCCL's stand-in, of a version where options say so.
pub(crate) fn make_nccl(folder: &Path, options: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../laggard-cuda/tests/fakes/nccl.c");
    cc::shared_library(&source, &folder.join("libnccl.so.2"), options);
}

#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn make() -> Option<PathBuf> {
    let profile = Path::new(env!("CARGO_BIN_EXE_laggard"))
        .parent()
        .expect("a folder");
    let driver = profile.join("examples/libfake_driver.so");
    if !driver.is_file() {
        let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|it| it == "cuda"),
            "{}",
            driver.display()
        );
        eprintln!("SKIPPED: no {}", driver.display());
        eprintln!("hint: `cargo build -p laggard-cuda --examples` makes it");
        return None;
    }
    // A folder of each test program: they may run at the same time.
    let name = concat!("stand_ins_", env!("CARGO_CRATE_NAME"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // A driver of an earlier build may be there.
    _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    for name in ["libcuda.so.1", "libnvrtc.so.12"] {
        std::os::unix::fs::symlink(&driver, folder.join(name)).expect("a link");
    }
    make_nccl(&folder, &[]);
    Some(folder)
}
