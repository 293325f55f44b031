//! Everything but products.

use super::{Bench, bytes};
use crate::twin::{self, AdamState, integer_at, most_members};
use crate::{Argument, CudaError, ElementType};
use laggard_backend::Element;

/// Lengths below, at and above what a thread takes at once and what all threads do.
const COUNTS: [usize; 6] = [1, 3, 4, 8, 1024, 4099];
/// Blocks, and threads of each.
const GRID: (u32, u32) = (3, 64);

/// Numbers that need rounding.
fn numbers<T: Element>(count: usize, seed: u64) -> Vec<T> {
    let number = |i| f64::from(integer_at(seed, i)) * 0.37 + f64::from(integer_at(seed, !i)) / 7.0;
    (0..count as u64).map(|i| T::from_f64(number(i))).collect()
}

pub(super) fn check_streams<T: Element>(bench: &Bench<'_>) -> Result<(), CudaError> {
    for count in COUNTS {
        let [to, a, b] = [0, 1, 2].map(|seed| numbers::<T>(count, seed));
        let buffers = [bytes(&to), bytes(&a), bytes(&b)];
        let [to_at, a_at, b_at] = [0, 1, 2].map(Argument::Buffer);
        let (length, factor) = (Argument::U64(count as u64), Argument::F32(0.3));
        let check = |entry, arguments: &[Argument], expected: &[T]| {
            let found = bench.run(entry, GRID, &buffers, arguments)?;
            let is_right = found[0] == bytes(expected) && found[1..] == buffers[1..];
            bench.expect(is_right, || format!("{entry} of {count} elements"))
        };
        check("copy", &[to_at, a_at, length], &a)?;
        let mut sum = to.clone();
        twin::add(&mut sum, &a);
        check("add", &[to_at, a_at, length], &sum)?;
        twin::triad(&mut sum, &a, &b, 0.3);
        check("triad", &[to_at, a_at, b_at, factor, length], &sum)?;
        let value = T::from_f64(f64::from(0.3f32));
        check("fill", &[to_at, factor, length], &vec![value; count])?;
    }
    Ok(())
}

/// As the kernel leaves it: the count, then the first.
fn mismatches(count: u64, first: u64) -> Vec<u8> {
    [count.to_le_bytes(), first.to_le_bytes()].concat()
}

pub(super) fn check_exact<T: Element>(
    bench: &Bench<'_>,
    element: ElementType,
) -> Result<(), CudaError> {
    let (seed, offset) = (u64::MAX - 1, 1 << 40);
    let members = most_members(element).min(5);
    for count in COUNTS {
        let [length, seed_at, offset_at] = [count as u64, seed, offset].map(Argument::U64);
        let fill = [Argument::Buffer(0), length, seed_at, offset_at];
        let mut expected = numbers::<T>(count, 3);
        let found = bench.run("fill_exact", GRID, &[bytes(&expected)], &fill)?;
        twin::fill_exact(&mut expected, seed, offset);
        bench.expect(found[0] == bytes(&expected), || {
            format!("fill_exact of {count} elements")
        })?;

        let sum = |i: u64| -> i32 {
            let seeds = (0..members).map(|member| seed.wrapping_add(u64::from(member)));
            seeds.map(|seed| integer_at(seed, offset + i)).sum()
        };
        let sums = (0..count as u64).map(|i| T::from_f64(f64::from(sum(i))));
        let mut sums: Vec<T> = sums.collect();
        let rest = [Argument::U32(members), Argument::Buffer(1)];
        let verify = [&fill[..], &rest[..]].concat();
        let check = |sums: &[T], expected: &[u8]| {
            let buffers = [bytes(sums), mismatches(0, u64::MAX)];
            let found = bench.run("verify_exact", GRID, &buffers, &verify)?;
            bench.expect(found[1] == expected, || {
                format!("verify_exact of {count} elements")
            })
        };
        check(&sums, &mismatches(0, u64::MAX))?;
        // The last is wrong, and the middle one no number at all.
        sums[count - 1] = T::from_f64(f64::from(sum(count as u64 - 1)) + 1.0);
        sums[count / 2] = T::from_f64(f64::NAN);
        let wrong = if count == 1 { 1 } else { 2 };
        check(&sums, &mismatches(wrong, count as u64 / 2))?;
    }
    Ok(())
}

