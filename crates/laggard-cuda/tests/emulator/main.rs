//! Every kernel, executed by the CPU thread by thread and compared with its twin: what a machine
//! without a GPU can know of which thread reads and writes what, and after which barrier. What the
//! GPU's own instructions do is written down in `ptx.cuh` of this folder, and believed here. Needs
//! a C++ compiler; without one these tests say so and pass, unless `LAGGARD_REQUIRE` holds `cuda`.

#![expect(clippy::print_stderr, reason = "a test that skips says so")]

mod machine;

use laggard_cuda::{Architecture, ElementType, HalfType, Module, self_check};
use machine::{Defect, Machine, Order};

const fn order(backwards: bool, early: bool, random: u32) -> Order {
    Order {
        backwards,
        early,
        random,
    }
}

/// Threads from the first, copies late; from the last; and copies that arrive at once.
const ORDERS: [Order; 3] = [
    order(false, false, 0),
    order(true, false, 0),
    order(true, true, 0),
];

/// The same where more than copies goes on beside the threads; and everything at random.
const ASYNCHRONOUS_ORDERS: [Order; 6] = [
    order(false, false, 0),
    order(true, false, 0),
    order(false, true, 0),
    order(true, true, 0),
    order(false, false, 1),
    order(false, false, 2),
];

/// What is there, or `None` after saying what is not.
fn or_skip<T>(found: Result<T, String>) -> Option<T> {
    let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|word| word == "cuda");
    match found {
        Ok(found) => Some(found),
        Err(gap) => {
            assert!(!is_required, "{gap}\nand LAGGARD_REQUIRE asks for cuda");
            eprintln!("SKIPPED: {gap}\nhint: install g++");
            None
        }
    }
}

fn check(module: Module, architecture: Architecture, orders: &[Order]) {
    for order in orders {
        if let Some(machine) = or_skip(Machine::new(module, architecture, *order)) {
            self_check(&machine, module).unwrap_or_else(|error| panic!("{error}\nwith {order:?}"));
        }
    }
}

