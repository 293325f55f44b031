//! What is typed to compare predictions with published runs.

use super::{ResultArgs, TableArgs};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Options of `validate`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  laggard validate                                   the rows that laggard ships
  laggard validate my-runs.csv --by accelerator      rows of your own, in the same columns
  laggard validate --format json | jq .median_absolute_relative_error")]
pub(crate) struct ValidateArgs {
    /// Rows as CSV; columns are found by name, and only row_id, kind, model, accelerator_id, gpus
    /// and seq_len must be there [default: the rows that laggard ships].
    pub(crate) rows: Option<PathBuf>,
    /// How errors are grouped.
    #[arg(long, value_enum, default_value_t = GroupBy::Source)]
    pub(crate) by: GroupBy,
    /// Apply the efficiency of each framework, one fitted number for all of its rows.
    #[arg(long)]
    pub(crate) framework_scalars: bool,
    #[command(flatten)]
    pub(crate) tables: TableArgs,
    #[command(flatten)]
    pub(crate) result: ResultArgs,
}

/// What rows of a group have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GroupBy {
    /// The paper or table that they come from.
    Source,
    /// The family of the model.
    Model,
    /// The accelerator.
    Accelerator,
    /// The number of accelerators.
    Scale,
    /// The training framework.
    Framework,
}
