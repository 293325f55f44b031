//! Memory that kernels and collectives work on.

use crate::memory::{ReadClaim, WriteClaim};
use crate::{BackendError, HostMemory};
use bytemuck::Pod;
use half::{bf16, f16};
use laggard_types::DataType;
use std::ops::Range;
use std::sync::Arc;

/// Memory of one device. Cloning a handle does not copy the memory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Buffer {
    /// Host memory.
    Host(Arc<HostMemory>),
}

impl Buffer {
    /// Element type.
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Host(memory) => memory.data_type(),
        }
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Host(memory) => memory.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A Rust type that is the element of some [`DataType`].
pub trait Element: Pod + Send + Sync + sealed::Sealed {
    /// The type as buffers name it.
    const DATA_TYPE: DataType;

    /// The nearest element to a number.
    fn from_f64(value: f64) -> Self;

    /// The element as a number; exact except for large `i64`.
    fn to_f64(self) -> f64;
}

mod sealed {
    /// Keeps [`super::Element`] to the types that memory can be viewed as.
    pub trait Sealed {}
}

macro_rules! element {
    ($type:ty, $name:ident, $from:expr, $to:expr) => {
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DATA_TYPE: DataType = DataType::$name;
            fn from_f64(value: f64) -> Self {
                $from(value)
            }
            fn to_f64(self) -> f64 {
                $to(self)
            }
        }
    };
}

element!(bf16, Bf16, bf16::from_f64, f64::from);
element!(f16, F16, f16::from_f64, f64::from);
element!(f32, F32, |x: f64| x as f32, f64::from);
element!(f64, F64, |x: f64| x, |x: f64| x);
element!(i32, I32, |x: f64| x as i32, f64::from);
element!(i64, I64, |x: f64| x as i64, |x: i64| x as f64);

/// Runs an expression with `$t` bound to the Rust type of a [`DataType`].
macro_rules! with_element {
    ($data_type:expr, $t:ident => $body:expr) => {
        match $data_type {
            laggard_types::DataType::Bf16 => {
                type $t = half::bf16;
                $body
            }
            laggard_types::DataType::F16 => {
                type $t = half::f16;
                $body
            }
            laggard_types::DataType::F32 => {
                type $t = f32;
                $body
            }
            laggard_types::DataType::F64 => {
                type $t = f64;
                $body
            }
            laggard_types::DataType::I32 => {
                type $t = i32;
                $body
            }
            laggard_types::DataType::I64 => {
                type $t = i64;
                $body
            }
        }
    };
}
pub(crate) use with_element;

/// A range of elements of a buffer.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The buffer.
    pub buffer: Buffer,
    /// First element.
    pub offset: usize,
    /// How many elements.
    pub len: usize,
}

impl Slice {
    /// A range of a buffer.
    ///
    /// # Errors
    /// [`BackendError::OutOfBounds`] if the range is not within the buffer.
    pub fn new(buffer: &Buffer, range: Range<usize>) -> Result<Self, BackendError> {
        if range.start > range.end || range.end > buffer.len() {
            return Err(BackendError::OutOfBounds {
                start: range.start,
                end: range.end,
                len: buffer.len(),
            });
        }
        Ok(Self {
            buffer: buffer.clone(),
            offset: range.start,
            len: range.len(),
        })
    }

    /// All of a buffer.
    pub fn whole(buffer: &Buffer) -> Self {
        Self {
            buffer: buffer.clone(),
            offset: 0,
            len: buffer.len(),
        }
    }

    /// A range of this slice, counted from its first element.
    ///
    /// # Errors
    /// [`BackendError::OutOfBounds`] if the range is not within the slice.
    pub fn part(&self, range: Range<usize>) -> Result<Self, BackendError> {
        if range.start > range.end || range.end > self.len {
            return Err(BackendError::OutOfBounds {
                start: range.start,
                end: range.end,
                len: self.len,
            });
        }
        let start = self.offset.saturating_add(range.start);
        Self::new(&self.buffer, start..start.saturating_add(range.len()))
    }

    /// Element type.
    pub fn data_type(&self) -> DataType {
        self.buffer.data_type()
    }

    /// Copies elements in, from the host.
    ///
    /// # Errors
    /// [`BackendError::OutOfBounds`] if the lengths differ, [`BackendError::WrongType`] if the
    /// buffer holds another type, [`BackendError::Conflict`] if work is using the range.
    pub fn write<T: Element>(&self, values: &[T]) -> Result<(), BackendError> {
        self.expect_type(T::DATA_TYPE)?;
        self.expect_len(values.len())?;
        self.claim_write()?.slice_mut::<T>().copy_from_slice(values);
        Ok(())
    }

    /// Copies the elements out, to the host.
    ///
    /// # Errors
    /// [`BackendError::WrongType`] if the buffer holds another type, [`BackendError::Conflict`] if
    /// work is writing the range.
    pub fn read<T: Element>(&self) -> Result<Vec<T>, BackendError> {
        self.expect_type(T::DATA_TYPE)?;
        Ok(self.claim_read()?.slice::<T>().to_vec())
    }

