//! Which option is best by an objective, which is next, and which none of the others beats in
//! everything.

use serde::{Deserialize, Serialize};

use crate::figures::Figures;
use crate::options::PlanOption;
use crate::problem::PlanError;

/// What is missing where there are no prices, and what to do.
const NO_PRICE: (&str, &str) = (
    "no class has a price",
    "state prices with --lease CLASS=PRICE",
);

/// What is to be large, or small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Tokens per second of all jobs.
    Tokens,
    /// MFU of what is kept, over the peaks of the devices that jobs were given.
    Mfu,
    /// Days until one model has its tokens.
    Time,
    /// Market rent of what trains, per token.
    DollarsPerToken,
    /// Rent that is earned.
    NetDollars,
    /// Tokens per energy of what trains.
    TokensPerMwh,
}

impl Objective {
    /// Every objective.
    pub(crate) const ALL: [Self; 6] = [
        Self::Tokens,
        Self::Mfu,
        Self::Time,
        Self::DollarsPerToken,
        Self::NetDollars,
        Self::TokensPerMwh,
    ];

    /// Its name, as in a sentence.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens per second of all jobs",
            Self::Mfu => "MFU of the devices that train",
            Self::Time => "days until one model has its tokens",
            Self::DollarsPerToken => "dollars per token at market rents",
            Self::NetDollars => "dollars earned per hour",
            Self::TokensPerMwh => "tokens per MWh",
        }
    }

    /// How good an option is, more being better; `None` where a number is missing.
    #[must_use]
    pub fn score(self, figures: &Figures) -> Option<f64> {
        match self {
            Self::Tokens => Some(figures.tokens_per_s),
            Self::Mfu => Some(figures.mfu * figures.goodput),
            Self::Time => Some(figures.model_tokens_per_s),
            Self::DollarsPerToken => Some(1.0 / figures.dollars_per_million_tokens?),
            Self::NetDollars => figures.net_dollars_per_hour,
            Self::TokensPerMwh => figures.tokens_per_mwh,
        }
    }

    /// Whether prices of classes are part of the score.
    pub(crate) fn needs_prices(self) -> bool {
        matches!(self, Self::DollarsPerToken | Self::NetDollars)
    }

    /// What keeps every option from being compared.
    fn missing(self, options: &[PlanOption]) -> PlanError {
        let trains = |option: &PlanOption| option.can_win && option.figures.tokens_per_s > 0.0;
        let (missing, hint) = match self {
            Self::NetDollars => NO_PRICE,
            _ if !options.iter().any(trains) => (
                "no job keeps a token: failures come faster than checkpoints",
                "lower --checkpoint-time and --restart-time, or failures_per_device_year in a \
                 cluster file",
            ),
            Self::DollarsPerToken => NO_PRICE,
            _ => (
                "no power is known of the devices",
                "state power_watts_per_device and power_usage_effectiveness in a cluster file",
            ),
        };
        PlanError::NothingToCompare {
            objective: self.name(),
            missing,
            hint,
        }
    }
}

/// Options by an objective.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranking {
    /// Positions of the options that can be the answer and have the numbers, the best first; of
    /// equals the earlier option.
    pub order: Vec<usize>,
    /// The best option by days until one model has its tokens.
    pub one_model: Option<usize>,
    /// Options that no other beats in tokens per second, dollars and power together.
    pub front: Vec<usize>,
}

/// Ranks options.
///
/// # Errors
/// Where the objective needs numbers that no option has.
pub fn rank(options: &[PlanOption], objective: Objective) -> Result<Ranking, PlanError> {
    let figures = || options.iter().map(|it| it.can_win.then_some(&it.figures));
    let order = order(figures(), objective);
    if order.is_empty() {
        return Err(objective.missing(options));
    }
    let one_model = self::order(figures(), Objective::Time).first().copied();
    let is_on_front = |&at: &usize| {
        let others = options.iter().filter(|other| other.can_win);
        let beaten = |other: &PlanOption| dominates(&other.figures, &options[at].figures);
        options[at].can_win && !others.into_iter().any(beaten)
    };
    Ok(Ranking {
        order,
        one_model: one_model.filter(|&at| options[at].figures.model_tokens_per_s > 0.0),
        front: (0..options.len()).filter(is_on_front).collect(),
    })
}

/// Positions of figures by an objective, the best first and of equals the earlier; those that are
/// absent cannot be the answer.
pub(crate) fn order<'f>(
    figures: impl Iterator<Item = Option<&'f Figures>>,
    objective: Objective,
) -> Vec<usize> {
    let scores = figures.map(|it| it.and_then(|it| score(objective, it)));
    let known = scores
        .enumerate()
        .filter_map(|(at, score)| Some((at, score?)));
    let mut order: Vec<(usize, f64)> = known.collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.into_iter().map(|(at, _)| at).collect()
}

/// How good figures are, if they can be an answer: what does nothing of what is wanted is none;
/// dollars can be earned or paid.
pub(crate) fn score(objective: Objective, figures: &Figures) -> Option<f64> {
    let is_one = |score: &f64| objective == Objective::NetDollars || *score > 0.0;
    objective.score(figures).filter(is_one)
}

/// Whether `a` is at least as good as `b` in everything and better in something. What is unknown of
/// either decides nothing.
fn dominates(a: &Figures, b: &Figures) -> bool {
    let both = |a: Option<f64>, b: Option<f64>| a.zip(b).unwrap_or((0.0, 0.0));
    let pairs = [
        (a.tokens_per_s, b.tokens_per_s),
        both(a.net_dollars_per_hour, b.net_dollars_per_hour),
        both(a.power_mw.map(|it| -it), b.power_mw.map(|it| -it)),
    ];
    pairs.iter().all(|(a, b)| a >= b) && pairs.iter().any(|(a, b)| a > b)
}

#[cfg(test)]
mod tests;
