//! What is typed of a model that is served on the same devices.

use clap::Args;

/// A model to serve.
#[derive(Debug, Args)]
#[command(next_help_heading = "Serving")]
pub(crate) struct ServeArgs {
    /// Model to serve on the same devices [default: figures for the one that is trained].
    #[arg(long, value_name = "NAME")]
    pub(crate) serve: Option<String>,
    /// Tokens of answers per second that are asked for on average over a day: as many devices serve
    /// as that takes, before anything trains.
    #[arg(
        long,
        value_name = "RATE",
        requires = "serve",
        conflicts_with = "serve_sessions"
    )]
    pub(crate) serve_rate: Option<f64>,
    /// Sessions that are served; needs --session-rate.
    #[arg(long, value_name = "N", requires_all = ["serve", "session_rate"])]
    pub(crate) serve_sessions: Option<f64>,
    /// Tokens of answers per second of a session, on average over a day.
    #[arg(long, value_name = "RATE")]
    pub(crate) session_rate: Option<f64>,
    /// What a million tokens of answers are sold for, dollars: what does not train can serve for
    /// that instead of being leased.
    #[arg(long, value_name = "PRICE", requires = "serve")]
    pub(crate) token_price: Option<f64>,
    /// Tokens of a prompt.
    #[arg(long, value_name = "N", default_value_t = 1000.0)]
    pub(crate) prompt_tokens: f64,
    /// Tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 1000.0)]
    pub(crate) answer_tokens: f64,
    /// Most seconds to the first token, without a queue [default: no limit].
    #[arg(long, value_name = "S")]
    pub(crate) ttft: Option<f64>,
    /// Most seconds from one token of an answer to the next [default: no limit].
    #[arg(long, value_name = "S")]
    pub(crate) tpot: Option<f64>,
    /// Demand of the busiest hour over the mean of a day.
    #[arg(long, value_name = "F", default_value_t = 1.0, conflicts_with = "day")]
    pub(crate) peak_factor: f64,
    /// Instead of a peak factor: the demand of each of the 24 hours in any unit, with commas.
    #[arg(long, value_name = "H0,H1,..", value_delimiter = ',')]
    pub(crate) day: Vec<f64>,
}
