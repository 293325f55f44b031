//! Races of engines. The fake driver's times say nothing of speed: here, who ran how often.

use super::in_child;
use cudarc::driver::CudaStream;
use laggard_backend::Transpose;
use laggard_cuda::{
    Contender, CublasLt, CudaError, ElementType, Gpu, HalfType, Module, Product, ProductEngine,
    RaceProduct, Surroundings,
};
use std::process::Command;
use std::sync::Arc;

/// An engine that computes nothing.
struct Unable;

impl ProductEngine for Unable {
    fn name(&self) -> &'static str {
        "unable"
    }

    fn issue(&self, _: &Product, _: ElementType, _: &Arc<CudaStream>) -> Result<bool, CudaError> {
        Ok(false)
    }
}

fn gpu() -> Gpu {
    Gpu::open(0, &Surroundings::of_process(), None).unwrap_or_else(|error| panic!("{error}"))
}

/// The stand-in of the crate's own tests, which cannot reach the memory of the fake driver.
pub(crate) fn cublaslt() -> Arc<CublasLt> {
    let folder = tempfile::tempdir().expect("a folder");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cublaslt/fake_cublaslt.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-DBLIND", "-o"])
        .arg(folder.path().join("libcublasLt.so.13"))
        .arg(source)
        .status();
    assert!(status.expect("cc starts").success());
    let loaded = CublasLt::load(&Surroundings::only(&[folder.path().to_owned()]));
    loaded.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn everyone_who_can_runs_in_every_round() {
    in_child(
        "speed::everyone_who_can_runs_in_every_round",
        "",
        &[],
        || {
            let gpu = gpu();
            let contenders = [
                Contender::Engine(cublaslt()),
                Contender::Kernel(Module::Gemm(HalfType::Bf16)),
                Contender::Engine(Arc::new(Unable)),
            ];
            let product = RaceProduct {
                operands: HalfType::Bf16,
                rows: 24,
                columns: 40,
                depth: 16,
                transposes: [Transpose::No, Transpose::Yes],
            };
            let times = gpu.race_products(&product, &contenders, 5);
            let times = times.unwrap_or_else(|error| panic!("{error}"));
            let ran: Vec<(&str, usize)> = times
                .iter()
                .map(|times| (times.name.as_str(), times.seconds.len()))
                .collect();
            assert_eq!(ran, [("cuBLASLt", 5), ("gemm bf16", 5), ("unable", 0)]);

            let copies = gpu.race_copies(1 << 12, 4);
            let copies = copies.unwrap_or_else(|error| panic!("{error}"));
            let ran: Vec<usize> = copies.iter().map(|times| times.seconds.len()).collect();
            assert_eq!(ran, [4, 4]);
        },
    );
}
