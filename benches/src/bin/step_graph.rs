//! The step of `laggard run` on the first GPU, against the same step replayed as one CUDA graph:
//! what issuing operations one by one costs, with a stamp before and after each.
//!
//! Both arms prepare the input on the host and wait for the end of the step; they take turns in
//! blocks of random order, and ratios are taken between neighbouring blocks. Nothing is recorded,
//! which is measured elsewhere (`step_overhead`). The optimizer's step size is that of the step
//! that was captured.
//!
//! One rank: collectives are not captured yet. Usage: `step_graph RAW.csv [MODEL] [LAYERS]
//! [BLOCKS]`. Exits with 77 where there is no GPU. Never run on one yet.

#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(clippy::print_stderr, reason = "what is left out is said")]

use anyhow::{Context, Result, ensure};
use laggard_backend::threads::{ThreadOptions, worlds};
use laggard_backend::{BackendError, Call, Communicator, Device, Launch, Task, Token, World};
use laggard_cuda::{
    CubinCache, CublasLt, CudaDevice, CudaOptions, Gpu, GraphOperation, ProductEngine, StepGraph,
    Surroundings,
};
use laggard_measure::{Settings, StepOperation, StepProbe, probe_steps};
use laggard_specs::Tables;
use laggard_stats::{BlockBootstrap, Estimate, Ranked, Resampling, Rng, median};
use laggard_types::{DataType, Rank};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// As `automake` has it for tests that are skipped.
const SKIPPED: u8 = 77;
const DEADLINE: Duration = Duration::from_secs(60);
const USUAL_BLOCKS: usize = 20;
const STEPS_PER_BLOCK: u32 = 5;
const WARM_UP: u32 = 5;
const REPLICATES: usize = 2000;
const SEQUENCE_LENGTH: u32 = 4096;
/// What the ratio is to be at most.
const GOAL: f64 = 1.02;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: step_graph RAW.csv [MODEL] [LAYERS] [BLOCKS]";
    let raw = arguments.next().context(usage)?;
    let model = arguments.next().unwrap_or_else(|| "llama3-8b".to_owned());
    let layers: u64 = arguments.next().map_or(Ok(8), |text| text.parse())?;
    let blocks: usize = arguments
        .next()
        .map_or(Ok(USUAL_BLOCKS), |text| text.parse())?;
    ensure!(blocks > 0, usage);
    let surroundings = Surroundings::of_process();
    if let Err(error) = Gpu::open(0, &surroundings, CubinCache::of_user()) {
        eprintln!("SKIPPED: {error}");
        return Ok(ExitCode::from(SKIPPED));
    }
    let device = Arc::new(open(&surroundings)?);
    let settings = settings(&model, layers)?;
    println!(
        "{}, {} of {layers} layers, {} tokens",
        device.description().name,
        model,
        settings.sequence_length
    );
    let mut out = std::fs::File::create(&raw).with_context(|| format!("creating {raw}"))?;
    writeln!(out, "block,arm,step,wall_s,device_s")?;
    let world = world(&device)?;
    let rows = probe_steps(&settings, world, |probe| measure(probe, &device, blocks))?;
    for Row {
        block,
        arm,
        step,
        wall_s,
        device_s,
    } in &rows
    {
        writeln!(out, "{block},{},{step},{wall_s:e},{device_s:e}", arm.name())?;
    }
    report(&rows, blocks)?;
    println!("every time: {raw}");
    Ok(ExitCode::SUCCESS)
}

fn open(surroundings: &Surroundings) -> Result<CudaDevice> {
    let engine = CublasLt::load(surroundings).ok();
    let options = CudaOptions {
        engines: engine
            .map(|it| it as Arc<dyn ProductEngine>)
            .into_iter()
            .collect(),
        race_engines: true,
        ..CudaOptions::default()
    };
    Ok(CudaDevice::open(
        options,
        surroundings,
        CubinCache::of_user(),
    )?)
}

fn settings(model: &str, layers: u64) -> Result<Settings> {
    let mut model = Tables::builtin()?.model(model)?.clone();
    model.layers = layers.min(model.layers);
    let mut settings = Settings::new(model, 1, PathBuf::new());
    settings.sequence_length = settings.sequence_length.min(SEQUENCE_LENGTH);
    settings.data_type = DataType::Bf16;
    Ok(settings)
}

/// One rank on the GPU.
fn world(device: &Arc<CudaDevice>) -> Result<World> {
    let alone = worlds(1, &ThreadOptions::default())?.pop();
    let alone = alone.context("a world of one rank")?;
    let own = || Box::new(Alone(Arc::clone(device)));
    Ok(World {
        control: own(),
        data: own(),
        device: Arc::clone(device) as Arc<dyn Device>,
        ..alone
    })
}

/// The communicator of a rank that has nobody to communicate with.
struct Alone(Arc<CudaDevice>);

impl Communicator for Alone {
    fn rank(&self) -> Rank {
        0
    }

    fn size(&self) -> u32 {
        1
    }

