//! Matrix products. All elements are small integers, so that every sum is exact in f32 and results
//! can be compared bit by bit.

use crate::machine::{Argument, Grid, Machine, Order};
use crate::{ORDERS, machine};
use half::{bf16, f16};
use laggard_backend::{Element, Transpose};
use laggard_cuda::twin::{Operand, gemm, integer_at};
use laggard_cuda::{
    Architecture, DeviceMatrix, GemmArguments, GemmLaunch, HalfType, Module, Product, ResultType,
};

/// Rows and columns of the result, and what is summed over.
#[derive(Debug, Clone, Copy)]
struct Shape {
    rows: u32,
    columns: u32,
    depth: u32,
}

/// A matrix with gaps between its rows that hold NaNs, as everything that nobody may read.
struct Stored<T> {
    matrix: DeviceMatrix,
    elements: Vec<T>,
}

impl<T> Stored<T> {
    fn operand(&self, transpose: Transpose) -> Operand<'_, T> {
        Operand {
            elements: &self.elements,
            row_stride: self.matrix.row_stride as usize,
            transpose,
        }
    }
}

fn stored<T: Element>(rows: u32, columns: u32, number: u64) -> Stored<T> {
    let row_stride = (columns + 3).next_multiple_of(8);
    let nan = T::from_f64(f64::NAN);
    let mut elements = vec![nan; (rows * row_stride) as usize];
    for (row, elements) in (0u64..).zip(elements.chunks_mut(row_stride as usize)) {
        for (column, element) in (0u64..).zip(&mut elements[..columns as usize]) {
            *element = T::from_f64(f64::from(integer_at(number, row << 32 | column)));
        }
    }
    let matrix = DeviceMatrix {
        address: number * 16,
        rows,
        columns,
        row_stride,
    };
    Stored { matrix, elements }
}

fn bytes<T: Element>(elements: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(elements).to_vec()
}

fn argument(g: &GemmArguments) -> Argument {
    let mut bytes = Vec::new();
    for address in [g.a, g.b, g.c] {
        bytes.extend(address.to_le_bytes());
    }
    for number in [
        g.rows, g.columns, g.depth, g.stride_a, g.stride_b, g.stride_c,
    ] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(g.scale.to_le_bytes());
    bytes.extend(g.flags.to_le_bytes());
    Argument::Bytes(bytes)
}

/// A product of operands of `T` with a result of `C`.
struct Case {
    architecture: Architecture,
    shape: Shape,
    transpose_a: Transpose,
    transpose_b: Transpose,
    result: ResultType,
    accumulate: bool,
    order: Order,
}

fn sides(rows: u32, columns: u32, transpose: Transpose) -> (u32, u32) {
    match transpose {
        Transpose::No => (rows, columns),
        Transpose::Yes => (columns, rows),
    }
}

fn check<T: Element, C: Element>(machine: &Machine, case: &Case) {
    let Shape {
        rows,
        columns,
        depth,
    } = case.shape;
    let (a_rows, a_columns) = sides(rows, depth, case.transpose_a);
    let (b_rows, b_columns) = sides(depth, columns, case.transpose_b);
    let a = stored::<T>(a_rows, a_columns, 0);
    let b = stored::<T>(b_rows, b_columns, 1);
    let mut c = stored::<C>(rows, columns, 2);
    let before = c.elements.clone();
    if !case.accumulate {
        c.elements.fill(C::from_f64(f64::NAN));
    }
    let product = Product {
        a: a.matrix,
        transpose_a: case.transpose_a,
        b: b.matrix,
        transpose_b: case.transpose_b,
        c: c.matrix,
        result: case.result,
        scale: 0.5,
        accumulate: case.accumulate,
    };
    let launch = GemmLaunch::new(&product, case.architecture).expect("a product that fits");
    let grid = Grid {
        blocks: launch.blocks,
        threads: launch.threads,
    };
    let buffers = [bytes(&a.elements), bytes(&b.elements), bytes(&c.elements)];
    let launched = (launch.entry, grid, case.order);
    let found = machine.launch(launched, &buffers, &[argument(&launch.arguments)]);
    assert!(
        found[0] == buffers[0] && found[1] == buffers[1],
        "an operand was written"
    );

    let stride = c.matrix.row_stride as usize;
    let mut expected = c.elements;
    let before = case.accumulate.then_some(before);
    expect(case, (&a, &b), before.as_deref(), &mut expected);
    let expected = bytes(&expected);
    let size = size_of::<C>();
    let wrong = (0..expected.len() / size)
        .find(|at| found[2][at * size..][..size] != expected[at * size..][..size]);
    if let Some(at) = wrong {
        let (row, column) = (at / stride, at % stride);
        panic!(
            "row {row}, column {column} of {} {:?}",
            launch.entry, case.shape
        );
    }
}

