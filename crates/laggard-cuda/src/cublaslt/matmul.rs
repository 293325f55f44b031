//! A product as cuBLASLt is told of it. Its matrices are column-major, ours row-major: the same
//! memory read by columns is the transposed matrix, so that what is computed is the transposed
//! product, whose first operand is our right one. Calls nothing.

use crate::{CudaError, DeviceMatrix, ElementType, Product, ResultType};
use laggard_backend::Transpose;
use std::ffi::c_int;

/// `cudaDataType_t` (library_types.h).
pub(super) const DATA_F32: c_int = 0;
const DATA_F16: c_int = 2;
const DATA_BF16: c_int = 14;
/// `CUBLAS_COMPUTE_32F` (cublas_api.h).
pub(super) const COMPUTE_F32: c_int = 68;

/// Attributes by their numbers in cublasLt.h.
pub(super) mod attribute {
    use std::ffi::c_int;

    /// `CUBLASLT_MATMUL_DESC_TRANSA`.
    pub(in super::super) const TRANSPOSE_FIRST: c_int = 3;
    /// `CUBLASLT_MATMUL_DESC_TRANSB`.
    pub(in super::super) const TRANSPOSE_SECOND: c_int = 4;
    /// `CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES`.
    pub(in super::super) const WORKSPACE_BYTES: c_int = 1;
    /// `CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES`, and of B, C and D.
    pub(in super::super) const ALIGNMENT_FIRST: c_int = 5;
    pub(in super::super) const ALIGNMENT_SECOND: c_int = 6;
    pub(in super::super) const ALIGNMENT_RESULT: c_int = 7;
    pub(in super::super) const ALIGNMENT_OUTPUT: c_int = 8;
}

/// What algorithms make use of at most (cuBLASLt's own default of what it may expect).
const MOST_ALIGNMENT: u64 = 256;

/// One matrix, column-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Layout {
    pub(super) data: c_int,
    pub(super) rows: u32,
    pub(super) columns: u32,
    /// Elements from one column to the next.
    pub(super) stride: u32,
}

/// All that an algorithm is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Matmul {
    /// Our right operand.
    pub(super) first: Layout,
    pub(super) transpose_first: bool,
    /// Our left operand.
    pub(super) second: Layout,
    pub(super) transpose_second: bool,
    pub(super) result: Layout,
    /// Bytes that the addresses of our `a`, `b` and `c` are multiples of.
    pub(super) alignments: [u32; 3],
}

impl Matmul {
    /// What a product with these operands is to cuBLASLt; `None` of operands other than halves.
    ///
    /// # Errors
    /// [`CudaError::Product`] as [`Product::launch`].
    pub(super) fn new(product: &Product, operands: ElementType) -> Result<Option<Self>, CudaError> {
        let half = match operands {
            ElementType::F16 => DATA_F16,
            ElementType::Bf16 => DATA_BF16,
            ElementType::F32 => return Ok(None),
        };
        product.arguments(2)?;
        let result = match product.result {
            ResultType::Half => half,
            ResultType::F32 => DATA_F32,
        };
        let addresses = [product.a.address, product.b.address, product.c.address];
        Ok(Some(Self {
            first: layout(&product.b, half),
            transpose_first: product.transpose_b == Transpose::Yes,
            second: layout(&product.a, half),
            transpose_second: product.transpose_a == Transpose::Yes,
            result: layout(&product.c, result),
            alignments: addresses.map(alignment),
        }))
    }
}

/// `cublasOperation_t` (cublas_api.h).
pub(super) fn operation_code(transpose: bool) -> c_int {
    c_int::from(transpose)
}

/// What lies in memory as a row-major matrix, read by columns.
fn layout(matrix: &DeviceMatrix, data: c_int) -> Layout {
    Layout {
        data,
        rows: matrix.columns,
        columns: matrix.rows,
        stride: matrix.row_stride,
    }
}

/// The largest power of two that divides an address, up to what matters.
fn alignment(address: u64) -> u32 {
    let bytes = 1u64 << address.trailing_zeros().min(63);
    u32::try_from(bytes.min(MOST_ALIGNMENT)).unwrap_or(1)
}
