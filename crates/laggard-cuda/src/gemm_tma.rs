//! How the matrix kernels are launched whose operands the copy engine brings: maps of the operands,
//! and how many blocks compute a product. Knows addresses as numbers and reads none.
//!
//! These kernels are compiled, inspected and executed by an emulator in tests; none has run on
//! hardware yet.

use crate::gemm_launch::{GemmArguments, Product, ResultType};
use crate::tensor_map::{BOX_BYTES, MapElement, TensorMap};
use crate::{Architecture, CudaError, DeviceMatrix};
use laggard_backend::Transpose;

/// What `TmaProduct` of `kernels/gemm_tma.cuh` is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TmaProduct {
    /// Of the left operand.
    pub a: TensorMap,
    /// Of the right operand.
    pub b: TensorMap,
    /// Of the result.
    pub c: TensorMap,
    /// Sizes, factor, and what the result is made of.
    pub product: GemmArguments,
}

impl TmaProduct {
    /// The same product with other addresses of the operands and the result.
    #[must_use]
    pub fn at(&self, [a, b, c]: [u64; 3]) -> Self {
        Self {
            a: self.a.at(a),
            b: self.b.at(b),
            c: self.c.at(c),
            product: GemmArguments {
                a,
                b,
                c,
                ..self.product
            },
        }
    }
}

/// Rows and columns that one block computes at a time.
pub(crate) const TILE: (u32, u32) = (128, 256);
/// Slices of both operands in shared memory.
pub(crate) const STAGES: u32 = 4;

/// Whether there is a kernel for a generation.
pub(crate) fn serves(architecture: Architecture) -> bool {
    use Architecture::{Sm90, Sm100, Sm103};
    matches!(architecture, Sm90 | Sm100 | Sm103)
}

/// A block of `gemm_wgmma.cu` or `gemm_tcgen05.cu`.
pub(crate) struct Block {
    pub(crate) threads: u32,
    pub(crate) shared_bytes: u32,
    /// Rows of a box of results: what one warpgroup writes.
    result_rows: u32,
}

impl Block {
    pub(crate) fn on(architecture: Architecture) -> Self {
        // Boxes of results take as much in both; then there are two barriers for each stage.
        let shared_bytes =
            STAGES * (TILE.0 + TILE.1) * BOX_BYTES + 2 * TILE.0 * BOX_BYTES + STAGES * 2 * 8;
        if architecture == Architecture::Sm90 {
            // One warpgroup that copies, and two that compute, with two boxes each.
            return Self {
                threads: 3 * 128,
                shared_bytes,
                result_rows: 64,
            };
        }
        // One warpgroup that copies and has multiplied, one that writes. Two barriers for each half
        // of tensor memory, and its address.
        Self {
            threads: 2 * 128,
            shared_bytes: shared_bytes + 2 * 2 * 8 + 8,
            result_rows: 128,
        }
    }
}

/// The maps of a checked product with operands of a type.
pub(crate) fn tma_product(
    product: &Product,
    operands: MapElement,
    arguments: GemmArguments,
    block: &Block,
) -> TmaProduct {
    let result = match (product.result, operands) {
        (ResultType::F32, _) => MapElement::F32,
        (ResultType::Half, MapElement::F16) => MapElement::F16,
        (ResultType::Half, _) => MapElement::Bf16,
    };
    let depth_of_a = product.transpose_a == Transpose::No;
    let depth_of_b = product.transpose_b == Transpose::Yes;
    TmaProduct {
        a: operand(&product.a, operands, (TILE.0, depth_of_a)),
        b: operand(&product.b, operands, (TILE.1, depth_of_b)),
        c: TensorMap::new(&product.c, result, block.result_rows),
        product: arguments,
    }
}

/// A box is a whole slice if the depth is contiguous in memory, else the square that is as wide as
/// a row of a box.
fn operand(
    matrix: &DeviceMatrix,
    element: MapElement,
    (outer, depth_is_contiguous): (u32, bool),
) -> TensorMap {
    let square = BOX_BYTES / element.bytes();
    TensorMap::new(
        matrix,
        element,
        if depth_is_contiguous { outer } else { square },
    )
}

/// Blocks that take tiles in turn, until there are none.
///
/// # Errors
/// [`CudaError::Product`] if tiles cannot be numbered.
pub(crate) fn blocks((rows, columns): (u32, u32), multiprocessors: u32) -> Result<u32, CudaError> {
    let tiles = u64::from(rows.div_ceil(TILE.0)) * u64::from(columns.div_ceil(TILE.1));
    match u32::try_from(tiles) {
        // Numbers of tiles are stepped by the number of blocks, and do not wrap around.
        Ok(tiles) if tiles <= u32::MAX / 2 => Ok(tiles.min(multiprocessors.max(1))),
        _ => Err(CudaError::Product {
            why: format!("{rows} x {columns} has more tiles than can be numbered"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: u32, columns: u32) -> DeviceMatrix {
        DeviceMatrix {
            address: 16,
            rows,
            columns,
            row_stride: columns.next_multiple_of(8),
        }
    }

    #[test]
    fn boxes_follow_the_use_of_operands() {
        use Transpose::{No, Yes};
        let check = |transpose_a, transpose_b, expect: ((u32, u32), (u32, u32))| {
            let sides = |transpose, (rows, columns)| match transpose {
                No => matrix(rows, columns),
                Yes => matrix(columns, rows),
            };
            let product = Product {
                a: sides(transpose_a, (300, 100)),
                transpose_a,
                b: sides(transpose_b, (100, 500)),
                transpose_b,
                c: matrix(300, 500),
                result: ResultType::Half,
                scale: 1.0,
                accumulate: false,
            };
            let arguments = product.arguments(2).unwrap();
            let block = Block::on(Architecture::Sm90);
            let made = tma_product(&product, MapElement::Bf16, arguments, &block);
            let of_box = |map: &TensorMap| (map.box_columns, map.box_rows);
            assert_eq!((of_box(&made.a), of_box(&made.b)), expect);
            assert_eq!(of_box(&made.c), (64, 64));
            // What comes into a stage is as much as the kernel expects there, in whole boxes.
            for (map, outer) in [(made.a, TILE.0), (made.b, TILE.1)] {
                assert_eq!(outer * 64 % (map.box_columns * map.box_rows), 0);
            }
        };
        check(No, Yes, ((64, 128), (64, 256)));
        check(No, No, ((64, 128), (64, 64)));
        check(Yes, No, ((64, 64), (64, 64)));
        check(Yes, Yes, ((64, 64), (64, 256)));
    }

    #[test]
    fn a_block_has_room() {
        for architecture in Architecture::ALL.into_iter().filter(|it| serves(*it)) {
            let wanted = Block::on(architecture).shared_bytes + 1024;
            assert!(wanted <= architecture.shared_bytes(), "{architecture}");
        }
    }

    #[test]
    fn there_are_no_more_blocks_than_tiles_or_multiprocessors() {
        let check = |extents, expect| assert_eq!(blocks(extents, 132).unwrap(), expect);
        check((1, 1), 1);
        check((129, 257), 4);
        check((8192, 8192), 132);
        assert!(blocks((1 << 30, 1 << 30), 132).is_err());
    }
}
