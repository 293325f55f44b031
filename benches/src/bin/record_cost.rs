//! What recording costs a rank, and what reading a large record costs an analysis.
//!
//! Limits: a push under 100 ns without any allocation; 10.24 million samples (1,024 ranks, 1,000
//! steps, 10 operations) decoded in about a second on one core.
#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(unsafe_code, reason = "an allocator that counts")]

use anyhow::{Context, Result, bail};
use laggard_record::{
    Class, Clock, Closing, ClosingStatus, Host, Manifest, Origin, RankPlace, Record, RecordWriter,
    Sample, SchemaVersion, StepWork, TableRows, Telemetry, TimeBasis, Workload, write_record,
};
use laggard_schedule::{
    Operation, OperationKind, Phase, Program, Schedule, ScheduleOrigin, Stream,
};
use laggard_types::{ClockDomain, Stamp};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Counts the allocations of each thread by itself.
struct CountingAllocator;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed on unchanged to the system's allocator; the counter is a plain cell
// that needs no allocation itself.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are those of `System::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are those of `System::dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const RANKS: u32 = 1024;
const STEPS: u32 = 1000;
const OPERATIONS: u32 = 10;

/// Pushes timed together, so that reading the clock does not count.
const BATCH: u32 = 16;
/// Pushes between two flushes, which are not timed: as many as a lively rank makes in a tenth of a
/// second, after which the writer looks by itself.
const BURST: u32 = 2048;
const BURSTS: u32 = 500;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, dir] = &arguments[..]
        && command == "decode"
    {
        return decode(Path::new(dir));
    }
    let dir = tempfile::tempdir().context("no directory for the records")?;
    push_cost(&dir.path().join("pushed"))?;
    let bulk = dir.path().join("bulk");
    write_cost(&bulk)?;
    // A process of its own, so that its peak memory is the reader's.
    let status = Command::new(std::env::current_exe()?)
        .arg("decode")
        .arg(&bulk)
        .status()?;
    if !status.success() {
        bail!("the decoding process failed: {status}");
    }
    Ok(())
}

fn push_cost(dir: &Path) -> Result<()> {
    let writer = RecordWriter::create(dir, &manifest(1))?;
    let mut recorder = writer.recorder(0)?;
    let mut per_push_ns = Vec::with_capacity((BURST / BATCH * BURSTS) as usize);
    let mut allocations = 0;
    let mut next = 0;
    for _ in 0..BURSTS {
        let before = ALLOCATIONS.get();
        for _ in 0..BURST / BATCH {
            let begin = Instant::now();
            for _ in 0..BATCH {
                recorder.push(black_box(sample(1, next)));
                next += 1;
            }
            per_push_ns.push(begin.elapsed().as_nanos() as f64 / f64::from(BATCH));
        }
        allocations += ALLOCATIONS.get() - before;
        writer.flush()?;
    }
    drop(recorder);
    let closing = writer.close(ClosingStatus::Finished, STEPS)?;
    per_push_ns.sort_by(f64::total_cmp);
    let at = |share: f64| per_push_ns[((per_push_ns.len() - 1) as f64 * share) as usize];
    println!("push, {next} samples, {BATCH} a batch (making the sample and the clock included)");
    println!(
        "  median                 {:>10.1} ns   (limit 100)",
        at(0.5)
    );
    println!("  p99                    {:>10.1} ns", at(0.99));
    println!("  largest batch mean     {:>10.1} ns", at(1.0));
    println!("  allocations and frees  {allocations:>10}      (limit 0)");
    println!("  writer lags            {:>10}", closing.writer_lags);
    println!("  samples written        {:>10}", closing.samples);
    Ok(())
}

fn write_cost(dir: &Path) -> Result<()> {
    let total = RANKS * STEPS * OPERATIONS;
    let rows = TableRows {
        samples: (0..total).map(|index| sample(RANKS, index)),
        steps: Vec::<StepWork>::new(),
        telemetry: Vec::<Telemetry>::new(),
    };
    let closing = Closing {
        status: ClosingStatus::Finished,
        steps_completed: STEPS,
        samples: 0,
        steps: 0,
        telemetry: 0,
        writer_lags: 0,
        parts: Vec::new(),
    };
    let begin = Instant::now();
    let closing = write_record(dir, &manifest(RANKS), rows, closing)?;
    let seconds = begin.elapsed().as_secs_f64();
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir.join("samples"))? {
        bytes += entry?.metadata()?.len();
    }
    println!("write_record, {} samples, one thread", closing.samples);
    println!("  time                   {seconds:>10.2} s");
    println!(
        "  size                   {:>10.1} MiB",
        bytes as f64 / f64::from(1 << 20)
    );
    println!(
        "  bytes a sample         {:>10.1}",
        bytes as f64 / closing.samples as f64
    );
    Ok(())
}

