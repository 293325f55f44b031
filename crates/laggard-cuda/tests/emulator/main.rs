//! Every kernel, executed by the CPU thread by thread and compared with its twin: what a machine
//! without a GPU can know of which thread reads and writes what, and after which barrier. What the
//! GPU's own instructions do is written down in `ptx.cuh` of this folder, and believed here. Needs
//! a C++ compiler; without one these tests say so and pass, unless `LAGGARD_REQUIRE` holds `cuda`.

#![expect(clippy::print_stderr, reason = "a test that skips says so")]

mod machine;

use laggard_cuda::{Architecture, ElementType, HalfType, Module, self_check};
use machine::{Machine, Order};

/// Threads from the first, copies late; from the last; and copies that arrive at once.
const ORDERS: [Order; 3] = [
    Order {
        backwards: false,
        early: false,
    },
    Order {
        backwards: true,
        early: false,
    },
    Order {
        backwards: true,
        early: true,
    },
];

fn check(module: Module, architecture: Architecture, orders: &[Order]) {
    let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|word| word == "cuda");
    for order in orders {
        match Machine::new(module, architecture, *order) {
            Ok(machine) => self_check(&machine, module)
                .unwrap_or_else(|error| panic!("{error}\nwith {order:?}")),
            Err(gap) => {
                assert!(!is_required, "{gap}\nand LAGGARD_REQUIRE asks for cuda");
                eprintln!("SKIPPED: {gap}\nhint: install g++");
            }
        }
    }
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
fn everything_else_of_every_type() {
    let typed = ElementType::ALL.into_iter().flat_map(|element| {
        [
            Module::Stream(element),
            Module::Exact(element),
            Module::Norm(element),
        ]
    });
    for module in typed.chain([Module::Adam, Module::Clock]) {
        check(module, Architecture::Sm80, &ORDERS[..2]);
    }
}
