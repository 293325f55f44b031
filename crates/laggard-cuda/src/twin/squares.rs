//! Sums of squares; `kernels/squares.cu`. Bit by bit the same, as the order is prescribed.

use laggard_backend::Element;
use laggard_backend::squares::{segment_len, squares_of_segment, sum_of_segments};

/// The sum of squares of each segment.
pub fn square_sums<T: Element>(sums: &mut [f64], from: &[T]) {
    let segments = from.chunks(segment_len::<T>());
    for (sum, segment) in sums.iter_mut().zip(segments) {
        *sum = squares_of_segment(segment);
    }
}

/// The sum of all segments, or what there was before and that sum, rounded once.
pub fn sum_squares(to: &mut f32, sums: &[f64], accumulate: bool) {
    let before = if accumulate { f64::from(*to) } else { 0.0 };
    *to = (before + sum_of_segments(sums.iter().copied())) as f32;
}
