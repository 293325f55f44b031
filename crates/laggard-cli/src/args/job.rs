//! What is typed of a training job, for `simulate` and `plan`.

use clap::{Args, ValueEnum};

/// A training job beside its model.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// Tokens of one sequence [default: 8192, or the model's if it is shorter; with
    /// --calibrated-on the record's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sequence_length: Option<u32>,
    /// Arithmetic of the large products.
    #[arg(long, value_enum, default_value_t = Arithmetic::Half)]
    pub(crate) precision: Arithmetic,
    /// Framework, whose habits are known; a wrong name lists all [default: megatron-lm].
    #[arg(long, value_name = "NAME")]
    pub(crate) framework: Option<String>,
    /// A record of the user's own machines, or a benchmark of them (`laggard bench --output`), in
    /// place of what the datasheet says of a class; repeatable. CLASS is one of the cluster
    /// [default: the one that the record's own class is].
    #[arg(long, value_name = "[CLASS=]DIR")]
    pub(crate) calibrate: Vec<String>,
    /// What one checkpoint stops the job for, seconds; above 0.
    #[arg(long, default_value_t = 30.0, value_name = "S")]
    pub(crate) checkpoint_time: f64,
    /// From a failure until the job works again, seconds.
    #[arg(long, default_value_t = 600.0, value_name = "S")]
    pub(crate) restart_time: f64,
}

/// Arithmetic of the large products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arithmetic {
    /// bf16 or fp16.
    Half,
    /// fp8, half precision elsewhere.
    Fp8,
    /// fp4, half precision elsewhere.
    Fp4,
}
