//! Everything but products.

use crate::machine::{Argument, Grid, Machine};
use crate::{ORDERS, machine};
use half::{bf16, f16};
use laggard_backend::Element;
use laggard_cuda::twin::{self, AdamState, integer_at, most_members};
use laggard_cuda::{Architecture, ElementType, Module};

/// Lengths below, at and above what a thread takes at once and what all threads do.
const COUNTS: [usize; 6] = [1, 3, 4, 8, 1024, 4099];
const GRID: Grid = Grid {
    blocks: 3,
    threads: 64,
};

fn bytes<T: Element>(elements: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(elements).to_vec()
}

/// Numbers that need rounding, with the seed's signs.
fn numbers<T: Element>(count: usize, seed: u64) -> Vec<T> {
    let number = |i| f64::from(integer_at(seed, i)) * 0.37 + f64::from(integer_at(seed, !i)) / 7.0;
    (0..count as u64).map(|i| T::from_f64(number(i))).collect()
}

fn run(
    machine: &Machine,
    entry: &str,
    buffers: &[Vec<u8>],
    arguments: &[Argument],
) -> Vec<Vec<u8>> {
    let runs = ORDERS.map(|order| machine.launch((entry, GRID, order), buffers, arguments));
    assert!(
        runs.iter().all(|run| *run == runs[0]),
        "{entry} depends on the order of threads"
    );
    runs.into_iter().next().expect("several orders")
}

fn check_streams<T: Element>(element: ElementType) {
    let Some(machine) = machine(Module::Stream(element), Architecture::Sm80) else {
        return;
    };
    for count in COUNTS {
        let (to, a, b) = (
            numbers::<T>(count, 0),
            numbers::<T>(count, 1),
            numbers::<T>(count, 2),
        );
        let buffers = [bytes(&to), bytes(&a), bytes(&b)];
        let [to_at, a_at, b_at] = [0, 1, 2].map(Argument::Buffer);
        let [to_at, a_at, b_at] = [&to_at, &a_at, &b_at].map(Clone::clone);
        let length = Argument::U64(count as u64);

        let arguments = [to_at.clone(), a_at.clone(), length.clone()];
        let found = run(&machine, "copy", &buffers, &arguments);
        assert_eq!(found[0], bytes(&a), "copy of {count} {element:?}");

        let found = run(&machine, "add", &buffers, &arguments);
        let mut expected = to.clone();
        twin::add(&mut expected, &a);
        assert_eq!(found[0], bytes(&expected), "add of {count} {element:?}");

        let arguments = [
            to_at.clone(),
            a_at,
            b_at,
            Argument::F32(0.3),
            length.clone(),
        ];
        let found = run(&machine, "triad", &buffers, &arguments);
        twin::triad(&mut expected, &a, &b, 0.3);
        assert_eq!(found[0], bytes(&expected), "triad of {count} {element:?}");

        let found = run(
            &machine,
            "fill",
            &buffers,
            &[to_at, Argument::F32(0.3), length],
        );
        let value = T::from_f64(f64::from(0.3f32));
        assert_eq!(
            found[0],
            bytes(&vec![value; count]),
            "fill of {count} {element:?}"
        );
    }
}

#[test]
fn streams_of_every_type() {
    check_streams::<f32>(ElementType::F32);
    check_streams::<f16>(ElementType::F16);
    check_streams::<bf16>(ElementType::Bf16);
}

/// As the kernel leaves it: the count, then the first.
fn mismatches(bytes: &[u8]) -> (u64, u64) {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    (number(0), number(8))
}

