//! Over `fake_cublaslt.c`, which needs the C compiler that links Rust programs.

use super::*;
use crate::twin::{Factor, Operand, gemm};
use crate::{DeviceMatrix, ResultType};
use half::{bf16, f16};
use laggard_backend::{Element, Transpose};
use std::process::Command;

/// Compiles a stand-in and loads it.
fn library(options: &[&str]) -> Result<Arc<CublasLt>, CudaError> {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("fake_cublaslt.c");
    std::fs::write(&source, include_str!("fake_cublaslt.c")).expect("a source");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-w", "-o"])
        .args([&folder.path().join("libcublasLt.so.13"), &source])
        .args(options)
        .status();
    assert!(status.expect("cc starts").success());
    // What is loaded stays, so that the folder may go.
    CublasLt::load(&Surroundings::only(&[folder.path().to_owned()]))
}

/// A matrix of small integers, with NaNs between its rows, at a multiple of 16 bytes.
struct Stored<T> {
    chunks: Vec<[u128; 1]>,
    matrix: DeviceMatrix,
    element: std::marker::PhantomData<T>,
}

impl<T: Element> Stored<T> {
    fn new((rows, columns): (u32, u32), seed: i64) -> Self {
        let row_stride = (columns + 3).next_multiple_of(8);
        let mut elements = vec![T::from_f64(f64::NAN); (rows * row_stride) as usize];
        for (row, elements) in (0..).zip(elements.chunks_mut(row_stride as usize)) {
            for (column, element) in (0..).zip(&mut elements[..columns as usize]) {
                let number: i64 = (row * 7 + column * 3 + seed) % 9 - 4;
                *element = T::from_f64(number as f64);
            }
        }
        let chunks: Vec<[u128; 1]> = bytemuck::cast_slice::<T, u8>(&elements)
            .chunks(16)
            .map(|chunk| [u128::from_ne_bytes(chunk.try_into().expect("whole chunks"))])
            .collect();
        Self {
            matrix: DeviceMatrix {
                address: chunks.as_ptr() as u64,
                rows,
                columns,
                row_stride,
            },
            chunks,
            element: std::marker::PhantomData,
        }
    }

    fn elements(&self) -> &[T] {
        bytemuck::cast_slice(&self.chunks)
    }
}

fn sides((rows, columns): (u32, u32), transpose: Transpose) -> (u32, u32) {
    match transpose {
        Transpose::No => (rows, columns),
        Transpose::Yes => (columns, rows),
    }
}

const EXTENTS: (u32, u32, u32) = (5, 11, 7);

/// A product of all that its buffers hold, by the library and by the twin.
fn check<T: Element + Factor, C: Element>(
    library: &CublasLt,
    operands: ElementType,
    (transpose_a, transpose_b): (Transpose, Transpose),
    accumulate: bool,
) {
    let (rows, columns, depth) = EXTENTS;
    let a = Stored::<T>::new(sides((rows, depth), transpose_a), 1);
    let b = Stored::<T>::new(sides((depth, columns), transpose_b), 2);
    let c = Stored::<C>::new((rows, columns), 3);
    let before = c.elements().to_vec();
    let product = Product {
        a: a.matrix,
        transpose_a,
        b: b.matrix,
        transpose_b,
        c: c.matrix,
        result: match size_of::<C>() {
            4 => ResultType::F32,
            _ => ResultType::Half,
        },
        scale: 0.5,
        accumulate,
    };
    let matmul = Matmul::new(&product, operands).unwrap().expect("halves");
    assert!(multiply(library, &matmul, &product).unwrap());
    let operand = |elements, row_stride, transpose| Operand {
        elements,
        row_stride,
        transpose,
    };
    let left = operand(a.elements(), a.matrix.row_stride as usize, transpose_a);
    let right = operand(b.elements(), b.matrix.row_stride as usize, transpose_b);
    for (at, found) in c.elements().iter().enumerate() {
        let stride = c.matrix.row_stride as usize;
        let (row, column) = (at / stride, at % stride);
        let what = format!("{transpose_a:?} {transpose_b:?} {row} {column}");
        if column >= columns as usize {
            assert!(found.to_f64().is_nan(), "{what}: written between rows");
            continue;
        }
        let start = if accumulate { before[at].to_f64() } else { 0.0 };
        let place = (row, column);
        let expect = gemm((&left, &right), place, depth as usize, 0.5, start);
        let expect = C::from_f64(expect).to_f64();
        assert!((found.to_f64() - expect).abs() < f64::EPSILON, "{what}");
    }
}

