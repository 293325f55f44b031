//! The stand-in for NCCL: made, put where it is found, and asked for troubles.

use crate::{cc, child};
use laggard_cuda::Surroundings;
use std::ffi::{c_int, c_long};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What the stand-in for the driver is asked for.
const DRIVER: &str = "devices=4,memory_bytes=2000000000";

/// Runs a test's body in a process with both stand-ins.
pub(crate) fn in_child(test: &str, variables: &[(&str, &str)], body: fn()) {
    // Processes that execute bodies find them made.
    if std::env::var_os(child::CHILD).is_none() {
        static MADE: OnceLock<()> = OnceLock::new();
        MADE.get_or_init(|| {
            make(&folder(), &[]);
            make(&folder().join("old"), &["-DOLD", "-DVERSION=21805"]);
        });
    }
    let meet = tempfile::tempdir().unwrap();
    let folder = meet.path().to_str().unwrap();
    let own = [("LAGGARD_FAKE_NCCL", folder)];
    // Processes that are to meet have a folder already.
    let is_named = variables.iter().any(|(name, _)| *name == own[0].0);
    let own = own.iter().filter(|_| !is_named);
    let all: Vec<_> = own.chain(variables).copied().collect();
    child::in_child(test, DRIVER, &all, body);
    assert_eq!(meet.path().read_dir().unwrap().count(), 0, "files are left");
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake_nccl")
}

/// Compiles the stand-in.
fn make(folder: &Path, options: &[&str]) {
    std::fs::create_dir_all(folder).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/nccl.c");
    cc::shared_library(&source, &folder.join("libnccl.so.2"), options);
}

/// Where libraries are looked for: among the stand-ins, or among old ones first.
pub(crate) fn surroundings(is_old: bool) -> Surroundings {
    let mut surroundings = Surroundings::of_process();
    let folders = match is_old {
        true => vec![folder().join("old")],
        false => vec![folder()],
    };
    let drivers = surroundings.named.take().unwrap();
    let folders = folders.into_iter().chain([drivers.into()]);
    surroundings.named = Some(std::env::join_paths(folders).unwrap());
    surroundings
}

/// A function of the stand-in for NCCL, of the type that fakes/nccl.c declares.
#[expect(unsafe_code, reason = "asks the stand-in for troubles")]
fn function<T: Copy>(name: &str) -> T {
    // SAFETY: callers give that type.
    unsafe { child::function_of(folder().join("libnccl.so.2"), name) }
}

/// Whether communicators never come about from now on.
pub(crate) fn stall(yes: bool) {
    function::<extern "C" fn(c_int)>("fakeNcclStall")(yes.into());
}

/// Has the communicators of a rank fail by themselves; -1 has none.
pub(crate) fn break_rank(rank: c_int) {
    function::<extern "C" fn(c_int)>("fakeNcclBreak")(rank);
}

/// Most thread blocks that a communicator was asked to use.
pub(crate) fn most_blocks() -> c_int {
    function::<extern "C" fn() -> c_int>("fakeNcclMost")()
}

/// Bytes that are registered.
pub(crate) fn registered_bytes() -> c_long {
    function::<extern "C" fn() -> c_long>("fakeNcclRegistered")()
}
