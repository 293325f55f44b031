//! What is typed to rehearse a plan: `run --plan`.

use clap::Args;
use std::path::PathBuf;

/// Options of `run` that take the job from a plan.
#[derive(Debug, Args)]
pub(crate) struct RehearsalArgs {
    /// Rehearse a plan (`laggard plan -o DIR` writes DIR/plan.json): its layout, its shares of
    /// micro-batches and layers. Jobs of their own run at the same time, and the record's folder
    /// then has one for each, by the job's name.
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["ranks", "layout", "model", "micro_batches", "stage_layers",
        "sequence_length", "bucket_bytes", "no_overlap", "classes", "emulate_hosts"])]
    pub(crate) plan: Option<PathBuf>,
    /// Another option of the plan than the chosen one, by its number on the page.
    #[arg(long, value_name = "N", requires = "plan")]
    pub(crate) option: Option<usize>,
    /// Only this job of the option, by its name.
    #[arg(long, value_name = "NAME", requires = "plan")]
    pub(crate) job: Option<String>,
    /// Slow ranks down to the pace of their planned class, by --rates, where the plan was made from
    /// tables; classes that were emulated when they were measured always are.
    #[arg(long, requires = "plan")]
    pub(crate) emulate: bool,
}
