//! The kernels that a synthetic training step is made of, as data.

use crate::Slice;

/// A row-major matrix inside a buffer.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// The elements; at least `(rows - 1) * row_stride + columns` of them.
    pub slice: Slice,
    /// Rows as stored.
    pub rows: usize,
    /// Columns as stored.
    pub columns: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
}

/// Whether a matrix is used as stored or transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transpose {
    /// As stored.
    No,
    /// Rows and columns exchanged.
    Yes,
}

/// A kernel. The first set: what a training step of a transformer needs. Matrices are of a type
/// that the device computes in; products are added up in `f32`.
#[derive(Debug, Clone)]
pub enum Kernel {
    /// `c = scale * op(a) * op(b)`, or `c += ...` if `accumulate`.
    Gemm {
        /// Left operand.
        a: Matrix,
        /// Use of the left operand.
        transpose_a: Transpose,
        /// Right operand.
        b: Matrix,
        /// Use of the right operand.
        transpose_b: Transpose,
        /// Result.
        c: Matrix,
        /// Factor of the product.
        scale: f32,
        /// Adds to `c` instead of replacing it.
        accumulate: bool,
    },
    /// `to += from`, element by element (a residual connection).
    Add {
        /// Addend.
        from: Slice,
        /// Sum.
        to: Slice,
    },
    /// `to = from`, rounded to the nearest where `to` holds a narrower type.
    Copy {
        /// Source.
        from: Slice,
        /// Destination.
        to: Slice,
    },
    /// `to = a + scale * b`, all of one type (the triad of McCalpin's STREAM, 1995).
    Triad {
        /// First addend.
        a: Slice,
        /// Second addend, before it is scaled.
        b: Slice,
        /// Factor of the second.
        scale: f32,
        /// Sum.
        to: Slice,
    },
    /// Every element becomes `value`.
    Fill {
        /// Destination.
        to: Slice,
        /// The value.
        value: f32,
    },
    /// `to = |from|^2`, or `to += ...` if `accumulate`: the squared Euclidean norm, added up in the
    /// order of [`crate::squares`] and rounded to `f32` once.
    SquaredNorm {
        /// The elements.
        from: Slice,
        /// One element of `f32`.
        to: Slice,
        /// Adds to `to` instead of replacing it.
        accumulate: bool,
    },
    /// One fused Adam update (Kingma and Ba 2015, section 2, with that paper's decay rates) over a
    /// flat range: reads gradient, updates both moments and the parameters. All are `f32`, but for
    /// the gradients, which may be of another type that the device computes in. The bias correction
    /// is the caller's: it belongs into `learning_rate`, as the end of that section shows.
    Adam {
        /// Parameters, updated.
        parameters: Slice,
        /// Gradients.
        gradients: Slice,
        /// First moments, updated.
        first_moments: Slice,
        /// Second moments, updated.
        second_moments: Slice,
        /// Step size.
        learning_rate: f32,
    },
}

impl Kernel {
    /// Its name, as errors print it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gemm { .. } => "gemm",
            Self::Add { .. } => "add",
            Self::Copy { .. } => "copy",
            Self::Triad { .. } => "triad",
            Self::Fill { .. } => "fill",
            Self::SquaredNorm { .. } => "squared norm",
            Self::Adam { .. } => "adam",
        }
    }

    /// What it writes, some of which it may read before.
    pub fn writes(&self) -> impl Iterator<Item = &Slice> {
        let slices = match self {
            Self::Gemm { c, .. } => [Some(&c.slice), None, None],
            Self::Add { to, .. }
            | Self::Copy { to, .. }
            | Self::Triad { to, .. }
            | Self::Fill { to, .. }
            | Self::SquaredNorm { to, .. } => [Some(to), None, None],
            Self::Adam {
                parameters,
                first_moments,
                second_moments,
                ..
            } => [Some(parameters), Some(first_moments), Some(second_moments)],
        };
        slices.into_iter().flatten()
    }

    /// What it reads and does not write.
    pub fn reads(&self) -> impl Iterator<Item = &Slice> {
        let slices = match self {
            Self::Gemm { a, b, .. } => [Some(&a.slice), Some(&b.slice)],
            Self::Add { from, .. } | Self::Copy { from, .. } | Self::SquaredNorm { from, .. } => {
                [Some(from), None]
            }
            Self::Triad { a, b, .. } => [Some(a), Some(b)],
            Self::Fill { .. } => [None, None],
            Self::Adam { gradients, .. } => [Some(gradients), None],
        };
        slices.into_iter().flatten()
    }
}
