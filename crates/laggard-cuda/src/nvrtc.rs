//! NVRTC: from CUDA C++ to a cubin, the machine code of one generation. Needs no GPU and no driver.
//! Several versions can be loaded at the same time.
#![expect(unsafe_code, reason = "calls NVRTC's C functions")]

use crate::library::{self, Loaded, text_at};
use crate::{Architecture, CudaError, CudaLibrary, HEADERS, Surroundings};
use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;

/// What is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source<'a> {
    /// The file's name, as errors print it.
    pub name: &'a str,
    /// Its text; it can include [`HEADERS`].
    pub text: &'a str,
    /// The generation as NVRTC is told of it, such as `sm_80` or `sm_90a`.
    pub target: String,
    /// Options besides the generation.
    pub options: Vec<String>,
}

type Program = *mut c_void;
type Code = c_int;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> Code;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Code;
type Size = unsafe extern "C" fn(Program, *mut usize) -> Code;
type Get = unsafe extern "C" fn(Program, *mut c_char) -> Code;
type Destroy = unsafe extern "C" fn(*mut Program) -> Code;
type ErrorText = unsafe extern "C" fn(Code) -> *const c_char;
type Count = unsafe extern "C" fn(*mut c_int) -> Code;
type List = unsafe extern "C" fn(*mut c_int) -> Code;

/// The code of a source that does not compile (`NVRTC_ERROR_COMPILATION` of nvrtc.h).
const ERROR_COMPILATION: Code = 6;

/// One loaded NVRTC.
#[derive(Debug)]
pub struct Nvrtc {
    loaded: Loaded,
    version: String,
    identity: String,
    generations: Vec<u32>,
    functions: Functions,
}

#[derive(Debug)]
struct Functions {
    create: Create,
    compile: Compile,
    log_size: Size,
    log: Get,
    cubin_size: Size,
    cubin: Get,
    destroy: Destroy,
    error_text: ErrorText,
}

