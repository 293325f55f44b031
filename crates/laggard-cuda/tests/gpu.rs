//! This machine's first GPU: every kernel compared with its twin, and the device as a whole.
//! Without a GPU they say so and pass, unless `LAGGARD_REQUIRE` holds `gpu`.

#![expect(clippy::print_stderr, reason = "a test that skips says so")]

use laggard_backend::conformance::check_device;
use laggard_backend::{BackendError, Device};
use laggard_cuda::{
    CubinCache, CudaDevice, CudaOptions, Gpu, Launcher, Module, PeakOptions, Surroundings,
    self_check,
};
use std::fmt::Display;
use std::path::Path;

fn surroundings() -> Surroundings {
    let wheels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cuda-wheels");
    let mut surroundings = Surroundings::of_process();
    surroundings.named = surroundings.named.or_else(|| Some(wheels.into()));
    surroundings
}

fn cache() -> CubinCache {
    CubinCache::in_folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join("cubins"))
}

/// What could be opened, or a loud skip.
fn or_skip<T>(opened: Result<T, impl Display>) -> Option<T> {
    let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|word| word == "gpu");
    match opened {
        Ok(opened) => Some(opened),
        Err(gap) => {
            assert!(!is_required, "{gap}\nand LAGGARD_REQUIRE asks for a GPU");
            eprintln!("SKIPPED: nothing ran on a GPU: {gap}");
            None
        }
    }
}

#[test]
fn every_kernel_computes_what_its_twin_does() {
    let Some(gpu) = or_skip(Gpu::open(0, &surroundings(), Some(cache()))) else {
        return;
    };
    for module in Module::all_on(gpu.architecture()) {
        self_check(&gpu, module).unwrap_or_else(|error| panic!("{error}"));
        eprintln!(
            "{module} is right on {} ({})",
            gpu.name(),
            gpu.architecture()
        );
    }
}

fn open() -> Result<CudaDevice, BackendError> {
    CudaDevice::open(CudaOptions::default(), &surroundings(), Some(cache()))
}

#[test]
fn it_does_what_every_device_must() {
    let Some(first) = or_skip(open()) else {
        return;
    };
    eprintln!("{:?}\n{:?}", first.identity(), first.clock());
    let mut first = Some(first);
    let open = || -> Result<Box<dyn Device>, BackendError> {
        let device = first.take().map_or_else(open, Ok)?;
        Ok(Box::new(device))
    };
    check_device(0, open).unwrap_or_else(|violation| panic!("{violation}"));
}

#[test]
fn its_peak_and_its_clock_are_known() {
    let Some(device) = or_skip(open()) else {
        return;
    };
    let peak = device.measure_peak(&PeakOptions::default());
    let peak = peak.unwrap_or_else(|error| panic!("{error}"));
    let clock = device.clock();
    eprintln!("{peak:?}, {clock:?}, doubts: {:?}", device.doubts());
    assert!(peak.0 > 0.0);
    assert_eq!(clock.contradictions, 0);
}
