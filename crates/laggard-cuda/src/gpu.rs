//! A GPU, as far as self-checks need one: kernels are launched one at a time on copies of host
//! memory, and waited for. Type-checked and never run on hardware yet.
#![expect(unsafe_code, reason = "launches kernels")]

use crate::{
    Architecture, Argument, Compiler, CubinCache, CudaError, CudaLibrary, EncodedProduct,
    GemmArguments, KernelLaunch, Launcher, Module, Surroundings, library,
};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DeviceRepr,
    DriverError, LaunchConfig, PushKernelArg, sys,
};
use cudarc::nvrtc::Ptx;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// One GPU of this machine.
pub struct Gpu {
    stream: Arc<CudaStream>,
    name: String,
    architecture: Architecture,
    multiprocessors: u32,
    compiler: Compiler,
    modules: Mutex<BTreeMap<Module, Arc<CudaModule>>>,
}

// SAFETY: the struct has C's layout, which is what kernels take by value.
unsafe impl DeviceRepr for GemmArguments {}

impl Gpu {
    /// The GPU of this number, in the driver's order.
    ///
    /// # Errors
    /// If driver or NVRTC are missing, the driver fails, or the GPU's generation is not known.
    pub fn open(
        ordinal: usize,
        surroundings: &Surroundings,
        cache: Option<CubinCache>,
    ) -> Result<Self, CudaError> {
        let driver = driver_major(surroundings)?;
        let context = CudaContext::new(ordinal).map_err(failed("opening the device"))?;
        let asked = failed("asking what the device is");
        let name = context.name().map_err(&asked)?;
        let (major, minor) = context.compute_capability().map_err(&asked)?;
        let architecture = u32::try_from(major)
            .ok()
            .zip(u32::try_from(minor).ok())
            .and_then(|(major, minor)| Architecture::of_compute_capability(major, minor))
            .ok_or_else(|| CudaError::UnknownDevice {
                name: name.clone(),
                major,
                minor,
            })?;
        Ok(Self {
            stream: context.new_stream().map_err(failed("making a stream"))?,
            name,
            architecture,
            multiprocessors: context
                .attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
                .map_err(&asked)?
                .unsigned_abs(),
            compiler: Compiler::open(surroundings, cache, Some(driver))?,
            modules: Mutex::default(),
        })
    }

    /// The product's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn function(&self, launch: &KernelLaunch) -> Result<CudaFunction, CudaError> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match modules.get(&launch.module) {
            Some(module) => Arc::clone(module),
            None => {
                let cubin = self.compiler.cubin(launch.module, self.architecture)?;
                let context = self.stream.context();
                let module = context.load_module(Ptx::from_binary(cubin));
                let module = module.map_err(failed("loading a module"))?;
                modules.insert(launch.module, Arc::clone(&module));
                module
            }
        };
        let function = module.load_function(launch.entry);
        let function = function.map_err(failed("finding a kernel"))?;
        if launch.shared_bytes > 0 {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(launch.shared_bytes).unwrap_or(i32::MAX);
            let set = function.set_attribute(most, bytes);
            set.map_err(failed("asking for shared memory"))?;
        }
        Ok(function)
    }
}

impl Launcher for Gpu {
    fn architecture(&self) -> Architecture {
        self.architecture
    }

    fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    fn launch(
        &self,
        launch: &KernelLaunch,
        buffers: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, CudaError> {
        let function = self.function(launch)?;
        let upload = |buffer: &Vec<u8>| self.stream.clone_htod(buffer);
        let on_device: Result<Vec<CudaSlice<u8>>, _> = buffers.iter().map(upload).collect();
        let on_device = on_device.map_err(failed("copying to the device"))?;
        // The guards keep the memory in use until the launch is enqueued; it is all on one stream.
        let (addresses, guards): (Vec<u64>, Vec<_>) = on_device
            .iter()
            .map(|buffer| buffer.device_ptr(&self.stream))
            .unzip();
        let arguments: Option<Vec<Argument>> = launch
            .arguments
            .iter()
            .map(|argument| resolved(argument, &addresses))
            .collect();
        let arguments = arguments.ok_or_else(|| CudaError::Launch {
            entry: launch.entry,
            why: format!(
                "it names more than the {} buffers that there are",
                buffers.len()
            ),
        })?;
        let encode = |argument: &Argument| match argument {
            Argument::TmaProduct(product) => EncodedProduct::new(product).map(Some),
            _ => Ok(None),
        };
        let encoded: Result<Vec<_>, _> = arguments.iter().map(encode).collect();
        let encoded = encoded?;
        let mut builder = self.stream.launch_builder(&function);
        for (argument, encoded) in arguments.iter().zip(&encoded) {
            if let Some(encoded) = encoded {
                builder.arg(encoded);
                continue;
            }
            match argument {
                Argument::Buffer(value) | Argument::U32(value) => builder.arg(value),
                Argument::U64(value) => builder.arg(value),
                Argument::F32(value) => builder.arg(value),
                Argument::Product(value) => builder.arg(value),
                Argument::TmaProduct(_) => unreachable!("it was encoded"),
            };
        }
        let config = LaunchConfig {
            grid_dim: (launch.blocks, 1, 1),
            block_dim: (launch.threads, 1, 1),
            shared_mem_bytes: launch.shared_bytes,
        };
        // SAFETY: the arguments are those that the kernel of this name declares, as its self-check
        // gives them; buffers have the lengths that the other arguments say.
        let launched = unsafe { builder.launch(config) };
        launched.map_err(failed("launching a kernel"))?;
        drop(guards);
        self.stream
            .synchronize()
            .map_err(failed("executing a kernel"))?;
        let download = |buffer: &CudaSlice<u8>| self.stream.clone_dtoh(buffer);
        let found: Result<Vec<Vec<u8>>, _> = on_device.iter().map(download).collect();
        found.map_err(failed("copying from the device"))
    }
}

/// An argument with addresses in the place of buffers' numbers; `None` if there is no such buffer.
fn resolved(argument: &Argument, addresses: &[u64]) -> Option<Argument> {
    let at = |number: u64| addresses.get(usize::try_from(number).ok()?).copied();
    Some(match argument {
        Argument::Buffer(number) => Argument::U64(at(u64::from(*number))?),
        Argument::Product(product) => Argument::Product(GemmArguments {
            a: at(product.a / 16)?,
            b: at(product.b / 16)?,
            c: at(product.c / 16)?,
            ..*product
        }),
        Argument::TmaProduct(product) => {
            let GemmArguments { a, b, c, .. } = product.product;
            Argument::TmaProduct(product.at([at(a / 16)?, at(b / 16)?, at(c / 16)?]))
        }
        other => *other,
    })
}

/// The newest CUDA that the driver knows, once it is certain that calling it cannot end the
/// process: cudarc panics where there is no driver.
fn driver_major(surroundings: &Surroundings) -> Result<u32, CudaError> {
    let loaded = library::open_all(CudaLibrary::Driver, surroundings)?;
    let mut failure = CudaError::NotFound {
        library: CudaLibrary::Driver,
    };
    for driver in loaded {
        match driver.version() {
            // SAFETY: it only tries to load libraries by the driver's names.
            Ok(version) if unsafe { sys::is_culib_present() } => {
                let major = version.split('.').next().unwrap_or_default();
                return Ok(major.parse().unwrap_or(0));
            }
            Ok(_) => {
                failure = CudaError::NotLoaded {
                    library: CudaLibrary::Driver,
                    path: driver.path().to_owned(),
                    why: "the system's loader does not find it: put its folder into \
                          LD_LIBRARY_PATH"
                        .to_owned(),
                }
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn failed(doing: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::Driver {
        doing,
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_buffers_become_addresses() {
        let addresses = [0x1000, 0x2000];
        let check = |argument, expect| assert_eq!(resolved(&argument, &addresses), expect);
        check(Argument::Buffer(1), Some(Argument::U64(0x2000)));
        check(Argument::Buffer(2), None);
        check(Argument::U64(1), Some(Argument::U64(1)));
        let product = GemmArguments {
            a: 16,
            b: 0,
            c: 16,
            rows: 1,
            columns: 2,
            depth: 3,
            stride_a: 8,
            stride_b: 8,
            stride_c: 8,
            scale: 1.0,
            flags: 0,
        };
        let expect = GemmArguments {
            a: 0x2000,
            b: 0x1000,
            c: 0x2000,
            ..product
        };
        check(Argument::Product(product), Some(Argument::Product(expect)));
        check(Argument::Product(GemmArguments { c: 32, ..product }), None);
    }
}
