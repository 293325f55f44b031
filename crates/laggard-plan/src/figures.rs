//! What an option gives: tokens, shares of the peak, power and dollars. Every share is of the sum
//! of the dense half-precision peaks of all devices of the cluster, so that those of one option add
//! up to 1 and those of two can be compared.

use serde::Serialize;
use std::ops::Add;

use crate::options::{Outcome, PlanOption, Use, outcomes};
use crate::problem::{Class, Factors, PlanError, Problem};

/// Seconds of a day.
const SECONDS_PER_DAY: f64 = 86_400.0;
/// Seconds of an hour.
const SECONDS_PER_HOUR: f64 = 3600.0;
/// Kilowatts of a megawatt.
const KILOWATTS_PER_MEGAWATT: f64 = 1e3;
/// Watts of a megawatt.
const MEGAWATT: f64 = 1e6;

/// Where the peak of the whole cluster goes, as shares that sum to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct PeakUse {
    /// Trains: model FLOP of tokens that are kept.
    pub trained: f64,
    /// Kernels that do not reach the peak, and what they compute again.
    pub kernels: f64,
    /// Communication that nothing hides.
    pub communication: f64,
    /// Pipelines that fill and drain.
    pub bubble: f64,
    /// Devices that wait for slower ones.
    pub waiting: f64,
    /// Devices that wait for whoever is late at random.
    pub jitter: f64,
    /// What crosses links between sites, and waits for it.
    pub links: f64,
    /// Checkpoints, work done twice and restarts.
    pub failures: f64,
    /// Devices that a job has nothing for.
    pub idle: f64,
    /// Devices that are leased.
    pub leased: f64,
    /// Devices that serve.
    pub served: f64,
    /// Devices that are kept for experiments and peaks.
    pub reserved: f64,
    /// Devices that are off.
    pub off: f64,
}

impl PeakUse {
    /// Each share with its name, in the order of a report.
    #[must_use]
    pub fn terms(&self) -> [(&'static str, f64); 13] {
        [
            ("trains", self.trained),
            ("kernels below peak", self.kernels),
            ("communication", self.communication),
            ("pipeline bubble", self.bubble),
            ("waiting for slower", self.waiting),
            ("jitter", self.jitter),
            ("links between sites", self.links),
            ("failures", self.failures),
            ("no work", self.idle),
            ("leased", self.leased),
            ("serves", self.served),
            ("reserve", self.reserved),
            ("off", self.off),
        ]
    }
}

/// The figures of an option. `None` is what needs a number that the cluster's file has not.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Figures {
    /// Tokens per second that all jobs together keep.
    pub tokens_per_s: f64,
    /// Tokens per second that one model gets: of separate jobs the fastest, of pools that are one
    /// job all together.
    pub model_tokens_per_s: f64,
    /// Days until that model has its tokens.
    pub days: Option<f64>,
    /// MFU of the jobs while they step, over the peaks of the devices that they were given.
    pub mfu: f64,
    /// MFU of all that is kept, over the peaks of all devices of the cluster.
    pub cluster_mfu: f64,
    /// Share of the jobs' time that is useful, weighted by peaks.
    pub goodput: f64,
    /// Share of all devices that are on and do nothing.
    pub idle_share: f64,
    /// Power with cooling, megawatts, of all that is on.
    pub power_mw: Option<f64>,
    /// The same of what jobs were given.
    pub training_mw: Option<f64>,
    /// Rent that leased devices bring.
    pub lease_dollars_per_hour: Option<f64>,
    /// What those that serve earn at the price of their tokens; of no price nothing.
    pub serving_dollars_per_hour: f64,
    /// What power costs; of no price nothing.
    pub power_dollars_per_hour: Option<f64>,
    /// Rent and what serving earns, less what power costs.
    pub net_dollars_per_hour: Option<f64>,
    /// Rent that the devices of jobs would bring: what training costs at the market.
    pub training_dollars_per_hour: Option<f64>,
    /// The latter over a million tokens that all jobs keep.
    pub dollars_per_million_tokens: Option<f64>,
    /// Tokens that are kept over the energy of what jobs were given.
    pub tokens_per_mwh: Option<f64>,
    /// Where the peak goes.
    pub peak_use: PeakUse,
    /// What each job does.
    pub outcomes: Vec<Outcome>,
}

/// Calculates the figures of an option under some factors, with its layouts as they are.
pub(crate) fn figures(
    problem: &Problem<'_>,
    option: &PlanOption,
    factors: &Factors,
) -> Result<Figures, PlanError> {
    let outcomes = outcomes(problem, option, factors)?;
    Ok(figures_of(problem, option, factors, outcomes))
}

