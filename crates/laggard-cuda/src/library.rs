//! CUDA's libraries, loaded while the program runs and never linked, and the functions that say
//! their versions. Together with `nvrtc.rs` the only file that calls foreign code.
#![expect(unsafe_code, reason = "loads libraries and calls their C functions")]

use crate::places::Candidate;
use crate::{CudaError, CudaLibrary, Surroundings};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use std::error::Error;
use std::ffi::{c_char, c_int, c_uint};
use std::path::{Path, PathBuf};

/// A library, loaded for the life of the process: CUDA's libraries have threads and exit handlers
/// of their own, so that none of them is ever unloaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    library: CudaLibrary,
    path: PathBuf,
    handle: std::mem::ManuallyDrop<Handle>,
}

/// What a call returns when it went well, in every one of these libraries.
pub(crate) const SUCCESS: c_int = 0;

/// Longest version text of NVML (`NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE`).
const NVML_TEXT_BYTES: usize = 80;

impl Loaded {
    /// Loads a candidate. `Ok(None)` if the system's loader does not know the name.
    pub(crate) fn open(
        library: CudaLibrary,
        candidate: &Candidate,
    ) -> Result<Option<Self>, CudaError> {
        let (name, path) = match candidate {
            Candidate::File(path) => (path.as_path(), path.clone()),
            Candidate::Name(name) => (Path::new(name), PathBuf::from(name)),
        };
        if let Candidate::File(path) = candidate {
            preload_builtins(path);
        }
        match open(name) {
            Ok(handle) => Ok(Some(Self {
                library,
                path: match candidate {
                    Candidate::File(_) => path,
                    Candidate::Name(name) => mapped_path(name).unwrap_or(path),
                },
                handle: std::mem::ManuallyDrop::new(handle),
            })),
            // glibc's words for "there is none" name the file itself, not something that it needs.
            Err(why)
                if matches!(candidate, Candidate::Name(_))
                    && why.starts_with(&format!("{}: cannot open", name.display())) =>
            {
                Ok(None)
            }
            Err(why) => Err(CudaError::NotLoaded { library, path, why }),
        }
    }

    /// The file that was loaded.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A function.
    ///
    /// # Safety
    /// `T` must be the function's type.
    pub(crate) unsafe fn function<T: Copy>(&self, name: &'static str) -> Result<T, CudaError> {
        // SAFETY: the caller says that the type is right, and the library is never unloaded.
        let symbol = unsafe { self.handle.get::<T>(name.as_bytes()) };
        symbol
            .map(|symbol| *symbol)
            .map_err(|_| CudaError::NotLoaded {
                library: self.library,
                path: self.path.clone(),
                why: format!("it has no {name}, so it is too old"),
            })
    }

    /// Turns a code into an error that names it.
    pub(crate) fn check(
        &self,
        call: &'static str,
        code: c_int,
        name: impl FnOnce(c_int) -> Option<String>,
    ) -> Result<(), CudaError> {
        if code == SUCCESS {
            return Ok(());
        }
        Err(CudaError::Call {
            call,
            path: self.path.clone(),
            name: name(code).unwrap_or_else(|| "an unknown error".to_owned()),
            code,
        })
    }

    /// What the library says of itself, after a first sign of life.
    pub(crate) fn version(&self) -> Result<String, CudaError> {
        match self.library {
            CudaLibrary::Driver => self.driver_version(),
            CudaLibrary::Nvml => self.nvml_version(),
            CudaLibrary::Nvrtc => {
                let (mut major, mut minor) = (0, 0);
                // SAFETY: nvrtc.h declares it so; both addresses are those of integers.
                let code = unsafe {
                    let call: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int =
                        self.function("nvrtcVersion")?;
                    call(&raw mut major, &raw mut minor)
                };
                self.check("nvrtcVersion", code, |_| None)?;
                Ok(format!("{major}.{minor}"))
            }
            CudaLibrary::CublasLt => {
                // SAFETY: cublasLt.h declares it so.
                let version = unsafe {
                    let call: unsafe extern "C" fn() -> usize =
                        self.function("cublasLtGetVersion")?;
                    call()
                };
                Ok(cublas_version(version))
            }
            CudaLibrary::Nccl => {
                let mut version = 0;
                // SAFETY: nccl.h declares it so; the address is that of an integer.
                let code = unsafe {
                    let call: unsafe extern "C" fn(*mut c_int) -> c_int =
                        self.function("ncclGetVersion")?;
                    call(&raw mut version)
                };
                self.check("ncclGetVersion", code, |_| None)?;
                Ok(nccl_version(version))
            }
        }
    }

