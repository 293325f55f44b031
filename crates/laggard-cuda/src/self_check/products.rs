//! Matrix products. All elements are small integers, so that every sum is exact in f32 and results
//! can be compared bit by bit.

use super::{Bench, bytes};
use crate::twin::{E4m3, Factor, Operand, gemm, integer_at};
use crate::{CudaError, DeviceMatrix, Place, Product, ResultType};
use bytemuck::Pod;
use half::bf16;
use laggard_backend::{Element, Transpose};

/// A product of a shape, with one of its forms of result.
#[derive(Debug, Clone, Copy)]
struct Case {
    rows: u32,
    columns: u32,
    depth: u32,
    transpose_a: Transpose,
    transpose_b: Transpose,
    result: ResultType,
    accumulate: bool,
}

/// A matrix with gaps between its rows that hold NaNs, as everything that nobody may read.
struct Stored<T> {
    matrix: DeviceMatrix,
    elements: Vec<T>,
}

const TRANSPOSES: [Transpose; 2] = [Transpose::No, Transpose::Yes];
const SCALE: f32 = 0.5;

/// All four products of a half type.
pub(super) fn check<T: Factor + Element>(bench: &Bench<'_>) -> Result<(), CudaError> {
    for transpose_a in TRANSPOSES {
        for transpose_b in TRANSPOSES {
            check_one::<T, T>(bench, (transpose_a, transpose_b), 1)?;
        }
    }
    check_large::<T>(bench, 1)
}

/// The one product of 8-bit operands: depths are multiples of 16.
pub(super) fn check_e4m3(bench: &Bench<'_>) -> Result<(), CudaError> {
    check_one::<E4m3, bf16>(bench, (Transpose::No, Transpose::Yes), 16)?;
    check_large::<E4m3>(bench, 16)
}

/// With several blocks, with more slices than there are stages, and as small as it gets.
fn check_one<T: Factor, C: Element>(
    bench: &Bench<'_>,
    (transpose_a, transpose_b): (Transpose, Transpose),
    step: u32,
) -> Result<(), CudaError> {
    let case = |(rows, columns, depth): (u32, u32, u32), result, accumulate| Case {
        rows,
        columns,
        depth: depth.next_multiple_of(step),
        transpose_a,
        transpose_b,
        result,
        accumulate,
    };
    check_case::<T, C>(bench, &case((131, 259, 43), ResultType::Half, false))?;
    check_case::<T, f32>(bench, &case((61, 101, 205), ResultType::F32, true))?;
    check_case::<T, C>(bench, &case((1, 1, 1), ResultType::Half, true))
}

/// One with more rows of tiles than a band has, and a deep one of several tiles.
fn check_large<T: Factor>(bench: &Bench<'_>, step: u32) -> Result<(), CudaError> {
    let bands = Case {
        rows: 128 * 9 + 5,
        columns: 256 + 9,
        depth: 9u32.next_multiple_of(step),
        transpose_a: Transpose::No,
        transpose_b: Transpose::Yes,
        result: ResultType::F32,
        accumulate: false,
    };
    check_case::<T, f32>(bench, &bands)?;
    let deep = Case {
        rows: 128 + 65,
        columns: 256 + 77,
        depth: 645u32.next_multiple_of(step),
        ..bands
    };
    check_case::<T, f32>(bench, &deep)
}

fn check_case<T: Factor, C: Element>(bench: &Bench<'_>, case: &Case) -> Result<(), CudaError> {
    let a = Stored::new(
        sides((case.rows, case.depth), case.transpose_a),
        0,
        T::nearest,
    );
    let b = Stored::new(
        sides((case.depth, case.columns), case.transpose_b),
        1,
        T::nearest,
    );
    let mut c = Stored::new((case.rows, case.columns), 2, C::from_f64);
    let before = case.accumulate.then(|| c.elements.clone());
    if before.is_none() {
        c.elements.fill(C::from_f64(f64::NAN));
    }
    let product = Product {
        a: a.matrix,
        transpose_a: case.transpose_a,
        b: b.matrix,
        transpose_b: case.transpose_b,
        c: c.matrix,
        result: case.result,
        scale: SCALE,
        accumulate: case.accumulate,
    };
    let place = Place {
        architecture: bench.launcher.architecture(),
        multiprocessors: bench.launcher.multiprocessors(),
    };
    let launch = product.launch(bench.module, place)?;
    let buffers = [bytes(&a.elements), bytes(&b.elements), bytes(&c.elements)];
    let found = bench.launcher.launch(&launch, &buffers)?;
    bench.expect(found[..2] == buffers[..2], || {
        format!("{} wrote to an operand: {case:?}", launch.entry)
    })?;

    expect(case, (&a, &b), before.as_deref(), &mut c);
    let expected = bytes(&c.elements);
    let size = size_of::<C>();
    let wrong = (0..c.elements.len())
        .find(|at| found[2][at * size..][..size] != expected[at * size..][..size]);
    bench.expect(wrong.is_none(), || {
        let (at, stride) = (wrong.unwrap_or(0), c.matrix.row_stride as usize);
        let (row, column) = (at / stride, at % stride);
        format!("{}: row {row}, column {column} of {case:?}", launch.entry)
    })
}

fn sides((rows, columns): (u32, u32), transpose: Transpose) -> (u32, u32) {
    match transpose {
        Transpose::No => (rows, columns),
        Transpose::Yes => (columns, rows),
    }
}

impl<T: Pod> Stored<T> {
    /// A matrix that lies in the buffer of this number, of elements that are made so.
    fn new((rows, columns): (u32, u32), number: u64, element_of: fn(f64) -> T) -> Self {
        let row_stride = (columns + 3).next_multiple_of(if size_of::<T>() == 1 { 16 } else { 8 });
        let nan = element_of(f64::NAN);
        let mut elements = vec![nan; (rows * row_stride) as usize];
        for (row, elements) in (0u64..).zip(elements.chunks_mut(row_stride as usize)) {
            for (column, element) in (0u64..).zip(&mut elements[..columns as usize]) {
                *element = element_of(f64::from(integer_at(number, row << 32 | column)));
            }
        }
        let matrix = DeviceMatrix {
            address: number * 16,
            rows,
            columns,
            row_stride,
        };
        Self { matrix, elements }
    }

    fn operand(&self, transpose: Transpose) -> Operand<'_, T> {
        Operand {
            elements: &self.elements,
            row_stride: self.matrix.row_stride as usize,
            transpose,
        }
    }
}

/// What the twin makes of the same operands; `before` is what the result is added to.
fn expect<T: Factor, C: Element>(
    case: &Case,
    (a, b): (&Stored<T>, &Stored<T>),
    before: Option<&[C]>,
    c: &mut Stored<C>,
) {
    let a = a.operand(case.transpose_a);
    let b = b.operand(case.transpose_b);
    for row in 0..case.rows as usize {
        for column in 0..case.columns as usize {
            let at = row * c.matrix.row_stride as usize + column;
            let start = before.map_or(0.0, |before| before[at].to_f64());
            let sum = gemm((&a, &b), (row, column), case.depth as usize, SCALE, start);
            c.elements[at] = C::from_f64(sum);
        }
    }
}