impl Nvrtc {
    /// Every NVRTC of this machine that works, the preferred first.
    ///
    /// # Errors
    /// [`CudaError::NotFound`] if there is none, or the reason why the first does not work.
    pub fn find_all(surroundings: &Surroundings) -> Result<Vec<Self>, CudaError> {
        let mut found = Vec::new();
        let mut failure = None;
        for loaded in library::open_all(CudaLibrary::Nvrtc, surroundings)? {
            match Self::new(loaded) {
                Ok(nvrtc) => found.push(nvrtc),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    fn new(loaded: Loaded) -> Result<Self, CudaError> {
        let version = loaded.version()?;
        // SAFETY: nvrtc.h declares all of them so, since CUDA 11.2.
        let (functions, count, list) = unsafe {
            let functions = Functions {
                create: loaded.function::<Create>("nvrtcCreateProgram")?,
                compile: loaded.function::<Compile>("nvrtcCompileProgram")?,
                log_size: loaded.function::<Size>("nvrtcGetProgramLogSize")?,
                log: loaded.function::<Get>("nvrtcGetProgramLog")?,
                cubin_size: loaded.function::<Size>("nvrtcGetCUBINSize")?,
                cubin: loaded.function::<Get>("nvrtcGetCUBIN")?,
                destroy: loaded.function::<Destroy>("nvrtcDestroyProgram")?,
                error_text: loaded.function::<ErrorText>("nvrtcGetErrorString")?,
            };
            let count = loaded.function::<Count>("nvrtcGetNumSupportedArchs")?;
            let list = loaded.function::<List>("nvrtcGetSupportedArchs")?;
            (functions, count, list)
        };
        // Two builds can have the same version; that they also have the same size is unlikely.
        let bytes = std::fs::metadata(loaded.path()).map_or(0, |metadata| metadata.len());
        let mut nvrtc = Self {
            identity: format!("{version} {bytes}"),
            loaded,
            version,
            generations: Vec::new(),
            functions,
        };
        let mut how_many = 0;
        // SAFETY: the address is that of an integer.
        let code = unsafe { count(&raw mut how_many) };
        nvrtc.check("nvrtcGetNumSupportedArchs", code)?;
        let mut numbers = vec![0; usize::try_from(how_many).unwrap_or(0)];
        // SAFETY: there is room for as many integers as the call before said.
        let code = unsafe { list(numbers.as_mut_ptr()) };
        nvrtc.check("nvrtcGetSupportedArchs", code)?;
        nvrtc.generations = numbers
            .into_iter()
            .filter_map(|number| u32::try_from(number).ok())
            .collect();
        Ok(nvrtc)
    }

    /// Major and minor version, such as 13.0.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The CUDA whose drivers load its cubins: its major version.
    pub fn major(&self) -> u32 {
        let major = self.version.split('.').next().unwrap_or_default();
        major.parse().unwrap_or(u32::MAX)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        self.loaded.path()
    }

    /// What tells its results from those of other builds.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether it compiles for a generation.
    pub fn knows(&self, architecture: Architecture) -> bool {
        self.generations.contains(&architecture.number())
    }

    /// Compiles a source to a cubin.
    ///
    /// # Errors
    /// [`CudaError::Compile`] with NVRTC's log, or [`CudaError::Call`] if something else fails.
    pub fn compile(
        &self,
        source: &Source<'_>,
        architecture: Architecture,
    ) -> Result<Vec<u8>, CudaError> {
        let program = self.create(source)?;
        let mut options = vec![format!("--gpu-architecture={}", source.target)];
        options.extend(source.options.iter().cloned());
        let options = texts(options.iter().map(String::as_str));
        let addresses = addresses(&options);
        // SAFETY: the program is alive, and there are as many options as are said.
        let code = unsafe {
            (self.functions.compile)(program.handle, length(&addresses), addresses.as_ptr())
        };
        let log = program.log().unwrap_or_default();
        if code == ERROR_COMPILATION {
            return Err(CudaError::Compile {
                version: self.version.clone(),
                module: source.name.to_owned(),
                architecture,
                log: log.trim().to_owned(),
            });
        }
        self.check("nvrtcCompileProgram", code)?;
        if !log.trim().is_empty() {
            tracing::debug!(file = source.name, %architecture, "{}", log.trim());
        }
        program.bytes(
            ("nvrtcGetCUBINSize", self.functions.cubin_size),
            ("nvrtcGetCUBIN", self.functions.cubin),
        )
    }

    fn create(&self, source: &Source<'_>) -> Result<OwnedProgram<'_>, CudaError> {
        let own = texts([source.text, source.name]);
        let headers = texts(HEADERS.map(|header| header.text));
        let names = texts(HEADERS.map(|header| header.name));
        let (headers, names) = (addresses(&headers), addresses(&names));
        let mut handle = std::ptr::null_mut();
        // SAFETY: all texts end with a zero and live until the call returns, which copies them;
        // there are as many headers as names.
        let code = unsafe {
            (self.functions.create)(
                &raw mut handle,
                own[0].as_ptr(),
                own[1].as_ptr(),
                length(&headers),
                headers.as_ptr(),
                names.as_ptr(),
            )
        };
        self.check("nvrtcCreateProgram", code)?;
        Ok(OwnedProgram {
            nvrtc: self,
            handle,
        })
    }

    fn check(&self, call: &'static str, code: Code) -> Result<(), CudaError> {
        self.loaded.check(call, code, |code| {
            // SAFETY: it gives the address of a static text for every code.
            unsafe { text_at((self.functions.error_text)(code)) }
        })
    }
}

/// A program, destroyed when dropped.
struct OwnedProgram<'a> {
    nvrtc: &'a Nvrtc,
    handle: Program,
}

impl OwnedProgram<'_> {
    fn log(&self) -> Result<String, CudaError> {
        let functions = &self.nvrtc.functions;
        let bytes = self.bytes(
            ("nvrtcGetProgramLogSize", functions.log_size),
            ("nvrtcGetProgramLog", functions.log),
        )?;
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn bytes(
        &self,
        size: (&'static str, Size),
        get: (&'static str, Get),
    ) -> Result<Vec<u8>, CudaError> {
        let mut length = 0;
        // SAFETY: the program is alive, and the address is that of a size.
        let code = unsafe { (size.1)(self.handle, &raw mut length) };
        self.nvrtc.check(size.0, code)?;
        let mut bytes = vec![0u8; length];
        // SAFETY: there is room for as many bytes as the call before said.
        let code = unsafe { (get.1)(self.handle, bytes.as_mut_ptr().cast()) };
        self.nvrtc.check(get.0, code)?;
        Ok(bytes)
    }
}

impl Drop for OwnedProgram<'_> {
    fn drop(&mut self) {
        // SAFETY: the program is alive, and nobody has its handle any more.
        let code = unsafe { (self.nvrtc.functions.destroy)(&raw mut self.handle) };
        if code != library::SUCCESS {
            tracing::debug!("nvrtcDestroyProgram: code {code}");
        }
    }
}

/// Texts as C takes them. Ours hold no zeros; what follows one is cut off.
fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<CString> {
    let until_zero = |text: &'a str| text.split('\0').next().unwrap_or_default();
    texts
        .into_iter()
        .map(|text| CString::new(until_zero(text)).unwrap_or_default())
        .collect()
}

fn addresses(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).collect()
}

fn length<T>(items: &[T]) -> c_int {
    c_int::try_from(items.len()).unwrap_or(c_int::MAX)
}
