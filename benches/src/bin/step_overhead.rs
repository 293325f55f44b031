//! What recording and the control plane cost a step of 10 ms, on every rank of a run of several
//! processes. Ranks are threads here, each with a control plane of its own on the hosts that it
//! would have, so that all of it is real but the processes.
//!
//! Two parts: what the rank's own thread does within a step (its position, its arrivals at
//! collectives, its samples), timed around just that; and the CPU time of the threads behind it
//! (heartbeats, writing the record), which take it from the rank's processor. Together they are
//! held against 0.1 % of the step.
//!
//! `cargo run --release -p laggard-benches --bin step_overhead -- FILE.csv [STEPS]`
#![expect(
    clippy::print_stdout,
    reason = "the figures are the result of a benchmark"
)]

use anyhow::{Context, Result};
use laggard_backend::control::{ControlOptions, ControlPlane, Position};
use laggard_backend::threads::{ThreadOptions, worlds};
use laggard_backend::{Abort, GroupId, Messenger, RollCall};
use laggard_benches::known_job::KnownJob;
use laggard_record::{RankRecorder, RecordWriter, Sample, StepWork};
use laggard_stats::{median, quantile};
use laggard_types::Stamp;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RANKS: u32 = 8;
const RANKS_PER_HOST: u32 = 4;
/// The step that the cost is related to.
const STEP: Duration = Duration::from_millis(10);
/// Collective calls of a step: as many buckets as a large model has in some layers.
const CALLS: u64 = 16;
/// What the cost may be, of the step.
const LIMIT: f64 = 1e-3;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().context("give the path of the CSV file")?;
    let steps = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let job = KnownJob::clean(RANKS, RANKS_PER_HOST, steps, 1);
    let folder = tempfile::tempdir()?;
    let writer = RecordWriter::create(&folder.path().join("record"), &job.manifest())?;
    let samples = job.samples_per_step() as u32;
    let all = worlds(RANKS, &ThreadOptions::default())?;
    let begin = Instant::now();
    let behind = cpu_of("laggard-");
    let ranks: Vec<(Vec<f64>, f64)> = std::thread::scope(|scope| {
        let start = |world: &laggard_backend::World| {
            let messenger = Arc::clone(&world.messenger);
            let recorder = writer.recorder(messenger.rank());
            scope.spawn(move || rank(&*messenger, recorder?, steps, samples))
        };
        let threads: Vec<_> = all.iter().map(start).collect();
        let ended = threads.into_iter().map(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|_| anyhow::bail!("a rank panicked"))
        });
        ended.collect::<Result<_>>()
    })?;
    let wall = begin.elapsed().as_secs_f64();
    let last = ranks.iter().map(|(_, cpu)| *cpu).fold(0.0, f64::max);
    let behind = last - behind;
    let costs: Vec<Vec<f64>> = ranks.into_iter().map(|(costs, _)| costs).collect();
    let mut table = "rank,step,seconds\n".to_owned();
    for (rank, costs) in costs.iter().enumerate() {
        for (step, cost) in costs.iter().enumerate() {
            _ = writeln!(table, "{rank},{step},{cost:.9}");
        }
    }
    fs::write(&file, table).with_context(|| file.clone())?;
    let within: Vec<f64> = costs.concat();
    let (middle, high) = (median(&within)?, quantile(&within, 0.99)?);
    let behind = behind / wall / f64::from(RANKS);
    let share = middle / STEP.as_secs_f64() + behind;
    println!(
        "{RANKS} ranks on {} hosts, {steps} steps of 10 ms,",
        RANKS / RANKS_PER_HOST
    );
    println!("{samples} samples and {CALLS} collective calls each");
    println!(
        "within the step: median {:.2} us, 99th percentile {:.2} us",
        middle * 1e6,
        high * 1e6
    );
    println!(
        "threads behind it: {:.3} % of a processor per rank",
        behind * 1e2
    );
    let word = if share < LIMIT { "within" } else { "over" };
    println!(
        "together {:.3} % of the step: {word} the limit of {:.1} %",
        share * 1e2,
        LIMIT * 1e2
    );
    Ok(())
}

/// One rank: seconds that recording and control take within each step, and the CPU time of all
/// threads behind it at the end of the last.
fn rank(
    messenger: &dyn Messenger,
    mut recorder: RankRecorder,
    steps: u32,
    samples: u32,
) -> Result<(Vec<f64>, f64)> {
    let rank = messenger.rank();
    let host = format!("host{}", rank / RANKS_PER_HOST);
    let abort = Arc::new(Abort::default());
    let options = ControlOptions::new(Duration::from_secs(60));
    let control = ControlPlane::join(messenger, &host, abort, &options)?;
    let mut costs = Vec::with_capacity(steps as usize);
    let begin = Instant::now();
    for step in 0..steps {
        // The step itself; nobody computes, so that what is measured is not waiting for a
        // processor.
        std::thread::sleep((STEP * (step + 1)).saturating_sub(begin.elapsed()));
        let stamp = Stamp {
            start_ns: i64::from(step) * 10_000_000,
            end_ns: i64::from(step) * 10_000_000 + 9_000_000,
            cpu_start_ns: 0,
            cpu_end_ns: 0,
        };
        let start = Instant::now();
        let operation = 0;
        control.progress().set(Position { step, operation });
        for call in 0..CALLS {
            control.arrive(GroupId(1), u64::from(step) * CALLS + call + 1);
        }
        for operation in 0..samples {
            recorder.push(Sample {
                rank,
                step,
                operation,
                stamp,
            });
        }
        recorder.push_step(StepWork {
            rank,
            step,
            tokens: 1,
            tokens_squared: 1,
        });
        costs.push(start.elapsed().as_secs_f64());
    }
    // Before anybody's threads end: they do when all have left.
    let behind = cpu_of("laggard-");
    control.leave(Duration::from_secs(60))?;
    Ok((costs, behind))
}

/// CPU seconds of this process's threads whose names begin so.
fn cpu_of(name: &str) -> f64 {
    let tasks = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let cpu = |task: fs::DirEntry| -> Option<f64> {
        let read = |file| fs::read_to_string(task.path().join(file)).ok();
        if !read("comm")?.starts_with(name) {
            return None;
        }
        let nanos: f64 = read("schedstat")?.split_whitespace().next()?.parse().ok()?;
        Some(nanos * 1e-9)
    };
    tasks.filter_map(cpu).sum()
}
