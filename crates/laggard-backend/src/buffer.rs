//! Memory that kernels and collectives work on.

use crate::memory::{ReadClaim, WriteClaim};
use crate::{BackendError, DeviceMemory, HostMemory};
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
    /// A device's own memory.
    Device(Arc<dyn DeviceMemory>),
}

impl Buffer {
    /// Element type.
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Host(memory) => memory.data_type(),
            Self::Device(memory) => memory.data_type(),
        }
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Host(memory) => memory.len(),
            Self::Device(memory) => memory.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether both are the same memory.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host(a), Self::Host(b)) => Arc::ptr_eq(a, b),
            (Self::Device(a), Self::Device(b)) => std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            _ => false,
        }
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
        match &self.buffer {
            Buffer::Device(memory) => memory.copy_in(self.range(), bytemuck::cast_slice(values)),
            Buffer::Host(_) => {
                self.claim_write()?.slice_mut::<T>().copy_from_slice(values);
                Ok(())
            }
        }
    }

    /// Copies the elements out, to the host.
    ///
    /// # Errors
    /// [`BackendError::WrongType`] if the buffer holds another type, [`BackendError::Conflict`] if
    /// work is writing the range.
    pub fn read<T: Element>(&self) -> Result<Vec<T>, BackendError> {
        self.expect_type(T::DATA_TYPE)?;
        match &self.buffer {
            Buffer::Device(memory) => {
                self.expect_inside()?;
                let mut values = vec![T::zeroed(); self.len];
                memory.copy_out(self.range(), bytemuck::cast_slice_mut(&mut values))?;
                Ok(values)
            }
            Buffer::Host(_) => Ok(self.claim_read()?.slice::<T>().to_vec()),
        }
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
        with_element!(self.data_type(), T => {
            self.write::<T>(&values.iter().map(|value| T::from_f64(*value)).collect::<Vec<_>>())
        })
    }

    /// Reads elements of whatever type the buffer has as numbers.
    ///
    /// # Errors
    /// As [`Slice::read`].
    pub fn read_numbers(&self) -> Result<Vec<f64>, BackendError> {
        with_element!(self.data_type(), T => {
            Ok(self.read::<T>()?.into_iter().map(Element::to_f64).collect())
        })
    }

    /// The range of the buffer's elements. An end past `usize` saturates, and is refused when
    /// claimed.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset.saturating_add(self.len)
    }

    /// Whether both are the same elements of the same memory.
    pub fn is_same(&self, other: &Self) -> bool {
        self.buffer.is_same(&other.buffer) && self.range() == other.range()
    }

    /// Whether both have an element in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (x, y) = (self.range(), other.range());
        self.buffer.is_same(&other.buffer) && x.start.max(y.start) < x.end.min(y.end)
    }

    /// Claims the range for reading; see [`HostMemory`].
    ///
    /// # Errors
    /// [`BackendError::Conflict`] if work is writing the range, [`BackendError::OutOfBounds`] if it
    /// is not within the buffer, [`BackendError::NotOnHost`] if that is a device's.
    pub fn claim_read(&self) -> Result<ReadClaim, BackendError> {
        self.host_memory()?.claim_read(self.range())
    }

    /// Claims the range for writing; see [`HostMemory`].
    ///
    /// # Errors
    /// [`BackendError::Conflict`] if work is using the range, [`BackendError::OutOfBounds`] if it
    /// is not within the buffer, [`BackendError::NotOnHost`] if that is a device's.
    pub fn claim_write(&self) -> Result<WriteClaim, BackendError> {
        self.host_memory()?.claim_write(self.range())
    }

    fn host_memory(&self) -> Result<&Arc<HostMemory>, BackendError> {
        match &self.buffer {
            Buffer::Host(memory) => Ok(memory),
            Buffer::Device(memory) => Err(BackendError::NotOnHost {
                memory: format!("{memory:?}"),
            }),
        }
    }

    /// Checked before anything is allocated for the elements.
    fn expect_inside(&self) -> Result<(), BackendError> {
        Self::new(&self.buffer, self.range()).map(|_| ())
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
    use std::sync::Mutex;

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

    /// A device whose memory is reached by copies.
    #[derive(Debug)]
    struct Far(Mutex<Vec<u8>>);

    impl DeviceMemory for Far {
        fn data_type(&self) -> DataType {
            DataType::F32
        }

        fn len(&self) -> usize {
            self.0.lock().unwrap().len() / 4
        }

        fn copy_out(&self, range: Range<usize>, to: &mut [u8]) -> Result<(), BackendError> {
            to.copy_from_slice(&self.0.lock().unwrap()[range.start * 4..range.end * 4]);
            Ok(())
        }

        fn copy_in(&self, range: Range<usize>, from: &[u8]) -> Result<(), BackendError> {
            self.0.lock().unwrap()[range.start * 4..range.end * 4].copy_from_slice(from);
            Ok(())
        }
    }

    #[test]
    fn memory_of_devices_is_copied_and_never_claimed() {
        let buffer = Buffer::Device(Arc::new(Far(Mutex::new(vec![0; 16]))));
        let slice = Slice::new(&buffer, 1..3).unwrap();
        slice.write_f32(&[1.5, -2.0]).unwrap();
        assert_eq!(
            Slice::whole(&buffer).read_numbers().unwrap(),
            [0.0, 1.5, -2.0, 0.0]
        );
        assert!(matches!(
            slice.claim_read().map(|_| ()),
            Err(BackendError::NotOnHost { .. })
        ));
        assert!(matches!(
            slice.claim_write().map(|_| ()),
            Err(BackendError::NotOnHost { .. })
        ));
        let other = Buffer::Device(Arc::new(Far(Mutex::new(vec![0; 16]))));
        assert!(slice.overlaps(&Slice::whole(&buffer)));
        assert!(!slice.overlaps(&Slice::whole(&other)));
        assert!(slice.is_same(&Slice::new(&buffer.clone(), 1..3).unwrap()));
        check_refusals(&buffer);
    }

    #[test]
    fn wrong_types_and_lengths_are_refused() {
        let buffer = Buffer::Host(HostMemory::zeroed(DataType::F32, 4).unwrap());
        check_refusals(&buffer);
    }

    fn check_refusals(buffer: &Buffer) {
        let whole = Slice::whole(buffer);
        assert!(matches!(
            whole.write(&[1i32; 4]),
            Err(BackendError::WrongType { .. })
        ));
        assert!(matches!(
            whole.write_f32(&[1.0; 3]),
            Err(BackendError::OutOfBounds { .. })
        ));
        assert!(Slice::new(buffer, 2..5).is_err());
        assert!(whole.part(1..3).unwrap().part(0..3).is_err());
        let wild = Slice {
            buffer: buffer.clone(),
            offset: usize::MAX,
            len: 2,
        };
        assert!(wild.read_f32().is_err());
        assert!(wild.part(0..1).is_err());
    }
}