fn check_exact<T: Element>(element: ElementType) {
    let Some(machine) = machine(Module::Exact(element), Architecture::Sm80) else {
        return;
    };
    let (seed, offset) = (u64::MAX - 1, 1 << 40);
    let none = [0u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat();
    let members = most_members(element).min(5);
    for count in COUNTS {
        let length = Argument::U64(count as u64);
        let place = [Argument::U64(seed), Argument::U64(offset)];
        let mut expected = numbers::<T>(count, 3);
        let fill = [&[Argument::Buffer(0), length.clone()], &place[..]].concat();
        let found = run(&machine, "fill_exact", &[bytes(&expected)], &fill);
        twin::fill_exact(&mut expected, seed, offset);
        assert_eq!(found[0], bytes(&expected), "fill of {count} {element:?}");

        let sum = |i: u64| -> i32 {
            let seeds = (0..members).map(|m| seed.wrapping_add(u64::from(m)));
            seeds.map(|seed| integer_at(seed, offset + i)).sum()
        };
        let mut sums: Vec<T> = (0..count as u64)
            .map(|i| T::from_f64(f64::from(sum(i))))
            .collect();
        let rest = [Argument::U32(members), Argument::Buffer(1)];
        let verify = [&[Argument::Buffer(0), length], &place[..], &rest[..]].concat();
        let found = run(
            &machine,
            "verify_exact",
            &[bytes(&sums), none.clone()],
            &verify,
        );
        assert_eq!(mismatches(&found[1]), (0, u64::MAX), "{count} {element:?}");
        // The last is wrong, and the middle one no number at all.
        sums[count - 1] = T::from_f64(f64::from(sum(count as u64 - 1)) + 1.0);
        sums[count / 2] = T::from_f64(f64::NAN);
        let found = run(
            &machine,
            "verify_exact",
            &[bytes(&sums), none.clone()],
            &verify,
        );
        let expected = twin::verify_exact(&sums, seed, offset, members);
        assert_eq!(expected.count, if count == 1 { 1 } else { 2 });
        let first = expected.first.expect("a mismatch");
        assert_eq!(
            mismatches(&found[1]),
            (expected.count, first),
            "{count} {element:?}"
        );
    }
}

#[test]
fn exact_contents_of_every_type() {
    check_exact::<f32>(ElementType::F32);
    check_exact::<f16>(ElementType::F16);
    check_exact::<bf16>(ElementType::Bf16);
}

fn check_norm<T: Element>(element: ElementType, rounding: f64) {
    let Some(machine) = machine(Module::Norm(element), Architecture::Sm80) else {
        return;
    };
    let (rows, epsilon) = (5usize, 1e-5f32);
    for columns in [8usize, 256, 2056] {
        let mut from = numbers::<T>(rows * columns, 4);
        // A row far from zero, and one of equal elements.
        for element in &mut from[columns..2 * columns] {
            *element = T::from_f64(element.to_f64() + 64.0);
        }
        from[2 * columns..3 * columns].fill(T::from_f64(3.0));
        let (gain, bias) = (numbers::<T>(columns, 5), numbers::<T>(columns, 6));
        let mut expected = vec![T::from_f64(f64::NAN); rows * columns];
        let buffers = [bytes(&expected), bytes(&from), bytes(&gain), bytes(&bias)];
        let columns_argument = u32::try_from(columns).expect("few columns");
        let arguments: Vec<Argument> = (0..4)
            .map(Argument::Buffer)
            .chain([Argument::U32(columns_argument), Argument::F32(epsilon)])
            .collect();
        let grid = Grid {
            blocks: 5,
            threads: 256,
        };
        twin::layer_norm(&mut expected, &from, (&gain, &bias), epsilon);
        for order in ORDERS {
            let found = machine.launch(("layer_norm", grid, order), &buffers, &arguments);
            let found: &[T] = bytemuck::cast_slice(&found[0]);
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let (found, expected) = (found.to_f64(), expected.to_f64());
                let allowed = rounding * expected.abs() + 1e-4;
                assert!(
                    (found - expected).abs() <= allowed,
                    "{at} of {columns} {element:?}: {found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn norms_of_every_type() {
    // One unit in the last place of each type.
    check_norm::<f32>(ElementType::F32, 2f64.powi(-23));
    check_norm::<f16>(ElementType::F16, 2f64.powi(-10));
    check_norm::<bf16>(ElementType::Bf16, 2f64.powi(-7));
}

#[test]
fn adam_has_the_bits_of_its_twin() {
    let Some(machine) = machine(Module::Adam, Architecture::Sm80) else {
        return;
    };
    for count in COUNTS {
        let mut p = numbers::<f32>(count, 7);
        let gradients = numbers::<f32>(count, 8);
        let mut m = numbers::<f32>(count, 9);
        let mut v: Vec<f32> = numbers::<f32>(count, 10).iter().map(|x| x * x).collect();
        let buffers = [bytes(&p), bytes(&gradients), bytes(&m), bytes(&v)];
        let arguments: Vec<Argument> = (0..4)
            .map(Argument::Buffer)
            .chain([Argument::F32(0.01), Argument::U64(count as u64)])
            .collect();
        let found = run(&machine, "adam", &buffers, &arguments);
        let mut state = AdamState {
            parameters: &mut p,
            first_moments: &mut m,
            second_moments: &mut v,
        };
        twin::adam(&mut state, &gradients, 0.01);
        let expected = [bytes(&p), bytes(&gradients), bytes(&m), bytes(&v)];
        assert!(found == expected, "{count} elements");
    }
}

#[test]
fn clocks_are_read_and_cycles_spent() {
    let Some(machine) = machine(Module::Clock, Architecture::Sm80) else {
        return;
    };
    let grid = Grid {
        blocks: 1,
        threads: 1,
    };
    let zero = [vec![0; 8]];
    let number = |buffers: &[Vec<u8>]| u64::from_le_bytes(buffers[0][..].try_into().expect("8"));
    let found = machine.launch(("stamp", grid, ORDERS[0]), &zero, &[Argument::Buffer(0)]);
    assert!(number(&found) > 0);
    for wanted in [0u64, 1, 1000] {
        let arguments = [Argument::U64(wanted), Argument::Buffer(0)];
        let found = machine.launch(("spin", grid, ORDERS[0]), &zero, &arguments);
        // The emulated clock goes by sevens.
        assert!((wanted..wanted + 7).contains(&number(&found)), "{wanted}");
    }
}
