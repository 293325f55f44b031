//! What is typed to benchmark single calls: `bench`. Short options are those of nccl-tests.

use super::{OnDevice, TableFormat};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  laggard bench                                        everything, on what this machine has
  laggard bench --only all_reduce -b 8 -e 128M -f 2    as all_reduce_perf of nccl-tests
  laggard bench --only gemm,triad --model llama3-8b    is a GPU slower than its peers?
  laggard bench --only pairs --pair-bytes 16M          which link is slow?
  mpirun -n 8 laggard bench --only all_gather -d bf16 --output before
  laggard simulate --accelerator h100 --gpus 64 --model llama3-8b --calibrate h100=before")]
pub(crate) struct BenchArgs {
    /// What is measured [default: all but pairs].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT,...")]
    pub(crate) only: Vec<Measured>,
    /// Number of ranks [default: the GPUs, or the processors, at most 4].
    #[arg(long, value_name = "N")]
    pub(crate) ranks: Option<u32>,
    /// What ranks compute on; `auto` is GPUs where all that they need is there.
    #[arg(long, value_enum, default_value_t = OnDevice::Auto)]
    pub(crate) device: OnDevice,
    /// Smallest message (K, M, G are powers of 1024).
    #[arg(short = 'b', long, default_value = "8", value_name = "SIZE")]
    pub(crate) min_bytes: String,
    /// Largest message.
    #[arg(short = 'e', long, default_value = "128M", value_name = "SIZE")]
    pub(crate) max_bytes: String,
    /// From one size to the next.
    #[arg(short = 'f', long, default_value_t = 2, value_name = "N")]
    pub(crate) step_factor: u64,
    /// Timed calls of each size [default: 100, and fewer where they take more than --point-time].
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) iters: Option<u32>,
    /// Calls before those that are timed.
    #[arg(short = 'w', long, default_value_t = 3, value_name = "N")]
    pub(crate) warmup_iters: u32,
    /// Type of the elements of collectives, by laggard's names or those of nccl-tests.
    #[arg(short = 'd', long, default_value = "f32", value_name = "TYPE")]
    pub(crate) datatype: String,
    /// Reduction: sum, min, max or avg. (The folder of the result is --output.)
    #[arg(short = 'o', long, default_value = "sum", value_name = "OP")]
    pub(crate) op: String,
    /// Where results of collectives go.
    #[arg(long, value_enum, default_value_t = Places::Both)]
    pub(crate) place: Places,
    /// Time for the calls of one size, milliseconds, unless -n is given.
    #[arg(long, default_value_t = 100, value_name = "MS")]
    pub(crate) point_time: u64,
    /// Square products [default: 8192 on GPUs, else 1024].
    #[arg(long, value_delimiter = ',', value_name = "N,...")]
    pub(crate) gemm: Vec<u64>,
    /// Also the products of this model's layers; a wrong name lists all.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Tokens that they are of [default: 8192 on GPUs, else 512].
    #[arg(long, value_name = "N", requires = "model")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub(crate) tokens: Option<u64>,
    /// Ranks that each of its layers is split over.
    #[arg(long, default_value_t = 1, value_name = "N", requires = "model")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) tensor_parallel: u64,
    /// Bytes that the triad reads and writes [default: 3G on GPUs, else 192M].
    #[arg(long, value_name = "SIZE")]
    pub(crate) triad_bytes: Option<String>,
    /// Timed rounds of each kernel.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) rounds: u32,
    /// Messages between pairs of ranks, where pairs are asked for.
    #[arg(long, default_value = "16M", value_name = "SIZE")]
    pub(crate) pair_bytes: String,
    /// Have a rank come late to every call, by real arithmetic: `1:200` is rank 1 by 200 us.
    #[arg(long, value_name = "RANK:US")]
    pub(crate) late: Option<String>,
    /// Smallest shortfall of a device, or cost of a late rank, that is named, per cent.
    #[arg(long, default_value_t = 6.0, value_name = "PCT", value_parser = super::per_cent)]
    pub(crate) name_over: f64,
    /// Longest wait for another rank in one call, seconds.
    #[arg(long, default_value_t = 60, value_name = "S")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
    /// Longest wait for all ranks to start, seconds [default: 60, and one more for every 64 ranks].
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) init_timeout: Option<u64>,
    /// Format of what is printed.
    #[arg(long, value_enum, default_value_t = TableFormat::Text)]
    pub(crate) format: TableFormat,
    /// Folder for the result (bench.json) and every sample (samples.json); must not exist yet.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

/// Parts of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Measured {
    /// Everybody gets the reduction.
    AllReduce,
    /// Everybody gets a block of the reduction.
    ReduceScatter,
    /// Everybody gets all blocks.
    AllGather,
    /// Everybody sends a block to everybody.
    AllToAll,
    /// Everybody gets rank 0's.
    Broadcast,
    /// Everybody sends to the next rank.
    SendRecv,
    /// All collectives.
    Collectives,
    /// Matrix products.
    Gemm,
    /// Memory bandwidth.
    Triad,
    /// Messages between pairs of ranks, one pair at a time.
    Pairs,
}

/// Where results of collectives go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Places {
    /// To memory of their own.
    Out,
    /// To where the contribution is.
    In,
    /// One after the other.
    Both,
}
