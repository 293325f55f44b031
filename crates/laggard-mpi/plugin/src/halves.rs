//! Reductions of 16-bit floats, which MPI does not have: elements travel as 16-bit integers, and
//! operations of our own widen them to `f32`, reduce, and round to the nearest. A result is thus
//! rounded once per rank, not once in all.

use crate::{Failed, check};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use mpi::ffi;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

/// The operations on one element type.
#[derive(Clone, Copy)]
pub(crate) struct Ops {
    pub(crate) sum: ffi::MPI_Op,
    pub(crate) min: ffi::MPI_Op,
    pub(crate) max: ffi::MPI_Op,
}

/// The operations on all 16-bit types; they live until MPI is finalised.
pub(crate) struct HalfOps {
    pub(crate) bf16: Ops,
    pub(crate) f16: Ops,
}

// SAFETY: an operation is a handle (an integer, or a pointer that only MPI follows), and the ones
// here are never changed after their creation.
unsafe impl Send for HalfOps {}
// SAFETY: as above; MPI lets threads share operations.
unsafe impl Sync for HalfOps {}

impl HalfOps {
    /// Makes them known to MPI, which must be initialised.
    pub(crate) fn create() -> Result<Self, Failed> {
        Ok(Self {
            bf16: Ops::create::<bf16>()?,
            f16: Ops::create::<f16>()?,
        })
    }
}

impl Ops {
    fn create<T: Half>() -> Result<Self, Failed> {
        Ok(Self {
            sum: create(Some(combine::<T, Sum>))?,
            min: create(Some(combine::<T, Min>))?,
            max: create(Some(combine::<T, Max>))?,
        })
    }
}

fn create(function: ffi::MPI_User_function) -> Result<ffi::MPI_Op, Failed> {
    let mut op = MaybeUninit::uninit();
    let is_commutative = 1;
    // SAFETY: MPI is initialised, and the operation is read only if MPI says that it wrote it.
    unsafe {
        check(ffi::MPI_Op_create(
            function,
            is_commutative,
            op.as_mut_ptr(),
        ))?;
        Ok(op.assume_init())
    }
}

/// A 16-bit float that is computed with as `f32`.
trait Half: Copy + 'static {
    fn widen(from: &[Self], to: &mut [f32]);
    fn round(from: &[f32], to: &mut [Self]);
}

macro_rules! half {
    ($type:ty) => {
        impl Half for $type {
            fn widen(from: &[Self], to: &mut [f32]) {
                from.convert_to_f32_slice(to);
            }
            fn round(from: &[f32], to: &mut [Self]) {
                to.convert_from_f32_slice(from);
            }
        }
    };
}

half!(bf16);
half!(f16);

trait Reduce {
    fn reduce(a: f32, b: f32) -> f32;
}

struct Sum;
struct Min;
struct Max;

impl Reduce for Sum {
    fn reduce(a: f32, b: f32) -> f32 {
        a + b
    }
}

impl Reduce for Min {
    fn reduce(a: f32, b: f32) -> f32 {
        a.min(b)
    }
}

impl Reduce for Max {
    fn reduce(a: f32, b: f32) -> f32 {
        a.max(b)
    }
}

/// Elements that are widened at a time: small enough for the stack and the nearest cache.
const WIDENED_AT_ONCE: usize = 512;

/// What MPI calls to reduce `*length` elements of `from` into `into`.
unsafe extern "C" fn combine<T: Half, R: Reduce>(
    from: *mut c_void,
    into: *mut c_void,
    length: *mut c_int,
    _data_type: *mut ffi::MPI_Datatype,
) {
    // Nothing in here panics; if it did, there would be no way to tell MPI.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: MPI passes a pointer to the length.
        let length = usize::try_from(unsafe { *length }).unwrap_or(0);
        if length == 0 {
            return;
        }
        // SAFETY: MPI passes two arrays of `length` 16-bit elements that do not overlap, aligned
        // as their 16-bit integers are.
        let (from, into) = unsafe {
            (
                slice::from_raw_parts(from.cast::<T>().cast_const(), length),
                slice::from_raw_parts_mut(into.cast::<T>(), length),
            )
        };
        let (mut a, mut b) = ([0f32; WIDENED_AT_ONCE], [0f32; WIDENED_AT_ONCE]);
        let chunks = from.chunks(WIDENED_AT_ONCE);
        for (from, into) in chunks.zip(into.chunks_mut(WIDENED_AT_ONCE)) {
            let (a, b) = (&mut a[..from.len()], &mut b[..from.len()]);
            T::widen(from, a);
            T::widen(into, b);
            for (b, a) in b.iter_mut().zip(&*a) {
                *b = R::reduce(*a, *b);
            }
            T::round(b, into);
        }
    }));
}
