//! What is said of libraries that are here and do not work, with libraries made for it: no machine
//! has all of these troubles.

#[path = "fakes/cc.rs"]
mod cc;

use laggard_cuda::{CudaLibrary, Gpu, Outcome, Share, Surroundings, probe};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles a library.
fn library(folder: &Path, name: &str, text: &str) -> PathBuf {
    let source = folder.join(name).with_extension("c");
    std::fs::write(&source, text).expect("a source");
    let path = folder.join(name);
    cc::shared_library(&source, &path, &[]);
    path
}

/// What the probe says where there is this library.
fn found(library_name: CudaLibrary, text: &str) -> Outcome {
    let folder = tempfile::tempdir().expect("a folder");
    let path = library(folder.path(), library_name.file_names()[0], text);
    let surroundings = Surroundings::only(&[folder.path().to_owned()]);
    let findings = probe(&surroundings);
    let finding = findings
        .into_iter()
        .find(|finding| finding.library == library_name);
    let outcome = finding.expect("a finding of each library").outcome;
    match &outcome {
        Outcome::Usable { path: at, .. } | Outcome::Unusable { path: at, .. } => {
            assert_eq!(*at, path);
        }
        Outcome::Missing { .. } => panic!("{library_name} is there"),
    }
    outcome
}

fn is_usable(library: CudaLibrary, text: &str, expect: &str) {
    match found(library, text) {
        Outcome::Usable { version, .. } => assert_eq!(version, expect, "{library}"),
        other => panic!("{library}: {other:?}"),
    }
}

fn is_unusable(library: CudaLibrary, text: &str, expect: &str) {
    match found(library, text) {
        Outcome::Unusable { why, fix, .. } => {
            assert_eq!(why, expect, "{library}");
            assert_eq!(fix, library.fix());
        }
        other => panic!("{library}: {other:?}"),
    }
}

const NO_DEVICE: &str = "
    int cuInit(unsigned flags) { return 100; }
    int cuGetErrorName(int code, const char** name) {
        *name = code == 100 ? \"CUDA_ERROR_NO_DEVICE\" : 0;
        return 0;
    }
    int cuDriverGetVersion(int* version) { *version = 13000; return 0; }";

const WORKING_DRIVER: &str = "
    int cuInit(unsigned flags) { return 0; }
    int cuDriverGetVersion(int* version) { *version = 12080; return 0; }";

#[test]
fn drivers() {
    is_usable(CudaLibrary::Driver, WORKING_DRIVER, "12.8");
    is_unusable(
        CudaLibrary::Driver,
        NO_DEVICE,
        "cuInit says CUDA_ERROR_NO_DEVICE",
    );
    is_unusable(
        CudaLibrary::Driver,
        "int cuInit(unsigned flags) { return 999; }",
        "cuInit says an unknown error",
    );
    is_unusable(
        CudaLibrary::Driver,
        "int cuSomething(void) { return 0; }",
        "it has no cuInit, so it is too old",
    );
}

#[test]
fn management_libraries() {
    let with_code = |code: u32| {
        format!(
            "#include <string.h>
            int nvmlInit_v2(void) {{ return {code}; }}
            int nvmlShutdown(void) {{ return 0; }}
            const char* nvmlErrorString(int code) {{ return \"Driver Not Loaded\"; }}
            int nvmlSystemGetDriverVersion(char* to, unsigned length) {{
                strncpy(to, \"580.65.06\", length);
                return 0;
            }}"
        )
    };
    is_usable(CudaLibrary::Nvml, &with_code(0), "580.65.06");
    is_unusable(
        CudaLibrary::Nvml,
        &with_code(9),
        "nvmlInit_v2 says Driver Not Loaded",
    );
}

#[test]
fn libraries_of_the_toolkit() {
    is_usable(
        CudaLibrary::CublasLt,
        "#include <stddef.h>\nsize_t cublasLtGetVersion(void) { return 130101; }",
        "13.1.1",
    );
    is_usable(
        CudaLibrary::Nccl,
        "int ncclGetVersion(int* version) { *version = 22809; return 0; }",
        "2.28.9",
    );
    is_unusable(
        CudaLibrary::Nccl,
        "int ncclGetVersion(int* version) { return 3; }",
        "ncclGetVersion says an unknown error",
    );
    is_unusable(
        CudaLibrary::Nvrtc,
        "int nvrtcVersionOf(void) { return 0; }",
        "it has no nvrtcVersion, so it is too old",
    );
}

#[test]
fn a_gpu_that_cannot_be_opened_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let surroundings = Surroundings::only(&[folder.path().to_owned()]);
    library(folder.path(), "libcuda.so.1", NO_DEVICE);
    let Err(error) = Gpu::open(0, &surroundings, None) else {
        // This machine has a GPU, whose driver was rightly preferred to one without devices.
        return;
    };
    let text = error.to_string();
    assert!(text.contains("CUDA_ERROR_NO_DEVICE"), "{text}");
}

#[test]
fn a_driver_where_the_system_does_not_look_is_named_with_its_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let surroundings = Surroundings::only(&[folder.path().to_owned()]);
    let path = library(folder.path(), "libcuda.so.1", WORKING_DRIVER);
    let Err(error) = Gpu::open(0, &surroundings, None) else {
        return;
    };
    let text = error.to_string();
    let is_named = text.contains(&path.display().to_string()) && text.contains("LD_LIBRARY_PATH");
    // A machine with a driver in the usual place gets as far as that driver or NVRTC.
    let has_driver = Command::new("ldconfig").arg("-p").output();
    let has_driver = has_driver
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("libcuda.so"));
    assert!(is_named || has_driver, "{text}");
}

/// Set in the process that has such a driver: a process loads one.
const CHILD: &str = "LAGGARD_OLD_DRIVER_CHILD";

#[test]
fn a_driver_before_green_contexts_is_an_error_and_no_panic() {
    if std::env::var_os(CHILD).is_some() {
        let error = Share::divide(0, &[1.0, 1.0], &Surroundings::of_process()).unwrap_err();
        let expect = "GPU 0 is not divided: the driver has no cuDeviceGetDevResource, which came";
        assert!(error.to_string().starts_with(expect), "{error}");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    library(folder.path(), "libcuda.so.1", WORKING_DRIVER);
    let test = "a_driver_before_green_contexts_is_an_error_and_no_panic";
    let output = Command::new(std::env::current_exe().expect("a path of this program"))
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(CHILD, "1")
        .env("LD_LIBRARY_PATH", folder.path())
        .env("LAGGARD_CUDA_PATH", folder.path())
        .output()
        .expect("a process for the test");
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("1 passed"), "{out}");
}
