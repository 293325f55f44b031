//! How fast a GPU multiplies, and how many cycles of its clock that is: what a share of a GPU's
//! arithmetic is measured by, and what emulated work is made of.

use super::CudaDevice;
use crate::{Argument, KernelLaunch, Module};
use laggard_backend::{
    BackendError, Buffer, Device, Kernel, Launch, Matrix, QueueId, Slice, TaggedStamp, Task,
    Transpose,
};
use laggard_types::{DataType, FlopPerSecond};
use std::sync::Arc;
use std::time::Duration;

/// How a peak is measured.
#[derive(Debug, Clone, Copy)]
pub struct PeakOptions {
    /// Rows and columns of the three square matrices.
    pub edge: usize,
    /// How many products are timed; the first besides warms up.
    pub products: u32,
    /// How long all of it may take.
    pub timeout: Duration,
}

impl Default for PeakOptions {
    fn default() -> Self {
        Self {
            // What vendors' own figures are of.
            edge: 8192,
            products: 20,
            timeout: Duration::from_secs(60),
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub peak: FlopPerSecond,
    cycles_per_second: f64,
}

impl Pace {
    /// Cycles in which the GPU could do so much arithmetic.
    pub(super) fn cycles(self, flop: u64) -> u64 {
        (flop as f64 / self.peak.0 * self.cycles_per_second) as u64
    }
}

/// Cycles of one spin by which the clock's rate is measured: about half a millisecond.
const SPIN_CYCLES: u64 = 1 << 20;
/// Seeds of the operands: random numbers, since zeros draw less power and run faster.
const SEEDS: [u64; 2] = [1, 2];

/// Measures, unless that was done.
pub(super) fn measure(
    device: &CudaDevice,
    options: &PeakOptions,
) -> Result<FlopPerSecond, BackendError> {
    if let Some(pace) = device.shared.pace.get() {
        return Ok(pace.peak);
    }
    let bench = Bench {
        device,
        queue: device.create_queue("peak")?,
        timeout: options.timeout,
    };
    let seconds = bench.fastest_product(options)?;
    let edge = options.edge as f64;
    let peak = FlopPerSecond(2.0 * edge * edge * edge / seconds);
    let cycles_per_second = bench.cycles_per_second()?;
    let pace = Pace {
        peak,
        cycles_per_second,
    };
    Ok(device.shared.pace.get_or_init(|| pace).peak)
}

struct Bench<'a> {
    device: &'a CudaDevice,
    queue: QueueId,
    timeout: Duration,
}

impl Bench<'_> {
    fn launch(&self) -> Launch<'static> {
        Launch {
            queue: self.queue,
            after: &[],
            tag: 0,
        }
    }

    fn stamps(&self, last: laggard_backend::Token) -> Result<Vec<TaggedStamp>, BackendError> {
        self.device.wait(last, self.timeout)?;
        let mut stamps = Vec::new();
        self.device.drain(self.queue, &mut stamps)?;
        Ok(stamps)
    }

    /// The type that a training job multiplies in here.
    fn data_type(&self) -> DataType {
        let computes_in = &self.device.shared.computes_in;
        let halves = [DataType::Bf16, DataType::F16];
        let half = halves.into_iter().find(|it| computes_in.contains(it));
        half.unwrap_or(DataType::F32)
    }

    /// Seconds of the quickest product: what the GPU can do, not what it does on average.
    fn fastest_product(&self, options: &PeakOptions) -> Result<f64, BackendError> {
        let edge = options.edge;
        let matrix = |buffer: &Buffer| Matrix {
            slice: Slice::whole(buffer),
            rows: edge,
            columns: edge,
            row_stride: edge,
        };
        let allocate = || self.device.allocate(self.data_type(), edge * edge);
        let [a, b, c] = [allocate()?, allocate()?, allocate()?];
        for (buffer, seed) in [&a, &b].into_iter().zip(SEEDS) {
            self.fill(buffer, seed)?;
        }
        let product = Task {
            kernels: Arc::from([Kernel::Gemm {
                a: matrix(&a),
                transpose_a: Transpose::No,
                b: matrix(&b),
                transpose_b: Transpose::Yes,
                c: matrix(&c),
                scale: 1.0,
                accumulate: false,
            }]),
            work_scale: 1.0,
            extra_flop: 0,
        };
        let mut last = self.device.enqueue(&product, self.launch())?;
        for _ in 0..options.products {
            last = self.device.enqueue(&product, self.launch())?;
        }
        let stamps = self.stamps(last)?;
        let times = stamps.iter().map(|it| it.stamp.end_ns - it.stamp.start_ns);
        let best = times.min().unwrap_or(0).max(1);
        Ok(best as f64 * 1e-9)
    }

    /// Fills a buffer with small integers that look random.
    fn fill(&self, buffer: &Buffer, seed: u64) -> Result<(), BackendError> {
        let shared = &self.device.shared;
        let slice = Slice::whole(buffer);
        let address = shared.address(&slice)?;
        let element = super::lower::element_type(slice.data_type());
        let module = element.map_or(Module::Clock, Module::Exact);
        let launch = KernelLaunch {
            module,
            entry: "fill_exact",
            blocks: shared.gpu.place().multiprocessors.max(1),
            threads: 256,
            shared_bytes: 0,
            arguments: [address, slice.len as u64, seed, 0]
                .map(Argument::U64)
                .to_vec(),
        };
        let cargo = super::lane::Cargo::default();
        let token = shared.put(self.launch(), None, cargo, &mut |lane, _| {
            let filled = shared.gpu.enqueue(&launch, &lane.stream);
            filled.map_err(|error| shared.whose.refused("filling matrices", &error))
        })?;
        self.stamps(token).map(|_| ())
    }

    /// The rate of the clock that cycles are counted by, as it is under load.
    fn cycles_per_second(&self) -> Result<f64, BackendError> {
        let shared = &self.device.shared;
        let mut slot = None;
        let cargo = super::lane::Cargo::default();
        let token = shared.put(self.launch(), None, cargo, &mut |lane, own| {
            let [_, _, spent] = own.addresses();
            slot = Some(own.clone());
            let spun = shared.spin_on(&lane.stream, SPIN_CYCLES, spent);
            spun.map_err(|error| shared.whose.refused("measuring its clock", &error))
        })?;
        self.device.wait(token, self.timeout)?;
        // Its words stay as they are until another piece of work takes the slot.
        let slot = slot.and_then(|slot| Some((slot.begin_ns()?, slot.end_ns()?, slot.cycles()?)));
        self.stamps(token)?;
        let Some((begin_ns, end_ns, cycles)) = slot else {
            let why = "no cycles were counted".to_owned();
            return Err(shared.whose.error("measuring its clock", why, ""));
        };
        Ok(cycles as f64 / ((end_ns - begin_ns).max(1) as f64 * 1e-9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_takes_the_cycles_of_its_time_at_the_peak() {
        let pace = Pace {
            peak: FlopPerSecond(5e14),
            cycles_per_second: 1.5e9,
        };
        // A millisecond.
        assert_eq!(pace.cycles(500_000_000_000), 1_500_000);
        assert_eq!(pace.cycles(0), 0);
    }
}
