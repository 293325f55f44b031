//! Matrix products by cuBLASLt, loaded while the program runs: the vendor's own engine, which own
//! kernels are measured against, and which is used in their place where it is here and faster.
//!
//! Checked against a stand-in for the library, which reads the same descriptions and multiplies on
//! the host. Never run on hardware yet.
#![expect(unsafe_code, reason = "calls cuBLASLt's C functions")]

mod functions;
mod matmul;
#[cfg(test)]
mod tests;

use crate::device::ProductEngine;
use crate::library::{self, Loaded, text_at};
use crate::{CudaError, CudaLibrary, ElementType, Product, Surroundings};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use functions::{Algorithm, Code, Functions, HeuristicResult, Owned};
use matmul::{Matmul, attribute};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What NVIDIA advises for Hopper, the generation that wants most (cuBLAS documentation,
/// `cublasSetWorkspace`).
const WORKSPACE_BYTES: usize = 32 << 20;

/// `CUBLAS_STATUS_NOT_SUPPORTED`: no algorithm computes this.
const NOT_SUPPORTED: Code = 15;

/// A loaded cuBLASLt.
pub struct CublasLt {
    loaded: Loaded,
    functions: Functions,
    version: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Made when first needed, because it belongs to a device.
    handle: Option<Address>,
    /// How each product is computed; `None` if it is not.
    plans: BTreeMap<Matmul, Option<Arc<Plan>>>,
    /// Each stream's own, as its products run beside those of others. By the stream's address here,
    /// which no other has as long as this knows of it; the driver gives handles out again.
    workspaces: BTreeMap<usize, (Weak<CudaStream>, CudaSlice<u8>)>,
}

/// Something of the library's, which it lets every thread use.
#[derive(Debug, Clone, Copy)]
struct Address(*mut c_void);

// SAFETY: cuBLASLt is thread-safe, also with one handle (cuBLAS documentation, "Thread Safety"),
// and reads descriptions without changing them.
unsafe impl Send for Address {}
// SAFETY: the same.
unsafe impl Sync for Address {}

/// A product as the library knows it: descriptions, which it owns, and the algorithm that it chose.
struct Plan {
    operation: Owned,
    first: Owned,
    second: Owned,
    result: Owned,
    algorithm: Algorithm,
}

/// Where the operands of a product are.
#[derive(Debug, Clone, Copy)]
struct Site {
    /// Of the product's `a`, `b` and `c`.
    addresses: [u64; 3],
    workspace: (u64, usize),
    /// `cudaStream_t`, which is the driver's `CUstream`.
    stream: *mut c_void,
}

impl CublasLt {
    /// Loads the first cuBLASLt that has all that is needed.
    ///
    /// # Errors
    /// [`CudaError::NotFound`] if there is none; [`CudaError::NotLoaded`] if none can be used.
    pub fn load(surroundings: &Surroundings) -> Result<Arc<Self>, CudaError> {
        let mut failure = None;
        for loaded in library::open_all(CudaLibrary::CublasLt, surroundings)? {
            match Self::new(loaded) {
                Ok(library) => return Ok(Arc::new(library)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or(CudaError::NotFound {
            library: CudaLibrary::CublasLt,
        }))
    }

    fn new(loaded: Loaded) -> Result<Self, CudaError> {
        Ok(Self {
            version: loaded.version()?,
            functions: Functions::of(&loaded)?,
            loaded,
            state: Mutex::default(),
        })
    }

    /// Its version, such as 13.1.0.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        self.loaded.path()
    }

    /// Puts a product onto a stream, and says whether any algorithm computes it.
    fn multiply(
        &self,
        matmul: &Matmul,
        (scale, accumulate): (f32, bool),
        site: Site,
    ) -> Result<bool, CudaError> {
        let (handle, plan) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let handle = match state.handle {
                Some(handle) => handle,
                None => *state.handle.insert(self.handle()?),
            };
            let plan = match state.plans.get(matmul) {
                Some(plan) => plan.clone(),
                None => {
                    let plan = self.plan(handle, matmul, site.workspace.1)?.map(Arc::new);
                    state.plans.insert(*matmul, plan.clone());
                    plan
                }
            };
            (handle, plan)
        };
        let Some(plan) = plan else { return Ok(false) };
        let beta: f32 = if accumulate { 1.0 } else { 0.0 };
        let [a, b, c] = site.addresses.map(|address| address as *mut c_void);
        // SAFETY: descriptions and handle are the library's own and alive; factors are read before
        // the call returns, as they are on the host; the caller says that the operands are where
        // and as large as the product says, and are not freed before the stream has come past this.
        let code = unsafe {
            (self.functions.multiply)(
                handle.0,
                plan.operation.address(),
                (&raw const scale).cast(),
                b,
                plan.first.address(),
                a,
                plan.second.address(),
                (&raw const beta).cast(),
                c,
                plan.result.address(),
                c,
                plan.result.address(),
                &raw const plan.algorithm,
                site.workspace.0 as *mut c_void,
                site.workspace.1,
                site.stream,
            )
        };
        self.check("cublasLtMatmul", code)?;
        Ok(true)
    }

    fn handle(&self) -> Result<Address, CudaError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the address is that of a handle. It is never destroyed, like the library itself.
        let code = unsafe { (self.functions.create)(&raw mut handle) };
        self.check("cublasLtCreate", code)?;
        Ok(Address(handle))
    }

    /// Describes a product, and asks for the algorithm that the library thinks is fastest.
    fn plan(
        &self,
        handle: Address,
        matmul: &Matmul,
        workspace_bytes: usize,
    ) -> Result<Option<Plan>, CudaError> {
        let describe = |call, made| self.check(call, made);
        let functions = &self.functions;
        let operation = functions.operation(describe)?;
        for (name, transpose) in [
            (attribute::TRANSPOSE_FIRST, matmul.transpose_first),
            (attribute::TRANSPOSE_SECOND, matmul.transpose_second),
        ] {
            let value = matmul::operation_code(transpose);
            let code = functions.set_operation(&operation, name, &value);
            self.check("cublasLtMatmulDescSetAttribute", code)?;
        }
        let layout = |layout| functions.layout(layout, describe);
        let first = layout(&matmul.first)?;
        let second = layout(&matmul.second)?;
        let result = layout(&matmul.result)?;
        let preference = functions.preference(describe)?;
        let workspace = workspace_bytes as u64;
        let code = functions.set_preference(&preference, attribute::WORKSPACE_BYTES, &workspace);
        self.check("cublasLtMatmulPreferenceSetAttribute", code)?;
        let [a, b, c] = matmul.alignments;
        for (name, bytes) in [
            (attribute::ALIGNMENT_FIRST, b),
            (attribute::ALIGNMENT_SECOND, a),
            (attribute::ALIGNMENT_RESULT, c),
            (attribute::ALIGNMENT_OUTPUT, c),
        ] {
            let code = functions.set_preference(&preference, name, &bytes);
            self.check("cublasLtMatmulPreferenceSetAttribute", code)?;
        }
        let mut found = HeuristicResult::default();
        let mut count = 0;
        // SAFETY: all descriptions are alive, and there is room for the one result asked for.
        let code = unsafe {
            (functions.heuristic)(
                handle.0,
                operation.address(),
                first.address(),
                second.address(),
                result.address(),
                result.address(),
                preference.address(),
                1,
                &raw mut found,
                &raw mut count,
            )
        };
        if code == NOT_SUPPORTED {
            return Ok(None);
        }
        self.check("cublasLtMatmulAlgoGetHeuristic", code)?;
        Ok(
            (count > 0 && found.state == library::SUCCESS).then_some(Plan {
                operation,
                first,
                second,
                result,
                algorithm: found.algorithm,
            }),
        )
    }

    fn check(&self, call: &'static str, code: Code) -> Result<(), CudaError> {
        self.loaded.check(call, code, |code| {
            // SAFETY: it gives the address of a static text for every code.
            unsafe { text_at((self.functions.status_name)(code)) }
        })
    }

    /// The workspace of a stream, made when it is first needed. Those of streams that are gone go.
    fn workspace(&self, stream: &Arc<CudaStream>) -> Result<u64, CudaError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Arc::as_ptr(stream) as usize;
        if let Some((_, workspace)) = state.workspaces.get(&key) {
            return Ok(workspace.device_ptr(stream).0);
        }
        let workspaces = &mut state.workspaces;
        workspaces.retain(|_, (stream, _)| stream.strong_count() > 0);
        // SAFETY: nobody reads it before the library has written there.
        let workspace = unsafe { stream.context().default_stream().alloc(WORKSPACE_BYTES) };
        let workspace = workspace.map_err(|error| CudaError::Driver {
            doing: "allocating the workspace of cuBLASLt",
            why: error.to_string(),
        })?;
        let address = workspace.device_ptr(stream).0;
        let of_stream = Arc::downgrade(stream);
        workspaces.insert(key, (of_stream, workspace));
        Ok(address)
    }
}

impl ProductEngine for CublasLt {
    fn name(&self) -> &'static str {
        "cuBLASLt"
    }

    fn prepare(&self, stream: &Arc<CudaStream>) -> Result<(), CudaError> {
        bind(stream)?;
        self.workspace(stream).map(|_| ())
    }

    fn issue(
        &self,
        product: &Product,
        operands: ElementType,
        stream: &Arc<CudaStream>,
    ) -> Result<bool, CudaError> {
        let Some(matmul) = Matmul::new(product, operands)? else {
            return Ok(false);
        };
        bind(stream)?;
        let site = Site {
            addresses: [product.a.address, product.b.address, product.c.address],
            workspace: (self.workspace(stream)?, WORKSPACE_BYTES),
            stream: stream.cu_stream().cast(),
        };
        self.multiply(&matmul, (product.scale, product.accumulate), site)
    }
}

/// Makes the device of a stream the current one.
fn bind(stream: &CudaStream) -> Result<(), CudaError> {
    let bound = stream.context().bind_to_thread();
    bound.map_err(|error| CudaError::Driver {
        doing: "making a device current",
        why: error.to_string(),
    })
}
