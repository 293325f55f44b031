//! The kernels that take everything. Elements are small integers, so that every sum is exact in
//! whatever order it is made; buffers begin at any element, as launches name addresses.

use super::{Bench, bytes};
use crate::twin::{self, AdamState, Operand, integer_at};
use crate::{Argument, CudaError, GemmArguments, KernelLaunch};
use laggard_backend::{Element, Transpose};

const COUNTS: [usize; 3] = [1, 130, 1025];
/// Blocks, and threads of each.
const GRID: (u32, u32) = (3, 64);
const SCALE: f32 = 0.5;

fn integers<T: Element>(count: usize, seed: u64) -> Vec<T> {
    let number = |i| f64::from(integer_at(seed, i));
    (0..count as u64).map(|i| T::from_f64(number(i))).collect()
}

pub(super) fn check<T: Element + twin::Factor>(bench: &Bench<'_>) -> Result<(), CudaError> {
    for count in COUNTS {
        check_streams::<T>(bench, count)?;
        check_adam::<T>(bench, count)?;
    }
    let transposes = [Transpose::No, Transpose::Yes];
    for transpose_a in transposes {
        for transpose_b in transposes {
            let case = |shape, accumulate| Case {
                shape,
                accumulate,
                transposes: (transpose_a, transpose_b),
            };
            check_product::<T, T>(bench, &case((35, 19, 37), false))?;
            check_product::<T, f32>(bench, &case((3, 33, 100), true))?;
            check_product::<T, T>(bench, &case((2, 2, 0), true))?;
        }
    }
    Ok(())
}

fn check_streams<T: Element>(bench: &Bench<'_>, count: usize) -> Result<(), CudaError> {
    let [to, from] = [0, 1].map(|seed| integers::<T>(count, seed));
    let wide: Vec<f32> = (0..count as u64)
        .map(|i| integer_at(2, i) as f32 * 0.37)
        .collect();
    let narrow: Vec<T> = wide.iter().map(|x| T::from_f64(f64::from(*x))).collect();
    let numbers: Vec<f32> = from.iter().map(|x| x.to_f64() as f32).collect();
    let mut sum = to.clone();
    twin::add(&mut sum, &from);
    let value = Argument::F32(0.3);
    let filled = vec![T::from_f64(f64::from(0.3f32)); count];

    let [to_at, from_at] = [0, 1].map(Argument::Buffer);
    let length = Argument::U64(count as u64);
    let run = |entry, buffers: [Vec<u8>; 2], arguments: &[Argument], expected: &[u8]| {
        let found = bench.run(entry, GRID, &buffers, arguments)?;
        let is_right = found[0] == expected && found[1] == buffers[1];
        bench.expect(is_right, || format!("{entry} of {count} elements"))
    };
    let pair = || [bytes(&to), bytes(&from)];
    let both = [to_at, from_at, length];
    run("copy_plain", pair(), &both, &bytes(&from))?;
    run("add_plain", pair(), &both, &bytes(&sum))?;
    run(
        "fill_plain",
        pair(),
        &[to_at, value, length],
        &bytes(&filled),
    )?;
    let widened = [bytes(&wide), bytes(&from)];
    run("widen", widened, &both, &bytes(&numbers))?;
    run("narrow", [bytes(&to), bytes(&wide)], &both, &bytes(&narrow))
}

fn check_adam<T: Element>(bench: &Bench<'_>, count: usize) -> Result<(), CudaError> {
    let gradients = integers::<T>(count, 3);
    let [mut p, mut m, mut v] = [4, 5, 6].map(|seed| integers::<f32>(count, seed));
    // Second moments are never negative.
    v.iter_mut().for_each(|x| *x = x.abs());
    let buffers = [bytes(&p), bytes(&gradients), bytes(&m), bytes(&v)];
    let addresses = [0, 1, 2, 3].map(Argument::Buffer);
    let rest = [Argument::F32(0.01), Argument::U64(count as u64)];
    let arguments = [&addresses[..], &rest[..]].concat();
    let found = bench.run("adam_plain", GRID, &buffers, &arguments)?;
    let numbers: Vec<f32> = gradients.iter().map(|x| x.to_f64() as f32).collect();
    let mut state = AdamState {
        parameters: &mut p,
        first_moments: &mut m,
        second_moments: &mut v,
    };
    twin::adam(&mut state, &numbers, 0.01);
    let expected = [bytes(&p), bytes(&gradients), bytes(&m), bytes(&v)];
    bench.expect(found == expected, || {
        format!("adam_plain of {count} elements")
    })
}

#[derive(Debug, Clone, Copy)]
struct Case {
    /// Rows, columns, depth.
    shape: (u32, u32, u32),
    accumulate: bool,
    transposes: (Transpose, Transpose),
}

fn check_product<T: Element + twin::Factor, C: Element>(
    bench: &Bench<'_>,
    case: &Case,
) -> Result<(), CudaError> {
    let (rows, columns, depth) = case.shape;
    let sides = |rows: u32, columns: u32, transpose| match transpose {
        Transpose::No => (rows, columns),
        Transpose::Yes => (columns, rows),
    };
    // Odd distances of rows, with nothing after the last element.
    let stored = |(rows, columns): (u32, u32)| {
        let stride = columns + 3;
        let count = rows.saturating_sub(1) * stride + columns;
        (stride, if rows == 0 { 0 } else { count as usize })
    };
    let (stride_a, len_a) = stored(sides(rows, depth, case.transposes.0));
    let (stride_b, len_b) = stored(sides(depth, columns, case.transposes.1));
    let (stride_c, len_c) = stored((rows, columns));
    // A buffer of nothing has no address.
    let (a, b) = (
        integers::<T>(len_a.max(1), 0),
        integers::<T>(len_b.max(1), 1),
    );
    let mut c = integers::<C>(len_c, 2);
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    let arguments = GemmArguments {
        a: 0,
        b: 16,
        c: 32,
        rows,
        columns,
        depth,
        stride_a,
        stride_b,
        stride_c,
        scale: SCALE,
        flags: flag(case.accumulate, 1)
            | flag(C::DATA_TYPE == laggard_types::DataType::F32, 2)
            | flag(case.transposes.0 == Transpose::Yes, 4)
            | flag(case.transposes.1 == Transpose::Yes, 8),
    };
    let buffers = [bytes(&a), bytes(&b), bytes(&c)];
    let launch = KernelLaunch {
        module: bench.module,
        entry: "gemm_plain",
        blocks: rows.div_ceil(16) * columns.div_ceil(16),
        threads: 256,
        shared_bytes: 0,
        arguments: vec![Argument::Product(arguments)],
    };
    let found = bench.launcher.launch(&launch, &buffers)?;
    let operand = |elements, row_stride: u32, transpose| Operand {
        elements,
        row_stride: row_stride as usize,
        transpose,
    };
    let left = operand(&a[..], stride_a, case.transposes.0);
    let right = operand(&b[..], stride_b, case.transposes.1);
    for row in 0..rows as usize {
        for column in 0..columns as usize {
            let to = &mut c[row * stride_c as usize + column];
            let before = if case.accumulate { to.to_f64() } else { 0.0 };
            let place = (row, column);
            let sum = twin::gemm((&left, &right), place, depth as usize, SCALE, before);
            *to = C::from_f64(sum);
        }
    }
    let expected = [bytes(&a), bytes(&b), bytes(&c)];
    bench.expect(found == expected, || format!("gemm_plain: {case:?}"))
}
