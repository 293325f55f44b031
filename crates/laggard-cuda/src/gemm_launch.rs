//! How the matrix kernels are launched: their arguments as they lie in memory, checked against the
//! operands' sizes, and how many blocks of which size compute a product. Knows addresses as numbers
//! and reads none.

use crate::{Architecture, Argument, CudaError, KernelLaunch, Module, gemm_tma, module};
use laggard_backend::Transpose;

/// A row-major matrix in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMatrix {
    /// Address of the first element; a multiple of 16.
    pub address: u64,
    /// Rows as stored.
    pub rows: u32,
    /// Columns as stored.
    pub columns: u32,
    /// Elements from one row to the next; a multiple of 16 bytes.
    pub row_stride: u32,
}

/// A product: `c = scale * op(a) * op(b)`, or `c += ...`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    /// Left operand, of a half type or of 8 bits.
    pub a: DeviceMatrix,
    /// Use of the left operand.
    pub transpose_a: Transpose,
    /// Right operand, of the same type.
    pub b: DeviceMatrix,
    /// Use of the right operand.
    pub transpose_b: Transpose,
    /// Result.
    pub c: DeviceMatrix,
    /// What the result is made of.
    pub result: ResultType,
    /// Factor of the product.
    pub scale: f32,
    /// Adds to `c` instead of replacing it.
    pub accumulate: bool,
}

/// The element type of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultType {
    /// That of the operands.
    Half,
    /// f32, in which sums are made.
    F32,
}

/// `GemmArguments` of `kernels/gemm.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GemmArguments {
    /// Address of the left operand.
    pub a: u64,
    /// Address of the right operand.
    pub b: u64,
    /// Address of the result.
    pub c: u64,
    /// Rows of the result.
    pub rows: u32,
    /// Columns of the result.
    pub columns: u32,
    /// What is summed over.
    pub depth: u32,
    /// Elements from one stored row of `a` to the next.
    pub stride_a: u32,
    /// The same of `b`.
    pub stride_b: u32,
    /// The same of `c`.
    pub stride_c: u32,
    /// Factor of the product.
    pub scale: f32,
    /// 1: adds to `c`; 2: `c` is of f32.
    pub flags: u32,
}

/// Where a product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The generation.
    pub architecture: Architecture,
    /// Multiprocessors of the device.
    pub multiprocessors: u32,
}

/// Threads of a block of the kernels of `gemm_mma.cu` and `gemm_wmma.cu`.
const THREADS: u32 = 256;
const ACCUMULATE: u32 = 1;
const RESULT_IS_F32: u32 = 2;
/// So that no number of a row or column that a block computes overflows.
const MOST_EXTENT: u32 = 1 << 30;

impl Product {
    /// The launch of a module's kernel that computes this product.
    ///
    /// # Errors
    /// [`CudaError::Product`] if shapes do not fit each other, addresses or strides are not
    /// multiples of 16 bytes, a matrix is empty or too large, or the module has no such product.
    pub fn launch(&self, module: Module, place: Place) -> Result<KernelLaunch, CudaError> {
        let entry = entry(self.transpose_a, self.transpose_b);
        if !module.entries().contains(&entry) {
            return Err(CudaError::Product {
                why: format!("module {module} has no {entry}"),
            });
        }
        let Some(operands) = module.operands() else {
            return Err(CudaError::Product {
                why: format!("module {module} multiplies no matrices"),
            });
        };
        let arguments = self.arguments(operands.bytes())?;
        let extents = (arguments.rows, arguments.columns);
        if module.uses_copy_engine(place.architecture) {
            let block = gemm_tma::Block::on(place.architecture);
            let product = gemm_tma::tma_product(self, operands, arguments, &block);
            return Ok(KernelLaunch {
                module,
                entry,
                blocks: gemm_tma::blocks(extents, place.multiprocessors)?,
                threads: block.threads,
                shared_bytes: block.shared_bytes,
                arguments: vec![Argument::TmaProduct(product)],
            });
        }
        let tile = Tile::on(place.architecture);
        Ok(KernelLaunch {
            module,
            entry,
            blocks: tile.blocks(extents)?,
            threads: THREADS,
            shared_bytes: tile.shared_bytes,
            arguments: vec![Argument::Product(arguments)],
        })
    }

