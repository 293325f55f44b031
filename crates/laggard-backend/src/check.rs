//! Whether a task can be executed at all: shapes, ranges, types and aliasing. Knows the kernels,
//! executes nothing.

use crate::cpu::gemm::{Shape, span};
use crate::{BackendError, Kernel, Matrix, Slice, Task, Transpose};
use laggard_types::{DataType, Rank};

impl Task {
    /// Checks every kernel, for a device whose kernels compute in these types.
    ///
    /// # Errors
    /// [`BackendError::Invalid`], which names `rank`.
    pub fn check(&self, rank: Rank, computes_in: &[DataType]) -> Result<(), BackendError> {
        if !(self.work_scale.is_finite() && self.work_scale >= 1.0) {
            let why = format!("work_scale is {}, not a number from 1", self.work_scale);
            return Err(BackendError::Invalid {
                rank,
                call: "task".to_owned(),
                why,
            });
        }
        for (at, kernel) in self.kernels.iter().enumerate() {
            let checked = check_types(kernel, computes_in).and_then(|()| check_kernel(kernel));
            checked.map_err(|why| BackendError::Invalid {
                rank,
                call: format!("kernel {at} ({})", kernel.name()),
                why,
            })?;
        }
        Ok(())
    }
}

/// Shape of the product of a `Gemm`, from its factors as they are used.
pub(crate) fn shape(a: (&Matrix, Transpose), b: (&Matrix, Transpose)) -> Shape {
    let used = |(matrix, transpose): (&Matrix, Transpose)| match transpose {
        Transpose::No => (matrix.rows, matrix.columns),
        Transpose::Yes => (matrix.columns, matrix.rows),
    };
    let ((m, k), (_, n)) = (used(a), used(b));
    Shape { m, n, k }
}

/// What a kernel computes in, and that its other operands are of types that fit.
fn check_types(kernel: &Kernel, computes_in: &[DataType]) -> Result<(), String> {
    for slice in kernel.writes().chain(kernel.reads()) {
        if !computes_in.contains(&slice.data_type()) {
            let names: Vec<&str> = computes_in.iter().map(|it| it.name()).collect();
            return Err(format!(
                "a slice holds {}, and kernels compute in {}",
                slice.data_type().name(),
                names.join(", ")
            ));
        }
    }
    let is_one_of = |slice: &Slice, types: &[DataType]| match types.contains(&slice.data_type()) {
        true => Ok(()),
        false => Err(format!(
            "{} where {} is needed",
            slice.data_type().name(),
            types[0].name()
        )),
    };
    match kernel {
        Kernel::Gemm { a, b, c, .. } => {
            is_one_of(&b.slice, &[a.slice.data_type()])?;
            is_one_of(&c.slice, &[a.slice.data_type(), DataType::F32])
        }
        Kernel::Add { from, to } => is_one_of(from, &[to.data_type()]),
        Kernel::Triad { a, b, to, .. } => {
            is_one_of(a, &[to.data_type()])?;
            is_one_of(b, &[to.data_type()])
        }
        Kernel::Copy { .. } | Kernel::Fill { .. } => Ok(()),
        Kernel::SquaredNorm { to, .. } => is_one_of(to, &[DataType::F32]),
        Kernel::Adam {
            parameters,
            first_moments,
            second_moments,
            ..
        } => [parameters, first_moments, second_moments]
            .into_iter()
            .try_for_each(|slice| is_one_of(slice, &[DataType::F32])),
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
        Kernel::Triad { a, b, to, .. } => {
            same_length(to, &[a, b])?;
            apart(to, &[a, b])
        }
        Kernel::Fill { to, .. } => check_slice(to),
        Kernel::SquaredNorm { from, to, .. } => {
            check_slice(from)?;
            check_slice(to)?;
            match to.len {
                1 => apart(to, &[from]),
                len => Err(format!("a norm is one element, not {len}")),
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, HostMemory};
    use std::sync::Arc;

    fn slice(data_type: DataType) -> Slice {
        Slice::whole(&Buffer::Host(HostMemory::zeroed(data_type, 4).unwrap()))
    }

    fn matrix(data_type: DataType) -> Matrix {
        Matrix {
            slice: slice(data_type),
            rows: 2,
            columns: 2,
            row_stride: 2,
        }
    }

    #[test]
    fn types_that_fit_are_those_that_a_device_computes_in() {
        use DataType::{Bf16, F16, F32};
        let check = |kernel: Kernel, computes_in: &[DataType], expect: Result<(), &str>| {
            let task = Task {
                kernels: Arc::from([kernel]),
                work_scale: 1.0,
                extra_flop: 0,
            };
            match (task.check(3, computes_in), expect) {
                (Ok(()), Ok(())) => {}
                (Err(BackendError::Invalid { rank: 3, why, .. }), Err(hint)) => {
                    assert!(why.contains(hint), "{why}");
                }
                (found, expect) => panic!("{found:?}, not {expect:?}"),
            }
        };
        let gemm = |a, b, c| Kernel::Gemm {
            a: matrix(a),
            transpose_a: Transpose::No,
            b: matrix(b),
            transpose_b: Transpose::Yes,
            c: matrix(c),
            scale: 1.0,
            accumulate: false,
        };
        let adam = |parameters, gradients| Kernel::Adam {
            parameters: slice(parameters),
            gradients: slice(gradients),
            first_moments: slice(F32),
            second_moments: slice(F32),
            learning_rate: 0.1,
        };
        let copy = |from, to| Kernel::Copy {
            from: slice(from),
            to: slice(to),
        };
        let add = |from, to| Kernel::Add {
            from: slice(from),
            to: slice(to),
        };
        let half = &[F32, Bf16];
        check(gemm(Bf16, Bf16, F32), half, Ok(()));
        check(gemm(Bf16, Bf16, Bf16), half, Ok(()));
        check(gemm(Bf16, Bf16, F32), &[F32], Err("compute in f32"));
        check(gemm(F16, F16, F16), half, Err("holds f16"));
        check(gemm(Bf16, F32, F32), half, Err("f32 where bf16"));
        check(gemm(F32, F32, Bf16), half, Err("bf16 where f32"));
        check(adam(F32, Bf16), half, Ok(()));
        check(adam(Bf16, Bf16), half, Err("bf16 where f32"));
        check(copy(F32, Bf16), half, Ok(()));
        check(add(F32, Bf16), half, Err("f32 where bf16"));
    }
}
