//! The seam to whatever tells of a device's state beside its work: NVML for NVIDIA's GPUs.

use laggard_types::{DeviceIdentity, DeviceState};

/// How much of a state is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What can change within a step: clocks, power, temperature.
    Moving,
    /// All of it, with what takes many calls: errors and traffic of memory, links and ports.
    Whole,
}

/// Reads a device's state on whatever thread asks, while the device works for others. Uses no
/// privileges and changes nothing; what cannot be read is left out, and is then neither good nor
/// bad. A call may take long where a device is in trouble: nobody who measures should wait for it.
pub trait Monitor: Send {
    /// Which device it is, and how it is set up and connected.
    fn identity(&mut self) -> DeviceIdentity;

    /// Its state now.
    fn read(&mut self, extent: Extent) -> DeviceState;
}
