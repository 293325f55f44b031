//! A launch of a kernel as data: the seam between what is computed and where.

use crate::{Architecture, CudaError, GemmArguments, Module, TmaProduct};

/// How often a kernel runs, and with what.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelLaunch {
    /// The module that has it.
    pub module: Module,
    /// Its name.
    pub entry: &'static str,
    /// Blocks, along x.
    pub blocks: u32,
    /// Threads of a block, along x.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Its arguments, in order.
    pub arguments: Vec<Argument>,
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    /// The address of a buffer, by its number.
    Buffer(u32),
    /// An `unsigned int`.
    U32(u32),
    /// An `unsigned long long`.
    U64(u64),
    /// A `float`.
    F32(f32),
    /// A product. Its addresses are sixteen times the numbers of buffers.
    Product(GemmArguments),
    /// A product whose operands the copy engine brings; the same is true of its addresses.
    TmaProduct(TmaProduct),
}

/// Executes launches, one at a time.
pub trait Launcher {
    /// The generation that it executes kernels of.
    fn architecture(&self) -> Architecture;

    /// Multiprocessors of the device: blocks that run at the same time where each has one for
    /// itself.
    fn multiprocessors(&self) -> u32;

    /// Executes a launch on copies of these buffers, waits for its end, and brings back what the
    /// buffers then hold.
    ///
    /// # Errors
    /// If the kernel cannot be compiled, loaded or launched, or fails.
    fn launch(&self, launch: &KernelLaunch, buffers: &[Vec<u8>])
    -> Result<Vec<Vec<u8>>, CudaError>;
}
