//! The `Gemm` kernel of the CPU device against the core's own peak.
//!
//! Limit: the rate of multiply-adds on registers alone, measured in the same process on the same
//! core ([`laggard_backend::measure_peak`]), before every round. The share of it is taken within
//! rounds; sizes come in random order. Times are CPU time of the executing thread.
//!
//! Usage: `gemm_peak RAW.csv [ROUNDS]`

use anyhow::{Context, Result};
use laggard_backend::{
    CpuDevice, CpuOptions, Device, Kernel, Launch, Matrix, QueueId, Slice, Task, Transpose,
};
use laggard_stats::{BlockBootstrap, Estimate, Ranked, Resampling, Rng, quantile};
use laggard_types::{DataType, FlopPerSecond};
use std::io::Write;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(120);
const PEAK_TIME: Duration = Duration::from_millis(20);
/// FLOP of one timed task at least, so that small products are timed over many.
const TASK_FLOP: f64 = 2e8;
const REPLICATES: usize = 2000;

/// A product of square matrices in one of the three forms of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    size: usize,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Forward: activations times weights.
    Forward,
    /// Backward to the input: gradients times transposed weights.
    ToInput,
    /// Backward to the weights: transposed activations times gradients, added up.
    ToWeights,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::ToInput => "to_input",
            Self::ToWeights => "to_weights",
        }
    }
}

struct Bench {
    device: CpuDevice,
    queue: QueueId,
}

impl Bench {
    fn task(&self, case: Case) -> Result<(Task, f64)> {
        let n = case.size;
        let matrix = || -> Result<Matrix> {
            let slice = Slice::whole(&self.device.allocate(DataType::F32, n * n)?);
            slice.write_f32(&vec![0.5; n * n])?;
            Ok(Matrix {
                slice,
                rows: n,
                columns: n,
                row_stride: n,
            })
        };
        let (transpose_a, transpose_b) = match case.form {
            Form::Forward => (Transpose::No, Transpose::No),
            Form::ToInput => (Transpose::No, Transpose::Yes),
            Form::ToWeights => (Transpose::Yes, Transpose::No),
        };
        let accumulate = case.form == Form::ToWeights;
        let (a, b, c) = (matrix()?, matrix()?, matrix()?);
        let kernel = Kernel::Gemm {
            a,
            transpose_a,
            b,
            transpose_b,
            c,
            scale: 1e-3,
            accumulate,
        };
        let flop = 2.0 * (n as f64).powi(3);
        let count = (TASK_FLOP / flop).ceil().max(1.0) as usize;
        let task = Task {
            kernels: vec![kernel; count].into(),
            work_scale: 1.0,
            extra_flop: 0,
        };
        Ok((task, flop * count as f64))
    }

    /// Rate of one task, by CPU time.
    fn rate(&self, task: &Task, flop: f64) -> Result<f64> {
        let launch = Launch {
            queue: self.queue,
            after: &[],
            tag: 0,
        };
        let token = self.device.enqueue(task, launch)?;
        self.device.wait(token, DEADLINE)?;
        let mut stamps = Vec::new();
        self.device.drain(self.queue, &mut stamps)?;
        let stamp = stamps.last().context("no stamp")?.stamp;
        Ok(flop / ((stamp.cpu_end_ns - stamp.cpu_start_ns) as f64 * 1e-9))
    }
}

fn median(values: &[f64]) -> Result<Estimate> {
    let resampling = Resampling {
        block_length: 1,
        replicates: REPLICATES,
        seed: 1,
    };
    let ranked = Ranked::new(values)?;
    let median = |counts: &[u32]| ranked.resampled_quantile(counts, 0.5).unwrap_or(f64::NAN);
    Ok(BlockBootstrap::new(values.len(), resampling)?.estimate(0.95, median)?)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments
        .next()
        .context("usage: gemm_peak RAW.csv [ROUNDS]")?;
    let rounds: usize = arguments.next().map_or(Ok(15), |text| text.parse())?;
    let mut raw = std::io::BufWriter::new(std::fs::File::create(&path).context(path)?);
    writeln!(raw, "round,place,size,form,gflop_per_s,peak_gflop_per_s")?;

    let device = CpuDevice::new(CpuOptions::default());
    let queue = device.create_queue("bench")?;
    let bench = Bench { device, queue };
    let forms = [Form::Forward, Form::ToInput, Form::ToWeights];
    let cases: Vec<Case> = [32, 64, 128, 256, 512, 1024, 2048]
        .into_iter()
        .flat_map(|size| forms.map(|form| Case { size, form }))
        .collect();
    let tasks = cases
        .iter()
        .map(|case| bench.task(*case))
        .collect::<Result<Vec<_>>>()?;
    let mut rates = vec![Vec::new(); cases.len()];
    let mut shares = vec![Vec::new(); cases.len()];
    let mut peaks = Vec::new();
    let mut rng = Rng::new(1);
    for round in 0..=rounds {
        let FlopPerSecond(peak) = laggard_backend::measure_peak(PEAK_TIME)?;
        let mut order: Vec<usize> = (0..cases.len()).collect();
        rng.shuffle(&mut order);
        for (place, at) in order.into_iter().enumerate() {
            let rate = bench.rate(&tasks[at].0, tasks[at].1)?;
            // The first round warms up and is not kept.
            if round > 0 {
                let Case { size, form } = cases[at];
                let (gflops, limit) = (rate * 1e-9, peak * 1e-9);
                let form = form.name();
                writeln!(raw, "{round},{place},{size},{form},{gflops:.2},{limit:.2}")?;
                rates[at].push(gflops);
                shares[at].push(rate / peak);
            }
        }
        peaks.push(peak * 1e-9);
    }
    raw.flush()?;

    let mut out = std::io::stdout().lock();
    let peak = quantile(&peaks, 0.5)?;
    writeln!(
        out,
        "peak on registers: {peak:.1} GFLOP/s (median of {} looks)",
        peaks.len()
    )?;
    writeln!(
        out,
        "medians of {rounds} rounds; share of the peak with 95 % interval"
    )?;
    writeln!(
        out,
        "{:>6} {:>10} {:>10} {:>8}",
        "size", "form", "GFLOP/s", "share"
    )?;
    for ((case, rates), shares) in cases.iter().zip(&rates).zip(&shares) {
        let Estimate { value, interval } = median(shares)?;
        let (size, form, rate) = (case.size, case.form.name(), quantile(rates, 0.5)?);
        let (low, high) = (interval.low, interval.high);
        writeln!(
            out,
            "{size:>6} {form:>10} {rate:>10.1} {value:>8.3} [{low:.3}, {high:.3}]"
        )?;
    }
    Ok(())
}
