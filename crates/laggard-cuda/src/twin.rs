//! What the kernels compute, on the CPU, one element after the other: the truth that they are
//! compared with, written to be read. Where a kernel's arithmetic is prescribed operation by
//! operation, its twin's results have the same bits; the others say how close they are.

mod e4m3;
mod exact;
mod gemm;
mod norm;
mod squares;
mod stream;

pub use e4m3::E4m3;
pub(crate) use exact::mixed;
pub use exact::{Mismatches, fill_exact, integer_at, most_members, verify_exact};
pub use gemm::{Factor, Operand, gemm};
pub use norm::layer_norm;
pub use squares::{square_sums, sum_squares};
pub use stream::{AdamState, adam, add, triad};
