//! Products of matrices, against sums made one after the other.

use super::{Bench, GUARD, WIDE_GUARD, element, elements};
use crate::conformance::Violation;
use crate::{Kernel, Matrix, Transpose};
use laggard_types::DataType;

pub(super) fn products(b: &Bench<'_>) -> Result<(), Violation> {
    let uses = [Transpose::No, Transpose::Yes];
    for data_type in b.types() {
        for (transpose_a, transpose_b) in uses.iter().flat_map(|a| uses.map(|b| (*a, b))) {
            let cases = [
                ((5, 7, 3), 0, GUARD),
                ((33, 17, 40), 5, GUARD),
                ((8, 16, 32), 8, GUARD),
                ((40, 24, 16), 8, WIDE_GUARD),
                ((64, 64, 64), 0, WIDE_GUARD),
            ];
            for (shape, pad, guard) in cases {
                for accumulate in [false, true] {
                    let case = Product {
                        types: (data_type, data_type),
                        shape,
                        pad,
                        guard,
                        uses: (transpose_a, transpose_b),
                        accumulate,
                    };
                    product(b, &case)?;
                    let types = (data_type, DataType::F32);
                    product(b, &Product { types, ..case })?;
                }
            }
        }
    }
    // One number of many.
    let case = Product {
        types: (b.types().pop().unwrap_or(DataType::F32), DataType::F32),
        shape: (1, 1, 20_000),
        pad: 0,
        guard: GUARD,
        uses: (Transpose::Yes, Transpose::No),
        accumulate: false,
    };
    product(b, &case)
}

#[derive(Debug, Clone, Copy)]
struct Product {
    /// Of the operands and of the result.
    types: (DataType, DataType),
    /// Rows, columns, depth.
    shape: (usize, usize, usize),
    /// Elements between rows.
    pad: usize,
    /// Elements around matrices.
    guard: usize,
    uses: (Transpose, Transpose),
    accumulate: bool,
}

fn product(b: &Bench<'_>, case: &Product) -> Result<(), Violation> {
    let (m, n, k) = case.shape;
    let matrix = |data_type, (rows, columns): (usize, usize), seed| {
        let row_stride = columns + case.pad;
        let slice = b.between(case.guard, data_type, &elements(seed, rows * row_stride))?;
        Ok(Matrix {
            slice,
            rows,
            columns,
            row_stride,
        })
    };
    let stored = |rows, columns, transpose| match transpose {
        Transpose::No => (rows, columns),
        Transpose::Yes => (columns, rows),
    };
    let left = matrix(case.types.0, stored(m, k, case.uses.0), 1)?;
    let right = matrix(case.types.0, stored(k, n, case.uses.1), 2)?;
    let c = matrix(case.types.1, (m, n), 3)?;
    let at = |stride: usize, transpose, row: usize, column: usize| match transpose {
        Transpose::No => row * stride + column,
        Transpose::Yes => column * stride + row,
    };
    let mut want = elements(3, m * c.row_stride);
    for row in 0..m {
        for column in 0..n {
            let product = |i| {
                let a = element(1, at(left.row_stride, case.uses.0, row, i));
                a * element(2, at(right.row_stride, case.uses.1, i, column))
            };
            let sum: f64 = (0..k).map(product).sum();
            let to = &mut want[row * c.row_stride + column];
            *to = 2.0 * sum + if case.accumulate { *to } else { 0.0 };
        }
    }
    let gemm = Kernel::Gemm {
        a: left,
        transpose_a: case.uses.0,
        b: right,
        transpose_b: case.uses.1,
        c: c.clone(),
        scale: 2.0,
        accumulate: case.accumulate,
    };
    let name = format!("{case:?}");
    b.run(&name, vec![gemm])?;
    // Sums are exact in f32, and rounded once to what the result holds.
    let rounded = b.slice(case.types.1, &want)?;
    let want = b.must(&name, rounded.read_numbers())?;
    b.holds(&name, &c.slice, &want)
}