fn decode(dir: &Path) -> Result<()> {
    let mut seconds = Vec::new();
    let mut rows = 0;
    for _ in 0..7 {
        let begin = Instant::now();
        let record = Record::open(dir)?;
        let mut busy_ns = 0i64;
        let reading = record.samples(|batch| {
            let spans = batch.end_ns.iter().zip(batch.start_ns);
            busy_ns += spans.map(|(end, start)| end - start).sum::<i64>();
        })?;
        black_box(busy_ns);
        seconds.push(begin.elapsed().as_secs_f64());
        rows = reading.rows;
        if !reading.caveats.is_empty() {
            bail!("the record is not sound: {:?}", reading.caveats);
        }
    }
    seconds.sort_by(f64::total_cmp);
    println!("Record::open and samples, {rows} samples, one thread, 7 runs, file in memory");
    println!(
        "  median                 {:>10.2} s    (limit about 1)",
        seconds[3]
    );
    println!(
        "  fastest, slowest       {:>10.2} s, {:.2} s",
        seconds[0], seconds[6]
    );
    println!(
        "  time a sample          {:>10.1} ns",
        seconds[3] * 1e9 / rows as f64
    );
    match peak_memory_kib() {
        Some(kib) => println!("  peak resident memory   {:>10.1} MiB", kib / 1024.0),
        None => println!("  peak resident memory   not known on this system"),
    }
    Ok(())
}

/// Peak resident memory of this process, as Linux tells it.
fn peak_memory_kib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Sample `index` of a job of `ranks` ranks, step by step and rank by rank, with times that vary by
/// a tenth from a multiplicative hash.
fn sample(ranks: u32, index: u32) -> Sample {
    let (operation, rank) = (index % OPERATIONS, index / OPERATIONS % ranks);
    let step = index / OPERATIONS / ranks;
    let noise = i64::from(index.wrapping_mul(2_654_435_761) >> 13);
    let start_ns = i64::from(step * OPERATIONS + operation) * 5_000_000 + noise;
    let end_ns = start_ns + 4_000_000 + noise / 2;
    let cpu_start_ns = start_ns - start_ns / 16;
    let stamp = Stamp {
        start_ns,
        end_ns,
        cpu_start_ns,
        cpu_end_ns: cpu_start_ns + 3_900_000,
    };
    Sample {
        rank,
        step,
        operation,
        stamp,
    }
}

fn manifest(ranks: u32) -> Manifest {
    Manifest {
        schema_version: SchemaVersion::CURRENT,
        laggard_version: env!("CARGO_PKG_VERSION").to_owned(),
        created_unix_ns: 0,
        command_line: Vec::new(),
        origin: Origin::Predicted,
        hosts: vec![Host {
            name: "bench".to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            processor: "any".to_owned(),
            cpus: 1,
            emulated: true,
            machine: 0,
        }],
        classes: vec![Class {
            name: "bench".to_owned(),
            emulated: true,
            emulated_by: None,
            relative_rate: 1.0,
            rate_source: "the only class".to_owned(),
            peak: None,
        }],
        ranks: (0..ranks)
            .map(|_| RankPlace {
                host: 0,
                class: 0,
                device: "none".to_owned(),
                cpus: Vec::new(),
                allowed_cpus: Vec::new(),
                cpu_quota: None,
                numa_node: None,
                other_load: None,
                accelerator: None,
                other_processes: None,
            })
            .collect(),
        clock: Clock {
            domain: ClockDomain::HostMonotonic,
            resolution_ns: 1,
            common_to_all_ranks: true,
            thread_cpu_time: true,
            basis: TimeBasis::Wall,
        },
        workload: Workload {
            model: "none".to_owned(),
            synthetic: true,
            data_type: "f32".to_owned(),
            parameters: 0.0,
            sequence_length: 0,
            micro_batch_sequences: 0,
            flop_per_token_causal: None,
            flop_per_token_full: None,
            recompute_flop_per_token: 0.0,
        },
        schedule: Schedule {
            origin: ScheduleOrigin::Trace,
            operations: (0..OPERATIONS).map(operation).collect(),
            programs: vec![Program {
                operations: (0..OPERATIONS).collect(),
            }],
            program_of_rank: vec![0; ranks as usize],
            stage_of_rank: vec![0; ranks as usize],
            axes: Vec::new(),
        },
        seed: 0,
        communication: None,
        links: Vec::new(),
        caveats: Vec::new(),
        truth: Vec::new(),
    }
}

fn operation(id: u32) -> Operation {
    let name = format!("compute {id}");
    Operation::new(
        name,
        OperationKind::Compute,
        Phase::Forward,
        Stream::Compute,
    )
}
