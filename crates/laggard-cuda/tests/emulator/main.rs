//! Every kernel, executed by the CPU thread by thread and compared with its twin: what a machine
//! without a GPU can know of which thread reads and writes what, and after which barrier. What the
//! GPU's own instructions do is written down in `ptx.cuh` of this folder, and believed here. Needs
//! a C++ compiler; without one these tests say so and pass, unless `LAGGARD_REQUIRE` holds `cuda`.

#![expect(clippy::print_stderr, reason = "a test that skips says so")]

mod machine;
mod products;
mod streams;

use laggard_cuda::{Architecture, Module};
use machine::{Machine, Order};

/// Every order that the tests try.
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

/// The machine, or `None` after saying what is missing.
fn machine(module: Module, architecture: Architecture) -> Option<Machine> {
    let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|word| word == "cuda");
    match Machine::new(module, architecture) {
        Ok(machine) => Some(machine),
        Err(gap) => {
            assert!(!is_required, "{gap}\nand LAGGARD_REQUIRE asks for cuda");
            eprintln!("SKIPPED: {gap}\nhint: install g++");
            None
        }
    }
}
