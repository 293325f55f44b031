//! What is typed to partition a cluster: `plan`.

use super::{JobArgs, ResultArgs, TableArgs};
use clap::{Args, ValueEnum};
use laggard_plan::Objective;

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  laggard plan --cluster small-lab --model llama3-8b
  laggard plan --cluster colossus-1 --model grok-1 --objective time
  laggard plan --cluster colossus-1 --model llama3.1-405b --tokens 15.6e12 --lease h100=2.60
  laggard plan --cluster mine.toml --model mine --models mine-models.toml --format json")]
pub(crate) struct PlanArgs {
    /// A cluster that laggard knows (`laggard specs list clusters`), or a file that describes one.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) cluster: String,
    /// Model to train; `laggard specs list models` names all.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// Tokens to train on [default: 20 for each parameter].
    #[arg(long, value_name = "N")]
    pub(crate) tokens: Option<f64>,
    /// What the answer is best by.
    #[arg(long, value_enum, default_value_t = By::Tokens)]
    pub(crate) objective: By,
    /// Most tokens of a step, to within 5 % [default: 16 Mi, the largest batch of Llama 3 405B;
    /// beyond its 16,384 accelerators 1,024 for each].
    #[arg(long, value_name = "N")]
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
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) tables: TableArgs,
    #[command(flatten)]
    pub(crate) result: ResultArgs,
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
