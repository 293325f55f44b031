//! Reducing elements of many ranks into one block, vectorised for the processor at run time. 16-bit
//! floats are summed in `f32` and rounded once. Knows slices of elements, nothing of ranks or
//! memory.

use crate::buffer::with_element;
use crate::{Element, WriteClaim};
use bytemuck::{Pod, Zeroable};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use laggard_types::ReduceOp;
use pulp::Arch;

/// An element with the type that it is accumulated in.
pub(super) trait Reduce: Element {
    type Sum: Number;

    /// `sums = from`.
    fn load(from: &[Self], sums: &mut [Self::Sum]);

    /// `sums = op(a, b)`, element by element, in one pass where that is possible.
    fn pair(op: ReduceOp, a: &[Self], b: &[Self], sums: &mut [Self::Sum]);

    /// `sums = op(sums, from)`, element by element.
    fn fold(op: ReduceOp, from: &[Self], sums: &mut [Self::Sum]);

    /// `to = sums`, rounded to the element type.
    fn store(sums: &[Self::Sum], to: &mut [Self]);

    /// Turns sums of `ranks` elements into the result of the reduction.
    fn finish(op: ReduceOp, ranks: u32, sums: &mut [Self::Sum]) {
        if op == ReduceOp::Avg {
            each(sums, |sum| sum.divided_by(ranks));
        }
    }
}

/// Arithmetic of an accumulator. Integers wrap on overflow, as they do in NCCL and MPI; of a number
/// and a NaN, `smaller` and `larger` take the number.
pub(super) trait Number: Pod {
    fn plus(self, other: Self) -> Self;
    fn smaller(self, other: Self) -> Self;
    fn larger(self, other: Self) -> Self;
    /// Integers are truncated toward zero.
    fn divided_by(self, ranks: u32) -> Self;
}

macro_rules! number {
    ($type:ty, $plus:expr, $divide:expr) => {
        impl Number for $type {
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                $plus(self, other)
            }
            #[inline(always)]
            fn smaller(self, other: Self) -> Self {
                self.min(other)
            }
            #[inline(always)]
            fn larger(self, other: Self) -> Self {
                self.max(other)
            }
            #[inline(always)]
            fn divided_by(self, ranks: u32) -> Self {
                $divide(self, ranks)
            }
        }
    };
}

number!(f32, |a: f32, b: f32| a + b, |a: f32, n: u32| a / n as f32);
number!(f64, |a: f64, b: f64| a + b, |a: f64, n: u32| a / f64::from(
    n
));
number!(
    i32,
    i32::wrapping_add,
    |a: i32, n: u32| (i64::from(a) / i64::from(n)) as i32
);
number!(i64, i64::wrapping_add, |a: i64, n: u32| a / i64::from(n));

macro_rules! reduce_as_itself {
    ($($type:ty),*) => {$(
        impl Reduce for $type {
            type Sum = Self;
            fn load(from: &[Self], sums: &mut [Self]) {
                sums.copy_from_slice(from);
            }
            fn pair(op: ReduceOp, a: &[Self], b: &[Self], sums: &mut [Self]) {
                pair_as(op, (a, b), sums, #[inline(always)] |x| x);
            }
            fn fold(op: ReduceOp, from: &[Self], sums: &mut [Self]) {
                fold_as(op, from, sums, #[inline(always)] |x| x);
            }
            fn store(sums: &[Self], to: &mut [Self]) {
                to.copy_from_slice(sums);
            }
        }
    )*};
}

reduce_as_itself!(f32, f64, i32, i64);

/// Turns sums over `ranks` ranks into averages, as [`ReduceOp::Avg`] does it: for backends that can
/// only sum.
pub fn divide_sums(sums: &mut WriteClaim, ranks: u32) {
    with_element!(sums.data_type(), T => divide(sums.slice_mut::<T>(), ranks));
}

fn divide<T: Reduce>(elements: &mut [T], ranks: u32) {
    let mut sums = [T::Sum::zeroed(); WIDENED_AT_ONCE];
    for elements in elements.chunks_mut(WIDENED_AT_ONCE) {
        let sums = &mut sums[..elements.len()];
        T::load(elements, sums);
        T::finish(ReduceOp::Avg, ranks, sums);
        T::store(sums, elements);
    }
}

impl Reduce for bf16 {
    type Sum = f32;

    fn load(from: &[Self], sums: &mut [f32]) {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (sum, x) in sums.iter_mut().zip(from) {
                    *sum = widened(*x);
                }
            },
        );
    }

    fn pair(op: ReduceOp, a: &[Self], b: &[Self], sums: &mut [f32]) {
        pair_as(op, (a, b), sums, widened);
    }

    fn fold(op: ReduceOp, from: &[Self], sums: &mut [f32]) {
        fold_as(op, from, sums, widened);
    }

    fn store(sums: &[f32], to: &mut [Self]) {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (to, sum) in to.iter_mut().zip(sums) {
                    *to = rounded(*sum);
                }
            },
        );
    }
}

/// Exact: a bf16 is the upper half of an f32.
#[inline(always)]
fn widened(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// To the nearest, ties to even. Without branches, which `bf16::from_f32` has, so that it
/// vectorises.
#[inline(always)]
fn rounded(x: f32) -> bf16 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet_nan = (bits >> 16) | 0x40;
    bf16::from_bits(if x.is_nan() { quiet_nan } else { nearest } as u16)
}

