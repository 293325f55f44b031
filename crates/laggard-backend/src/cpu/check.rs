//! Whether a task can be executed at all: shapes, ranges, types and aliasing. Knows the kernels,
//! executes nothing.

use super::gemm::{Shape, span};
use crate::{BackendError, Kernel, Matrix, Slice, Task, Transpose};
use laggard_types::{DataType, Rank};

/// Checks every kernel of a task.
pub(super) fn check_task(task: &Task, rank: Rank) -> Result<(), BackendError> {
    if !(task.work_scale.is_finite() && task.work_scale >= 1.0) {
        let why = format!("work_scale is {}, not a number from 1", task.work_scale);
        return Err(BackendError::Invalid {
            rank,
            call: "task".to_owned(),
            why,
        });
    }
    for (at, kernel) in task.kernels.iter().enumerate() {
        check_kernel(kernel).map_err(|why| BackendError::Invalid {
            rank,
            call: format!("kernel {at} ({})", name(kernel)),
            why,
        })?;
    }
    Ok(())
}

/// Shape of the product of a `Gemm`, from its factors as they are used.
pub(super) fn shape(a: (&Matrix, Transpose), b: (&Matrix, Transpose)) -> Shape {
    let used = |(matrix, transpose): (&Matrix, Transpose)| match transpose {
        Transpose::No => (matrix.rows, matrix.columns),
        Transpose::Yes => (matrix.columns, matrix.rows),
    };
    let ((m, k), (_, n)) = (used(a), used(b));
    Shape { m, n, k }
}

fn name(kernel: &Kernel) -> &'static str {
    match kernel {
        Kernel::Gemm { .. } => "gemm",
        Kernel::Add { .. } => "add",
        Kernel::Copy { .. } => "copy",
        Kernel::Fill { .. } => "fill",
        Kernel::Adam { .. } => "adam",
    }
}

fn check_kernel(kernel: &Kernel) -> Result<(), String> {
    match kernel {
        Kernel::Gemm {
            a,
            transpose_a,
            b,
            transpose_b,
            c,
            ..
        } => {
            for (name, matrix) in [("a", a), ("b", b), ("c", c)] {
                check_matrix(matrix).map_err(|why| format!("{name} {why}"))?;
            }
            let Shape { m, n, k } = shape((a, *transpose_a), (b, *transpose_b));
            let k_of_b = if *transpose_b == Transpose::No {
                b.rows
            } else {
                b.columns
            };
            if k != k_of_b || (c.rows, c.columns) != (m, n) {
                return Err(format!(
                    "op(a) is {m} x {k}, op(b) is {k_of_b} x {n}, c is {} x {}",
                    c.rows, c.columns
                ));
            }
            apart(&c.slice, &[&a.slice, &b.slice])
        }
        Kernel::Add { from, to } | Kernel::Copy { from, to } => {
            same_length(to, &[from])?;
            apart(to, &[from])
        }
        Kernel::Fill { to, .. } => check_slice(to),
        Kernel::Adam {
            parameters,
            gradients,
            first_moments,
            second_moments,
            ..
        } => {
            same_length(parameters, &[gradients, first_moments, second_moments])?;
            apart(parameters, &[gradients, first_moments, second_moments])?;
            apart(first_moments, &[gradients, second_moments])?;
            apart(second_moments, &[gradients])
        }
    }
}

fn check_matrix(matrix: &Matrix) -> Result<(), String> {
    check_slice(&matrix.slice)?;
    if matrix.columns > matrix.row_stride && matrix.rows > 1 {
        return Err(format!(
            "has rows of {} every {}",
            matrix.columns, matrix.row_stride
        ));
    }
    match span(matrix.rows, matrix.columns, matrix.row_stride) {
        Some(span) if span <= matrix.slice.len => Ok(()),
        _ => Err(format!(
            "needs more than the {} elements of its slice: {} x {}, stride {}",
            matrix.slice.len, matrix.rows, matrix.columns, matrix.row_stride
        )),
    }
}

fn check_slice(slice: &Slice) -> Result<(), String> {
    if slice.data_type() != DataType::F32 {
        return Err(format!(
            "holds {}, and kernels compute in f32",
            slice.data_type().name()
        ));
    }
    if slice.range().end > slice.buffer.len() || slice.range().len() != slice.len {
        return Err(format!(
            "takes {:?} of a buffer of {} elements",
            slice.range(),
            slice.buffer.len()
        ));
    }
    Ok(())
}

fn same_length(one: &Slice, others: &[&Slice]) -> Result<(), String> {
    check_slice(one)?;
    for other in others {
        check_slice(other)?;
        if other.len != one.len {
            return Err(format!("slices of {} and {} elements", one.len, other.len));
        }
    }
    Ok(())
}

fn apart(written: &Slice, others: &[&Slice]) -> Result<(), String> {
    match others.iter().find(|other| written.overlaps(other)) {
        Some(_) => Err("what is written overlaps another operand".to_owned()),
        None => Ok(()),
    }
}
