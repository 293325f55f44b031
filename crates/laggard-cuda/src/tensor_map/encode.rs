//! The driver makes of a [`TensorMap`] what the copy engine reads. Never run on hardware yet.
#![expect(
    unsafe_code,
    reason = "calls the driver, and passes what it made to kernels"
)]

use super::{MapElement, TensorMap};
use crate::gemm_tma::TmaProduct;
use crate::{CudaError, GemmArguments};
use cudarc::driver::{DeviceRepr, sys};

/// `TmaProduct` of `kernels/gemm_tma.cuh`, as kernels take it by value.
#[repr(C, align(128))]
#[derive(Debug, Clone, Copy)]
pub struct EncodedProduct {
    maps: [sys::CUtensorMap; 3],
    product: GemmArguments,
}

// SAFETY: the struct has C's layout, which is what kernels take by value.
unsafe impl DeviceRepr for EncodedProduct {}

impl EncodedProduct {
    /// The argument of a kernel on this device.
    ///
    /// # Errors
    /// [`CudaError::Driver`] if the driver refuses a map. The driver must be loaded, and of CUDA 12
    /// or later, as every driver of a GPU with a copy engine is that laggard has kernels for.
    pub fn new(product: &TmaProduct) -> Result<Self, CudaError> {
        Ok(Self {
            maps: [
                product.a.encode()?,
                product.b.encode()?,
                product.c.encode()?,
            ],
            product: product.product,
        })
    }
}

impl TensorMap {
    fn encode(&self) -> Result<sys::CUtensorMap, CudaError> {
        use sys::CUtensorMapDataType_enum as Type;
        let element = match self.element {
            MapElement::U8 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT8,
            MapElement::F16 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            MapElement::Bf16 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            MapElement::F32 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        };
        let extents = [u64::from(self.columns), u64::from(self.rows)];
        let strides = [self.row_bytes];
        let of_box = [self.box_columns, self.box_rows];
        let steps = [1, 1];
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: there are as many extents, boxes and steps as dimensions, and one stride less;
        // the driver only reads them, and does not follow the matrix's address.
        let code = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                element,
                2,
                self.address as *mut core::ffi::c_void,
                extents.as_ptr(),
                strides.as_ptr(),
                of_box.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        code.result().map_err(|error| CudaError::Driver {
            doing: "describing a matrix to the copy engine",
            why: format!("{error}: {self:?}"),
        })?;
        Ok(map)
    }
}
