//! What is typed to predict a job: `simulate`.

use super::{JobArgs, ResultArgs, TableArgs};
use clap::Args;
use std::path::PathBuf;

/// Options of `simulate`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  laggard simulate --cluster colossus-1
  laggard simulate --model llama3-70b --accelerator h100 --gpus 1024 --layout tp8,pp4,dp32,sp
  laggard simulate --accelerator h100 --gpus 64 --model llama3-8b --jitter 0.02 --record predicted
  laggard simulate --cluster mine.toml --model llama3-8b --calibrate h100=laggard-run-1
  laggard simulate --calibrated-on run-dp4 --calibrated-on run-tp2 --layout dp2,tp2
  laggard simulate --model gpt3-175b --cluster mine.toml --global-batch 1536 --format json")]
pub(crate) struct SimulateArgs {
    /// Model; `laggard specs list models` names all [default: llama3.1-405b; with --calibrated-on
    /// that of the first record].
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// A cluster that laggard knows (`laggard specs list clusters`), or a file that describes one.
    #[arg(
        long,
        value_name = "NAME|FILE",
        required_unless_present_any = ["accelerator", "calibrated_on"]
    )]
    pub(crate) cluster: Option<String>,
    /// Instead of a cluster: one class of accelerators; needs --gpus.
    #[arg(
        long,
        value_name = "NAME",
        requires = "gpus",
        conflicts_with = "cluster"
    )]
    pub(crate) accelerator: Option<String>,
    /// How many of them.
    #[arg(long, value_name = "N", requires = "accelerator")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) gpus: Option<u64>,
    /// Parallel layout as for `laggard run`, with zero1 to zero3, sp and recompute [default: the
    /// fastest that fits in memory].
    #[arg(long, value_name = "LAYOUT")]
    pub(crate) layout: Option<String>,
    /// Instead of a cluster: records of `laggard run` on the user's own machines, of other layouts;
    /// repeatable. Needs --layout, of which each kind of parallelism must have been run.
    #[arg(long, value_name = "DIR", requires = "layout")]
    #[arg(conflicts_with_all = ["cluster", "accelerator", "record", "fleet_mfu", "assumed_mfu",
        "precision", "framework", "calibrate", "checkpoint_time", "restart_time", "repair_time"])]
    pub(crate) calibrated_on: Vec<PathBuf>,
    /// Sequences of a micro-batch, with --layout [default: 1; with --calibrated-on the record's].
    #[arg(long, value_name = "N", requires = "layout")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) micro_batch: Option<u32>,
    /// Sequences of a step, all replicas together [default: as many as make 16 Mi tokens, the
    /// largest batch of Llama 3 405B; beyond its 16,384 accelerators 1,024 tokens for each; with
    /// --calibrated-on one micro-batch for each replica, in a pipeline two for each stage].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 31))]
    pub(crate) global_batch: Option<u64>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// MFU of the slowest class by itself, for what the mix alone makes of it.
    #[arg(long, default_value_t = 0.40, value_name = "SHARE")]
    pub(crate) assumed_mfu: f64,
    /// A published MFU of a whole fleet, such as 0.11: what could lie behind it.
    #[arg(long, value_name = "SHARE")]
    pub(crate) fleet_mfu: Option<f64>,
    /// Seconds until a failed host is back: what the accelerators that the layout leaves over are
    /// worth as spares.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) repair_time: Option<f64>,
    /// Also write a predicted record to this folder: every operation of small worlds, a sketch of
    /// large ones.
    #[arg(long, value_name = "DIR")]
    pub(crate) record: Option<PathBuf>,
    /// Steps of the record.
    #[arg(long, default_value_t = 100, value_name = "N", requires = "record")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: u32,
    /// How the times of a rank's kernels vary from step to step: sigma of a lognormal factor.
    #[arg(long, default_value_t = 0.0, value_name = "SIGMA", requires = "record")]
    pub(crate) jitter: f64,
    /// How much of a step's deviation the next one keeps, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", requires = "record")]
    pub(crate) autocorrelation: f64,
    /// Seed of all that is random.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) tables: TableArgs,
    #[command(flatten)]
    pub(crate) result: ResultArgs,
}
