//! Whether kernels compute what their twins compute, wherever they are launched: before a kernel is
//! believed on a device, and in tests that execute them on a CPU. Inputs are small and reach every
//! edge: ends within a tile, a chunk and a block.

mod plain;
mod products;
mod squares;
mod streams;

use crate::{Argument, CudaError, ElementType, HalfType, KernelLaunch, Launcher, Module};
use half::{bf16, f16};

/// Launches every kernel of a module and compares with its twin.
///
/// # Errors
/// [`CudaError::SelfCheck`] if anything differs, and what the launcher fails with.
pub fn self_check(launcher: &dyn Launcher, module: Module) -> Result<(), CudaError> {
    let bench = Bench { launcher, module };
    match module {
        Module::Gemm(HalfType::F16) | Module::GemmTma(HalfType::F16) => {
            products::check::<f16>(&bench)
        }
        Module::Gemm(HalfType::Bf16) | Module::GemmTma(HalfType::Bf16) => {
            products::check::<bf16>(&bench)
        }
        Module::GemmFp8 => products::check_e4m3(&bench),
        Module::Stream(ElementType::F32) => streams::check_streams::<f32>(&bench),
        Module::Stream(ElementType::F16) => streams::check_streams::<f16>(&bench),
        Module::Stream(ElementType::Bf16) => streams::check_streams::<bf16>(&bench),
        Module::Exact(element @ ElementType::F32) => streams::check_exact::<f32>(&bench, element),
        Module::Exact(element @ ElementType::F16) => streams::check_exact::<f16>(&bench, element),
        Module::Exact(element @ ElementType::Bf16) => streams::check_exact::<bf16>(&bench, element),
        // One unit in the last place of each type.
        Module::Norm(ElementType::F32) => streams::check_norm::<f32>(&bench, 2f64.powi(-23)),
        Module::Norm(ElementType::F16) => streams::check_norm::<f16>(&bench, 2f64.powi(-10)),
        Module::Norm(ElementType::Bf16) => streams::check_norm::<bf16>(&bench, 2f64.powi(-7)),
        Module::Squares(ElementType::F32) => squares::check::<f32>(&bench),
        Module::Squares(ElementType::F16) => squares::check::<f16>(&bench),
        Module::Squares(ElementType::Bf16) => squares::check::<bf16>(&bench),
        Module::Plain(ElementType::F32) => plain::check::<f32>(&bench),
        Module::Plain(ElementType::F16) => plain::check::<f16>(&bench),
        Module::Plain(ElementType::Bf16) => plain::check::<bf16>(&bench),
        Module::Adam => streams::check_adam(&bench),
        Module::Clock => streams::check_clock(&bench),
    }
}

/// What a check works with.
struct Bench<'a> {
    launcher: &'a dyn Launcher,
    module: Module,
}

impl Bench<'_> {
    /// Launches a kernel with few threads, so that each has several turns.
    fn run(
        &self,
        entry: &'static str,
        (blocks, threads): (u32, u32),
        buffers: &[Vec<u8>],
        arguments: &[Argument],
    ) -> Result<Vec<Vec<u8>>, CudaError> {
        let launch = KernelLaunch {
            module: self.module,
            entry,
            blocks,
            threads,
            shared_bytes: 0,
            arguments: arguments.to_vec(),
        };
        self.launcher.launch(&launch, buffers)
    }

    /// Fails with `what` unless it holds.
    fn expect(&self, holds: bool, what: impl FnOnce() -> String) -> Result<(), CudaError> {
        if holds {
            return Ok(());
        }
        Err(CudaError::SelfCheck {
            module: self.module,
            architecture: self.launcher.architecture(),
            what: what(),
        })
    }
}

fn bytes<T: bytemuck::Pod>(elements: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(elements).to_vec()
}
