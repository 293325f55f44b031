//! The sum of squares, in an order that nothing but the number and the type of the elements
//! decides: every device gives the same bits, however many threads it has.
//!
//! Elements are taken in chunks of 16 bytes, chunks in segments of 256 lanes x 16 turns. A lane has
//! one chunk of each turn: it adds the squares of a chunk in f32, one after the other, and its
//! chunks in f64. Lanes are added by halves within groups of 32 (lane 0 with lane 16 and so on,
//! then the sums with those 8, 4, 2 and 1 lanes on), and the eight groups one after the other.
//! Segments are added in f64 by as many lanes, each of which has one in 256 of them.

use crate::Element;

/// Lanes, which are the threads of a block on GPUs.
pub const LANES: usize = 256;
/// Lanes that are added by halves: a warp of GPUs.
const GROUP: usize = 32;
/// Chunks of a lane in a segment.
const TURNS: usize = 16;
/// Bytes of a chunk: what a GPU's thread loads at once.
const CHUNK_BYTES: usize = 16;

/// Elements of a segment.
pub const fn segment_len<T: Element>() -> usize {
    LANES * TURNS * (CHUNK_BYTES / size_of::<T>())
}

/// The squared Euclidean norm; 0 of nothing. Not a number, or infinite, where squares are that in
/// f32.
pub fn squared_norm<T: Element>(elements: &[T]) -> f64 {
    let segments = elements.chunks(segment_len::<T>());
    sum_of_segments(segments.map(squares_of_segment))
}

/// The sum of squares of one segment, or of what there is of the last one.
#[inline]
pub fn squares_of_segment<T: Element>(segment: &[T]) -> f64 {
    let chunk = CHUNK_BYTES / size_of::<T>();
    let mut lanes = [0.0; LANES];
    for turn in segment.chunks(LANES * chunk) {
        for (lane, chunk) in lanes.iter_mut().zip(turn.chunks(chunk)) {
            let number = |element: &T| element.to_f64() as f32;
            let squares = chunk.iter().map(number).map(|x| x * x);
            *lane += f64::from(squares.fold(0.0f32, |sum, square| sum + square));
        }
    }
    folded(lanes)
}

/// The sum of the sums of segments, which come in order.
pub fn sum_of_segments(segments: impl Iterator<Item = f64>) -> f64 {
    let mut lanes = [0.0; LANES];
    for (at, segment) in segments.enumerate() {
        lanes[at % LANES] += segment;
    }
    folded(lanes)
}

/// The sum over all lanes.
fn folded(mut lanes: [f64; LANES]) -> f64 {
    let groups = lanes.chunks_mut(GROUP).map(|group| {
        let mut half = GROUP / 2;
        while half > 0 {
            let (low, high) = group.split_at_mut(half);
            low.iter_mut()
                .zip(high)
                .for_each(|(low, high)| *low += *high);
            half /= 2;
        }
        group[0]
    });
    groups.fold(0.0, |sum, group| sum + group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    /// Relative to a sum in f64 alone.
    fn check<T: Element>(elements: &[T], limit: f64) {
        let expect: f64 = elements.iter().map(|x| x.to_f64().powi(2)).sum();
        let found = squared_norm(elements);
        let error = (found - expect).abs();
        assert!(error <= limit * expect, "{found}, not {expect}");
    }

    #[test]
    fn norms_are_those_of_f64_to_the_roundings_of_a_chunk() {
        for len in [0, 1, 3, 4, 5, 1024, 16_384, 16_385, 100_003] {
            let number = |i: usize| ((i * 7919 % 1000) as f32 - 500.0) * 0.37;
            let numbers: Vec<f32> = (0..len).map(number).collect();
            // A square and three sums of numbers of one sign, each rounded to 24 bits.
            check(&numbers, 4.0 * 2f64.powi(-24));
            let halves: Vec<bf16> = numbers.iter().map(|x| bf16::from_f32(*x)).collect();
            // Squares of 8 bits are exact.
            check(&halves, 7.0 * 2f64.powi(-24));
        }
    }

    /// Each step of the order shows in the last bits, or it would not be known.
    #[test]
    #[expect(clippy::float_cmp, reason = "bits are what is promised")]
    fn the_order_is_the_one_that_is_written_down() {
        // In a chunk: 2^24 + 1 is no f32, so that ones after it are lost and ones before are not.
        assert_eq!(squared_norm(&[4096.0f32, 1.0, 1.0]), 2f64.powi(24));
        assert_eq!(squared_norm(&[1.0f32, 1.0, 4096.0]), 2f64.powi(24) + 2.0);
        // Chunks are added in f64.
        let chunks = [4096.0f32, 0.0, 0.0, 0.0, 1.0];
        assert_eq!(squared_norm(&chunks), 2f64.powi(24) + 1.0);
        // Of lanes, 2^53 + 1 is no f64: lanes 0, 16 and 8 of a group are added in this order.
        let lanes = |of: &[(usize, f64)]| {
            let mut lanes = [0.0; LANES];
            of.iter().for_each(|(lane, value)| lanes[*lane] = *value);
            folded(lanes)
        };
        let huge = 2f64.powi(53);
        assert_eq!(lanes(&[(0, huge), (16, 1.0), (8, 1.0)]), huge);
        assert_eq!(lanes(&[(0, huge), (8, 1.0), (24, 1.0)]), huge + 2.0);
        // Groups are added one after the other.
        assert_eq!(lanes(&[(0, huge), (32, 1.0), (64, 1.0)]), huge);
        assert_eq!(lanes(&[(0, 1.0), (32, 1.0), (64, huge)]), huge + 2.0);
        // Segments 0 and 256 have a lane in common.
        let segments = |of: &[(usize, f64)]| {
            let value = |at| of.iter().find(|(it, _)| *it == at).map_or(0.0, |it| it.1);
            sum_of_segments((0..300).map(value))
        };
        assert_eq!(segments(&[(0, huge), (256, 1.0), (16, 1.0)]), huge);
        assert_eq!(segments(&[(0, huge), (16, 1.0), (272, 1.0)]), huge + 2.0);
    }

    #[test]
    fn what_is_no_number_stays_none() {
        assert!(squared_norm(&[1.0f32, f32::NAN, 2.0]).is_nan());
        assert!(squared_norm(&[1e30f32]).is_infinite());
    }
}