fn multiply(library: &CublasLt, matmul: &Matmul, product: &Product) -> Result<bool, CudaError> {
    let mut workspace = vec![0u64; 4];
    let mut stream = 0u8;
    let site = Site {
        addresses: [product.a.address, product.b.address, product.c.address],
        workspace: (workspace.as_mut_ptr() as u64, 32),
        stream: (&raw mut stream).cast(),
    };
    let done = library.multiply(matmul, (product.scale, product.accumulate), site);
    // The stand-in says there which of its choices it made use of.
    if let Ok(true) = done {
        assert_ne!(workspace[0], 0, "the workspace was not given");
    }
    done
}

#[test]
fn row_major_products_are_what_the_library_computes() {
    use Transpose::{No, Yes};
    let library = library(&[]).unwrap();
    assert_eq!(library.version(), "13.1.0");
    for transposes in [(No, No), (No, Yes), (Yes, No), (Yes, Yes)] {
        for accumulate in [false, true] {
            check::<bf16, bf16>(&library, ElementType::Bf16, transposes, accumulate);
            check::<bf16, f32>(&library, ElementType::Bf16, transposes, accumulate);
            check::<f16, f16>(&library, ElementType::F16, transposes, accumulate);
            check::<f16, f32>(&library, ElementType::F16, transposes, accumulate);
        }
    }
}

fn product() -> (Stored<f16>, Product) {
    let one = Stored::<f16>::new((8, 8), 0);
    let product = Product {
        a: one.matrix,
        transpose_a: Transpose::No,
        b: one.matrix,
        transpose_b: Transpose::No,
        c: one.matrix,
        result: ResultType::Half,
        scale: 1.0,
        accumulate: false,
    };
    (one, product)
}

#[test]
fn an_algorithm_is_chosen_once_for_all_that_is_alike() {
    let library = library(&[]).unwrap();
    let (_memory, mut product) = product();
    let plans = || library.state.lock().unwrap().plans.len();
    for (change, expect) in [(1.0, 1), (2.0, 1)] {
        product.scale = change;
        let matmul = Matmul::new(&product, ElementType::F16).unwrap().unwrap();
        assert!(multiply(&library, &matmul, &product).unwrap());
        assert_eq!(plans(), expect);
    }
    product.transpose_a = Transpose::Yes;
    let matmul = Matmul::new(&product, ElementType::F16).unwrap().unwrap();
    assert!(multiply(&library, &matmul, &product).unwrap());
    assert_eq!(plans(), 2);
}

#[test]
fn what_it_does_not_compute_is_left_to_others() {
    let (_memory, product) = product();
    assert_eq!(Matmul::new(&product, ElementType::F32).unwrap(), None);
    let matmul = Matmul::new(&product, ElementType::F16).unwrap().unwrap();
    let refusing = library(&["-DREFUSE"]).unwrap();
    assert!(!multiply(&refusing, &matmul, &product).unwrap());
}

#[test]
fn failures_are_named() {
    let (_memory, product) = product();
    let matmul = Matmul::new(&product, ElementType::F16).unwrap().unwrap();
    let failing = library(&["-DFAIL"]).unwrap();
    let error = multiply(&failing, &matmul, &product).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("cublasLtMatmul of ")
            && text.ends_with("says CUBLAS_STATUS_EXECUTION_FAILED (code 13)"),
        "{text}"
    );
    let old = library(&["-DcublasLtMatmul=something_else"]).err().unwrap();
    assert!(old.to_string().contains("no cublasLtMatmul,"), "{old}");
}
