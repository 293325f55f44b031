//! Own matrix kernels against cuBLASLt, and the stream kernel against the driver's copy, on the
//! first GPU: all in one process and in turns, on random numbers, over sets of operands that
//! rotate.
//!
//! Products are one large square and those of a transformer layer of an 8B and a 70B model (the
//! latter split over 8 GPUs by tensor parallelism), in the three forms of a training step.
//!
//! Usage: `gpu_kernels RAW.csv [ROUNDS]`. Exits with 77 where there is no GPU. Never run on one
//! yet.

#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(clippy::print_stderr, reason = "what is left out is said")]

use anyhow::{Context, Result};
use laggard_backend::Transpose;
use laggard_cuda::{
    Contender, CubinCache, CublasLt, CudaError, Gpu, HalfType, Launcher, Module, RaceProduct,
    RaceTimes, Surroundings, self_check,
};
use laggard_specs::{Model, Tables};
use std::io::Write;
use std::process::ExitCode;

const OPERANDS: HalfType = HalfType::Bf16;
const SQUARE: u32 = 8192;
/// Tokens of a micro-batch.
const TOKENS: u32 = 8192;
/// Models, and over how many GPUs each layer is split.
const MODELS: [(&str, u64); 2] = [("llama3-8b", 1), ("llama3-70b", 8)];
const COPY_BYTES: usize = 1 << 30;
const USUAL_ROUNDS: u32 = 20;
/// As `automake` has it for tests that are skipped.
const SKIPPED: u8 = 77;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let raw = arguments
        .next()
        .context("usage: gpu_kernels RAW.csv [ROUNDS]")?;
    let rounds = match arguments.next() {
        Some(rounds) => rounds.parse().context("ROUNDS is a number")?,
        None => USUAL_ROUNDS,
    };
    let surroundings = Surroundings::of_process();
    let gpu = match Gpu::open(0, &surroundings, CubinCache::of_user()) {
        Ok(gpu) => gpu,
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            return Ok(ExitCode::from(SKIPPED));
        }
    };
    let mut out = std::fs::File::create(&raw).with_context(|| format!("creating {raw}"))?;
    writeln!(out, "work,contender,turn,seconds")?;
    println!("{} ({})", gpu.name(), gpu.architecture());

    let contenders = contenders(&gpu, &surroundings)?;
    for (name, product) in products()? {
        let times = gpu.race_products(&product, &contenders, rounds)?;
        let flop = 2.0
            * [product.rows, product.columns, product.depth]
                .map(f64::from)
                .iter()
                .product::<f64>();
        report(&name, (flop * 1e-12, "TFLOP/s"), &times);
        write_raw(&mut out, &name, &times)?;
    }
    let times = gpu.race_copies(COPY_BYTES, rounds)?;
    report(
        "copy, read and written",
        (2.0 * COPY_BYTES as f64 * 1e-9, "GB/s"),
        &times,
    );
    write_raw(&mut out, "copy", &times)?;
    println!("every time: {raw}");
    Ok(ExitCode::SUCCESS)
}

/// cuBLASLt first, if it is here: the others are compared with it. Then every own kernel that
/// computes what its twin computes.
fn contenders(gpu: &Gpu, surroundings: &Surroundings) -> Result<Vec<Contender>> {
    let mut contenders = Vec::new();
    match CublasLt::load(surroundings) {
        Ok(library) => {
            println!("cuBLASLt {}", library.version());
            contenders.push(Contender::Engine(library));
        }
        Err(error) => eprintln!("SKIPPED: cuBLASLt: {error}"),
    }
    let here = Module::all_on(gpu.architecture());
    for module in [Module::GemmTma(OPERANDS), Module::Gemm(OPERANDS)] {
        if !here.contains(&module) {
            continue;
        }
        match self_check(gpu, module) {
            Ok(()) => contenders.push(Contender::Kernel(module)),
            Err(error @ CudaError::SelfCheck { .. }) => eprintln!("SKIPPED: {error}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(contenders)
}

/// Each product and its name.
fn products() -> Result<Vec<(String, RaceProduct)>> {
    use Transpose::{No, Yes};
    let product = |rows, columns, depth, transposes| RaceProduct {
        operands: OPERANDS,
        rows,
        columns,
        depth,
        transposes,
    };
    let square = product(SQUARE, SQUARE, SQUARE, [No, Yes]);
    let mut all = vec![(format!("{SQUARE} cubed"), square)];
    let tables = Tables::builtin()?;
    for (id, split) in MODELS {
        let model = tables.model(id)?;
        for (part, inputs, outputs) in parts(model, split) {
            let (inputs, outputs) = (u32::try_from(inputs)?, u32::try_from(outputs)?);
            // Weights are stored output by output.
            let forms = [
                ("forward", product(TOKENS, outputs, inputs, [No, Yes])),
                ("to input", product(TOKENS, inputs, outputs, [No, No])),
                ("to weights", product(outputs, inputs, TOKENS, [Yes, No])),
            ];
            for (form, product) in forms {
                all.push((format!("{id} {part} {form}"), product));
            }
        }
    }
    Ok(all)
}

/// The matrices of a layer, with inputs and outputs, as one of `split` GPUs has them: those that
/// read the layer's input are split by outputs, the others by inputs (Shoeybi et al. 2019, section
/// 3).
fn parts(model: &Model, split: u64) -> [(&'static str, u64, u64); 4] {
    let heads = (model.heads + 2 * model.kv_heads) * model.head_dim;
    let (hidden, ffn) = (model.hidden, model.ffn_hidden);
    [
        ("qkv", hidden, heads / split),
        ("out", model.heads * model.head_dim / split, hidden),
        ("up", hidden, (model.ffn_matrices - 1) * ffn / split),
        ("down", ffn / split, hidden),
    ]
}

/// Medians as rates, and each as a share of the first contender's.
fn report(work: &str, (amount, unit): (f64, &str), times: &[RaceTimes]) {
    let rates: Vec<Option<f64>> = times
        .iter()
        .map(|times| times.median_seconds().map(|seconds| amount / seconds))
        .collect();
    let first = rates.first().copied().flatten();
    for (times, rate) in times.iter().zip(rates) {
        let Some(rate) = rate else {
            println!("{work}: {} does not compute it", times.name);
            continue;
        };
        let share = first.map_or(String::new(), |first| format!(" {:.3}", rate / first));
        println!("{work}: {} {rate:.1} {unit}{share}", times.name);
    }
}

fn write_raw(out: &mut impl Write, work: &str, times: &[RaceTimes]) -> Result<()> {
    for times in times {
        for (turn, seconds) in times.seconds.iter().enumerate() {
            writeln!(out, "{work},{},{turn},{seconds:e}", times.name)?;
        }
    }
    Ok(())
}
