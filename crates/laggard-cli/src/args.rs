//! The command line as it is typed.

mod bench;
mod change;
mod fleet;
mod job;
mod launch;
mod measured;
mod plan;
mod rehearsal;
mod serve;
mod simulate;
mod tables;
mod validate;

use crate::exit_code;
pub(crate) use bench::{BenchArgs, Measured, Places};
pub(crate) use change::ChangeArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use fleet::{FleetArgs, FleetFormat};
pub(crate) use job::{Arithmetic, JobArgs};
pub(crate) use launch::LaunchArgs;
pub(crate) use measured::MeasuredArgs;
pub(crate) use plan::PlanArgs;
pub(crate) use rehearsal::RehearsalArgs;
pub(crate) use serve::ServeArgs;
pub(crate) use simulate::SimulateArgs;
use std::path::PathBuf;
pub(crate) use tables::{
    ListedTable, MfuArgs, Precision, Recomputed, ResultArgs, SpecsAction, SpecsArgs, TableArgs,
    TableFormat,
};
pub(crate) use validate::{GroupBy, ValidateArgs};

/// What the slowest rank costs a synchronous training job, who it is and why.
#[derive(Debug, Parser)]
#[command(name = "laggard", version, after_help = exit_code::HELP, max_term_width = 100)]
#[command(before_help = "Examples:
  laggard                                            run, analyze and report, with defaults
  laggard run --inject slow-rank:1:1.3 -o slow       a job with a slow rank
  laggard analyze slow --html slow.html              who is it, and what does it cost")]
pub(crate) struct Cli {
    /// What to do; without a command: run, analyze and report with defaults.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Log what happens to stderr; -vv for more. LAGGARD_LOG takes a filter.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// No progress on stderr.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// The hidden command that makes the binary a host's witness.
pub(crate) const WITNESS: &str = "__witness";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a synthetic training job and record every rank's steps.
    #[command(allow_negative_numbers = true)]
    Run(RunArgs),
    /// Benchmark single calls: collectives, kernels and pairs, rank by rank.
    #[command(allow_negative_numbers = true)]
    Bench(Box<BenchArgs>),
    /// Say what stragglers cost, who they are and why.
    #[command(allow_negative_numbers = true)]
    Analyze(AnalyzeArgs),
    /// Turn another tool's trace into a record.
    Import(ImportArgs),
    /// Say what changed between two records.
    #[command(allow_negative_numbers = true)]
    Compare(CompareArgs),
    /// Make one table of all devices from many runs: how fast each is, who is slow, since when.
    #[command(allow_negative_numbers = true)]
    Fleet(FleetArgs),
    /// Say how to use a mixed cluster for a training job: every way, side by side.
    #[command(allow_negative_numbers = true)]
    Plan(Box<PlanArgs>),
    /// Predict what a job will do on a cluster, cause by cause.
    #[command(allow_negative_numbers = true)]
    Simulate(SimulateArgs),
    /// Say what share of its accelerators' peak a step used, under every convention.
    #[command(allow_negative_numbers = true)]
    Mfu(MfuArgs),
    /// Show and check the tables of models, accelerators and clusters.
    Specs(SpecsArgs),
    /// Compare predictions with published training runs.
    Validate(ValidateArgs),
    /// Show what this machine offers, and how to fill the gaps.
    Doctor(DoctorArgs),
    /// What a host's first rank starts to outlive all ranks.
    #[command(name = WITNESS, hide = true)]
    Witness,
}

/// Options of `run`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  laggard run -o first
  laggard run --layout pp2,vp2 --steps 100 -o pipeline
  laggard run --layout dp2,tp2,pp2,zero1,sp --model tiny --inject slow-stage:1:1.3 -o stage
  laggard run --layout dp2,ep2 --model tiny-moe -o experts
  laggard run --classes h100:2,h200:1,gb200:1 -o mixed
  laggard run --device gpu --classes h200:1,h100:1 --allow-shared-gpu -o one-gpu
  laggard run --ranks 8 --emulate-hosts 2 --inject slow-host:1:1.2+from=100 -o host
  laggard run --plan mine/plan.json -o rehearsal
  mpirun -n 4 laggard run -o cluster        one rank per process; srun likewise
  torchrun --nproc-per-node 8 --no-python laggard run -o node    on GPUs, without MPI")]