    /// [`Slice::write`] for `f32`.
    ///
    /// # Errors
    /// As [`Slice::write`].
    pub fn write_f32(&self, values: &[f32]) -> Result<(), BackendError> {
        self.write(values)
    }

    /// [`Slice::read`] for `f32`.
    ///
    /// # Errors
    /// As [`Slice::read`].
    pub fn read_f32(&self) -> Result<Vec<f32>, BackendError> {
        self.read()
    }

    /// Writes numbers as elements of whatever type the buffer has, each rounded to the nearest.
    ///
    /// # Errors
    /// As [`Slice::write`].
    pub fn write_numbers(&self, values: &[f64]) -> Result<(), BackendError> {
        self.expect_len(values.len())?;
        let mut claim = self.claim_write()?;
        with_element!(self.data_type(), T => {
            for (to, from) in claim.slice_mut::<T>().iter_mut().zip(values) {
                *to = T::from_f64(*from);
            }
        });
        Ok(())
    }

    /// Reads elements of whatever type the buffer has as numbers.
    ///
    /// # Errors
    /// As [`Slice::read`].
    pub fn read_numbers(&self) -> Result<Vec<f64>, BackendError> {
        let claim = self.claim_read()?;
        Ok(with_element!(self.data_type(), T => {
            claim.slice::<T>().iter().map(|x| Element::to_f64(*x)).collect()
        }))
    }

    /// The range of the buffer's elements. An end past `usize` saturates, and is refused when
    /// claimed.
    pub(crate) fn range(&self) -> Range<usize> {
        self.offset..self.offset.saturating_add(self.len)
    }

    /// Whether both are the same elements of the same memory.
    pub fn is_same(&self, other: &Self) -> bool {
        let (Buffer::Host(a), Buffer::Host(b)) = (&self.buffer, &other.buffer);
        Arc::ptr_eq(a, b) && self.range() == other.range()
    }

    /// Whether both have an element in common.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (Buffer::Host(a), Buffer::Host(b)) = (&self.buffer, &other.buffer);
        let (x, y) = (self.range(), other.range());
        Arc::ptr_eq(a, b) && x.start.max(y.start) < x.end.min(y.end)
    }

    /// Claims the range for reading; see [`HostMemory`].
    ///
    /// # Errors
    /// [`BackendError::Conflict`] if work is writing the range, [`BackendError::OutOfBounds`] if it
    /// is not within the buffer.
    pub fn claim_read(&self) -> Result<ReadClaim, BackendError> {
        let Buffer::Host(memory) = &self.buffer;
        memory.claim_read(self.range())
    }

    /// Claims the range for writing; see [`HostMemory`].
    ///
    /// # Errors
    /// [`BackendError::Conflict`] if work is using the range, [`BackendError::OutOfBounds`] if it
    /// is not within the buffer.
    pub fn claim_write(&self) -> Result<WriteClaim, BackendError> {
        let Buffer::Host(memory) = &self.buffer;
        memory.claim_write(self.range())
    }

    fn expect_type(&self, wanted: DataType) -> Result<(), BackendError> {
        if self.data_type() == wanted {
            return Ok(());
        }
        Err(BackendError::WrongType {
            wanted,
            found: self.data_type(),
        })
    }

    fn expect_len(&self, len: usize) -> Result<(), BackendError> {
        if self.len == len {
            return Ok(());
        }
        Err(BackendError::OutOfBounds {
            start: 0,
            end: len,
            len: self.len,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_in_every_type() {
        for data_type in DataType::ALL {
            let buffer = Buffer::Host(HostMemory::zeroed(data_type, 5).unwrap());
            let slice = Slice::new(&buffer, 1..4).unwrap();
            slice.write_numbers(&[1.0, -2.0, 3.0]).unwrap();
            let all = Slice::whole(&buffer).read_numbers().unwrap();
            assert_eq!(all, [0.0, 1.0, -2.0, 3.0, 0.0], "{data_type:?}");
        }
    }

    #[test]
    fn wrong_types_and_lengths_are_refused() {
        let buffer = Buffer::Host(HostMemory::zeroed(DataType::F32, 4).unwrap());
        let whole = Slice::whole(&buffer);
        assert!(matches!(
            whole.write(&[1i32; 4]),
            Err(BackendError::WrongType { .. })
        ));
        assert!(matches!(
            whole.write_f32(&[1.0; 3]),
            Err(BackendError::OutOfBounds { .. })
        ));
        assert!(Slice::new(&buffer, 2..5).is_err());
        assert!(whole.part(1..3).unwrap().part(0..3).is_err());
        let wild = Slice {
            buffer,
            offset: usize::MAX,
            len: 2,
        };
        assert!(wild.read_f32().is_err());
        assert!(wild.part(0..1).is_err());
    }
}