    /// The arguments of every engine that computes this product, with operands of so many bytes.
    ///
    /// # Errors
    /// [`CudaError::Product`] as [`Product::launch`].
    pub(crate) fn arguments(&self, operand_bytes: u32) -> Result<GemmArguments, CudaError> {
        let (rows, depth) = extents(&self.a, self.transpose_a);
        let (depth_of_b, columns) = extents(&self.b, self.transpose_b);
        let c = &self.c;
        if depth != depth_of_b || rows != c.rows || columns != c.columns {
            return Err(CudaError::Product {
                why: format!(
                    "{rows} x {depth} times {depth_of_b} x {columns} is not {} x {}",
                    c.rows, c.columns
                ),
            });
        }
        // Two 8-bit operands are copied and multiplied at a time, and cuBLASLt wants sixteen.
        if operand_bytes == 1 && !depth.is_multiple_of(16) {
            return Err(CudaError::Product {
                why: format!("8-bit operands are {depth} deep, which is no multiple of 16"),
            });
        }
        let (result_bytes, in_f32) = match self.result {
            ResultType::Half => (2, 0),
            ResultType::F32 => (4, RESULT_IS_F32),
        };
        check_matrix("a", &self.a, operand_bytes)?;
        check_matrix("b", &self.b, operand_bytes)?;
        check_matrix("c", c, result_bytes)?;
        Ok(GemmArguments {
            a: self.a.address,
            b: self.b.address,
            c: c.address,
            rows,
            columns,
            depth,
            stride_a: self.a.row_stride,
            stride_b: self.b.row_stride,
            stride_c: c.row_stride,
            scale: self.scale,
            flags: in_f32 | if self.accumulate { ACCUMULATE } else { 0 },
        })
    }
}

/// What one block computes.
pub(crate) struct Tile {
    rows: u32,
    columns: u32,
    pub(crate) shared_bytes: u32,
}

impl Tile {
    pub(crate) fn on(architecture: Architecture) -> Self {
        if architecture == Architecture::Sm70 {
            // Two stages of two operands, 128 rows of 32 + 8 elements each.
            return Self {
                rows: 128,
                columns: 128,
                shared_bytes: 2 * 2 * 128 * (32 + 8) * 2,
            };
        }
        Self {
            rows: 128,
            columns: 256,
            shared_bytes: module::stages(architecture) * (128 + 256) * 32 * 2,
        }
    }

    /// One for each tile of the result.
    fn blocks(&self, (rows, columns): (u32, u32)) -> Result<u32, CudaError> {
        let blocks =
            u64::from(rows.div_ceil(self.rows)) * u64::from(columns.div_ceil(self.columns));
        u32::try_from(blocks)
            .ok()
            .filter(|blocks| *blocks <= i32::MAX.unsigned_abs())
            .ok_or_else(|| CudaError::Product {
                why: format!("{rows} x {columns} takes more blocks than a launch can have"),
            })
    }
}

fn entry(transpose_a: Transpose, transpose_b: Transpose) -> &'static str {
    match (transpose_a, transpose_b) {
        (Transpose::No, Transpose::No) => "gemm_nn",
        (Transpose::No, Transpose::Yes) => "gemm_nt",
        (Transpose::Yes, Transpose::No) => "gemm_tn",
        (Transpose::Yes, Transpose::Yes) => "gemm_tt",
    }
}

/// Rows and columns as used.
fn extents(matrix: &DeviceMatrix, transpose: Transpose) -> (u32, u32) {
    match transpose {
        Transpose::No => (matrix.rows, matrix.columns),
        Transpose::Yes => (matrix.columns, matrix.rows),
    }
}

