//! Matrices as the copy engine (TMA, sm_90 and later) is told of them: where one lies and which box
//! of it is copied at a time. What follows from a matrix is computed here, without a driver; only
//! [`TensorMap::encode`] calls it.

mod encode;

use crate::DeviceMatrix;
pub use encode::EncodedProduct;

/// Bytes of one row of a box: the widest swizzle (CUDA driver API, `CU_TENSOR_MAP_SWIZZLE_128B`).
pub(crate) const BOX_BYTES: u32 = 128;

/// What the copy engine takes elements for, which decides how it adds; it copies them as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapElement {
    /// Bytes, also of 8-bit floating-point numbers.
    U8,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE single precision.
    F32,
}

impl MapElement {
    /// Bytes of an element.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::U8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// A matrix in device memory and the box of it that one copy moves. In shared memory, a box is
/// swizzled in the mode of 128 bytes; outside of the matrix, there are zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorMap {
    /// Address of the first element.
    pub address: u64,
    /// What the elements are.
    pub element: MapElement,
    /// Columns as stored.
    pub columns: u32,
    /// Rows as stored.
    pub rows: u32,
    /// Bytes from one row to the next.
    pub row_bytes: u64,
    /// Columns of a box.
    pub box_columns: u32,
    /// Rows of a box.
    pub box_rows: u32,
}

impl TensorMap {
    /// The map of a matrix whose address, stride and extents are as [`crate::Product::launch`]
    /// checks them, for boxes of 128 bytes times `box_rows`.
    pub fn new(matrix: &DeviceMatrix, element: MapElement, box_rows: u32) -> Self {
        Self {
            address: matrix.address,
            element,
            columns: matrix.columns,
            rows: matrix.rows,
            row_bytes: u64::from(matrix.row_stride) * u64::from(element.bytes()),
            box_columns: BOX_BYTES / element.bytes(),
            box_rows,
        }
    }

    /// The same map of a matrix elsewhere.
    #[must_use]
    pub fn at(self, address: u64) -> Self {
        Self { address, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_as_wide_as_the_swizzle() {
        let matrix = DeviceMatrix {
            address: 0x4000,
            rows: 300,
            columns: 100,
            row_stride: 112,
        };
        let check = |element: MapElement, columns, row_bytes| {
            let map = TensorMap::new(&matrix, element, 64);
            assert_eq!(map.box_columns, columns, "{element:?}");
            assert_eq!(map.row_bytes, row_bytes, "{element:?}");
            assert_eq!(map.box_columns * element.bytes(), 128, "{element:?}");
            assert_eq!((map.columns, map.rows, map.box_rows), (100, 300, 64));
        };
        check(MapElement::U8, 128, 112);
        check(MapElement::F16, 64, 224);
        check(MapElement::Bf16, 64, 224);
        check(MapElement::F32, 32, 448);
    }
}
