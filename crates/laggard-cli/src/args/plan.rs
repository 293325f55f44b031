//! What is typed to partition a cluster: `plan`.

use super::{ChangeArgs, JobArgs, LaunchArgs, MeasuredArgs, ServeArgs, TableArgs, TableFormat};
use clap::{Args, ValueEnum};
use laggard_plan::Objective;
use std::path::PathBuf;

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  laggard plan --cluster small-lab --model llama3-8b
  laggard plan --cluster colossus-1 --model grok-1 --objective time
  laggard plan --cluster colossus-1 --model llama3.1-405b --tokens 15.6e12 --lease h100=2.60
  laggard plan --cluster colossus-1 --cluster colossus-2 --model grok-1     side by side
  laggard plan --cluster colossus-1 --model grok-1 --serve llama3-70b --serve-rate 1e8 \\
               --peak-factor 1.6 --reserve 5% --deadline 90
  laggard plan --cluster colossus-1 --jobs jobs.toml -o shared              several jobs
  laggard plan --calibrated-on laggard-run-1 --ranks-of h100=2 -o mine      as was measured here
  laggard plan --cluster mine.toml --model mine --models mine-models.toml --format json")]
pub(crate) struct PlanArgs {
    /// A cluster that laggard knows (`laggard specs list clusters`), or a file that describes one;
    /// of several, the options stand side by side.
    #[arg(
        long,
        value_name = "NAME|FILE",
        required_unless_present = "calibrated_on"
    )]
    pub(crate) cluster: Vec<String>,
    /// Model to train; `laggard specs list models` names all.
    #[arg(long, value_name = "NAME", required_unless_present_any = ["jobs", "calibrated_on"])]
    pub(crate) model: Option<String>,
    /// Instead of a model: a file of jobs to share the cluster out to, each with model, tokens,
    /// batch_tokens, sequence_length, deadline_days, weight, fewest_devices.
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["model", "tokens", "deadline", "owned"])]
    pub(crate) jobs: Option<PathBuf>,
    /// Tokens to train on [default: 20 for each parameter].
    #[arg(long, value_name = "N")]
    pub(crate) tokens: Option<f64>,
    /// Days in which the model must have its tokens: later options are no answer, and one trains on
    /// just enough.
    #[arg(long, value_name = "DAYS")]
    pub(crate) deadline: Option<f64>,
    /// What the answer is best by.
    #[arg(long, value_enum, default_value_t = By::Tokens)]
    pub(crate) objective: By,
    /// Most tokens of a step, to within 5 % [default: 16 Mi, the largest batch of Llama 3 405B;
    /// beyond its 16,384 accelerators 1,024 for each].
    #[arg(long, value_name = "N", value_parser = super::whole)]
    pub(crate) batch_tokens: Option<u64>,
    /// Power of the site, megawatts with cooling, instead of the cluster's own.
    #[arg(long, value_name = "MW")]
    pub(crate) power_limit_mw: Option<f64>,
    /// Rent that a class brings, dollars per device and hour, repeatable: `h100=2.60` [default:
    /// what is typical by the cluster's file, else by laggard's table].
    #[arg(long, value_name = "CLASS=PRICE")]
    pub(crate) lease: Vec<String>,
    /// Price of a kilowatt-hour at the meter, dollars [default: power costs nothing].
    #[arg(long, value_name = "PRICE")]
    pub(crate) electricity: Option<f64>,
    /// Devices that are kept for experiments and peaks, repeatable: `h100=1024`, `h100=5%`, or of
    /// every class `5%`.
    #[arg(long, value_name = "CLASS=N|P%")]
    pub(crate) reserve: Vec<String>,
    /// What an owner pays, as TOML: `[bought.CLASS]` with dollars_per_device, years and maybe
    /// network_dollars_per_device and maintenance_share_per_year; staff_dollars_per_year,
    /// utilization, electricity_dollars_per_kwh.
    #[arg(long, value_name = "FILE")]
    pub(crate) owned: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    #[command(flatten)]
    pub(crate) measured: MeasuredArgs,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) tables: TableArgs,
    /// Output format.
    #[arg(long, value_enum, default_value_t = TableFormat::Text)]
    pub(crate) format: TableFormat,
    /// Folder to write the plan to: `plan.json`, which `laggard run --plan` rehearses, and launch
    /// files of its jobs for MPI, Slurm, torchrun, Megatron-LM and Kubernetes.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) launch: LaunchArgs,
}

/// What an answer is best by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// Most tokens per second, of all jobs together.
    Tokens,
    /// Highest MFU of the devices that train.
    Mfu,
    /// Fewest days until one model has its tokens.
    Time,
    /// Least rent, at market prices, for each token.
    DollarsPerToken,
    /// Most rent earned, less what power costs.
    NetDollars,
    /// Most tokens for each MWh.
    TokensPerMwh,
}

impl By {
    pub(crate) fn objective(self) -> Objective {
        match self {
            Self::Tokens => Objective::Tokens,
            Self::Mfu => Objective::Mfu,
            Self::Time => Objective::Time,
            Self::DollarsPerToken => Objective::DollarsPerToken,
            Self::NetDollars => Objective::NetDollars,
            Self::TokensPerMwh => Objective::TokensPerMwh,
        }
    }
}
