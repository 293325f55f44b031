//! Matrix products and triads, which all ranks execute at the same time, so that they share power
//! and memory as in a job.

use super::seat::Seat;
use super::settings::ProductShape;
use laggard_backend::{BackendError, Device, Kernel, Matrix, Slice, Task, Transpose};
use laggard_record::ComputeWork;
use laggard_stats::Rng;
use laggard_types::DataType;
use std::sync::Arc;
use std::time::Duration;

/// Executions that are not timed.
const WARM_UP: u32 = 3;
/// A stamp covers as many executions as take this long, so that its own time does not count.
const LEAST_TIME: Duration = Duration::from_millis(1);
const MOST_REPEATS: u64 = 1000;
/// What the sets of operands have together at least: several times the largest cache of a GPU
/// (B200: 126 MB of L2, NVIDIA's Blackwell tuning guide).
const ROTATING_BYTES: u64 = 1 << 29;
const MOST_SETS: u64 = 8;
/// Random numbers, repeated until a matrix is full.
const PATTERN: usize = 1 << 16;
/// Factor of the triad.
const SCALE: f32 = 0.5;

/// A kernel that is measured, by name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ComputePoint {
    pub name: String,
    pub work: ComputeWork,
    pub data_type: DataType,
}

/// Whose time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeOf {
    /// What passes on the clock.
    Clock,
    /// What the executing thread has of a processor that it shares.
    Processor,
}

impl ComputePoint {
    /// A product.
    pub(super) fn product(shape: &ProductShape, data_type: DataType) -> Self {
        let ProductShape { name, m, n, k } = shape;
        Self {
            name: name.clone(),
            work: ComputeWork::Product {
                m: *m,
                n: *n,
                k: *k,
            },
            data_type,
        }
    }

    /// A triad of so many bytes, as near as its elements come.
    pub(super) fn triad(bytes: u64, data_type: DataType) -> Self {
        let each = 3 * data_type.size_bytes() as u64;
        Self {
            name: "triad".to_owned(),
            work: ComputeWork::Triad {
                bytes: (bytes / each).max(1) * each,
            },
            data_type,
        }
    }

    /// Seconds of one execution, round by round. Collective.
    pub(super) fn measure(
        &self,
        seat: &mut Seat<'_>,
        rounds: u32,
        time: TimeOf,
    ) -> Result<Vec<f64>, BackendError> {
        let device = &*seat.world.device;
        let kernels = self.kernels(device, u64::from(seat.world.data.rank()))?;
        let once: Vec<Task> = kernels.iter().map(|it| repeated(it, 1)).collect();
        let first = seat.tasks(&once, WARM_UP)?;
        let seconds = |repeats: u64| {
            move |it: &laggard_backend::TaggedStamp| {
                let stamp = it.stamp;
                let ns = match time {
                    TimeOf::Clock => stamp.end_ns - stamp.start_ns,
                    TimeOf::Processor => stamp.cpu_end_ns - stamp.cpu_start_ns,
                };
                ns.max(1) as f64 * 1e-9 / repeats as f64
            }
        };
        let last = first.last().map_or(1.0, seconds(1));
        let wanted = (LEAST_TIME.as_secs_f64() / last).ceil() as u64;
        // The same work for all: rank 0 says how much.
        let repeats = seat.agree(wanted.clamp(1, MOST_REPEATS))?;
        let tasks: Vec<Task> = kernels.iter().map(|it| repeated(it, repeats)).collect();
        let stamps = seat.tasks(&tasks, rounds)?;
        Ok(stamps.iter().map(seconds(repeats)).collect())
    }

    /// The kernel on sets of operands that rotate, so that none is in a cache from the time before.
    fn kernels(&self, device: &dyn Device, seed: u64) -> Result<Vec<Kernel>, BackendError> {
        let size = self.data_type.size_bytes() as u64;
        let bytes = match self.work {
            ComputeWork::Product { m, n, k } => (m * k + k * n + m * n).saturating_mul(size),
            ComputeWork::Triad { bytes } => bytes,
        };
        let host = device.description().memory_bytes.is_none();
        let sets = match host {
            // Products reuse what they have in cache anyway, and hosts lack the memory.
            true => 2,
            false => ROTATING_BYTES.div_ceil(bytes.max(1)).clamp(2, MOST_SETS),
        };
        (0..sets)
            .map(|set| self.kernel(device, seed * MOST_SETS + set))
            .collect()
    }

    fn kernel(&self, device: &dyn Device, seed: u64) -> Result<Kernel, BackendError> {
        let mut rng = Rng::new(seed);
        let mut operand = |len: u64| random(device, (self.data_type, len), &mut rng);
        match self.work {
            ComputeWork::Product { m, n, k } => {
                let (a, b, c) = (operand(m * k)?, operand(k * n)?, operand(m * n)?);
                Ok(Kernel::Gemm {
                    a: matrix(a, m, k),
                    transpose_a: Transpose::No,
                    // Weights are stored output by output.
                    b: matrix(b, n, k),
                    transpose_b: Transpose::Yes,
                    c: matrix(c, m, n),
                    scale: 1.0,
                    accumulate: false,
                })
            }
            ComputeWork::Triad { bytes } => {
                let len = bytes / (3 * self.data_type.size_bytes() as u64);
                Ok(Kernel::Triad {
                    a: operand(len)?,
                    b: operand(len)?,
                    scale: SCALE,
                    to: operand(len)?,
                })
            }
        }
    }
}

fn repeated(kernel: &Kernel, repeats: u64) -> Task {
    Task {
        kernels: Arc::from(vec![kernel.clone(); repeats as usize]),
        work_scale: 1.0,
        extra_flop: 0,
    }
}

fn matrix(slice: Slice, rows: u64, columns: u64) -> Matrix {
    Matrix {
        slice,
        rows: rows as usize,
        columns: columns as usize,
        row_stride: columns as usize,
    }
}

/// Memory of random numbers: zeros draw less power and run faster.
fn random(
    device: &dyn Device,
    (data_type, len): (DataType, u64),
    rng: &mut Rng,
) -> Result<Slice, BackendError> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let slice = Slice::whole(&device.allocate(data_type, len)?);
    let pattern: Vec<f64> = (0..PATTERN.min(len)).map(|_| rng.uniform() - 0.5).collect();
    for start in (0..len).step_by(PATTERN) {
        let count = PATTERN.min(len - start);
        slice
            .part(start..start + count)?
            .write_numbers(&pattern[..count])?;
    }
    Ok(slice)
}
