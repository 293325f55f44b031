//! The seam to whatever multiplies matrices on tensor cores.

use crate::{CudaError, ElementType, Gpu, Module, Product};
use cudarc::driver::CudaStream;
use std::sync::Arc;

/// Computes products on a stream.
pub trait ProductEngine: Send + Sync {
    /// Its name, as records and messages say it.
    fn name(&self) -> &'static str;

    /// Takes what products on a stream need, which lives as long as the stream: while a stream is
    /// captured nothing can be taken.
    ///
    /// # Errors
    /// What the library or the driver fails with.
    fn prepare(&self, _stream: &Arc<CudaStream>) -> Result<(), CudaError> {
        Ok(())
    }

    /// Puts a product of operands of a half type onto a stream, and says whether it did: one that
    /// it cannot compute is left to the next engine. Never waits for the device.
    ///
    /// # Errors
    /// What the library or the driver fails with.
    fn issue(
        &self,
        product: &Product,
        operands: ElementType,
        stream: &Arc<CudaStream>,
    ) -> Result<bool, CudaError>;
}

/// The kernels of this crate, by module: the first that a device has and that was checked there.
pub(crate) fn issue_own(
    gpu: &Gpu,
    modules: &[Module],
    (product, operands): (&Product, ElementType),
    stream: &CudaStream,
) -> Result<(), CudaError> {
    let mut refusal = CudaError::Product {
        why: format!("no kernel multiplies {}", operands.data_type().name()),
    };
    for module in modules.iter().filter(|it| it.multiplies(operands)) {
        match product.launch(*module, gpu.place()) {
            Ok(launch) => return gpu.enqueue(&launch, stream),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}