    /// The newest CUDA that the driver knows, after it found a device.
    fn driver_version(&self) -> Result<String, CudaError> {
        let mut version = 0;
        // SAFETY: cuda.h declares both so; the address is that of an integer.
        unsafe {
            let initialise: unsafe extern "C" fn(c_uint) -> c_int = self.function("cuInit")?;
            self.check("cuInit", initialise(0), |code| self.driver_error(code))?;
            let call: unsafe extern "C" fn(*mut c_int) -> c_int =
                self.function("cuDriverGetVersion")?;
            let code = call(&raw mut version);
            self.check("cuDriverGetVersion", code, |code| self.driver_error(code))?;
        }
        Ok(driver_version(version))
    }

    fn driver_error(&self, code: c_int) -> Option<String> {
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: cuda.h declares it so, and what it gives is a static text or null.
        unsafe {
            let call: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int =
                self.function("cuGetErrorName").ok()?;
            (call(code, &raw mut text) == SUCCESS).then_some(())?;
            text_at(text)
        }
    }

    /// The driver's own version, such as 580.65.06.
    fn nvml_version(&self) -> Result<String, CudaError> {
        let mut text = [0u8; NVML_TEXT_BYTES];
        // SAFETY: nvml.h declares them so, and `text` has room for as many bytes as are said.
        unsafe {
            let error_text: unsafe extern "C" fn(c_int) -> *const c_char =
                self.function("nvmlErrorString")?;
            let name = |code| text_at(error_text(code));
            let initialise: unsafe extern "C" fn() -> c_int = self.function("nvmlInit_v2")?;
            let end: unsafe extern "C" fn() -> c_int = self.function("nvmlShutdown")?;
            let call: unsafe extern "C" fn(*mut c_char, c_uint) -> c_int =
                self.function("nvmlSystemGetDriverVersion")?;
            self.check("nvmlInit_v2", initialise(), name)?;
            let code = call(text.as_mut_ptr().cast(), NVML_TEXT_BYTES as c_uint);
            // It only takes back what was initialised here; its code says nothing of use.
            end();
            self.check("nvmlSystemGetDriverVersion", code, name)?;
        }
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

/// Every way to load a library that works, the preferred first; else why none does.
pub(crate) fn open_all(
    library: CudaLibrary,
    surroundings: &Surroundings,
) -> Result<Vec<Loaded>, CudaError> {
    let mut loaded: Vec<Loaded> = Vec::new();
    let mut failure = None;
    for candidate in surroundings.candidates(library) {
        match Loaded::open(library, &candidate) {
            Ok(Some(new)) if loaded.iter().all(|old| old.path != new.path) => loaded.push(new),
            Ok(_) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if loaded.is_empty() {
        return Err(failure.unwrap_or(CudaError::NotFound { library }));
    }
    Ok(loaded)
}

/// The text at an address, if it is not null.
///
/// # Safety
/// The address must be null or that of a text that ends with a zero.
pub(crate) unsafe fn text_at(address: *const c_char) -> Option<String> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the caller says so.
    let text = unsafe { std::ffi::CStr::from_ptr(address) };
    Some(text.to_string_lossy().into_owned())
}

fn open(name: &Path) -> Result<Handle, String> {
    // SAFETY: loading runs the library's initialisers. These libraries are meant to be loaded this
    // way; another file under one of these names is beyond what can be checked.
    let handle = unsafe { Handle::open(Some(name), RTLD_NOW | RTLD_LOCAL) };
    // The system's own words stand in the source of the error.
    handle.map_err(|error| {
        error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string)
    })
}

/// NVRTC opens a second library by its bare name. Some builds of it do not look beside themselves,
/// and find it only if it is loaded already.
fn preload_builtins(path: &Path) {
    let is_nvrtc = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc.so"));
    let Some(folder) = path.parent().filter(|_| is_nvrtc) else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("libnvrtc-builtins.so") {
            match open(&entry.path()) {
                Ok(handle) => std::mem::forget(handle),
                Err(why) => tracing::debug!("{}: {why}", entry.path().display()),
            }
        }
    }
}

/// The path of a library that was loaded by its name, from the process's own map of memory.
fn mapped_path(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    path_in_maps(&maps, name)
}

/// What is loaded as `libx.so.1` is often the file `libx.so.1.2.3`.
fn path_in_maps(maps: &str, name: &str) -> Option<PathBuf> {
    let paths = maps.lines().filter_map(|line| {
        let at = line.find('/')?;
        Some(Path::new(&line[at..]))
    });
    let is_it = |path: &&Path| {
        let file = path.file_name().map(|file| file.to_string_lossy());
        file.is_some_and(|file| {
            file.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    paths.into_iter().find(is_it).map(Path::to_owned)
}

/// 13000 is 13.0.
fn driver_version(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// 130101 is 13.1.1 since version 13 (`CUBLAS_VER_MAJOR * 10000`), 120803 12.8.3 before it.
fn cublas_version(version: usize) -> String {
    format!(
        "{}.{}.{}",
        version / 10_000,
        version / 100 % 100,
        version % 100
    )
}

/// 22809 is 2.28.9 since version 2.9, 2804 is 2.8.4 before it (`NCCL_VERSION` of nccl.h).
fn nccl_version(version: c_int) -> String {
    let major = if version < 10_000 { 1000 } else { 10_000 };
    format!(
        "{}.{}.{}",
        version / major,
        version % major / 100,
        version % 100
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(driver_version(13_000), "13.0");
        assert_eq!(driver_version(12_090), "12.9");
        assert_eq!(cublas_version(130_101), "13.1.1");
        assert_eq!(nccl_version(23_007), "2.30.7");
        assert_eq!(nccl_version(2_804), "2.8.4");
    }

    #[test]
    fn paths_are_found_in_maps() {
        let maps = "7f00-7f01 r-xp 00000000 fe:00 1   /usr/lib/libcudart.so.13\n\
                    7f02-7f03 r-xp 00000000 fe:00 2   /usr/lib/libcuda.so.1.2.3\n\
                    7f04-7f05 rw-p 00000000 00:00 0\n";
        let found = path_in_maps(maps, "libcuda.so.1");
        assert_eq!(found, Some(PathBuf::from("/usr/lib/libcuda.so.1.2.3")));
        assert_eq!(path_in_maps(maps, "libcuda.so.12"), None);
    }

    #[test]
    fn a_file_that_is_no_library_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libnccl.so.2");
        std::fs::write(&path, "not a library").unwrap();
        let error = Loaded::open(CudaLibrary::Nccl, &Candidate::File(path.clone())).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&path.display().to_string()), "{text}");
        assert!(text.contains("nvidia-nccl-cu13"), "{text}");
    }

    #[test]
    fn a_library_without_the_function_is_too_old() {
        let libc = Candidate::Name("libc.so.6");
        let loaded = Loaded::open(CudaLibrary::Nccl, &libc).unwrap().unwrap();
        assert!(loaded.path().is_absolute(), "{}", loaded.path().display());
        let text = loaded.version().unwrap_err().to_string();
        assert!(text.contains("no ncclGetVersion"), "{text}");
    }
}
