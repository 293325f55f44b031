//! Sums of squares, whose order is prescribed: numbers need rounding at every step of it.

use super::{Bench, bytes};
use crate::twin::{self, integer_at};
use crate::{Argument, CudaError};
use laggard_backend::Element;
use laggard_backend::squares::{LANES, segment_len};

/// Numbers of so many sizes that sums of their squares lose digits, others in any other order.
fn numbers<T: Element>(count: usize) -> Vec<T> {
    let number = |i| {
        let size = integer_at(11, i).rem_euclid(25) - 12;
        (f64::from(integer_at(12, i).rem_euclid(8)) + 0.37) * 2f64.powi(size)
    };
    (0..count as u64).map(|i| T::from_f64(number(i))).collect()
}

/// Numbers of which so little is left in the end that it is what was lost on the way.
fn cancelling(count: usize) -> Vec<f64> {
    let mut all = numbers::<f64>(count);
    let half = count / 2;
    for i in 0..half {
        all[count - 1 - i] = -all[i] * (1.0 + f64::EPSILON);
    }
    all
}

pub(super) fn check<T: Element>(bench: &Bench<'_>) -> Result<(), CudaError> {
    let segment = segment_len::<T>();
    // Ends within a chunk, a turn and a segment, and several segments for a block.
    for count in [1, 9, 2049, segment, segment + 5, 4 * segment + 4099] {
        for skip in [0, 1, 3] {
            check_segments::<T>(bench, (count, skip))?;
        }
    }
    for count in [0, 1, 255, 256, 1000] {
        for accumulate in [false, true] {
            check_sum(bench, (count, accumulate))?;
        }
    }
    Ok(())
}

fn check_segments<T: Element>(
    bench: &Bench<'_>,
    (count, skip): (usize, usize),
) -> Result<(), CudaError> {
    let from = numbers::<T>(skip + count);
    let mut sums = vec![f64::NAN; count.div_ceil(segment_len::<T>())];
    let buffers = [bytes(&sums), bytes(&from)];
    let arguments = [
        Argument::Buffer(0),
        Argument::Buffer(1),
        Argument::U32(skip as u32),
        Argument::U64(count as u64),
    ];
    let found = bench.run("square_sums", (2, LANES as u32), &buffers, &arguments)?;
    twin::square_sums(&mut sums, &from[skip..]);
    let is_right = found[0] == bytes(&sums) && found[1] == buffers[1];
    bench.expect(is_right, || {
        format!("square_sums of {count} elements after {skip}")
    })
}

fn check_sum(bench: &Bench<'_>, (count, accumulate): (usize, bool)) -> Result<(), CudaError> {
    // A buffer of nothing has no address.
    let sums = cancelling(count.max(1));
    let mut to = 1234.567f32;
    let buffers = [bytes(&[to]), bytes(&sums)];
    let arguments = [
        Argument::Buffer(0),
        Argument::Buffer(1),
        Argument::U64(count as u64),
        Argument::U32(accumulate.into()),
    ];
    let found = bench.run("sum_squares", (1, LANES as u32), &buffers, &arguments)?;
    twin::sum_squares(&mut to, &sums[..count], accumulate);
    let is_right = found[0] == bytes(&[to]) && found[1] == buffers[1];
    bench.expect(is_right, || format!("sum_squares of {count} segments"))
}
