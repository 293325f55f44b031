//! Which kernels are launched for what, and with how many blocks.

use super::*;
use crate::Architecture;
use laggard_backend::{Buffer, HostMemory};
use std::sync::Arc;

const F32: ElementType = ElementType::F32;
const BF16: ElementType = ElementType::Bf16;
/// Where repetitions go.
const SCRATCH: u64 = 1 << 40;

/// A buffer whose first element is at a made-up address: its length.
fn slice(data_type: DataType, len: usize) -> Slice {
    let memory = HostMemory::zeroed(data_type, len).expect("memory");
    Slice::whole(&Buffer::Host(memory))
}

/// Launches of one kernel, on a device that has these modules.
fn lowered(kernel: &Kernel, work_scale: f64, modules: &[Module]) -> Vec<Step> {
    let address = |slice: &Slice| {
        let bytes = slice.offset * slice.data_type().size_bytes();
        Ok((slice.buffer.len() * 4096 + bytes) as u64)
    };
    let mut lowering = Lowering {
        place: Place {
            architecture: Architecture::Sm90,
            multiprocessors: 132,
        },
        modules,
        address: &address,
        scratch: SCRATCH,
        steps: Vec::new(),
    };
    let made = lowering.kernel(kernel, Repeats::of(work_scale));
    assert!(made.is_ok(), "{kernel:?}");
    lowering.steps
}

fn all() -> Vec<Module> {
    Module::all_on(Architecture::Sm90)
}

/// Module, entry and blocks of each launch.
fn launches(steps: &[Step]) -> Vec<(Module, &'static str, u32)> {
    let launch = |step: &Step| match step {
        Step::Launch(launch) => (launch.module, launch.entry, launch.blocks),
        Step::Product(..) => panic!("a product"),
    };
    steps.iter().map(launch).collect()
}

#[test]
fn addresses_and_types_choose_the_kernel() {
    let check = |from: Slice, to: Slice, expect: (Module, &'static str)| {
        let steps = lowered(&Kernel::Copy { from, to }, 1.0, &all());
        let found: Vec<_> = launches(&steps).iter().map(|it| (it.0, it.1)).collect();
        assert_eq!(found, [expect]);
    };
    let part = |slice: Slice, start: usize| slice.part(start..start + 64).expect("a part");
    let (wide, half) = (|| slice(DataType::F32, 100), || slice(DataType::Bf16, 200));
    let wide_at = |start| part(wide(), start);
    let half_at = |start| part(half(), start);
    check(wide_at(4), wide_at(0), (Module::Stream(F32), "copy"));
    check(wide_at(3), wide_at(0), (Module::Plain(F32), "copy_plain"));
    check(half_at(8), half_at(0), (Module::Stream(BF16), "copy"));
    check(half_at(0), half_at(4), (Module::Plain(BF16), "copy_plain"));
    check(wide_at(0), half_at(0), (Module::Plain(BF16), "narrow"));
    check(half_at(0), wide_at(0), (Module::Plain(BF16), "widen"));
}

#[test]
fn modules_that_failed_are_done_without() {
    let to = slice(DataType::F32, 100);
    let fill = Kernel::Fill { to, value: 1.0 };
    let plain = [Module::Plain(F32)];
    assert_eq!(
        launches(&lowered(&fill, 1.0, &plain)),
        [(Module::Plain(F32), "fill_plain", 1)]
    );
    assert_eq!(
        launches(&lowered(&fill, 1.0, &all())),
        [(Module::Stream(F32), "fill", 1)]
    );
}

#[test]
fn grids_grow_with_the_work_up_to_what_is_resident() {
    let blocks = |len| {
        let to = slice(DataType::F32, len);
        launches(&lowered(&Kernel::Fill { to, value: 1.0 }, 1.0, &all()))[0].2
    };
    assert_eq!(blocks(1), 1);
    assert_eq!(blocks(2049), 2);
    assert_eq!(blocks(1 << 22), 132 * 8);
    let none = Kernel::Fill {
        to: slice(DataType::F32, 0),
        value: 1.0,
    };
    assert!(lowered(&none, 1.0, &all()).is_empty());
}

#[test]
fn repetitions_go_elsewhere() {
    let (from, to) = (slice(DataType::F32, 100), slice(DataType::F32, 100));
    let add = Kernel::Add { from, to };
    let arguments = |step: &Step| match step {
        Step::Launch(launch) => launch.arguments.clone(),
        Step::Product(..) => panic!("a product"),
    };
    let steps = lowered(&add, 2.25, &all());
    let found: Vec<_> = steps.iter().map(arguments).collect();
    let own = Argument::U64(100 * 4096);
    let expect = |to, len| vec![Argument::U64(to), own, Argument::U64(len)];
    assert_eq!(
        found,
        [
            expect(100 * 4096, 100),
            expect(SCRATCH, 100),
            expect(SCRATCH, 25)
        ]
    );
    let task = |work_scale| Task {
        kernels: Arc::from([add.clone()]),
        work_scale,
        extra_flop: 0,
    };
    assert_eq!(scratch_bytes(&task(1.0)), 0);
    assert_eq!(scratch_bytes(&task(2.25)), 400);
}

