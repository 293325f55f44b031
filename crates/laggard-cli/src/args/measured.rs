//! What is typed to plan classes that were measured: `plan --calibrated-on`.

use clap::Args;
use std::path::PathBuf;

/// Options of `plan` that take the classes from records.
#[derive(Debug, Args)]
pub(crate) struct MeasuredArgs {
    /// Instead of a cluster: records of `laggard run` on the user's own machines, repeatable, by
    /// which every operation is priced class by class. One of equal shares on all classes will do;
    /// for pipelines one of a pipeline as well.
    #[arg(long, value_name = "DIR")]
    #[arg(conflicts_with_all = ["cluster", "jobs", "tokens", "deadline", "reserve", "owned",
        "power_limit_mw", "lease", "electricity", "precision", "framework", "calibrate",
        "checkpoint_time", "restart_time", "serve", "serve_rate", "serve_sessions", "session_rate",
        "token_price", "prompt_tokens", "answer_tokens", "ttft", "tpot", "peak_factor", "day",
        "fleet", "previous", "tolerance", "lose", "lose_site", "lose_mw"])]
    pub(crate) calibrated_on: Vec<PathBuf>,
    /// Ranks of a class of the records, repeatable: `h100=2` [default: as the first record has].
    #[arg(long, value_name = "CLASS=N", requires = "calibrated_on")]
    pub(crate) ranks_of: Vec<String>,
}
