//! Runs the body of a test in a process of its own, with the fake driver before the real one: a
//! process loads one driver, and a lost device stays lost.

use libloading::os::unix::Library;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Set in the processes that execute bodies.
pub(crate) const CHILD: &str = "LAGGARD_FAKE_CHILD";

/// Runs `body` in a process with this behaviour of the fake driver (see `fake_driver/faults.rs`)
/// and these other variables; fails as it fails.
pub(crate) fn in_child(test: &str, faults: &str, variables: &[(&str, &str)], body: fn()) {
    if std::env::var_os(CHILD).is_some() {
        body();
        return;
    }
    let folder = drivers();
    let mut command = Command::new(std::env::current_exe().expect("a path of this program"));
    let output = command
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(CHILD, "1")
        .env("LAGGARD_FAKE_CUDA", faults)
        .env("LD_LIBRARY_PATH", folder.path())
        .env("LAGGARD_CUDA_PATH", folder.path())
        .env_remove("CUDA_VISIBLE_DEVICES")
        .envs(variables.iter().copied())
        .output()
        .expect("a process for the test");
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    // A name that no test has would run none.
    assert!(out.contains("1 passed"), "{test} was not run:\n{out}");
}

/// A function of a fake library, in a process that has it.
///
/// # Safety
/// `T` must be the function's type.
#[expect(unsafe_code, reason = "asks a fake library")]
pub(crate) unsafe fn function_of<T: Copy>(library: impl AsRef<OsStr>, name: &str) -> T {
    // SAFETY: the caller says that the type is right, and the library is never unloaded.
    unsafe {
        let library = Library::new(library.as_ref()).expect("the fake library");
        let function = *library.get::<T>(name.as_bytes()).expect("a function of it");
        std::mem::forget(library);
        function
    }
}

/// A folder with the fakes under the names of the libraries that they stand in for.
fn drivers() -> TempDir {
    let examples = std::env::current_exe().expect("a path of this program");
    let profile = examples.parent().and_then(Path::parent);
    let fake = profile
        .expect("target/debug/deps")
        .join("examples/libfake_driver.so");
    assert!(
        fake.is_file(),
        "there is no {}\nhint: `cargo build -p laggard-cuda --examples` makes it",
        fake.display()
    );
    // A copy, as another build may write to the original while it is in use.
    let folder = tempfile::tempdir().expect("a folder");
    let [driver, compiler] = ["libcuda.so.1", "libnvrtc.so.12"].map(|it| folder.path().join(it));
    std::fs::copy(&fake, &driver).expect("a copy of the fake");
    std::fs::hard_link(&driver, &compiler).expect("a second name of it");
    folder
}
