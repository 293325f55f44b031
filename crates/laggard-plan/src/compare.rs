//! Which option is best by an objective, which is next, and which none of the others beats in
//! everything.

use serde::{Deserialize, Serialize};

use crate::figures::Figures;
use crate::options::PlanOption;
use crate::problem::PlanError;

/// What is to be large, or small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

    fn missing(self) -> PlanError {
        let (missing, hint) = match self {
            Self::DollarsPerToken | Self::NetDollars => (
                "no class has a price",
                "state prices with --lease CLASS=PRICE",
            ),
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
    let order = order(options, objective);
    if order.is_empty() {
        return Err(objective.missing());
    }
    let one_model = self::order(options, Objective::Time).first().copied();
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

fn order(options: &[PlanOption], objective: Objective) -> Vec<usize> {
    let score = |at: usize| objective.score(&options[at].figures);
    // What does nothing of what is wanted is no answer; dollars can be earned or paid.
    let is_one = |score: f64| objective == Objective::NetDollars || score > 0.0;
    let known = |at: &usize| options[*at].can_win && score(*at).is_some_and(is_one);
    let mut order: Vec<usize> = (0..options.len()).filter(known).collect();
    let key = |at: usize| score(at).unwrap_or(f64::NEG_INFINITY);
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
    order
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
