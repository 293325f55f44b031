//! A GPU and its kernels: compiled or found when first needed, and put on streams; for self-checks
//! also launched one at a time on copies of host memory, and waited for. Checked over a stand-in
//! for the driver, and never run on hardware yet.
#![expect(unsafe_code, reason = "launches kernels")]

use crate::device::trouble;
use crate::identity::uuid_text;
use crate::{
    Architecture, Argument, Compiler, ComputeMode, CubinCache, CudaError, CudaIdentity,
    CudaLibrary, EncodedProduct, GemmArguments, KernelLaunch, Launcher, Module, Place, Share,
    Surroundings, library,
};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DeviceRepr,
    DriverError, LaunchConfig, PushKernelArg, sys,
};
use cudarc::nvrtc::Ptx;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// `CUDA_ERROR_NO_DEVICE` of cuda.h.
const NO_DEVICE: i32 = 100;

/// Longest address of a device on a PCI bus, as a text (cuda.h asks for 13 bytes at least).
const PCI_TEXT_BYTES: usize = 32;

/// One GPU of this machine.
pub struct Gpu {
    stream: Arc<CudaStream>,
    name: String,
    architecture: Architecture,
    multiprocessors: u32,
    /// The part of it that kernels are confined to, if they are.
    share: Option<Share>,
    ordinal: usize,
    driver: String,
    compiler: Compiler,
    modules: Mutex<BTreeMap<Module, Arc<CudaModule>>>,
    functions: Mutex<BTreeMap<(Module, &'static str), CudaFunction>>,
}

// SAFETY: the struct has C's layout, which is what kernels take by value.
unsafe impl DeviceRepr for GemmArguments {}

impl Gpu {
    /// How many GPUs the driver shows to this process.
    ///
    /// # Errors
    /// If the driver is missing or fails, or shows none.
    pub fn count(surroundings: &Surroundings) -> Result<usize, CudaError> {
        usable_driver(0, surroundings)?;
        let count = CudaContext::device_count().map_err(failed("counting GPUs"))?;
        usize::try_from(count)
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| no_gpu(0, 0, "the driver counts none"))
    }

    /// The GPU of this number, in the driver's order.
    ///
    /// # Errors
    /// If driver or NVRTC are missing, the driver fails, or the GPU's generation is not known.
    pub fn open(
        ordinal: usize,
        surroundings: &Surroundings,
        cache: Option<CubinCache>,
    ) -> Result<Self, CudaError> {
        Self::confined(ordinal, None, surroundings, cache)
    }

