//! Memory that the host cannot address: the seam to a device's own.

use crate::BackendError;
use laggard_types::DataType;
use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;

/// Memory of a device, whose contents the host reaches by copies alone. A device finds its own
/// memory again by what it is, through [`Any`].
pub trait DeviceMemory: Any + Debug + Send + Sync {
    /// Element type.
    fn data_type(&self) -> DataType;

    /// How many elements.
    fn len(&self) -> usize;

    /// Whether there are no elements.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies elements to the host and waits until they are there. `to` has as many bytes as the
    /// elements.
    ///
    /// # Errors
    /// [`BackendError::OutOfBounds`] if the range is not within the memory,
    /// [`BackendError::Conflict`] if work is writing it, and what the device fails with.
    fn copy_out(&self, range: Range<usize>, to: &mut [u8]) -> Result<(), BackendError>;

    /// Copies elements from the host and waits until they are there. `from` has as many bytes as
    /// the elements.
    ///
    /// # Errors
    /// [`BackendError::OutOfBounds`] if the range is not within the memory,
    /// [`BackendError::Conflict`] if work is using it, and what the device fails with.
    fn copy_in(&self, range: Range<usize>, from: &[u8]) -> Result<(), BackendError>;
}