pub(crate) struct RunArgs {
    /// Number of ranks [default: from --layout or --classes, else the GPUs, or the
    /// processors, at most 4].
    #[arg(long, value_name = "N")]
    pub(crate) ranks: Option<u32>,
    /// Number of steps.
    #[arg(long, default_value_t = 300, value_name = "N")]
    pub(crate) steps: u32,
    /// Model preset; a wrong name lists all, the smallest first.
    #[arg(long, default_value = "small", value_name = "NAME")]
    pub(crate) model: String,
    /// Layers of the model, where all of them do not fit [default: the model's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) layers: Option<u64>,
    /// Parallel layout, any of: dpN replicas, tpN tensor, ppN pipeline, vpN pieces of each stage,
    /// cpN context and epN expert parallel, zero1 to zero3, sp (sequence parallel), recompute
    /// (recomputeN: of N layers of each piece); such as `dp2,tp2,pp2,zero1,sp` [default: dp with
    /// all ranks].
    #[arg(long, value_name = "LAYOUT")]
    pub(crate) layout: Option<String>,
    /// Micro-batches per step: one number, or one for each replica (`3,3,2`) [default: 1; in a
    /// pipeline 2 for each stage].
    #[arg(long, value_name = "N[,N...]")]
    pub(crate) micro_batches: Option<String>,
    /// Layers of each pipeline stage (`3,3,2`); with vp, of each piece, in the order of the model
    /// [default: as even as they can be].
    #[arg(long, value_name = "N[,N...]")]
    pub(crate) stage_layers: Option<String>,
    /// What ranks compute on; `auto` is GPUs where all that they need is there.
    #[arg(long, value_enum, default_value_t = OnDevice::Auto)]
    pub(crate) device: OnDevice,
    /// Type of weights, activations and gradients: bf16, f16 or f32 [default: bf16 on GPUs, else
    /// f32].
    #[arg(long, value_name = "TYPE")]
    pub(crate) data_type: Option<String>,
    /// Tokens of one sequence [default: the model's].
    #[arg(long, value_name = "N")]
    pub(crate) sequence_length: Option<u32>,
    /// Bytes of a gradient bucket (K, M, G are powers of 1024).
    #[arg(long, default_value = "1M", value_name = "SIZE")]
    pub(crate) bucket_bytes: String,
    /// Reduce gradients after backward instead of during it.
    #[arg(long)]
    pub(crate) no_overlap: bool,
    /// Classes of ranks, emulated by extra arithmetic, or by parts of a GPU that ranks share:
    /// `h100:2,h200:1,gb200:1`.
    #[arg(long, value_name = "CLASS:N,...")]
    pub(crate) classes: Option<String>,
    /// Which ratio between classes is emulated.
    #[arg(long, value_enum, default_value_t = Rates::Measured)]
    pub(crate) rates: Rates,
    /// Let ranks share a GPU. Ranks of one process on its only GPU are confined to parts of it, in
    /// proportion to the rates of their classes, where the driver can do that.
    #[arg(long)]
    pub(crate) allow_shared_gpu: bool,
    /// On GPUs, run steps that do not count until clocks and temperatures are steady, for at most
    /// so many seconds [without a number: 120].
    #[arg(long, value_name = "S", num_args = 0..=1, default_missing_value = "120")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) soak: Option<u64>,
    #[command(flatten)]
    pub(crate) rehearsal: RehearsalArgs,
    /// Put ranks on this many emulated hosts, in blocks.
    #[arg(long, value_name = "N")]
    pub(crate) emulate_hosts: Option<u32>,
    /// A fault to put in, repeatable: slow-rank:RANK:FACTOR, slow-host:HOST:FACTOR,
    /// slow-stage:STAGE:FACTOR, slow-backward:RANK:FACTOR, jitter:SIGMA[@RANK],
    /// pause:EVERY_STEPS:MS[@RANK], ragged:CV; each may end in `+from=STEP`.
    #[arg(long, value_name = "FAULT")]
    pub(crate) inject: Vec<String>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Longest wait for another rank, seconds; a rank that is silent for so long is lost.
    #[arg(long, default_value_t = 60, value_name = "S")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
    /// Longest wait for all ranks to start, seconds [default: 60, and one more for every 64 ranks].
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) init_timeout: Option<u64>,
    /// End after so many seconds, with a complete record; under Slurm the job's end counts as well.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) time_limit: Option<u64>,
    /// Folder on each host's own disk for what is recorded there, moved to the record at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// Folder of the record; must not exist yet [default: laggard-run-N, the first that is free].
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