fn gemm(element: DataType, (rows, columns, depth): (usize, usize, usize), pad: usize) -> Kernel {
    let matrix = |data_type, rows: usize, columns: usize| Matrix {
        slice: slice(data_type, rows * (columns + pad)),
        rows,
        columns,
        row_stride: columns + pad,
    };
    Kernel::Gemm {
        a: matrix(element, depth, rows),
        transpose_a: Transpose::Yes,
        b: matrix(element, depth, columns),
        transpose_b: Transpose::No,
        c: matrix(DataType::F32, rows, columns),
        scale: 1.0,
        accumulate: false,
    }
}

#[test]
fn products_of_aligned_halves_are_for_tensor_cores() {
    let kernel = gemm(DataType::Bf16, (64, 32, 128), 0);
    let steps = lowered(&kernel, 1.5, &all());
    let [Step::Product(whole, BF16), Step::Product(half, BF16)] = steps[..] else {
        panic!("{steps:?}")
    };
    assert_eq!(whole.result, ResultType::F32);
    assert_eq!((whole.a.rows, whole.a.columns), (128, 64));
    // Half of the rows, which are columns of the operand as stored.
    assert_eq!((half.a.rows, half.a.columns), (128, 32));
    assert_eq!((half.c.rows, half.c.columns), (32, 32));
    assert_eq!((half.b, half.c.address), (whole.b, SCRATCH));
    // Without kernels of tensor cores, and of f32, as any other product.
    let plain = [Module::Plain(BF16), Module::Plain(F32)];
    let tile = |element| (Module::Plain(element), "gemm_plain", 8);
    assert_eq!(launches(&lowered(&kernel, 1.0, &plain)), [tile(BF16)]);
    let wide = gemm(DataType::F32, (64, 32, 128), 0);
    assert_eq!(launches(&lowered(&wide, 1.0, &all())), [tile(F32)]);
    let odd = gemm(DataType::Bf16, (64, 32, 128), 3);
    assert_eq!(launches(&lowered(&odd, 1.0, &all())), [tile(BF16)]);
}

#[test]
fn a_norm_is_the_sum_of_the_sums_of_segments() {
    let norm = |len| Kernel::SquaredNorm {
        from: slice(DataType::Bf16, len),
        to: slice(DataType::F32, 1),
        accumulate: true,
    };
    let module = Module::Squares(BF16);
    let sum = (module, "sum_squares", 1);
    // One block for each segment, as far as they are resident at a time.
    for (len, blocks) in [(1, 1), (32_768, 1), (32_769, 2), (1 << 26, 132 * 8)] {
        let steps = lowered(&norm(len), 1.0, &all());
        let segments = (module, "square_sums", blocks);
        assert_eq!(launches(&steps), [segments, sum], "{len}");
    }
    // Nothing adds nothing, and says so.
    assert_eq!(launches(&lowered(&norm(0), 1.0, &all())), [sum]);
    let steps = lowered(&norm(65_536), 1.5, &all());
    let segments = |count| (module, "square_sums", count);
    assert_eq!(launches(&steps), [segments(2), sum, segments(1), sum]);
    let (Step::Launch(whole), Step::Launch(part)) = (&steps[1], &steps[3]) else {
        panic!("{steps:?}")
    };
    // Of the repetition, the result goes elsewhere, and not onto sums on the way.
    assert_eq!(part.arguments[0], Argument::U64(SCRATCH));
    assert_eq!(part.arguments[1], Argument::U64(SCRATCH + 16));
    assert_eq!(whole.arguments[1..2], part.arguments[1..2]);
    assert_eq!(whole.arguments[3], Argument::U32(1));
    // Between two multiples of 16 bytes.
    let odd = Kernel::SquaredNorm {
        from: slice(DataType::Bf16, 64).part(11..64).expect("a part"),
        to: slice(DataType::F32, 1),
        accumulate: false,
    };
    let steps = lowered(&odd, 1.0, &all());
    let Step::Launch(first) = &steps[0] else {
        panic!("{steps:?}")
    };
    let [_, from, skip, count] = first.arguments[..] else {
        panic!("{first:?}")
    };
    assert_eq!(from, Argument::U64(64 * 4096 + 16));
    assert_eq!((skip, count), (Argument::U32(3), Argument::U64(53)));
}

#[test]
fn scratch_has_room_for_the_sums_of_segments() {
    let task = |work_scale| Task {
        kernels: std::sync::Arc::from([Kernel::SquaredNorm {
            from: slice(DataType::F32, 16_385),
            to: slice(DataType::F32, 1),
            accumulate: false,
        }]),
        work_scale,
        extra_flop: 0,
    };
    assert_eq!(scratch_bytes(&task(1.0)), 16 + 2 * 8);
    assert_eq!(scratch_bytes(&task(1.5)), 16 + 2 * 8);
}

#[test]
fn matrices_beyond_32_bits_are_refused() {
    let huge = Matrix {
        slice: slice(DataType::F32, 8),
        rows: 1,
        columns: 1,
        row_stride: 1 << 40,
    };
    let kernel = Kernel::Gemm {
        a: huge.clone(),
        transpose_a: Transpose::No,
        b: huge.clone(),
        transpose_b: Transpose::No,
        c: huge,
        scale: 1.0,
        accumulate: false,
    };
    let mut lowering = Lowering {
        place: Place {
            architecture: Architecture::Sm90,
            multiprocessors: 1,
        },
        modules: &[],
        address: &|_| Ok(0),
        scratch: 0,
        steps: Vec::new(),
    };
    let refused = lowering.kernel(&kernel, Repeats::of(1.0));
    assert!(matches!(refused, Err(Refusal::Invalid(why)) if why.contains("1099511627776")));
}
