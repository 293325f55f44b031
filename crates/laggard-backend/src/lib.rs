//! The seams between laggard and what executes and communicates: [`Device`], [`Communicator`],
//! [`World`]; the in-process `threads` backend with its CPU device; and the conformance suite that
//! every backend runs. Knows nothing of timing policy or of records.

pub mod agreement;
mod buffer;
mod call;
mod check;
mod communicator;
pub mod conformance;
pub mod control;
mod cpu;
mod device;
mod device_memory;
mod error;
mod gate;
mod kernel;
mod memory;
pub mod messenger;
mod monitor;
mod roll_call;
pub mod squares;
pub mod threads;

pub use buffer::{Buffer, Element, Slice};
pub use communicator::{Call, Communicator, World};
pub use cpu::{
    CpuDevice, CpuOptions, Meeting, Reading, Repeats, Work, bind_thread, burn, measure_peak,
    monotonic_ns, processor_name,
};
pub use device::{
    Device, DeviceDescription, DeviceKind, Launch, QueueId, TaggedStamp, Task, Token,
};
pub use device_memory::DeviceMemory;
pub use error::BackendError;
pub use gate::{Abort, Abortable};
pub use kernel::{Kernel, Matrix, Transpose};
pub use memory::{HostMemory, ReadClaim, Scratch, WriteClaim};
pub use messenger::Messenger;
pub use monitor::{Extent, Monitor};
pub use roll_call::{GroupId, RollCall};
pub use threads::divide_sums;
