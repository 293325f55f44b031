//! The call into the `gemm` crate, whose interface is raw pointers.
#![expect(
    unsafe_code,
    reason = "the gemm crate takes pointers, strides and trust"
)]

use crate::Transpose;
use gemm::Parallelism;

/// Shape of a product: `c` is `m x n`, `op(a)` is `m x k`, `op(b)` is `k x n`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// A factor: its elements, the distance of stored rows, and whether it is used transposed.
#[derive(Clone, Copy)]
pub(super) struct Factor<'a> {
    pub elements: &'a [f32],
    pub row_stride: usize,
    pub transpose: Transpose,
}

/// The result and how it is formed.
pub(super) struct Product<'a> {
    pub elements: &'a mut [f32],
    pub row_stride: usize,
    pub scale: f32,
    pub accumulate: bool,
}

/// `c = scale * op(a) * op(b)`, or `c += ...`, on the calling thread.
///
/// # Panics
/// If a matrix is smaller than its shape; callers have checked.
pub(super) fn multiply(shape: Shape, a: Factor<'_>, b: Factor<'_>, c: Product<'_>) {
    let Shape { m, n, k } = shape;
    if m == 0 || n == 0 {
        return;
    }
    let (a_rows, a_columns) = strides(a, m, k);
    let (b_rows, b_columns) = strides(b, k, n);
    assert!(n <= c.row_stride || m == 1, "rows of the result overlap");
    assert!(span(m, n, c.row_stride).is_some_and(|span| span <= c.elements.len()));
    let c_rows = signed(c.row_stride);
    // SAFETY: `strides` and the asserts above have checked that every element `(i, j)` of the three
    // matrices, at `i * rows + j * columns`, lies within its slice, so all pointers that the callee
    // forms are in bounds and aligned. The slices are live for the whole call, `c` is borrowed
    // mutably and thus overlaps neither factor, and rows of `c` do not overlap each other. The
    // elements are initialised `f32`s, the type that `T` is.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.elements.as_mut_ptr(),
            1,
            c_rows,
            c.accumulate,
            a.elements.as_ptr(),
            a_columns,
            a_rows,
            b.elements.as_ptr(),
            b_columns,
            b_rows,
            1.0,
            c.scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Strides of `op(factor)` of so many rows and columns, after checking that it fits its elements.
fn strides(factor: Factor<'_>, rows: usize, columns: usize) -> (isize, isize) {
    let stride = signed(factor.row_stride);
    let (stored_rows, stored_columns, strides) = match factor.transpose {
        Transpose::No => (rows, columns, (stride, 1)),
        Transpose::Yes => (columns, rows, (1, stride)),
    };
    let span = span(stored_rows, stored_columns, factor.row_stride);
    assert!(
        span.is_some_and(|span| span <= factor.elements.len()),
        "a factor exceeds its memory"
    );
    strides
}

/// Elements from the first to the last of a stored matrix; `None` on overflow.
pub(crate) fn span(rows: usize, columns: usize, row_stride: usize) -> Option<usize> {
    if rows == 0 || columns == 0 {
        return Some(0);
    }
    (rows - 1).checked_mul(row_stride)?.checked_add(columns)
}

fn signed(stride: usize) -> isize {
    isize::try_from(stride).expect("a stride within memory fits")
}