/// What ranks compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnDevice {
    /// GPUs where there are some, with driver, compiler of kernels and NCCL; else processors.
    Auto,
    /// Processors.
    Cpu,
    /// GPUs.
    Gpu,
}

/// Which ratio between classes is emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rates {
    /// Training rates measured on one workload.
    Measured,
    /// Peaks of the datasheets.
    Peak,
}

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a terminal.
    Text,
    /// For programs; the schema is in docs/schema/.
    Json,
    /// For tickets.
    Markdown,
}

/// Options of `analyze`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  laggard analyze laggard-run-1
  laggard analyze laggard-run-1 --html report.html
  laggard analyze laggard-run-1 --format json -o - | jq .penalty")]
pub(crate) struct AnalyzeArgs {
    /// Record to analyze.
    pub(crate) record: PathBuf,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Where the result goes; `-` is stdout.
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Also write one self-contained HTML file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Smallest lasting excess of a rank or host that is named, per cent.
    #[arg(long, default_value_t = 6.0, value_name = "PCT")]
    pub(crate) name_over: f64,
    /// Exit with 4 if stragglers cost more than this, per cent of wall time.
    #[arg(long, value_name = "PCT", value_parser = per_cent)]
    pub(crate) fail_over: Option<f64>,
    /// Seed of resampling.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
}

/// Options of `import`.
#[derive(Debug, Args)]
#[command(before_help = "Example:
  laggard import trace.parquet -o imported && laggard analyze imported")]
pub(crate) struct ImportArgs {
    /// Trace to read.
    pub(crate) trace: PathBuf,
    /// Folder of the record; must not exist yet.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

/// Options of `compare`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  laggard compare before after --fail-over 5
  laggard compare --plan mine/plan.json rehearsal --equal equal")]
pub(crate) struct CompareArgs {
    /// Record A, the reference, and record B; with --plan the rehearsal, one record for each job.
    #[arg(required = true)]
    pub(crate) records: Vec<PathBuf>,
    /// Hold a rehearsal (`laggard run --plan FILE`) against its plan.
    #[arg(long, value_name = "FILE", conflicts_with = "fail_over")]
    pub(crate) plan: Option<PathBuf>,
    /// The option that was rehearsed, where it was not the chosen one.
    #[arg(long, value_name = "N", requires = "plan")]
    pub(crate) option: Option<usize>,
    /// Record of the plan's equal shares, to see what the rehearsed option gains over them.
    #[arg(long, value_name = "DIR", requires = "plan")]
    pub(crate) equal: Vec<PathBuf>,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Where the result goes; `-` is stdout.
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Exit with 4 if B's steps take longer by more than this, per cent, and significantly.
    #[arg(long, value_name = "PCT", value_parser = per_cent)]
    pub(crate) fail_over: Option<f64>,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Look at one MPI library alone: two of them do not fit into one process.
    #[arg(long, hide = true, value_name = "openmpi|mpich")]
    pub(crate) only_mpi: Option<String>,
}

/// A whole number above zero, also as `4e6`.
fn whole(text: &str) -> Result<u64, String> {
    // Beyond this a number as `4e6` is written is not exact.
    let most = 1_u64 << f64::MANTISSA_DIGITS;
    let rounded = || {
        let number: f64 = text.parse().ok()?;
        let is_whole = number.fract() == 0.0 && (1.0..=most as f64).contains(&number);
        is_whole.then_some(number as u64)
    };
    let exact = text.parse().ok().filter(|number| *number > 0);
    exact.or_else(rounded).ok_or_else(|| {
        "not a whole number above zero\nhint: for example `4194304` or `4e6`".to_owned()
    })
}

/// A limit against which a NaN would never fail.
fn per_cent(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number.filter(|limit| limit.is_finite()).ok_or_else(|| {
        let hint = "hint: for example `--fail-over 5`";
        format!("not a finite number of per cent\n{hint}")
    })
}
