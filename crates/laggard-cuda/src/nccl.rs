//! NCCL, loaded while the program runs: its functions, its communicators, and its status codes by
//! name. Links nothing, and knows nothing of ranks' calls, queues or messages: see `communicator`.
//!
//! What is required is what NCCL 2.14 has; newer functions are used where they are there. Checked
//! against a stand-in for NCCL and against the symbols of real ones; no call of a real one has run
//! on a GPU yet.
#![expect(unsafe_code, reason = "calls NCCL's C functions")]

mod config;
mod handle;
mod lower;

pub use config::NcclVersion;
pub(crate) use config::{Config, UniqueId};
pub(crate) use handle::{Comm, Progress, Registration, Site};
pub(crate) use lower::{Operation, Place, Plan, Side, lower};

use crate::library::{self, Loaded, text_at};
use crate::{CudaError, CudaLibrary, Surroundings};
use config::RawConfig;
use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::sync::Arc;

/// `ncclComm_t`.
type RawComm = *mut c_void;

/// A stream of the CUDA driver, `CUstream`.
pub(crate) type RawStream = *mut c_void;

/// `ncclResult_t`.
type Code = c_int;

/// The code of nccl.h that is no error, besides success.
const IN_PROGRESS: Code = 7;

type Collect = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    c_int,
    c_int,
    RawComm,
    RawStream,
) -> Code;
type Rooted = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    c_int,
    c_int,
    c_int,
    RawComm,
    RawStream,
) -> Code;
type Spread =
    unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, RawComm, RawStream) -> Code;
type Cast = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    c_int,
    c_int,
    RawComm,
    RawStream,
) -> Code;
type Transfer = unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, RawComm, RawStream) -> Code;
type OfComm = unsafe extern "C" fn(RawComm) -> Code;
type Initialise =
    unsafe extern "C" fn(*mut RawComm, c_int, UniqueId, c_int, *mut RawConfig) -> Code;
type Register = unsafe extern "C" fn(RawComm, *mut c_void, usize, *mut *mut c_void) -> Code;

/// The functions, as nccl.h declares them.
#[derive(Clone, Copy)]
struct Functions {
    get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> Code,
    initialise: Initialise,
    async_error: unsafe extern "C" fn(RawComm, *mut Code) -> Code,
    finalize: OfComm,
    destroy: OfComm,
    abort: OfComm,
    error_text: unsafe extern "C" fn(Code) -> *const c_char,
    last_error: unsafe extern "C" fn(RawComm) -> *const c_char,
    group_start: unsafe extern "C" fn() -> Code,
    group_end: unsafe extern "C" fn() -> Code,
    all_reduce: Collect,
    reduce_scatter: Collect,
    reduce: Rooted,
    all_gather: Spread,
    broadcast: Cast,
    send: Transfer,
    receive: Transfer,
    /// Since NCCL 2.19.
    register: Option<Register>,
    deregister: Option<unsafe extern "C" fn(RawComm, *mut c_void) -> Code>,
    /// Since NCCL 2.22.
    simulate_end: Option<unsafe extern "C" fn(*mut config::RawEstimate) -> Code>,
}

/// A loaded NCCL.
pub struct Nccl {
    loaded: Loaded,
    functions: Functions,
    version: NcclVersion,
}