fn check_matrix(
    name: &'static str,
    matrix: &DeviceMatrix,
    element_bytes: u32,
) -> Result<(), CudaError> {
    let DeviceMatrix {
        address,
        rows,
        columns,
        row_stride,
    } = *matrix;
    let why = if rows == 0 || columns == 0 {
        "is empty".to_owned()
    } else if rows.max(columns).max(row_stride) > MOST_EXTENT {
        format!("is larger than {MOST_EXTENT} in one direction")
    } else if row_stride < columns {
        format!("has {columns} columns, but rows are {row_stride} elements apart")
    } else if !address.is_multiple_of(16) {
        format!("begins at {address:#x}, which is no multiple of 16")
    } else if !row_stride.is_multiple_of(16 / element_bytes) {
        let step = 16 / element_bytes;
        format!("has rows {row_stride} elements apart, which is no multiple of {step}")
    } else {
        return Ok(());
    };
    Err(CudaError::Product {
        why: format!("matrix {name} {why}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product() -> Product {
        let matrix = |rows, columns| DeviceMatrix {
            address: 0x1000,
            rows,
            columns,
            row_stride: 320,
        };
        Product {
            a: matrix(300, 40),
            transpose_a: Transpose::No,
            b: matrix(257, 40),
            transpose_b: Transpose::Yes,
            c: matrix(300, 257),
            result: ResultType::F32,
            scale: 2.0,
            accumulate: true,
        }
    }

    const GEMM: Module = Module::Gemm(crate::HalfType::F16);

    fn launch(module: Module, architecture: Architecture) -> Result<KernelLaunch, CudaError> {
        let multiprocessors = 5;
        product().launch(
            module,
            Place {
                architecture,
                multiprocessors,
            },
        )
    }

    #[test]
    fn blocks_cover_the_result() {
        let launched = launch(GEMM, Architecture::Sm90).unwrap();
        assert_eq!(launched.entry, "gemm_nt");
        assert_eq!(launched.blocks, 3 * 2);
        let [Argument::Product(arguments)] = launched.arguments[..] else {
            panic!("{launched:?}");
        };
        assert_eq!(arguments.depth, 40);
        assert_eq!(arguments.flags, ACCUMULATE | RESULT_IS_F32);
        let launched = launch(GEMM, Architecture::Sm70).unwrap();
        assert_eq!(launched.blocks, 3 * 3);
        // Of these, no more than multiprocessors.
        let tma = Module::GemmTma(crate::HalfType::F16);
        assert_eq!(launch(tma, Architecture::Sm90).unwrap().blocks, 5);
    }

    #[test]
    fn modules_without_a_product_are_refused() {
        let error = launch(Module::Adam, Architecture::Sm90).unwrap_err();
        assert!(error.to_string().contains("adam has no gemm_nt"), "{error}");
    }

    #[test]
    fn unfit_matrices_are_refused() {
        let check = |change: fn(&mut Product), expect: &str| {
            let mut product = product();
            change(&mut product);
            let error = product.arguments(2).unwrap_err();
            assert!(error.to_string().contains(expect), "{error}");
        };
        check(|p| p.transpose_b = Transpose::No, "300 x 40 times 257 x 40");
        check(|p| p.c.rows = 299, "is not 299 x 257");
        check(|p| p.a.address += 8, "no multiple of 16");
        check(|p| p.b.row_stride = 316, "no multiple of 8");
        check(|p| p.c.row_stride = 256, "256 elements apart");
        check(|p| p.c.row_stride = 322, "no multiple of 4");
        check(|p| (p.a.columns, p.b.columns) = (0, 0), "matrix a is empty");
        check(|p| p.a.row_stride = u32::MAX - 7, "larger than");
    }

    #[test]
    fn arguments_lie_as_the_kernels_expect() {
        assert_eq!(size_of::<GemmArguments>(), 56);
        assert_eq!(std::mem::offset_of!(GemmArguments, rows), 24);
        assert_eq!(std::mem::offset_of!(GemmArguments, flags), 52);
    }
}
