//! Matrix products; `kernels/gemm_*.cu`. Sums are made in f64 here and
//! in f32 there, in an order that differs from generation to generation: results agree to the
//! rounding of the result type plus `depth` roundings of f32 of the sum of absolute products.

use super::E4m3;
use bytemuck::Pod;
use half::{bf16, f16};
use laggard_backend::{Element, Transpose};

/// What an operand of a product is made of.
pub trait Factor: Pod {
    /// The nearest to a number.
    fn nearest(value: f64) -> Self;

    /// The number.
    fn number(self) -> f64;
}

macro_rules! factor {
    ($($element:ty),*) => {$(
        impl Factor for $element {
            fn nearest(value: f64) -> Self {
                <Self as Element>::from_f64(value)
            }

            fn number(self) -> f64 {
                <Self as Element>::to_f64(self)
            }
        }
    )*};
}
factor!(f32, f16, bf16);

impl Factor for E4m3 {
    fn nearest(value: f64) -> Self {
        Self::from_f64(value)
    }

    fn number(self) -> f64 {
        self.to_f64()
    }
}

/// A row-major matrix in host memory and how it is used.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a, T> {
    /// The elements.
    pub elements: &'a [T],
    /// Elements from one stored row to the next.
    pub row_stride: usize,
    /// Whether it is used as stored.
    pub transpose: Transpose,
}

impl<T: Factor> Operand<'_, T> {
    fn at(&self, row: usize, column: usize) -> f64 {
        let (row, column) = match self.transpose {
            Transpose::No => (row, column),
            Transpose::Yes => (column, row),
        };
        self.elements[row * self.row_stride + column].number()
    }
}

/// One element of a product: `scale * sum over depth of op(a) * op(b)`, plus `before`.
pub fn gemm<T: Factor>(
    (a, b): (&Operand<'_, T>, &Operand<'_, T>),
    (row, column): (usize, usize),
    depth: usize,
    scale: f32,
    before: f64,
) -> f64 {
    let products = (0..depth).map(|k| a.at(row, k) * b.at(k, column));
    f64::from(scale) * products.sum::<f64>() + before
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    #[expect(clippy::float_cmp, reason = "small integers are exact")]
    fn every_transposition_gives_the_same_product() {
        // a is 2 x 3, b is 3 x 2, and their product was computed by hand.
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let a_transposed = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0];
        let b = [7.0, 8.0, 9.0, 10.0, 11.0, 12.0];
        let b_transposed = [7.0, 9.0, 11.0, 8.0, 10.0, 12.0];
        let expect = [[58.0, 64.0], [139.0, 154.0]];
        // Rows lie one element further apart than they are long; what is between is never read.
        fn padded(elements: &[f32], columns: usize) -> Vec<bf16> {
            let rows = elements.chunks(columns);
            let with_gap = rows.flat_map(|row| row.iter().copied().chain([f32::NAN]));
            with_gap.map(bf16::from_f32).collect()
        }
        let stored =
            |matrix: &[f32], columns, transpose| (padded(matrix, columns), columns + 1, transpose);
        let lefts = [
            stored(&a, 3, Transpose::No),
            stored(&a_transposed, 2, Transpose::Yes),
        ];
        let rights = [
            stored(&b, 2, Transpose::No),
            stored(&b_transposed, 3, Transpose::Yes),
        ];
        for (left, right) in lefts
            .iter()
            .flat_map(|l| rights.iter().map(move |r| (l, r)))
        {
            let operand = |(elements, row_stride, transpose): &(Vec<bf16>, usize, Transpose)| {
                (elements.clone(), *row_stride, *transpose)
            };
            let ((a, a_stride, a_use), (b, b_stride, b_use)) = (operand(left), operand(right));
            let a = Operand {
                elements: &a,
                row_stride: a_stride,
                transpose: a_use,
            };
            let b = Operand {
                elements: &b,
                row_stride: b_stride,
                transpose: b_use,
            };
            for (row, expect) in expect.iter().enumerate() {
                for (column, expect) in expect.iter().enumerate() {
                    let found = gemm((&a, &b), (row, column), 3, 2.0, 1.0);
                    assert_eq!(found, 2.0 * expect + 1.0, "{row} {column}");
                }
            }
        }
    }
}