/// `rounding` is relative, of the element type.
pub(super) fn check_norm<T: Element>(bench: &Bench<'_>, rounding: f64) -> Result<(), CudaError> {
    let (rows, epsilon) = (5u32, 1e-5f32);
    for columns in [8u32, 256, 2056] {
        let width = columns as usize;
        let mut from = numbers::<T>(rows as usize * width, 4);
        // A row far from zero, and one of equal elements.
        for element in &mut from[width..2 * width] {
            *element = T::from_f64(element.to_f64() + 64.0);
        }
        from[2 * width..3 * width].fill(T::from_f64(3.0));
        let (gain, bias) = (numbers::<T>(width, 5), numbers::<T>(width, 6));
        let mut expected = vec![T::from_f64(f64::NAN); from.len()];
        let buffers = [bytes(&expected), bytes(&from), bytes(&gain), bytes(&bias)];
        let [to, at, gain_at, bias_at] = [0, 1, 2, 3].map(Argument::Buffer);
        let rest = [Argument::U32(columns), Argument::F32(epsilon)];
        let arguments = [&[to, at, gain_at, bias_at], &rest[..]].concat();
        let found = bench.run("layer_norm", (rows, 256), &buffers, &arguments)?;
        twin::layer_norm(&mut expected, &from, (&gain, &bias), epsilon);
        // A hundred roundings of f32, of numbers of about ten.
        let is_close = |found: &[u8], expected: &T| {
            let found = bytemuck::pod_read_unaligned::<T>(found).to_f64();
            let expected = expected.to_f64();
            (found - expected).abs() <= rounding * expected.abs() + 1e-4
        };
        let pairs = found[0].chunks(size_of::<T>()).zip(&expected);
        let wrong = pairs
            .enumerate()
            .find(|(_, (found, expected))| !is_close(found, expected));
        bench.expect(wrong.is_none(), || {
            let at = wrong.map_or(0, |(at, _)| at);
            let (row, column) = (at / width, at % width);
            format!("layer_norm of rows of {columns}: row {row}, column {column}")
        })?;
    }
    Ok(())
}

pub(super) fn check_adam(bench: &Bench<'_>) -> Result<(), CudaError> {
    for count in COUNTS {
        let [mut p, gradients, mut m] = [7, 8, 9].map(|seed| numbers::<f32>(count, seed));
        let mut v: Vec<f32> = numbers::<f32>(count, 10).iter().map(|x| x * x).collect();
        let buffers = [bytes(&p), bytes(&gradients), bytes(&m), bytes(&v)];
        let [p_at, g_at, m_at, v_at] = [0, 1, 2, 3].map(Argument::Buffer);
        let rest = [Argument::F32(0.01), Argument::U64(count as u64)];
        let arguments = [&[p_at, g_at, m_at, v_at], &rest[..]].concat();
        let found = bench.run("adam", GRID, &buffers, &arguments)?;
        let mut state = AdamState {
            parameters: &mut p,
            first_moments: &mut m,
            second_moments: &mut v,
        };
        twin::adam(&mut state, &gradients, 0.01);
        let expected = [bytes(&p), bytes(&gradients), bytes(&m), bytes(&v)];
        bench.expect(found == expected, || format!("adam of {count} elements"))?;
    }
    Ok(())
}

/// Time has no twin: stamps are there, and no fewer cycles pass than were wanted.
pub(super) fn check_clock(bench: &Bench<'_>) -> Result<(), CudaError> {
    let zero = [vec![0; 8]];
    let run = |entry, arguments: &[Argument]| {
        let found = bench.run(entry, (1, 1), &zero, arguments)?;
        let bytes = found[0].first_chunk().copied().unwrap_or_default();
        Ok::<u64, CudaError>(u64::from_le_bytes(bytes))
    };
    let at_ns = run("stamp", &[Argument::Buffer(0)])?;
    bench.expect(at_ns > 0, || "stamp wrote nothing".to_owned())?;
    for wanted in [1u64, 1000, 100_000] {
        let spent = run("spin", &[Argument::U64(wanted), Argument::Buffer(0)])?;
        bench.expect(spent >= wanted, || {
            format!("spin took {spent} cycles instead of {wanted}")
        })?;
    }
    check_meeting(bench)
}

/// One kernel alone meets itself as often as it is to, and gives up where another does not come.
fn check_meeting(bench: &Bench<'_>) -> Result<(), CudaError> {
    let rounds = 3;
    let words = [vec![0; 64]];
    for (members, limit, completed) in [(1, u64::MAX, rounds), (2, 1000, 0)] {
        let numbers = [0, members, rounds].map(Argument::U32);
        let limit = Argument::U64(limit);
        let arguments = [&[Argument::Buffer(0)], &numbers[..], &[limit]].concat();
        let found = bench.run("meet_others", (1, 1), &words, &arguments)?;
        let (found, _) = found[0].as_chunks::<8>();
        let [round, begin_ns, end_ns, met] = [0, 1, 2, 3].map(|at| u64::from_le_bytes(found[at]));
        let is_right = round >= 1 && met == u64::from(completed) && begin_ns <= end_ns;
        bench.expect(is_right && begin_ns > 0, || {
            format!("meet_others of {members} completed {met} rounds, from {begin_ns} to {end_ns}")
        })?;
    }
    Ok(())
}