    /// The same, with all kernels confined to a part of it.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub(crate) fn confined(
        ordinal: usize,
        share: Option<Share>,
        surroundings: &Surroundings,
        cache: Option<CubinCache>,
    ) -> Result<Self, CudaError> {
        let driver = usable_driver(ordinal, surroundings)?;
        let major = driver.split('.').next().and_then(|it| it.parse().ok());
        let context = context(ordinal)?;
        // SAFETY: whoever uses memory on a stream keeps it until the stream has passed, here by the
        // one stream of self-checks, and on a device by the work that is under way.
        unsafe { context.disable_event_tracking() };
        let asked = failed("asking what the device is");
        let name = context.name().map_err(&asked)?;
        let capability = context.compute_capability().map_err(&asked)?;
        let architecture = u32::try_from(capability.0)
            .ok()
            .zip(u32::try_from(capability.1).ok())
            .and_then(|(major, minor)| Architecture::of_compute_capability(major, minor))
            .ok_or_else(|| CudaError::UnknownDevice {
                name: name.clone(),
                major: capability.0,
                minor: capability.1,
            })?;
        Ok(Self {
            stream: stream(&context, share.as_ref(), None).map_err(failed("making a stream"))?,
            name,
            architecture,
            multiprocessors: context
                .attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
                .map_err(&asked)?
                .unsigned_abs(),
            share,
            ordinal,
            driver,
            compiler: Compiler::open(surroundings, cache, major)?,
            modules: Mutex::default(),
            functions: Mutex::default(),
        })
    }

    /// The product's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where products are computed.
    pub fn place(&self) -> Place {
        Place {
            architecture: self.architecture,
            multiprocessors: self.multiprocessors(),
        }
    }

    /// The part of it that kernels are confined to, if they are.
    pub(crate) fn share(&self) -> Option<&Share> {
        self.share.as_ref()
    }

    /// A stream, within the part of the GPU that kernels are confined to. Among streams with work,
    /// those of lower priorities come first; 0 is usual.
    pub(crate) fn new_stream(&self, priority: Option<i32>) -> Result<Arc<CudaStream>, DriverError> {
        stream(self.context(), self.share.as_ref(), priority)
    }

    /// The context that everything of this GPU is in.
    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        self.stream.context()
    }

    /// Bytes of its memory, or of an equal part where it is shared, if the driver says so.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        let siblings = self.share.as_ref().map_or(1, Share::siblings).max(1);
        let total = self.context().total_mem().ok()?;
        Some(total as u64 / u64::from(siblings))
    }

    /// Most dynamic shared memory of a block; 0 where the driver does not say.
    pub(crate) fn most_shared_bytes(&self) -> u32 {
        let most = self.context().attribute(
            sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        );
        most.ok().and_then(|it| u32::try_from(it).ok()).unwrap_or(0)
    }

    /// Which GPU it is.
    pub(crate) fn identity(&self) -> Result<CudaIdentity, CudaError> {
        use sys::CUdevice_attribute as Attribute;
        let asked = failed("asking which GPU it is");
        let context = self.context();
        let uuid = context.uuid().map_err(&asked)?;
        let mode = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_MODE);
        let by_mps = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MPS_ENABLED);
        let (free, total) = context.mem_get_info().map_err(&asked)?;
        Ok(CudaIdentity {
            ordinal: self.ordinal,
            name: self.name.clone(),
            pci_bus_id: self.pci_bus_id().map_err(&asked)?,
            uuid: uuid_text(uuid.bytes.map(|byte| byte as u8)),
            capability: context.compute_capability().map_err(&asked)?,
            multiprocessors: self.multiprocessors,
            memory_bytes: total as u64,
            memory_free_bytes: free as u64,
            driver: self.driver.clone(),
            compute_mode: match mode.map_err(&asked)? {
                2 => ComputeMode::Prohibited,
                3 => ComputeMode::ExclusiveProcess,
                _ => ComputeMode::Default,
            },
            // Drivers before CUDA 12.4 do not know the question.
            shared_by_mps: by_mps.ok().map(|is| is != 0),
        })
    }

    fn pci_bus_id(&self) -> Result<String, DriverError> {
        let mut text = [0u8; PCI_TEXT_BYTES];
        // SAFETY: `text` has room for as many bytes as are said.
        let code = unsafe {
            sys::cuDeviceGetPCIBusId(
                text.as_mut_ptr().cast(),
                PCI_TEXT_BYTES as i32,
                self.context().cu_device(),
            )
        };
        code.result()?;
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// Compiles or finds a module, and brings it to the GPU.
    pub(crate) fn load(&self, module: Module) -> Result<(), CudaError> {
        self.module(module).map(|_| ())
    }

    fn module(&self, of: Module) -> Result<Arc<CudaModule>, CudaError> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(&of) {
            return Ok(Arc::clone(module));
        }
        let cubin = self.compiler.cubin(of, self.architecture)?;
        let module = self.context().load_module(Ptx::from_binary(cubin));
        let module = module.map_err(failed("loading a module"))?;
        modules.insert(of, Arc::clone(&module));
        Ok(module)
    }

    fn function(&self, launch: &KernelLaunch) -> Result<CudaFunction, CudaError> {
        let key = (launch.module, launch.entry);
        let known = || {
            self.functions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(function) = known().get(&key) {
            return Ok(function.clone());
        }
        let function = self.module(launch.module)?.load_function(launch.entry);
        let function = function.map_err(failed("finding a kernel"))?;
        if launch.shared_bytes > 0 {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(launch.shared_bytes).unwrap_or(i32::MAX);
            let set = function.set_attribute(most, bytes);
            set.map_err(failed("asking for shared memory"))?;
        }
        known().insert(key, function.clone());
        Ok(function)
    }

    /// Puts a launch on a stream. Its arguments name addresses, which are alive until the stream
    /// has passed them, and the memory there is as long as the other arguments say.
    pub(crate) fn enqueue(
        &self,
        launch: &KernelLaunch,
        stream: &CudaStream,
    ) -> Result<(), CudaError> {
        let function = self.function(launch)?;
        let encode = |argument: &Argument| match argument {
            Argument::TmaProduct(product) => EncodedProduct::new(product).map(Some),
            _ => Ok(None),
        };
        let encoded: Result<Vec<_>, _> = launch.arguments.iter().map(encode).collect();
        let encoded = encoded?;
        let mut builder = stream.launch_builder(&function);
        for (argument, encoded) in launch.arguments.iter().zip(&encoded) {
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
        // and the device's lowering give them; callers answer for the memory.
        let launched = unsafe { builder.launch(config) };
        launched.map(|_| ()).map_err(failed("launching a kernel"))
    }

    /// Lets a stream write the GPU's own time to an address when it comes there.
    pub(crate) fn stamp(&self, address: u64, stream: &CudaStream) -> Result<(), CudaError> {
        let launch = KernelLaunch {
            module: Module::Clock,
            entry: "stamp",
            blocks: 1,
            threads: 1,
            shared_bytes: 0,
            arguments: vec![Argument::U64(address)],
        };
        self.enqueue(&launch, stream)
    }
}

impl Launcher for Gpu {
    fn architecture(&self) -> Architecture {
        self.architecture
    }

    fn multiprocessors(&self) -> u32 {
        let share = self.share.as_ref();
        share.map_or(self.multiprocessors, Share::multiprocessors)
    }

    fn launch(
        &self,
        launch: &KernelLaunch,
        buffers: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, CudaError> {
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
        let launch = KernelLaunch {
            arguments,
            ..launch.clone()
        };
        self.enqueue(&launch, &self.stream)?;
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

/// The context that everything of a GPU is in. Its driver is known to be usable.
pub(crate) fn context(ordinal: usize) -> Result<Arc<CudaContext>, CudaError> {
    CudaContext::new(ordinal).map_err(|error| not_opened(ordinal, error))
}

fn stream(
    context: &Arc<CudaContext>,
    share: Option<&Share>,
    priority: Option<i32>,
) -> Result<Arc<CudaStream>, DriverError> {
    match (share, priority) {
        (Some(share), priority) => share.new_stream(context, priority.unwrap_or(0)),
        (None, Some(priority)) => context.new_stream_with_priority(priority),
        (None, None) => context.new_stream(),
    }
}

/// The newest CUDA that the driver knows, once it is certain that calling it cannot end the
/// process: cudarc panics where there is no driver.
fn driver_version(surroundings: &Surroundings) -> Result<String, CudaError> {
    let loaded = library::open_all(CudaLibrary::Driver, surroundings)?;
    let mut failure = CudaError::NotFound {
        library: CudaLibrary::Driver,
    };
    for driver in loaded {
        match driver.version() {
            // SAFETY: it only tries to load libraries by the driver's names.
            Ok(version) if unsafe { sys::is_culib_present() } => {
                return Ok(version);
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
        why: trouble::words_and_hint(error),
    }
}

/// The newest CUDA that the driver knows, where it sees a device at all: that of this number is
/// wanted.
pub(crate) fn usable_driver(
    ordinal: usize,
    surroundings: &Surroundings,
) -> Result<String, CudaError> {
    driver_version(surroundings).map_err(|error| match error {
        CudaError::Call {
            call: "cuInit",
            code: NO_DEVICE,
            name,
            ..
        } => no_gpu(ordinal, 0, &name),
        error => error,
    })
}

/// Why a GPU cannot be opened.
fn not_opened(ordinal: usize, error: DriverError) -> CudaError {
    use sys::CUresult as R;
    match error.0 {
        R::CUDA_ERROR_INVALID_DEVICE | R::CUDA_ERROR_NO_DEVICE => {
            let count = CudaContext::device_count().unwrap_or(0);
            no_gpu(ordinal, count, &trouble::words(error))
        }
        _ => failed("opening the device")(error),
    }
}

/// That there is no GPU of a number, with how many there are. Calls no driver: there may be none
/// that can be called.
fn no_gpu(ordinal: usize, count: i32, words: &str) -> CudaError {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES");
    let visible = visible.map_or_else(
        |_| "CUDA_VISIBLE_DEVICES is not set".to_owned(),
        |visible| format!("CUDA_VISIBLE_DEVICES is `{visible}`"),
    );
    let hint = trouble::hint(DriverError(sys::CUresult::CUDA_ERROR_INVALID_DEVICE));
    CudaError::Driver {
        doing: "opening the device",
        why: format!(
            "there is no GPU {ordinal} of {count} that are visible ({visible}): {words}\n\
             hint: {hint}"
        ),
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
