//! What can go wrong before a kernel runs.

use crate::{Architecture, CudaLibrary, Module};
use laggard_backend::BackendError;
use laggard_types::Rank;
use std::path::PathBuf;
use thiserror::Error;

/// An error of finding, loading or using one of CUDA's libraries.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CudaError {
    /// A library is nowhere.
    #[error("{library} not found\nhint: {}", library.fix())]
    NotFound {
        /// The library.
        library: CudaLibrary,
    },
    /// A library is there and cannot be loaded, or lacks a function.
    #[error("cannot load {}: {why}\nhint: {}", path.display(), library.fix())]
    NotLoaded {
        /// The library.
        library: CudaLibrary,
        /// Its path.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// A call of a library did not succeed.
    #[error("{call} of {} says {name} (code {code})", path.display())]
    Call {
        /// The function.
        call: &'static str,
        /// The library's path.
        path: PathBuf,
        /// The library's own name for the code.
        name: String,
        /// The code.
        code: i32,
    },
    /// Something between ranks went wrong.
    #[error(transparent)]
    World(#[from] BackendError),
    /// Ranks have different versions of NCCL, which do not work together.
    #[error(
        "the ranks have different versions of NCCL: {versions}\nhint: put the same one first on \
         every host, by its folder in LAGGARD_CUDA_PATH"
    )]
    NcclVersions {
        /// Each version with its ranks.
        versions: String,
    },
    /// Several ranks on one GPU, which NCCL does not have by itself.
    #[error("ranks {a} and {b} share the GPU {gpu} of host {host}\nhint: {hint}")]
    SharedGpu {
        /// A rank.
        a: Rank,
        /// Another one.
        b: Rank,
        /// The GPU's PCI address.
        gpu: String,
        /// Its host.
        host: String,
        /// What to do about it, for this version of NCCL.
        hint: String,
    },
    /// A GPU that cannot be divided among ranks.
    #[error(
        "GPU {ordinal} is not divided: {why}\nhint: a newer driver, or fewer ranks on it, may do"
    )]
    Undivided {
        /// Its number.
        ordinal: usize,
        /// Why not.
        why: String,
    },
    /// A call whose time NCCL cannot be asked for.
    #[error("cannot estimate a call: {why}")]
    Estimate {
        /// What is wrong with it.
        why: String,
    },
    /// A communicator of NCCL that was given up.
    #[error("the communicator is closed")]
    Closed,
    /// No NVRTC that is here compiles for this generation.
    #[error(
        "no NVRTC for {architecture}: {}\nhint: {}",
        refusals.join("; "), hint_for(*architecture)
    )]
    NoCompiler {
        /// The generation.
        architecture: Architecture,
        /// Each NVRTC, and why it is no use.
        refusals: Vec<String>,
    },
    /// NVRTC refused a source. The log names files and lines.
    #[error(
        "NVRTC {version} does not compile {module} for {architecture}:\n{log}\nhint: this is a bug \
         of laggard, please report it with these lines"
    )]
    Compile {
        /// NVRTC's version.
        version: String,
        /// The module, or file.
        module: String,
        /// The generation.
        architecture: Architecture,
        /// NVRTC's log.
        log: String,
    },
    /// A generation lacks what a module needs.
    #[error("{architecture} does not have what module {module} needs")]
    Unavailable {
        /// The module.
        module: Module,
        /// The generation.
        architecture: Architecture,
    },
    /// A kernel computed something else than its twin.
    #[error(
        "module {module} is wrong on {architecture}: {what}\nhint: nothing that it computes is to \
         be believed on this device; please report it with this line"
    )]
    SelfCheck {
        /// The module.
        module: Module,
        /// The generation.
        architecture: Architecture,
        /// Which kernel, and where.
        what: String,
    },
    /// The driver refused something.
    #[error("{doing}: {why}")]
    Driver {
        /// What was done.
        doing: &'static str,
        /// What the driver says.
        why: String,
    },
    /// A launch that cannot be meant.
    #[error("cannot launch {entry}: {why}")]
    Launch {
        /// The kernel.
        entry: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A GPU of a generation that there are no kernels for.
    #[error(
        "{name} has compute capability {major}.{minor}, for which there are no kernels\nhint: \
         leave it out with CUDA_VISIBLE_DEVICES"
    )]
    UnknownDevice {
        /// The product's name.
        name: String,
        /// Major compute capability.
        major: i32,
        /// Minor compute capability.
        minor: i32,
    },
    /// A matrix product that the kernels cannot compute.
    #[error("cannot launch a matrix product: {why}")]
    Product {
        /// What does not fit.
        why: String,
    },
}

/// What is missing where no compiler serves a generation.
fn hint_for(architecture: Architecture) -> &'static str {
    if architecture == Architecture::Sm70 {
        "NVRTC 12 is the last that compiles for sm_70: `pip install nvidia-cuda-nvrtc-cu12`"
    } else {
        "install an NVRTC as new as the GPU and not newer than the driver: `pip install \
         nvidia-cuda-nvrtc` (CUDA 13) or `nvidia-cuda-nvrtc-cu12`"
    }
}