    fn enqueue(&self, call: Call, launch: Launch<'_>) -> Result<Token, BackendError> {
        match call {
            // All have come.
            Call::Barrier => self.0.enqueue(&nothing(), launch),
            other => Err(BackendError::Invalid {
                rank: 0,
                call: other.to_string(),
                why: "there is no other rank".to_owned(),
            }),
        }
    }

    fn split(
        &self,
        color: Option<u32>,
        _key: i64,
    ) -> Result<Option<Box<dyn Communicator>>, BackendError> {
        Ok(color.map(|_| Box::new(Self(Arc::clone(&self.0))) as Box<dyn Communicator>))
    }
}

fn nothing() -> Task {
    Task {
        kernels: Arc::from([]),
        work_scale: 1.0,
        extra_flop: 0,
    }
}

/// How a step is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    /// Operation by operation, as `laggard run` does.
    Run,
    /// As one graph.
    Graph,
}

impl Arm {
    fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Graph => "graph",
        }
    }
}

struct Row {
    block: usize,
    arm: Arm,
    step: u32,
    wall_s: f64,
    device_s: f64,
}

fn measure(probe: &mut StepProbe<'_>, device: &Arc<CudaDevice>, blocks: usize) -> Result<Vec<Row>> {
    // Loads every kernel and has the clocks rise; a capture loads none.
    for step in 0..WARM_UP {
        probe.run(step)?;
    }
    let operations = probe.operations(WARM_UP)?;
    let graph = device.capture(&captured(&operations))?;
    let queue = device.create_queue("graph")?;
    let mut rng = Rng::new(1);
    let mut rows = Vec::new();
    let mut stamps = Vec::new();
    let mut replay = |probe: &mut StepProbe<'_>, graph: &StepGraph, step| -> Result<f64> {
        probe.prepare(step)?;
        let launch = Launch {
            queue,
            after: &[],
            tag: 0,
        };
        device.wait(graph.replay(launch)?, DEADLINE)?;
        stamps.clear();
        device.drain(queue, &mut stamps)?;
        let stamp = stamps.last().context("a stamp")?.stamp;
        Ok((stamp.end_ns - stamp.start_ns) as f64 * 1e-9)
    };
    // The first block warms up and is not kept.
    for block in 0..=blocks {
        let mut order = [Arm::Run, Arm::Graph];
        rng.shuffle(&mut order);
        for arm in order {
            for step in 0..STEPS_PER_BLOCK {
                let step = WARM_UP + step;
                let begin = Instant::now();
                let device_s = match arm {
                    Arm::Run => {
                        probe.run(step)?;
                        probe.device_seconds().context("stamps of a step")?
                    }
                    Arm::Graph => replay(probe, &graph, step)?,
                };
                let wall_s = begin.elapsed().as_secs_f64();
                if block > 0 {
                    rows.push(Row {
                        block,
                        arm,
                        step,
                        wall_s,
                        device_s,
                    });
                }
            }
        }
    }
    Ok(rows)
}

/// Queues become streams of the graph, numbered in order of appearance.
fn captured(operations: &[StepOperation]) -> Vec<GraphOperation> {
    let mut queues = Vec::new();
    let mut stream_of = |queue| {
        queues
            .iter()
            .position(|it| *it == queue)
            .unwrap_or_else(|| {
                queues.push(queue);
                queues.len() - 1
            })
    };
    let of = |operation: &StepOperation| GraphOperation {
        stream: stream_of(operation.queue),
        after: operation.after.clone(),
        task: operation.task.clone(),
    };
    operations.iter().map(of).collect()
}

/// Medians of each arm, and of the ratio block by block with its 95 % interval.
fn report(rows: &[Row], blocks: usize) -> Result<()> {
    for (name, time) in [
        ("wall", (|row: &Row| row.wall_s) as fn(&Row) -> f64),
        ("device", |row| row.device_s),
    ] {
        let of = |arm: Arm, block: Option<usize>| {
            let is_of = |row: &&Row| row.arm == arm && block.is_none_or(|block| row.block == block);
            let times: Vec<f64> = rows.iter().filter(is_of).map(time).collect();
            median(&times)
        };
        let ratios: Vec<f64> = (1..=blocks)
            .map(|block| Ok(of(Arm::Run, Some(block))? / of(Arm::Graph, Some(block))?))
            .collect::<Result<_>>()?;
        let resampling = Resampling {
            block_length: 1,
            replicates: REPLICATES,
            seed: 1,
        };
        let ranked = Ranked::new(&ratios)?;
        let middle = |counts: &[u32]| ranked.resampled_quantile(counts, 0.5).unwrap_or(f64::NAN);
        let bootstrap = BlockBootstrap::new(ratios.len(), resampling)?;
        let Estimate { value, interval } = bootstrap.estimate(0.95, middle)?;
        println!(
            "{name}: run {:.6} s, graph {:.6} s, step over graph {value:.4} [{:.4}, {:.4}]",
            of(Arm::Run, None)?,
            of(Arm::Graph, None)?,
            interval.low,
            interval.high
        );
        if name == "wall" {
            let word = if value <= GOAL { "reached" } else { "missed" };
            println!("goal: at most {GOAL}: {word}");
        }
    }
    Ok(())
}
