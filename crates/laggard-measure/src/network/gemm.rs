//! Short ways to write products of matrices.

use laggard_backend::{Kernel, Matrix, Transpose};

pub(super) use Transpose::{No, Yes};

/// `c = scale * op(a) * op(b)`, or `c += ...`.
pub(super) struct Gemm {
    pub(super) a: (Matrix, Transpose),
    pub(super) b: (Matrix, Transpose),
    pub(super) c: Matrix,
    pub(super) scale: f32,
    pub(super) accumulate: bool,
}

pub(super) fn product(a: Matrix, b: Matrix, c: Matrix) -> Kernel {
    scaled((a, No), (b, No), c, 1.0)
}

pub(super) fn scaled(
    a: (Matrix, Transpose),
    b: (Matrix, Transpose),
    c: Matrix,
    scale: f32,
) -> Kernel {
    gemm(Gemm {
        a,
        b,
        c,
        scale,
        accumulate: false,
    })
}

pub(super) fn added(a: (Matrix, Transpose), b: (Matrix, Transpose), c: Matrix) -> Kernel {
    gemm(Gemm {
        a,
        b,
        c,
        scale: 1.0,
        accumulate: true,
    })
}

pub(super) fn gemm(gemm: Gemm) -> Kernel {
    let Gemm {
        a: (a, transpose_a),
        b: (b, transpose_b),
        c,
        scale,
        accumulate,
    } = gemm;
    Kernel::Gemm {
        a,
        transpose_a,
        b,
        transpose_b,
        c,
        scale,
        accumulate,
    }
}
