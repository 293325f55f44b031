//! Green contexts: what of the driver's interface is needed to confine streams to some of a GPU's
//! multiprocessors. Everything else of a device stays in the GPU's primary context, which a green
//! context shares; a stream alone says where its kernels run (`cuGreenCtxStreamCreate`).
#![expect(unsafe_code, reason = "calls the driver")]

use super::Resource;
use super::count::Granularity;
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The functions that are called here: cudarc panics where one is missing.
const FUNCTIONS: [&str; 7] = [
    "cuDeviceGetDevResource",
    "cuDevSmResourceSplitByCount",
    "cuDevResourceGenerateDesc",
    "cuGreenCtxCreate",
    "cuGreenCtxDestroy",
    "cuGreenCtxGetDevResource",
    "cuGreenCtxStreamCreate",
];

/// Multiprocessors are the one kind of resource that is divided here.
const KIND: sys::CUdevResourceType = sys::CUdevResourceType::CU_DEV_RESOURCE_TYPE_SM;

/// The flag that cuda.h wants of every green context.
const WITH_DEFAULT_STREAM: u32 = sys::CUgreenCtxCreate_flags::CU_GREEN_CTX_DEFAULT_STREAM as u32;

/// As `cuGreenCtxStreamCreate` wants every stream.
const NON_BLOCKING: u32 = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;

/// The first function that the driver lacks. The driver must be there.
pub(super) fn missing_function() -> Option<&'static str> {
    let is_missing = |name: &&&str| {
        // SAFETY: the driver is there, as the caller says; the address is only looked up.
        let found = unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) };
        found.is_err()
    };
    FUNCTIONS.iter().find(is_missing).copied()
}

/// No resource, to be filled by the driver. Zeros are one of no kind, and a later driver's fields
/// are as if unset.
fn nothing() -> Resource {
    // SAFETY: a struct of C whose fields are an enum with a variant of 0, and bytes.
    unsafe { std::mem::zeroed() }
}

/// All multiprocessors of a GPU.
pub(super) fn multiprocessors_of(device: sys::CUdevice) -> Result<Resource, DriverError> {
    let mut resource = nothing();
    // SAFETY: the address is that of a resource.
    let code = unsafe { sys::cuDeviceGetDevResource(device, &raw mut resource, KIND) };
    code.result().map(|()| resource)
}