impl Nccl {
    /// Loads the first NCCL that has all that is required.
    ///
    /// # Errors
    /// [`CudaError::NotFound`] if there is none; [`CudaError::NotLoaded`] if none can be used,
    /// with the function that the first one lacks.
    pub fn load(surroundings: &Surroundings) -> Result<Arc<Self>, CudaError> {
        let mut failure = None;
        for loaded in library::open_all(CudaLibrary::Nccl, surroundings)? {
            match Self::new(loaded) {
                Ok(nccl) => return Ok(Arc::new(nccl)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or(CudaError::NotFound {
            library: CudaLibrary::Nccl,
        }))
    }

    fn new(loaded: Loaded) -> Result<Self, CudaError> {
        let mut code: c_int = 0;
        // SAFETY: every type is that of the function in nccl.h; the address is that of an integer.
        let (functions, status) = unsafe {
            let get_version: unsafe extern "C" fn(*mut c_int) -> Code =
                loaded.function("ncclGetVersion")?;
            let status = get_version(&raw mut code);
            let functions = Functions {
                get_unique_id: loaded.function("ncclGetUniqueId")?,
                initialise: loaded.function("ncclCommInitRankConfig")?,
                async_error: loaded.function("ncclCommGetAsyncError")?,
                finalize: loaded.function("ncclCommFinalize")?,
                destroy: loaded.function("ncclCommDestroy")?,
                abort: loaded.function("ncclCommAbort")?,
                error_text: loaded.function("ncclGetErrorString")?,
                last_error: loaded.function("ncclGetLastError")?,
                group_start: loaded.function("ncclGroupStart")?,
                group_end: loaded.function("ncclGroupEnd")?,
                all_reduce: loaded.function("ncclAllReduce")?,
                reduce_scatter: loaded.function("ncclReduceScatter")?,
                reduce: loaded.function("ncclReduce")?,
                all_gather: loaded.function("ncclAllGather")?,
                broadcast: loaded.function("ncclBroadcast")?,
                send: loaded.function("ncclSend")?,
                receive: loaded.function("ncclRecv")?,
                register: loaded.function("ncclCommRegister").ok(),
                deregister: loaded.function("ncclCommDeregister").ok(),
                simulate_end: loaded.function("ncclGroupSimulateEnd").ok(),
            };
            (functions, status)
        };
        let nccl = Self {
            loaded,
            functions,
            version: NcclVersion::from_code(code),
        };
        nccl.check("ncclGetVersion", status)?;
        Ok(nccl)
    }

    /// Its version.
    pub fn version(&self) -> NcclVersion {
        self.version
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        self.loaded.path()
    }

    /// Whether it tells how long it thinks that calls take (`ncclGroupSimulateEnd`, since 2.22).
    pub fn can_estimate(&self) -> bool {
        self.functions.simulate_end.is_some()
    }

    /// Whether memory can be registered with it (`ncclCommRegister`, since 2.19).
    pub fn can_register(&self) -> bool {
        self.functions.register.is_some() && self.functions.deregister.is_some()
    }

    /// A fresh id, to be given to every rank of one communicator.
    pub(crate) fn unique_id(&self) -> Result<UniqueId, CudaError> {
        let mut id = UniqueId::default();
        // SAFETY: the address is that of a `ncclUniqueId`.
        let code = unsafe { (self.functions.get_unique_id)(&raw mut id) };
        self.check("ncclGetUniqueId", code)?;
        Ok(id)
    }

    /// Turns a code into an error that names it and says what NCCL says of it.
    fn check(&self, call: &'static str, code: Code) -> Result<(), CudaError> {
        if code == IN_PROGRESS {
            return Ok(());
        }
        self.loaded.check(call, code, |code| {
            // SAFETY: both give static texts; the communicator may be null.
            let (name, last) = unsafe {
                let name = text_at((self.functions.error_text)(code))?;
                (
                    name,
                    text_at((self.functions.last_error)(std::ptr::null_mut())),
                )
            };
            match last.filter(|last| !last.trim().is_empty()) {
                Some(last) => Some(format!("{name}: {}", last.trim())),
                None => Some(name),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_lacks_a_function_is_too_old_and_says_which() {
        // The system's C library stands for one that lacks everything.
        let folder = tempfile::tempdir().unwrap();
        let libc = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = libc
            .lines()
            .filter_map(|line| line.find('/').map(|at| &line[at..]))
            .find(|path| path.ends_with("/libc.so.6"))
            .expect("a C library");
        std::os::unix::fs::symlink(libc, folder.path().join("libnccl.so.2")).unwrap();
        let surroundings = Surroundings::only(&[folder.path().to_owned()]);
        match Nccl::load(&surroundings) {
            Err(CudaError::NotLoaded { why, .. }) => assert!(why.contains("no nccl"), "{why}"),
            Err(other) => panic!("{other}"),
            // A machine whose system has an NCCL rightly uses that.
            Ok(nccl) => assert_ne!(nccl.path(), folder.path().join("libnccl.so.2")),
        }
    }
}