/// Each mistake is found, in one of the orders.
fn check_that_defects_are_found(module: Module, architecture: Architecture, defects: &[Defect]) {
    let machine = Machine::with_defects(module, architecture, ASYNCHRONOUS_ORDERS[0], defects);
    let Some(machine) = or_skip(machine) else {
        return;
    };
    self_check(&machine, module).unwrap_or_else(|error| panic!("without a defect: {error}"));
    let mut missed = Vec::new();
    for (number, defect) in (1..).zip(defects) {
        let is_found = |order: &Order| self_check(&machine.make(number, *order), module).is_err();
        if !ASYNCHRONOUS_ORDERS.iter().any(is_found) {
            missed.push(defect);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}

#[test]
fn products_of_bf16() {
    check(Module::Gemm(HalfType::Bf16), Architecture::Sm80, &ORDERS);
}

#[test]
fn products_of_f16_with_two_stages() {
    check(
        Module::Gemm(HalfType::F16),
        Architecture::Sm75,
        &ORDERS[..1],
    );
}

#[test]
fn products_of_f16_by_wmma() {
    // Volta's copies pass through registers, so they are never late.
    check(
        Module::Gemm(HalfType::F16),
        Architecture::Sm70,
        &ORDERS[2..],
    );
}

#[test]
fn products_by_wgmma() {
    check(
        Module::GemmTma(HalfType::Bf16),
        Architecture::Sm90,
        &ASYNCHRONOUS_ORDERS,
    );
    check(
        Module::GemmTma(HalfType::F16),
        Architecture::Sm90,
        &ASYNCHRONOUS_ORDERS[..1],
    );
}

#[test]
fn products_by_tcgen05() {
    check(
        Module::GemmTma(HalfType::Bf16),
        Architecture::Sm100,
        &ASYNCHRONOUS_ORDERS,
    );
    check(
        Module::GemmTma(HalfType::F16),
        Architecture::Sm100,
        &ASYNCHRONOUS_ORDERS[4..5],
    );
    check(
        Module::GemmFp8,
        Architecture::Sm100,
        &ASYNCHRONOUS_ORDERS[3..4],
    );
}

#[test]
fn products_of_8_bits() {
    check(Module::GemmFp8, Architecture::Sm89, &ORDERS[..1]);
    check(
        Module::GemmFp8,
        Architecture::Sm90,
        &ASYNCHRONOUS_ORDERS[3..5],
    );
}

/// What is easily wrong in a kernel that runs ahead of itself, and what the emulator is there to
/// find.
#[test]
fn mistakes_of_wgmma_kernels_are_found() {
    use Defect::{Expression, Statement};
    let defects = [
        // Nobody waits for a stage to be full, or empty, or waits for the wrong turn of it.
        Statement("barrier_wait(&ring.full[turn.stage], turn.parity);", ""),
        Statement("barrier_wait(&empty[turn.stage], turn.parity ^ 1);", ""),
        Expression("turn.parity ^ 1", "turn.parity"),
        Statement("parity ^= 1;", ""),
        // Barriers count something else than what comes, or the copy engine does not see them.
        Expression("kConsumers * kGroup / 32", "kConsumers"),
        Statement(
            "barrier_arrive_expecting(filled, kStageBytes);",
            "barrier_arrive_expecting(filled, A::kBytes);",
        ),
        Statement("barriers_publish();", ""),
        // Products are not fenced, grouped or waited for.
        Statement("products_begin();", ""),
        Statement("products_commit();", ""),
        Statement("products_wait<1>();", "products_wait<2>();"),
        Statement("products_end(sums);", ""),
        Expression("slice + step", "1"),
        // A stage is given back while products still read it.
        Statement(
            "used = &ring.empty[turn.stage];",
            "release(&ring.empty[turn.stage]); used = nullptr;",
        ),
        // Operands are described wrongly.
        Expression("1ull << 62", "2ull << 62"),
        Expression("step * 32", "step * 16"),
        Statement(
            "return operand(slice, 16, kGroupBytes) + at / 16;",
            "return operand(slice, 16, kGroupBytes / 2) + at / 16;",
        ),
        Expression(
            "operand(slice, kSquareBytes, kGroupBytes)",
            "operand(slice, kGroupBytes, kSquareBytes)",
        ),
        Expression("step * (32 / kOperandBytes)", "step * 8"),
        Expression(
            "A::part(at, group * kGroupRows, step)",
            "A::part(at, 0, step)",
        ),
        // Results overtake each other on their way through shared memory.
        Statement("group_sync(1 + group, kGroup);", ""),
        Statement("publish_writes();", ""),
        Statement("copies_back_wait<1>();", ""),
        Statement("copies_back_wait<0>();", ""),
        Statement("copies_back_commit();", ""),
        Expression("byte ^ row % 8 * 16", "byte"),
        // More registers than there are.
        Statement("registers_take<232>();", "registers_take<240>();"),
    ];
    let module = Module::GemmTma(HalfType::Bf16);
    check_that_defects_are_found(module, Architecture::Sm90, &defects);
}

/// The same of one whose sums are in memory that several threads share.
#[test]
fn mistakes_of_tcgen05_kernels_are_found() {
    use Defect::{Expression, Statement};
    let defects = [
        // Tensor memory is overwritten before it is read, or read before it is complete.
        Statement("barrier_wait(&written[half.stage], half.parity ^ 1);", ""),
        Statement("barrier_wait(&summed[half.stage], half.parity);", ""),
        Statement("tensor_arrive(&summed[half.stage]);", ""),
        Statement("release(half);", ""),
        Expression("half.parity ^ 1", "half.parity"),
        Expression("kWriters / 32", "1"),
        Statement("tensor_read_end(sums);", ""),
        Expression("down / 32 * 32 << 16", "0"),
        // Stages are given back without waiting for products.
        Statement(
            "tensor_arrive(&ring.empty[turn.stage]);",
            "barrier_arrive(&ring.empty[turn.stage]);",
        ),
        Statement("barrier_wait(&ring.full[turn.stage], turn.parity);", ""),
        // Nobody orders tensor cores with threads.
        Statement("tensor_told();", ""),
        Statement("tensor_tell();", ""),
        Statement("tensor_give_back(*block.tensor);", ""),
        // Descriptions.
        Expression("kOperandVersion | kSwizzle128", "kSwizzle128"),
        Expression("kTransposeA << 15", "kTransposeB << 15"),
        Expression("type << 10", "0"),
        Expression("kTileColumns / 8 << 17", "kTileColumns / 16 << 17"),
        Expression("slice + step", "1"),
        // Results.
        Statement("publish_writes();", ""),
        Statement("copies_back_wait<1>();", ""),
        Statement("group_sync(1, kWriters);", ""),
    ];
    let module = Module::GemmTma(HalfType::Bf16);
    check_that_defects_are_found(module, Architecture::Sm100, &defects);
}

/// Every step of the order in which squares are added, and every wait between threads.
#[test]
fn mistakes_of_sums_of_squares_are_found() {
    use Defect::{Expression, Statement};
    let defects = [
        Statement(
            "// The last sum may still be read.\n    __syncthreads();",
            "",
        ),
        Statement("// All parts are there.\n    __syncthreads();", ""),
        Expression("threadIdx.x % 32 == 0", "threadIdx.x % 32 == 1 && false"),
        // Of a chunk.
        Expression("number_of(element[i])", "number_of(element[count - 1 - i])"),
        Expression("i < count", "true"),
        // Of a lane.
        Expression(
            "turn * kThreads + threadIdx.x",
            "threadIdx.x * kTurns + turn",
        ),
        Expression("squares_of(lot.element, kPerChunk)", "sum - sum"),
        // Ends.
        Expression("begin + kSegment <= count", "begin <= count"),
        Expression("left - at < kPerChunk", "false"),
        Expression("from + skip + begin", "from + begin"),
        // Of segments.
        Expression("static_cast<double>(*to)", "0.0"),
        Expression("before + sum", "before + static_cast<float>(sum)"),
        Expression("sums[i]", "sums[count - 1 - i]"),
    ];
    let module = Module::Squares(ElementType::Bf16);
    check_that_defects_are_found(module, Architecture::Sm80, &defects);
}

#[test]
fn everything_else_of_every_type() {
    let typed = ElementType::ALL.into_iter().flat_map(|element| {
        [
            Module::Stream(element),
            Module::Exact(element),
            Module::Norm(element),
            Module::Squares(element),
            Module::Plain(element),
        ]
    });
    for module in typed.chain([Module::Adam, Module::Clock]) {
        check(module, Architecture::Sm80, &ORDERS[..2]);
    }
}