/// The figures of an option whose jobs do what is given.
pub(crate) fn figures_of(
    problem: &Problem<'_>,
    option: &PlanOption,
    factors: &Factors,
    outcomes: Vec<Outcome>,
) -> Figures {
    let one_model = option.is_one_model();
    let tokens_per_s = outcomes
        .iter()
        .map(Outcome::tokens_per_s)
        .fold(0.0, f64::add);
    let fastest = outcomes
        .iter()
        .map(Outcome::tokens_per_s)
        .fold(0.0, f64::max);
    let model_tokens_per_s = if one_model { tokens_per_s } else { fastest };
    let peak_use = peak_use(problem, &option.uses, &outcomes);
    let stepping: f64 = outcomes.iter().map(Outcome::stepping_tokens_per_s).sum();
    let elsewhere = peak_use.leased + peak_use.served + peak_use.reserved + peak_use.off;
    let given = 1.0 - elsewhere;
    let share = |value: f64, of: f64| if of > 0.0 { value / of } else { 0.0 };
    let working = given - peak_use.idle;
    let Ledger {
        power_mw,
        training_mw,
        lease_dollars_per_hour,
        serving_dollars_per_hour,
        power_dollars_per_hour,
        net_dollars_per_hour,
        training_dollars_per_hour,
    } = ledger(problem, &option.uses, factors);
    let per_hour = tokens_per_s * SECONDS_PER_HOUR;
    let trains = |value: f64| (per_hour > 0.0).then_some(value);
    let idle: u64 = option.uses.iter().map(|it| it.idle).sum();
    Figures {
        tokens_per_s,
        model_tokens_per_s,
        days: (model_tokens_per_s > 0.0)
            .then(|| problem.training.tokens / model_tokens_per_s / SECONDS_PER_DAY),
        mfu: share(stepping * problem.flop_per_token(), given * problem.peak()),
        cluster_mfu: peak_use.trained,
        goodput: 1.0 - share(peak_use.failures, working),
        idle_share: idle as f64 / problem.devices() as f64,
        power_mw,
        training_mw,
        lease_dollars_per_hour,
        serving_dollars_per_hour,
        power_dollars_per_hour,
        net_dollars_per_hour,
        training_dollars_per_hour,
        dollars_per_million_tokens: training_dollars_per_hour
            .and_then(trains)
            .map(|dollars| dollars / per_hour * 1e6),
        tokens_per_mwh: training_mw.and_then(trains).map(|mw| per_hour / mw),
        peak_use,
        outcomes,
    }
}

/// Power and money of what devices do, whatever their jobs are. Each is as in [`Figures`].
pub(crate) struct Ledger {
    pub(crate) power_mw: Option<f64>,
    pub(crate) training_mw: Option<f64>,
    pub(crate) lease_dollars_per_hour: Option<f64>,
    pub(crate) serving_dollars_per_hour: f64,
    pub(crate) power_dollars_per_hour: Option<f64>,
    pub(crate) net_dollars_per_hour: Option<f64>,
    pub(crate) training_dollars_per_hour: Option<f64>,
}

pub(crate) fn ledger(problem: &Problem<'_>, uses: &[Use], factors: &Factors) -> Ledger {
    let power = |of: fn(&Use) -> u64| power_mw(problem, uses, of);
    let rent = |of: fn(&Use) -> u64| rent(problem, uses, factors, of);
    let power_mw = power(|it| it.train + it.idle + it.lease + it.serve + it.reserve);
    let power_dollars_per_hour = match problem.dollars_per_kwh {
        Some(price) => power_mw.map(|mw| mw * KILOWATTS_PER_MEGAWATT * price),
        None => Some(0.0),
    };
    let lease_dollars_per_hour = rent(|it| it.lease);
    let serves = |(class, it): (&Class, &Use)| {
        let asked = it.serve.min(class.serve);
        let selling = asked as f64 * class.asked_share + (it.serve - asked) as f64;
        selling * class.serving_dollars_per_hour.unwrap_or(0.0)
    };
    let serving_dollars_per_hour = problem.classes.iter().zip(uses).map(serves).sum();
    let net = |income: f64| Some(income + serving_dollars_per_hour - power_dollars_per_hour?);
    Ledger {
        power_mw,
        training_mw: power(|it| it.train + it.idle),
        lease_dollars_per_hour,
        serving_dollars_per_hour,
        power_dollars_per_hour,
        net_dollars_per_hour: lease_dollars_per_hour.and_then(net),
        training_dollars_per_hour: rent(|it| it.train + it.idle),
    }
}

fn peak_use(problem: &Problem<'_>, uses: &[Use], outcomes: &[Outcome]) -> PeakUse {
    let whole = problem.peak();
    let share = |class: &Class, count: u64| count as f64 * class.of.machine.half_peak / whole;
    let mut sum = PeakUse::default();
    for (class, it) in problem.classes.iter().zip(uses) {
        sum.idle += share(class, it.idle);
        sum.leased += share(class, it.lease);
        sum.served += share(class, it.serve);
        sum.reserved += share(class, it.reserve);
        sum.off += share(class, it.off);
    }
    for outcome in outcomes {
        let useful = outcome.useful();
        let classes = problem.classes.iter().zip(&outcome.classes);
        for (class, time) in classes.filter(|(_, time)| time.devices > 0) {
            let all = share(class, time.devices);
            let part = |seconds: f64| all * useful * seconds / outcome.step_s;
            sum.kernels += part(time.kernels_s);
            sum.communication += part(time.communication_s);
            sum.bubble += part(time.bubble_s);
            sum.waiting += part(time.waiting_s);
            sum.jitter += part(time.jitter_s);
            sum.links += part(time.links_s);
            sum.failures += all * (1.0 - useful);
        }
        sum.trained += outcome.tokens_per_s() * problem.flop_per_token() / whole;
    }
    sum.kernels -= sum.trained;
    sum
}

/// Power with cooling; `None` where some of the devices have none.
fn power_mw(problem: &Problem<'_>, uses: &[Use], count: fn(&Use) -> u64) -> Option<f64> {
    let of = |(class, it): (&Class, &Use)| match count(it) {
        0 => Some(0.0),
        count => Some(count as f64 * problem.watts_at_meter(class)? / MEGAWATT),
    };
    problem.classes.iter().zip(uses).map(of).sum()
}

/// Rent of some devices; `None` where some of them have no price.
fn rent(
    problem: &Problem<'_>,
    uses: &[Use],
    factors: &Factors,
    count: fn(&Use) -> u64,
) -> Option<f64> {
    let of = |((class, it), factor): ((&Class, &Use), &f64)| match count(it) {
        0 => Some(0.0),
        count => Some(count as f64 * class.dollars_per_hour? * factor),
    };
    let classes = problem.classes.iter().zip(uses).zip(&factors.price);
    classes.map(of).sum()
}
