//! NVIDIA GPUs: the device ([`CudaDevice`]), its collectives by NCCL ([`NcclWorld`]), kernels for
//! every generation and the compiler that makes them on the machine where they run, what the driver
//! tells of a GPU's state ([`Nvml`]), and the search for CUDA's libraries. Links none of them: all
//! are loaded while the program runs, so one binary starts everywhere.
//!
//! Everything here has been checked without a GPU, over stand-ins for CUDA's libraries and by an
//! emulator of kernels; nothing has run on one yet.

mod architecture;
mod cache;
mod clock;
mod communicator;
mod compiler;
mod cublaslt;
mod device;
mod error;
mod gemm_launch;
mod gemm_tma;
mod gpu;
mod identity;
mod infiniband;
mod launch;
mod library;
mod module;
mod monitor;
mod nccl;
mod nvml;
mod nvrtc;
mod places;
mod probe;
mod self_check;
mod shares;
mod speed;
mod staged;
mod tensor_map;
pub mod twin;

pub use architecture::Architecture;
pub use cache::CubinCache;
pub use clock::{ClockMap, ClockReport, ClockSample, HostTime};
pub use communicator::{NcclCommunicator, NcclOptions, NcclWorld, RegisteredBuffer, Surround};
pub use compiler::Compiler;
pub use cublaslt::CublasLt;
pub use device::{CudaDevice, CudaOptions, GraphOperation, PeakOptions, ProductEngine, StepGraph};
pub use error::CudaError;
pub use gemm_launch::{DeviceMatrix, GemmArguments, Place, Product, ResultType};
pub use gemm_tma::TmaProduct;
pub use gpu::Gpu;
pub use identity::CudaIdentity;
pub use infiniband::{InfinibandPort, Sysfs};
pub use laggard_types::{ClockReason, ComputeMode};
pub use launch::{Argument, KernelLaunch, Launcher};
pub use module::{ElementType, HEADERS, HalfType, Module, SourceFile};
pub use monitor::GpuMonitor;
pub use nccl::{Nccl, NcclVersion};
pub use nvml::{
    GpuFacts, GpuProcess, GpuReading, NotVisible, NvLink, Nvml, NvmlGpu, PcieLink, RemappedRows,
    XidEvent, XidWatch,
};
pub use nvrtc::{Nvrtc, Source};
pub use places::{CudaLibrary, PATH_VARIABLE, Surroundings};
pub use probe::{Finding, Outcome, probe};
pub use self_check::self_check;
pub use shares::{Concurrency, ConcurrencyOptions, MpsClient, Share, Sharing, Steps, concurrency};
pub use speed::{Contender, RaceProduct, RaceTimes};
pub use staged::{STAGED, staged_worlds};
pub use tensor_map::{EncodedProduct, MapElement, TensorMap};
