//! What is typed to make one table of all devices: `fleet`.

use super::TableArgs;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Options of `fleet`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  laggard fleet monday tuesday wednesday
  laggard fleet weeks/ --hosts hostfile              every record in a folder
  laggard fleet weeks/ --cluster mine.toml --format json -o fleet.json
  laggard plan --cluster mine.toml --model llama3-8b --fleet fleet.json")]
pub(crate) struct FleetArgs {
    /// Records of runs on parts of a fleet, or folders of such records.
    #[arg(required = true, value_name = "DIR")]
    pub(crate) records: Vec<PathBuf>,
    /// What there is in all, by class: a cluster that laggard knows, or a file that describes one.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) cluster: Option<String>,
    /// What there is in all, by name: a file with a host in each line, as for mpirun.
    #[arg(long, value_name = "FILE")]
    pub(crate) hosts: Option<PathBuf>,
    /// Smallest difference that is named, per cent.
    #[arg(long, default_value_t = 2.0, value_name = "PCT")]
    pub(crate) name_over: f64,
    /// Output format.
    #[arg(long, value_enum, default_value_t = FleetFormat::Text)]
    pub(crate) format: FleetFormat,
    /// Where the result goes; `-` is stdout.
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) tables: TableArgs,
}

/// Output format of a table of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FleetFormat {
    /// For a terminal: classes, who is named, the slowest hosts.
    Text,
    /// Every device, for programs, and for `laggard plan --fleet`.
    Json,
    /// Every device, for spreadsheets.
    Csv,
}
