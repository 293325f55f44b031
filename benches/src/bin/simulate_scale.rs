//! Time and peak memory of simulating every rank of a large world.
//!
//! `cargo run --release -p laggard-benches --bin simulate_scale -- [RUNS]` runs each world RUNS
//! times, each run in a process of its own, and prints one line per run. The limit stated for
//! 220,000 ranks x 1,000 steps and for 1,000,000 x 100, written as a sketch, is 10 s and 2 GiB on
//! 2 cores. The floor is the draws: ranks x steps x 3 phases x the time of one draw, measured here
//! on one core, over the cores.
#![expect(
    clippy::print_stdout,
    reason = "the figures are the result of a benchmark"
)]

use anyhow::{Context, Result, bail};
use laggard_benches::large_manifest;
use laggard_record::{Closing, ClosingStatus, Origin, write_sketch};
use laggard_schedule::{LayerWork, Layout, ModelWork, Part, PartWork, generate};
use laggard_simulate::{
    DrawPhase, Jitter, JitterDistribution, Noise, NoiseState, ScaleRun, ScaleWorkload, SlowRanks,
    StageTimes, simulate_ranks,
};
use std::path::Path;
use std::time::Instant;

/// Phases that are drawn in each step.
const PHASES: f64 = 3.0;

/// The worlds: layout, micro-batches, steps.
const WORLDS: [(&str, u32, u32); 5] = [
    ("dp6875,tp8,pp4", 32, 1_000),
    ("dp2750,tp8,pp10,zero1", 40, 1_000),
    ("dp220000", 8, 1_000),
    ("dp15625,tp8,pp8", 32, 100),
    ("dp1000000", 8, 100),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(world) = arguments
        .first()
        .and_then(|text| text.strip_prefix("world="))
    {
        return measure(world.parse().context("the number of a world")?);
    }
    let runs: u32 = match arguments.first() {
        Some(text) => text.parse().context("RUNS is not a number")?,
        None => 5,
    };
    let draw_ns = draw_ns()?;
    println!("# one draw with autocorrelation: {draw_ns:.2} ns on one core");
    println!(
        "layout,ranks,steps,run,seconds,simulated_seconds,cpu_seconds,peak_rss_mib,floor_seconds"
    );
    for (world, _) in WORLDS.iter().enumerate() {
        for run in 0..runs {
            let output = std::process::Command::new(std::env::current_exe()?)
                .arg(format!("world={world}"))
                .output()?;
            if !output.status.success() {
                bail!("{}", String::from_utf8_lossy(&output.stderr));
            }
            let (layout, _, steps) = WORLDS[world];
            let ranks = Layout::parse(layout)?.world_size();
            let draws = ranks as f64 * f64::from(steps) * PHASES;
            let cores = std::thread::available_parallelism()?.get() as f64;
            let floor = draws * draw_ns * 1e-9 / cores;
            let figures = String::from_utf8(output.stdout)?;
            println!(
                "\"{layout}\",{ranks},{steps},{run},{},{floor:.3}",
                figures.trim()
            );
        }
    }
    Ok(())
}

fn measure(world: usize) -> Result<()> {
    let (layout, micro_batches, steps) = *WORLDS.get(world).context("no such world")?;
    let workload = workload(layout, micro_batches, steps)?;
    let start = Instant::now();
    let run = simulate_ranks(&workload)?;
    let simulated = start.elapsed().as_secs_f64();
    let folder = tempfile::tempdir()?;
    write(&folder.path().join("sketch"), &workload, &run)?;
    let seconds = start.elapsed().as_secs_f64();
    if run.steps.len() != steps as usize || run.ranks[7].last_steps == 0 {
        bail!("the slow rank was not waited for");
    }
    let (cpu_s, peak_mib) = used()?;
    println!("{seconds:.3},{simulated:.3},{cpu_s:.3},{peak_mib:.0}");
    Ok(())
}

/// Writes the run as a sketch, with a manifest that lists every rank and group.
fn write(dir: &Path, workload: &ScaleWorkload, run: &ScaleRun) -> Result<()> {
    let layers = workload.layout.pieces();
    let schedule = generate(&workload.layout, &known_model(layers))?;
    let origin = Origin::Sketch(run.baseline.sketch());
    let manifest = large_manifest(schedule, workload.seed, origin);
    let closing = Closing {
        status: ClosingStatus::Finished,
        steps_completed: workload.steps,
        samples: 0,
        steps: 0,
        telemetry: 0,
        writer_lags: 0,
        parts: Vec::new(),
    };
    write_sketch(dir, &manifest, run.sketch_rows(), &closing)?;
    Ok(())
}

/// A model of one part in each of its layers.
fn known_model(layers: u32) -> ModelWork {
    let layer = |index: u32| LayerWork {
        name: format!("layer {index}"),
        parts: vec![PartWork {
            part: if index == layers {
                Part::Head
            } else {
                Part::FeedForward
            },
            forward_flop: 1e12,
            forward_attention_flop: 0.0,
            parameters: 1 << 20,
        }],
    };
    ModelWork {
        layers: (0..=layers).map(layer).collect(),
        element_bytes: 2,
        stream_elements: 1 << 20,
        key_value_elements: 1 << 20,
        experts_per_token: 1,
    }
}

fn workload(layout: &str, micro_batches: u32, steps: u32) -> Result<ScaleWorkload> {
    let layout = Layout::parse(layout)?;
    let layout = Layout {
        micro_batches: vec![micro_batches; layout.data_parallel as usize],
        ..layout
    };
    let times = StageTimes {
        forward_s: 0.02,
        backward_s: 0.04,
        forward_exposed_s: 0.002,
        backward_exposed_s: 0.002,
        reduce_exposed_s: 0.05,
        optimizer_s: 0.01,
        gather_exposed_s: 0.01,
    };
    Ok(ScaleWorkload {
        stages: vec![times; layout.pipeline_parallel as usize],
        transfer_s: 0.0005,
        input_s: 0.001,
        norm_s: 0.001,
        class_factors: vec![1.0, 1.05],
        class_of_rank: (0..layout.world_size())
            .map(|rank| u16::from(rank % 4 == 3))
            .collect(),
        slow: vec![SlowRanks {
            ranks: 7..8,
            factor: 1.2,
        }],
        jitter: jitter(),
        pauses: None,
        delays: Vec::new(),
        steps,
        seed: 1,
        layout,
    })
}

fn jitter() -> Jitter {
    Jitter {
        distribution: JitterDistribution::Lognormal { sigma: 0.02 },
        autocorrelation: 0.8,
    }
}

/// Time of one draw, nanoseconds.
fn draw_ns() -> Result<f64> {
    let noise = Noise::new(&jitter(), 1)?;
    let (ranks, steps) = (20_000, 16);
    let mut factors = vec![0.0; steps];
    let mut sum = 0.0;
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..9 {
        let start = Instant::now();
        for rank in 0..ranks {
            let mut state = NoiseState::START;
            noise.fill((rank, DrawPhase::Forward), 0, &mut state, &mut factors);
            sum += std::hint::black_box(&factors)[0];
        }
        times.push(start.elapsed().as_nanos() as f64 / f64::from(ranks) / steps as f64);
    }
    std::hint::black_box(sum);
    laggard_stats::median(&times).context("a median")
}

/// Processor seconds and largest memory of this process so far, MiB.
fn used() -> Result<(f64, f64)> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 * 1e-6;
    let cpu_s = seconds(usage.user_time()) + seconds(usage.system_time());
    Ok((cpu_s, usage.max_rss() as f64 / 1024.0))
}
