//! Executing a task on the calling thread: its kernels, the repetitions that `work_scale` asks for,
//! and the arithmetic of `extra_flop`, all under one stamp.

use super::clock::Reading;
use super::elementwise::{Moments, adam, add, squared_norm, triad};
use super::gemm::{Factor, Product, Shape, multiply, span};
use super::peak::burn;
use super::queue::Work;
use crate::check::shape;
use crate::memory::Scratch;
use crate::{BackendError, Kernel, Slice, Task};
use laggard_types::Stamp;

/// A checked task, as work of a queue.
pub(super) struct TaskWork {
    task: Task,
}

impl TaskWork {
    pub(super) fn new(task: Task) -> Self {
        Self { task }
    }
}

impl Work for TaskWork {
    fn run(&mut self, scratch: &mut Scratch) -> Result<Stamp, BackendError> {
        let repeats = Repeats::of(self.task.work_scale);
        if repeats.any() {
            let elements = self
                .task
                .kernels
                .iter()
                .map(scratch_elements)
                .max()
                .unwrap_or(0);
            scratch.reserve(elements * size_of::<f32>());
        }
        let begin = Reading::begin()?;
        for kernel in &*self.task.kernels {
            run_kernel(kernel, repeats, scratch)?;
        }
        burn(self.task.extra_flop);
        begin.end()
    }
}

/// How often a kernel is repeated with results that go nowhere: what [`Task::work_scale`] asks for.
#[derive(Debug, Clone, Copy)]
pub struct Repeats {
    whole: u64,
    fraction: f64,
}

impl Repeats {
    /// Those of a scale of at least 1.
    pub fn of(work_scale: f64) -> Self {
        let extra = work_scale - 1.0;
        Self {
            whole: extra as u64,
            fraction: extra.fract(),
        }
    }

    /// Whether there are any.
    pub fn any(self) -> bool {
        self.whole > 0 || self.fraction > 0.0
    }

    /// How many of `total` rows or elements each repetition covers.
    pub fn parts(self, total: usize) -> impl Iterator<Item = usize> {
        let part = (self.fraction * total as f64).round() as usize;
        (0..self.whole)
            .map(move |_| total)
            .chain((part > 0).then_some(part))
    }
}

/// Elements of scratch that one repetition of a kernel writes: as many as the kernel itself, so
/// that it moves as much memory.
fn scratch_elements(kernel: &Kernel) -> usize {
    match kernel {
        Kernel::Gemm { c, .. } => span(c.rows, c.columns, c.row_stride).unwrap_or(0),
        Kernel::Add { to, .. }
        | Kernel::Copy { to, .. }
        | Kernel::Triad { to, .. }
        | Kernel::Fill { to, .. }
        | Kernel::SquaredNorm { to, .. } => to.len,
        Kernel::Adam { parameters, .. } => parameters.len * 3,
    }
}

fn run_kernel(
    kernel: &Kernel,
    repeats: Repeats,
    scratch: &mut Scratch,
) -> Result<(), BackendError> {
    match kernel {
        Kernel::Gemm { .. } => run_gemm(kernel, repeats, scratch)?,
        Kernel::Adam { .. } => run_adam(kernel, repeats, scratch)?,
        Kernel::Add { from, to } => on_pair(from, to, repeats, scratch, add)?,
        Kernel::Copy { from, to } => {
            on_pair(from, to, repeats, scratch, |from, to| {
                to.copy_from_slice(from)
            })?;
        }
        Kernel::Triad { a, b, scale, to } => {
            let (a, b) = (a.claim_read()?, b.claim_read()?);
            triad(a.slice(), b.slice(), *scale, to.claim_write()?.slice_mut());
            for part in repeats.parts(to.len) {
                let (a, b) = (&a.slice()[..part], &b.slice()[..part]);
                triad(a, b, *scale, scratch.typed(part));
            }
        }
        Kernel::SquaredNorm {
            from,
            to,
            accumulate,
        } => {
            let from = from.claim_read()?;
            let norm = |part: usize, to: &mut [f32]| {
                let before = to.first().copied().filter(|_| *accumulate);
                let sum = f64::from(before.unwrap_or(0.0)) + squared_norm(&from.slice()[..part]);
                to.fill(sum as f32);
            };
            let whole = from.slice::<f32>().len();
            norm(whole, to.claim_write()?.slice_mut());
            for part in repeats.parts(whole) {
                norm(part, scratch.typed(1));
            }
        }
        Kernel::Fill { to, value } => {
            to.claim_write()?.slice_mut().fill(*value);
            for part in repeats.parts(to.len) {
                scratch.typed(part).fill(*value);
            }
        }
    }
    Ok(())
}

