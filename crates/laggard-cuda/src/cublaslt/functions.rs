//! cuBLASLt's functions as cublasLt.h declares them, and its objects, destroyed when dropped.

use super::matmul::{COMPUTE_F32, DATA_F32, Layout};
use crate::CudaError;
use crate::library::Loaded;
use std::ffi::{c_char, c_int, c_void};

/// `cublasStatus_t`.
pub(super) type Code = c_int;
type Object = *mut c_void;

/// `cublasLtMatmulAlgo_t`, opaque.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Algorithm {
    data: [u64; 8],
}

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HeuristicResult {
    pub(super) algorithm: Algorithm,
    workspace_bytes: usize,
    pub(super) state: Code,
    waves: f32,
    reserved: [c_int; 4],
}

type Create = unsafe extern "C" fn(*mut Object) -> Code;
type Destroy = unsafe extern "C" fn(Object) -> Code;
type Set = unsafe extern "C" fn(Object, c_int, *const c_void, usize) -> Code;
type Heuristic = unsafe extern "C" fn(
    Object,
    Object,
    Object,
    Object,
    Object,
    Object,
    Object,
    c_int,
    *mut HeuristicResult,
    *mut c_int,
) -> Code;
type Multiply = unsafe extern "C" fn(
    Object,
    Object,
    *const c_void,
    *const c_void,
    Object,
    *const c_void,
    Object,
    *const c_void,
    *const c_void,
    Object,
    *mut c_void,
    Object,
    *const Algorithm,
    *mut c_void,
    usize,
    *mut c_void,
) -> Code;

pub(super) struct Functions {
    pub(super) create: Create,
    pub(super) status_name: unsafe extern "C" fn(Code) -> *const c_char,
    pub(super) heuristic: Heuristic,
    pub(super) multiply: Multiply,
    operation_create: unsafe extern "C" fn(*mut Object, c_int, c_int) -> Code,
    operation_set: Set,
    operation_destroy: Destroy,
    layout_create: unsafe extern "C" fn(*mut Object, c_int, u64, u64, i64) -> Code,
    layout_destroy: Destroy,
    preference_create: Create,
    preference_set: Set,
    preference_destroy: Destroy,
}

/// An object of the library's, destroyed when dropped.
pub(super) struct Owned {
    object: Object,
    destroy: Destroy,
}

// SAFETY: the library reads descriptions without changing them, from any thread.
unsafe impl Send for Owned {}
// SAFETY: the same.
unsafe impl Sync for Owned {}

impl Owned {
    pub(super) fn address(&self) -> *mut c_void {
        self.object
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the object is alive, and nobody has its address any more. There is nothing to do
        // about a failure.
        unsafe { (self.destroy)(self.object) };
    }
}

/// Turns a code into an error.
pub(super) trait Check: Fn(&'static str, Code) -> Result<(), CudaError> {}
impl<T: Fn(&'static str, Code) -> Result<(), CudaError>> Check for T {}

impl Functions {
    pub(super) fn of(loaded: &Loaded) -> Result<Self, CudaError> {
        // SAFETY: cublasLt.h declares all of them so, since CUDA 11.4.
        unsafe {
            Ok(Self {
                create: loaded.function("cublasLtCreate")?,
                status_name: loaded.function("cublasLtGetStatusName")?,
                heuristic: loaded.function("cublasLtMatmulAlgoGetHeuristic")?,
                multiply: loaded.function("cublasLtMatmul")?,
                operation_create: loaded.function("cublasLtMatmulDescCreate")?,
                operation_set: loaded.function("cublasLtMatmulDescSetAttribute")?,
                operation_destroy: loaded.function("cublasLtMatmulDescDestroy")?,
                layout_create: loaded.function("cublasLtMatrixLayoutCreate")?,
                layout_destroy: loaded.function("cublasLtMatrixLayoutDestroy")?,
                preference_create: loaded.function("cublasLtMatmulPreferenceCreate")?,
                preference_set: loaded.function("cublasLtMatmulPreferenceSetAttribute")?,
                preference_destroy: loaded.function("cublasLtMatmulPreferenceDestroy")?,
            })
        }
    }

    /// A product with sums and factors in f32.
    pub(super) fn operation(&self, check: impl Check) -> Result<Owned, CudaError> {
        let mut object = std::ptr::null_mut();
        // SAFETY: the address is that of a pointer.
        let code = unsafe { (self.operation_create)(&raw mut object, COMPUTE_F32, DATA_F32) };
        check("cublasLtMatmulDescCreate", code)?;
        Ok(Owned {
            object,
            destroy: self.operation_destroy,
        })
    }

    pub(super) fn set_operation<T: Copy>(&self, of: &Owned, name: c_int, value: &T) -> Code {
        let value: *const T = value;
        // SAFETY: the object is alive, and the value as long as is said.
        unsafe { (self.operation_set)(of.object, name, value.cast(), size_of::<T>()) }
    }

    pub(super) fn layout(&self, of: &Layout, check: impl Check) -> Result<Owned, CudaError> {
        let mut object = std::ptr::null_mut();
        let (rows, columns) = (u64::from(of.rows), u64::from(of.columns));
        let stride = i64::from(of.stride);
        // SAFETY: the address is that of a pointer.
        let code = unsafe { (self.layout_create)(&raw mut object, of.data, rows, columns, stride) };
        check("cublasLtMatrixLayoutCreate", code)?;
        Ok(Owned {
            object,
            destroy: self.layout_destroy,
        })
    }

    pub(super) fn preference(&self, check: impl Check) -> Result<Owned, CudaError> {
        let mut object = std::ptr::null_mut();
        // SAFETY: the address is that of a pointer.
        let code = unsafe { (self.preference_create)(&raw mut object) };
        check("cublasLtMatmulPreferenceCreate", code)?;
        Ok(Owned {
            object,
            destroy: self.preference_destroy,
        })
    }

    pub(super) fn set_preference<T: Copy>(&self, of: &Owned, name: c_int, value: &T) -> Code {
        let value: *const T = value;
        // SAFETY: the object is alive, and the value as long as is said.
        unsafe { (self.preference_set)(of.object, name, value.cast(), size_of::<T>()) }
    }
}