/// Elements that are widened at a time: small enough for the stack and the nearest cache.
const WIDENED_AT_ONCE: usize = 512;

impl Reduce for f16 {
    type Sum = f32;

    fn load(from: &[Self], sums: &mut [f32]) {
        from.convert_to_f32_slice(sums);
    }

    fn pair(op: ReduceOp, a: &[Self], b: &[Self], sums: &mut [f32]) {
        Self::load(a, sums);
        Self::fold(op, b, sums);
    }

    fn fold(op: ReduceOp, from: &[Self], sums: &mut [f32]) {
        let mut wide = [0.0f32; WIDENED_AT_ONCE];
        for (from, sums) in from
            .chunks(WIDENED_AT_ONCE)
            .zip(sums.chunks_mut(WIDENED_AT_ONCE))
        {
            let wide = &mut wide[..from.len()];
            from.convert_to_f32_slice(wide);
            f32::fold(op, wide, sums);
        }
    }

    fn store(sums: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(sums);
    }
}

fn fold_as<T: Copy, S: Number>(
    op: ReduceOp,
    from: &[T],
    sums: &mut [S],
    widen: impl Fn(T) -> S + Copy,
) {
    match op {
        ReduceOp::Sum | ReduceOp::Avg => zip(from, sums, |sum, x| sum.plus(widen(x))),
        ReduceOp::Min => zip(from, sums, |sum, x| sum.smaller(widen(x))),
        ReduceOp::Max => zip(from, sums, |sum, x| sum.larger(widen(x))),
    }
}

fn pair_as<T: Copy, S: Number>(
    op: ReduceOp,
    (a, b): (&[T], &[T]),
    sums: &mut [S],
    widen: impl Fn(T) -> S + Copy,
) {
    match op {
        ReduceOp::Sum | ReduceOp::Avg => zip_pair((a, b), sums, |a, b| widen(a).plus(widen(b))),
        ReduceOp::Min => zip_pair((a, b), sums, |a, b| widen(a).smaller(widen(b))),
        ReduceOp::Max => zip_pair((a, b), sums, |a, b| widen(a).larger(widen(b))),
    }
}

fn zip_pair<T: Copy, S: Number>((a, b): (&[T], &[T]), sums: &mut [S], apply: impl Fn(T, T) -> S) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum = apply(*a, *b);
            }
        },
    );
}

fn zip<T: Copy, S: Number>(from: &[T], sums: &mut [S], apply: impl Fn(S, T) -> S) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (sum, x) in sums.iter_mut().zip(from) {
                *sum = apply(*sum, *x);
            }
        },
    );
}

fn each<S: Number>(sums: &mut [S], apply: impl Fn(S) -> S) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for sum in sums.iter_mut() {
                *sum = apply(*sum);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_bf16_is_that_of_half() {
        for high in 0..=u16::MAX {
            for low in [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(high) << 16 | low);
                let (ours, theirs) = (rounded(x), bf16::from_f32(x));
                assert_eq!(ours.to_bits(), theirs.to_bits(), "{x} = {:#x}", x.to_bits());
            }
            let x = bf16::from_bits(high);
            assert!(x.is_nan() || widened(x).to_bits() == x.to_f32().to_bits());
        }
    }

    #[test]
    fn sixteen_bit_sums_are_rounded_once() {
        // 1 + 1/256 + 1/256 is representable, but 1 + 1/256 is not.
        let parts = [1.0, 1.0 / 256.0, 1.0 / 256.0].map(bf16::from_f64);
        let mut sums = [0.0];
        bf16::load(&parts[..1], &mut sums);
        bf16::fold(ReduceOp::Sum, &parts[1..2], &mut sums);
        bf16::fold(ReduceOp::Sum, &parts[2..], &mut sums);
        let mut out = [bf16::ZERO];
        bf16::store(&sums, &mut out);
        assert_eq!(out, [bf16::from_f64(1.0 + 1.0 / 128.0)]);
    }

    #[test]
    fn integer_averages_truncate_toward_zero_and_sums_wrap() {
        let mut sums = [-7, 7, i32::MAX];
        i32::fold(ReduceOp::Avg, &[0, 0, 1], &mut sums);
        assert_eq!(sums, [-7, 7, i32::MIN]);
        i32::finish(ReduceOp::Avg, 2, &mut sums);
        assert_eq!(sums, [-3, 3, i32::MIN / 2]);
    }

    #[test]
    fn sums_become_averages_in_every_type() {
        for data_type in laggard_types::DataType::ALL {
            let buffer = crate::Buffer::Host(crate::HostMemory::zeroed(data_type, 1001).unwrap());
            let slice = crate::Slice::new(&buffer, 1..1000).unwrap();
            slice.write_numbers(&[-12.0; 999]).unwrap();
            divide_sums(&mut slice.claim_write().unwrap(), 4);
            let mut want = vec![-3.0; 1001];
            (want[0], want[1000]) = (0.0, 0.0);
            let found = crate::Slice::whole(&buffer).read_numbers().unwrap();
            assert_eq!(found, want, "{data_type:?}");
        }
    }
}
