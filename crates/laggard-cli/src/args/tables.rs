//! What is typed to use the tables: `mfu` and `specs`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Files of a user that add to the tables.
#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    /// Models of your own, as TOML; the form is that of `laggard specs show MODEL`.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) models: Option<PathBuf>,
    /// Accelerators of your own, as TOML; the form is that of `laggard specs show ACCELERATOR`.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) accelerators: Option<PathBuf>,
}

/// Form and place of a result.
#[derive(Debug, Args)]
pub(crate) struct ResultArgs {
    /// Output format.
    #[arg(long, value_enum, default_value_t = TableFormat::Text)]
    pub(crate) format: TableFormat,
    /// Where the result goes; `-` is stdout.
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// Options of `mfu`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  laggard mfu --model llama3-405b --gpus 16384 --accelerator h100 \\
              --global-batch 2048 --sequence-length 8192 --step-time 6.5
  laggard mfu --model deepseek-v3 --gpus 2048 --accelerator h800-sxm5-80gb \\
              --tokens-per-second 3.16e6
  laggard mfu --model gpt3-175b --gpus 1024 --accelerator a100-sxm4-80gb --recompute full \\
              --global-batch 1536 --step-time 27.9 --format json")]
pub(crate) struct MfuArgs {
    /// Model; `laggard specs list models` names all.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// Number of accelerators.
    #[arg(long, value_name = "N")]
    pub(crate) gpus: u64,
    /// Accelerator; `laggard specs list accelerators` names all.
    #[arg(long, value_name = "NAME")]
    pub(crate) accelerator: String,
    /// Seconds of one step; needs --global-batch.
    #[arg(long, value_name = "S")]
    pub(crate) step_time: Option<f64>,
    /// Sequences of one step, of all accelerators together.
    #[arg(long, value_name = "N")]
    pub(crate) global_batch: Option<u64>,
    /// Instead of a step time: tokens per second of all accelerators together.
    #[arg(long, value_name = "RATE", conflicts_with_all = ["step_time", "global_batch"])]
    pub(crate) tokens_per_second: Option<f64>,
    /// Tokens of one sequence [default: the model's].
    #[arg(long, value_name = "N")]
    pub(crate) sequence_length: Option<u64>,
    /// What backward computes again; HFU counts it.
    #[arg(long, value_enum, default_value_t = Recomputed::None)]
    pub(crate) recompute: Recomputed,
    /// The arithmetic whose dense peak MFU is divided by; sources divide fp8 runs by either peak.
    #[arg(long, value_enum, default_value_t = Precision::Bf16)]
    pub(crate) precision: Precision,
    #[command(flatten)]
    pub(crate) tables: TableArgs,
    #[command(flatten)]
    pub(crate) result: ResultArgs,
}

/// What backward computes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Recomputed {
    /// Nothing.
    None,
    /// Attention between the projections.
    Selective,
    /// Every layer.
    Full,
}

/// Formats of arithmetic with a peak in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    /// bf16, on generations without it fp16.
    Bf16,
    /// fp16.
    Fp16,
    /// fp8.
    Fp8,
    /// fp4.
    Fp4,
}

/// Output format of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableFormat {
    /// For a terminal.
    Text,
    /// For programs.
    Json,
}

/// Options of `specs`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  laggard specs list models
  laggard specs show h100                     an accelerator, a model or a cluster, as TOML
  laggard specs show colossus-1 > mine.toml   a cluster file to start from
  laggard specs check --cluster mine.toml")]
pub(crate) struct SpecsArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: SpecsAction,
    #[command(flatten)]
    pub(crate) tables: TableArgs,
}

/// What `specs` does.
#[derive(Debug, Subcommand)]
pub(crate) enum SpecsAction {
    /// Name what the tables hold.
    List {
        /// Which table [default: all].
        table: Option<ListedTable>,
    },
    /// Print an entry in full, with its sources: a model, an accelerator, a cluster, a FLOP
    /// convention, or `published-training`.
    Show {
        /// Its name.
        name: String,
    },
    /// Check the tables against what their sources print, and files of your own.
    Check {
        /// A cluster file.
        #[arg(long, value_name = "FILE")]
        cluster: Option<PathBuf>,
    },
}

/// The tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListedTable {
    /// Model shapes.
    Models,
    /// Accelerators.
    Accelerators,
    /// Cluster presets.
    Clusters,
    /// Ways to count FLOP.
    Conventions,
}
