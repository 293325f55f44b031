//! Libraries that are made for a test, with the compiler that links Rust programs.

use std::path::Path;
use std::process::Command;

/// Compiles a C source to a shared library.
pub(crate) fn shared_library(source: &Path, to: &Path, options: &[&str]) {
    // Under a name of its own until it is whole: other processes may use the one that is there.
    let name = format!("fresh.{}", std::process::id());
    let fresh = to.with_file_name(name);
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([fresh.as_path(), source])
        .args(options)
        .args(["-lm", "-lpthread", "-ldl"])
        .output();
    let output = output.expect("cc starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", source.display());
    std::fs::rename(fresh, to).expect("the library in its place");
}
