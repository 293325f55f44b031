//! Every kernel on this machine's first GPU, compared with its twin. Without a GPU it says so and
//! passes, unless `LAGGARD_REQUIRE` holds `gpu`.

#![expect(clippy::print_stderr, reason = "a test that skips says so")]

use laggard_cuda::{CubinCache, Gpu, Launcher, Module, Surroundings, self_check};
use std::path::Path;

#[test]
fn every_kernel_computes_what_its_twin_does() {
    let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|word| word == "gpu");
    let wheels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cuda-wheels");
    let mut surroundings = Surroundings::of_process();
    surroundings.named = surroundings.named.or_else(|| Some(wheels.into()));
    let cache = CubinCache::in_folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join("cubins"));
    let gpu = match Gpu::open(0, &surroundings, Some(cache)) {
        Ok(gpu) => gpu,
        Err(gap) => {
            assert!(!is_required, "{gap}\nand LAGGARD_REQUIRE asks for a GPU");
            eprintln!("SKIPPED: no kernel ran on a GPU: {gap}");
            return;
        }
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