fn on_pair(
    from: &Slice,
    to: &Slice,
    repeats: Repeats,
    scratch: &mut Scratch,
    apply: impl Fn(&[f32], &mut [f32]),
) -> Result<(), BackendError> {
    let from = from.claim_read()?;
    apply(from.slice(), to.claim_write()?.slice_mut());
    for part in repeats.parts(to.len) {
        apply(&from.slice()[..part], scratch.typed(part));
    }
    Ok(())
}

fn run_gemm(kernel: &Kernel, repeats: Repeats, scratch: &mut Scratch) -> Result<(), BackendError> {
    let Kernel::Gemm {
        a,
        transpose_a,
        b,
        transpose_b,
        c,
        scale,
        accumulate,
    } = kernel
    else {
        return Ok(());
    };
    let whole = shape((a, *transpose_a), (b, *transpose_b));
    let (scale, accumulate, row_stride) = (*scale, *accumulate, c.row_stride);
    let a_claim = a.slice.claim_read()?;
    let b_claim = b.slice.claim_read()?;
    let mut c_claim = c.slice.claim_write()?;
    let a = Factor {
        elements: a_claim.slice(),
        row_stride: a.row_stride,
        transpose: *transpose_a,
    };
    let b = Factor {
        elements: b_claim.slice(),
        row_stride: b.row_stride,
        transpose: *transpose_b,
    };
    multiply(
        whole,
        a,
        b,
        Product {
            elements: c_claim.slice_mut(),
            row_stride,
            scale,
            accumulate,
        },
    );
    // Of the longer side, because all of the other operand is arranged anew for each repetition.
    for part in repeats.parts(whole.m.max(whole.n)) {
        let repeated = match whole.m >= whole.n {
            true => Shape { m: part, ..whole },
            false => Shape { n: part, ..whole },
        };
        let elements = scratch.typed(span(repeated.m, repeated.n, row_stride).unwrap_or(0));
        let product = Product {
            elements,
            row_stride,
            scale,
            accumulate,
        };
        multiply(repeated, a, b, product);
    }
    Ok(())
}

fn run_adam(kernel: &Kernel, repeats: Repeats, scratch: &mut Scratch) -> Result<(), BackendError> {
    let Kernel::Adam {
        parameters,
        gradients,
        first_moments,
        second_moments,
        learning_rate,
    } = kernel
    else {
        return Ok(());
    };
    let gradients = gradients.claim_read()?;
    let mut parameters_claim = parameters.claim_write()?;
    let mut first_claim = first_moments.claim_write()?;
    let mut second_claim = second_moments.claim_write()?;
    let state = Moments {
        parameters: parameters_claim.slice_mut(),
        first: first_claim.slice_mut(),
        second: second_claim.slice_mut(),
    };
    adam(gradients.slice(), state, *learning_rate);
    for part in repeats.parts(parameters.len) {
        let (parameters, moments) = scratch.typed(part * 3).split_at_mut(part);
        let (first, second) = moments.split_at_mut(part);
        adam(
            &gradients.slice()[..part],
            Moments {
                parameters,
                first,
                second,
            },
            *learning_rate,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_add_up_to_the_scale() {
        for (work_scale, total, expect) in [
            (1.0, 100, 0),
            (1.5, 100, 50),
            (2.0, 100, 100),
            (3.75, 100, 275),
            (4.0, 7, 21),
            (1.01, 10, 0),
        ] {
            let repeats = Repeats::of(work_scale);
            let done: usize = repeats.parts(total).sum();
            assert_eq!(done, expect, "{work_scale} of {total}");
            assert_eq!(repeats.any(), work_scale > 1.0);
        }
    }
}