/// What a GPU without a context says of itself: its major compute capability, and whether processes
/// share it by way of a server.
pub(super) fn traits_of(device: sys::CUdevice) -> Result<(i32, Option<bool>), DriverError> {
    use sys::CUdevice_attribute as Attribute;
    // SAFETY: the driver has told of this device.
    let asked = |attribute| unsafe { result::device::get_attribute(device, attribute) };
    let major = asked(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    // Drivers before CUDA 12.4 do not know the question.
    let by_mps = asked(Attribute::CU_DEVICE_ATTRIBUTE_MPS_ENABLED);
    Ok((major, by_mps.ok().map(|is| is != 0)))
}

/// Multiprocessors of a resource that the driver filled.
pub(super) fn count(resource: &Resource) -> u32 {
    // SAFETY: all bytes are initialised, and each makes a number.
    unsafe { resource.__bindgen_anon_1.sm }.smCount
}

/// In which steps a resource is divided; drivers before CUDA 13 leave both fields as they are.
pub(super) fn granularity(resource: &Resource) -> Option<Granularity> {
    // SAFETY: as above.
    let sm = unsafe { resource.__bindgen_anon_1.sm };
    let is_said = sm.minSmPartitionSize > 0 && sm.smCoscheduledAlignment > 0;
    is_said.then_some(Granularity {
        least: sm.minSmPartitionSize,
        multiple: sm.smCoscheduledAlignment,
    })
}

/// Splits so many multiprocessors or some more off a resource that the driver told of a device or a
/// context; gives them and what is left.
pub(super) fn split(from: &Resource, wanted: u32) -> Result<(Resource, Resource), DriverError> {
    let (mut part, mut rest) = (nothing(), nothing());
    let mut groups = 1;
    // SAFETY: there is room for one group; all addresses are those of resources.
    let code = unsafe {
        sys::cuDevSmResourceSplitByCount(
            &raw mut part,
            &raw mut groups,
            from,
            &raw mut rest,
            0,
            wanted,
        )
    };
    code.result()?;
    match groups {
        1 => Ok((part, rest)),
        _ => Err(DriverError(
            sys::CUresult::CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION,
        )),
    }
}

/// A context with some of a GPU's multiprocessors, and the streams that were made in it.
pub(super) struct GreenContext {
    /// Kept, so that the primary context is not made anew.
    context: Arc<CudaContext>,
    raw: sys::CUgreenCtx,
    streams: Mutex<Vec<Stream>>,
}

/// The handle of a stream, and whoever uses it: a stream that is wrapped does not end its handle.
struct Stream {
    raw: sys::CUstream,
    users: Weak<CudaStream>,
}

impl Stream {
    /// Ends it once it has done what it was given.
    ///
    /// # Safety
    /// It was made here, nobody uses it any more, and its context is current.
    unsafe fn destroy(self) -> Result<(), DriverError> {
        // SAFETY: the caller says so.
        unsafe { sys::cuStreamDestroy_v2(self.raw) }.result()
    }
}

// SAFETY: handles of the driver may be used from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above; what changes is behind a mutex.
unsafe impl Send for GreenContext {}
// SAFETY: as above.
unsafe impl Sync for GreenContext {}

impl GreenContext {
    pub(super) fn create(
        context: &Arc<CudaContext>,
        mut resource: Resource,
    ) -> Result<Self, DriverError> {
        context.bind_to_thread()?;
        let (mut description, mut raw) = (null_mut(), null_mut());
        // SAFETY: the addresses are those of one resource and of a handle.
        let code =
            unsafe { sys::cuDevResourceGenerateDesc(&raw mut description, &raw mut resource, 1) };
        code.result()?;
        // SAFETY: the description is the one just made; the other address is that of a handle.
        let code = unsafe {
            sys::cuGreenCtxCreate(
                &raw mut raw,
                description,
                context.cu_device(),
                WITH_DEFAULT_STREAM,
            )
        };
        code.result()?;
        Ok(Self {
            context: Arc::clone(context),
            raw,
            streams: Mutex::default(),
        })
    }

    /// What it has, as the driver says.
    pub(super) fn resource(&self) -> Result<Resource, DriverError> {
        let mut resource = nothing();
        // SAFETY: the context is live, and the address that of a resource.
        let code = unsafe { sys::cuGreenCtxGetDevResource(self.raw, &raw mut resource, KIND) };
        code.result().map(|()| resource)
    }

    /// How many multiprocessors it has.
    pub(super) fn multiprocessors(&self) -> Result<u32, DriverError> {
        self.resource().map(|resource| count(&resource))
    }

    /// A stream whose kernels stay on these multiprocessors, for use in a context of the same GPU.
    /// Streams that nobody uses any more end.
    pub(super) fn new_stream(
        &self,
        context: &Arc<CudaContext>,
        priority: i32,
    ) -> Result<Arc<CudaStream>, DriverError> {
        context.bind_to_thread()?;
        let mut stream = null_mut();
        // SAFETY: the context is live, and the address that of a handle.
        let code = unsafe {
            sys::cuGreenCtxStreamCreate(&raw mut stream, self.raw, NON_BLOCKING, priority)
        };
        code.result()?;
        // SAFETY: the stream is live as long as what is made here, or until this is dropped, which
        // whoever uses it keeps.
        let wrapped = unsafe { context.wrap_borrowed_stream(stream) };
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = streams.extract_if(.., |stream| stream.users.strong_count() == 0);
        for stream in unused {
            // SAFETY: it was made here, its last user is gone, and a context of its GPU is current.
            if let Err(error) = unsafe { stream.destroy() } {
                tracing::debug!("a stream was not given back: {error}");
            }
        }
        streams.push(Stream {
            raw: stream,
            users: Arc::downgrade(&wrapped),
        });
        Ok(wrapped)
    }
}

impl Drop for GreenContext {
    /// The driver ends streams when they have done what they were given.
    fn drop(&mut self) {
        let bound = self.context.bind_to_thread();
        let streams = self
            .streams
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let mut destroy = || -> Result<(), DriverError> {
            for stream in streams.drain(..) {
                // SAFETY: it was made here, and nobody uses it any more.
                unsafe { stream.destroy() }?;
            }
            // SAFETY: it was made here, and is not used again.
            unsafe { sys::cuGreenCtxDestroy(self.raw) }.result()
        };
        if let Err(error) = bound.and_then(|()| destroy()) {
            tracing::debug!("a green context was not given back: {error}");
        }
    }
}
