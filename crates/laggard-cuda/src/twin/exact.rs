//! Contents that can be checked without rounding; `kernels/exact.cu`. Bit by bit the same.

use super::stream::number;
use crate::ElementType;
use laggard_backend::Element;

/// What differs from what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatches {
    /// How many elements.
    pub count: u64,
    /// The first of them; `None` if there is none.
    pub first: Option<u64>,
}

/// The largest of the integers, in absolute value.
const LARGEST: u32 = 8;

/// How many seeds' integers have a sum that an element holds exactly, whatever they are: the type
/// has 24, 11 or 8 binary digits (IEEE 754, and bfloat16).
pub const fn most_members(element: ElementType) -> u32 {
    let digits = match element {
        ElementType::F32 => 24,
        ElementType::F16 => 11,
        ElementType::Bf16 => 8,
    };
    (1 << digits) / LARGEST
}

/// The integer of a seed at a position, from -8 to 8.
pub fn integer_at(seed: u64, position: u64) -> i32 {
    let hash = mixed(seed.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    ((hash >> 32) % u64::from(2 * LARGEST + 1)) as i32 - LARGEST as i32
}

/// Fills with the integers of a seed; `offset` is the position of the first element.
pub fn fill_exact<T: Element>(to: &mut [T], seed: u64, offset: u64) {
    for (to, position) in to.iter_mut().zip(offset..) {
        *to = T::from_f64(f64::from(integer_at(seed, position)));
    }
}

/// Compares with the sum of the integers of `members` seeds, the first being `seed`.
pub fn verify_exact<T: Element>(from: &[T], seed: u64, offset: u64, members: u32) -> Mismatches {
    let mut found = Mismatches {
        count: 0,
        first: None,
    };
    for (i, element) in (0..).zip(from) {
        let expected: i32 = (0..members)
            .map(|member| integer_at(seed.wrapping_add(u64::from(member)), offset + i))
            .sum();
        // A NaN is unequal to everything.
        if (number(*element) - expected as f32).abs() > 0.0 || number(*element).is_nan() {
            found.count += 1;
            found.first = found.first.or(Some(i));
        }
    }
    found
}

/// The finaliser of splitmix64 (Steele, Lea and Flood 2014).
pub(crate) fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn the_hash_is_the_published_one() {
        // The first numbers of splitmix64 with seed 0.
        let golden = 0x9e37_79b9_7f4a_7c15u64;
        assert_eq!(mixed(golden), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mixed(golden.wrapping_mul(2)), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn all_integers_occur_about_equally_often() {
        let mut counts = [0u32; 17];
        for position in 0..17_000 {
            counts[usize::try_from(integer_at(7, position) + 8).unwrap()] += 1;
        }
        // Six standard deviations of a count whose mean is 1000.
        assert!(
            counts.iter().all(|count| count.abs_diff(1000) < 190),
            "{counts:?}"
        );
    }

    #[test]
    fn sums_of_as_many_members_as_allowed_stay_exact() {
        fn check<T: Element>(element: ElementType) {
            let members = most_members(element).min(300);
            let mut sums = vec![0i32; 64];
            for (position, sum) in (5..).zip(&mut sums) {
                *sum = (0..members)
                    .map(|m| integer_at(u64::from(m), position))
                    .sum();
            }
            let mut values: Vec<T> = sums
                .iter()
                .map(|sum| T::from_f64(f64::from(*sum)))
                .collect();
            assert_eq!(verify_exact(&values, 0, 5, members).count, 0);
            values[9] = T::from_f64(f64::from(sums[9] + 1));
            values[11] = T::from_f64(f64::NAN);
            let found = verify_exact(&values, 0, 5, members);
            assert_eq!((found.count, found.first), (2, Some(9)));
        }
        check::<f32>(ElementType::F32);
        check::<f16>(ElementType::F16);
        check::<bf16>(ElementType::Bf16);
    }

    #[test]
    fn a_part_that_begins_elsewhere_holds_the_same() {
        let mut whole = vec![0.0f32; 100];
        fill_exact(&mut whole, 3, 0);
        let mut part = vec![0.0f32; 40];
        fill_exact(&mut part, 3, 60);
        assert_eq!(whole[60..], part);
    }
}