/// What the twin makes of the same operands; `before` is what the result is added to.
fn expect<T: Element, C: Element>(
    case: &Case,
    (a, b): (&Stored<T>, &Stored<T>),
    before: Option<&[C]>,
    c: &mut [C],
) {
    let a = a.operand(case.transpose_a);
    let b = b.operand(case.transpose_b);
    let stride = c.len() / case.shape.rows as usize;
    for row in 0..case.shape.rows as usize {
        for column in 0..case.shape.columns as usize {
            let at = row * stride + column;
            let start = before.map_or(0.0, |before| before[at].to_f64());
            let sum = gemm(
                (&a, &b),
                (row, column),
                case.shape.depth as usize,
                0.5,
                start,
            );
            c[at] = C::from_f64(sum);
        }
    }
}

const TRANSPOSES: [Transpose; 2] = [Transpose::No, Transpose::Yes];

/// All four products in all orders, of shapes that end within a tile on every side: with several
/// blocks, with more slices than there are stages, and as small as it gets.
fn check_all<T: Element>(half: HalfType, architecture: Architecture, orders: &[Order]) {
    let Some(machine) = machine(Module::Gemm(half), architecture) else {
        return;
    };
    for transpose_a in TRANSPOSES {
        for transpose_b in TRANSPOSES {
            for order in orders {
                let case = |rows, columns, depth, result, accumulate| Case {
                    architecture,
                    shape: Shape {
                        rows,
                        columns,
                        depth,
                    },
                    transpose_a,
                    transpose_b,
                    result,
                    accumulate,
                    order: *order,
                };
                check::<T, T>(&machine, &case(131, 259, 43, ResultType::Half, false));
                check::<T, f32>(&machine, &case(61, 101, 205, ResultType::F32, true));
                check::<T, T>(&machine, &case(1, 1, 1, ResultType::Half, true));
            }
        }
    }
}

#[test]
fn products_of_bf16() {
    check_all::<bf16>(HalfType::Bf16, Architecture::Sm80, &ORDERS);
}

#[test]
fn products_of_f16_with_two_stages() {
    check_all::<f16>(HalfType::F16, Architecture::Sm75, &ORDERS[..1]);
}

#[test]
fn products_of_f16_by_wmma() {
    // Volta's copies pass through registers, so they are never late.
    let early = ORDERS.into_iter().find(|order| order.early);
    check_all::<f16>(HalfType::F16, Architecture::Sm70, early.as_slice());
}

/// Tiles are handed out in bands of eight rows of tiles; the last band is lower.
#[test]
fn every_tile_is_computed_once() {
    let Some(machine) = machine(Module::Gemm(HalfType::Bf16), Architecture::Sm80) else {
        return;
    };
    let case = Case {
        architecture: Architecture::Sm80,
        shape: Shape {
            rows: 128 * 10 + 5,
            columns: 256 * 2 + 9,
            depth: 9,
        },
        transpose_a: Transpose::No,
        transpose_b: Transpose::Yes,
        result: ResultType::F32,
        accumulate: true,
        order: ORDERS[0],
    };
    check::<bf16, f32>(&machine, &case);
}
