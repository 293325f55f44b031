//! Memory that kernels and collectives work on.

use laggard_types::DataType;
use std::sync::Arc;

/// Memory of one device. Cloning a handle does not copy the memory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Buffer {
    /// Host memory.
    Host(Arc<HostMemory>),
}

/// Zero-initialised, 64-byte aligned host memory of one element type.
#[derive(Debug)]
pub struct HostMemory {
    data_type: DataType,
    len: usize,
}

/// A range of elements of a buffer.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The buffer.
    pub buffer: Buffer,
    /// First element.
    pub offset: usize,
    /// How many elements.
    pub len: usize,
}
