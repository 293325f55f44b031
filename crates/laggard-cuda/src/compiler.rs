//! From a module and a generation to machine code: chooses among the NVRTCs of the machine, and
//! compiles nothing twice.

use crate::cache::Key;
use crate::{Architecture, CubinCache, CudaError, HEADERS, Module, Nvrtc, Source, Surroundings};

/// Compiles modules.
#[derive(Debug)]
pub struct Compiler {
    nvrtcs: Vec<Nvrtc>,
    cache: Option<CubinCache>,
    driver: Option<u32>,
}

impl Compiler {
    /// A compiler of whatever NVRTC is here. `driver` is the newest CUDA that the driver knows, as
    /// its major version: a driver refuses the machine code of later ones. `None` if nothing is to
    /// be loaded on this machine.
    ///
    /// # Errors
    /// As [`Nvrtc::find_all`].
    pub fn open(
        surroundings: &Surroundings,
        cache: Option<CubinCache>,
        driver: Option<u32>,
    ) -> Result<Self, CudaError> {
        Ok(Self {
            nvrtcs: Nvrtc::find_all(surroundings)?,
            cache,
            driver,
        })
    }

    /// The NVRTCs to choose from, the preferred first.
    pub fn nvrtcs(&self) -> &[Nvrtc] {
        &self.nvrtcs
    }

    /// The first NVRTC that serves a generation and the driver.
    ///
    /// # Errors
    /// [`CudaError::NoCompiler`], saying of each why it does not.
    pub fn nvrtc_for(&self, architecture: Architecture) -> Result<&Nvrtc, CudaError> {
        let refusal = |nvrtc: &Nvrtc| {
            let version = nvrtc.version();
            if !nvrtc.knows(architecture) {
                return Some(format!("{version} does not know {architecture}"));
            }
            match self.driver {
                Some(driver) if nvrtc.major() > driver => Some(format!(
                    "{version} is newer than the driver, which knows CUDA {driver}"
                )),
                _ => None,
            }
        };
        let mut refusals = Vec::new();
        for nvrtc in &self.nvrtcs {
            match refusal(nvrtc) {
                None => return Ok(nvrtc),
                Some(why) => refusals.push(why),
            }
        }
        Err(CudaError::NoCompiler {
            architecture,
            refusals,
        })
    }

    /// The machine code of a module.
    ///
    /// # Errors
    /// [`CudaError::Unavailable`] if the generation lacks what the module needs,
    /// [`CudaError::NoCompiler`] if no NVRTC serves it, and as [`Nvrtc::compile`].
    pub fn cubin(&self, module: Module, architecture: Architecture) -> Result<Vec<u8>, CudaError> {
        if !Module::all_on(architecture).contains(&module) {
            return Err(CudaError::Unavailable {
                module,
                architecture,
            });
        }
        let file = module.source(architecture);
        let source = Source {
            name: file.name,
            text: file.text,
            target: module.target(architecture),
            options: module.options(architecture),
        };
        self.compiled(&source, architecture)
    }

    /// The machine code of a source.
    ///
    /// # Errors
    /// As [`Compiler::cubin`].
    pub fn compiled(
        &self,
        source: &Source<'_>,
        architecture: Architecture,
    ) -> Result<Vec<u8>, CudaError> {
        let nvrtc = self.nvrtc_for(architecture)?;
        let Some(cache) = &self.cache else {
            return nvrtc.compile(source, architecture);
        };
        let texts = [nvrtc.identity(), &source.target, source.name, source.text];
        let headers = HEADERS.iter().flat_map(|header| [header.name, header.text]);
        let options = source.options.iter().map(String::as_str);
        let key = Key::of(texts.into_iter().chain(headers).chain(options));
        if let Some(cubin) = cache.get(key) {
            return Ok(cubin);
        }
        let cubin = nvrtc.compile(source, architecture)?;
        cache.put(key, &cubin);
        Ok(cubin)
    }
}
