//! What a device of each class is worth in each use: training, a lease, serving.

use serde::Serialize;

use crate::money::{ClassRates, Elsewhere, Span, break_even_lease, lease_order};
use crate::options::{Kind, PlanOption};
use crate::problem::{PlanError, Problem};
use crate::service::Offers;

/// A device of a class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassWorth {
    /// The class.
    pub class: String,
    /// Tokens per second that it trains in a job of its class alone.
    pub training_tokens_per_s: Option<f64>,
    /// Rent that it brings, dollars per hour.
    pub lease_dollars_per_hour: Option<f64>,
    /// Rent above which its owner trains more by leasing it out and renting the class elsewhere that
    /// trains cheapest.
    pub break_even_lease: Option<f64>,
    /// Tokens of answers that it serves per second.
    pub serving_tokens_per_s: Option<f64>,
}

/// The classes beside each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ByClass {
    /// Each class.
    pub classes: Vec<ClassWorth>,
    /// The class that trains cheapest at its rent.
    pub cheapest: Option<String>,
    /// What everything is said to be leased at, dollars per device and hour.
    pub flat_lease_dollars_per_hour: Option<f64>,
    /// In which order to let classes if what they serve is paid by the token: first the one that
    /// serves most for the training that is lost.
    pub let_by_token: Vec<String>,
    /// In which order to let them at one price for an hour of any: first the one that trains least.
    pub let_by_hour: Vec<String>,
    /// Share of the tokens of jobs apart that one job in equal shares loses.
    pub lost_in_lockstep: Option<f64>,
}

impl ByClass {
    /// Whether how a lease is paid decides which class to let first.
    #[must_use]
    pub fn depends_on_payment(&self) -> bool {
        self.let_by_token.first() != self.let_by_hour.first()
    }
}

/// What a device of each class is worth, by the jobs of the classes apart among the options.
///
/// # Errors
/// Prices or rates that cannot be.
pub fn by_class(
    problem: &Problem<'_>,
    options: &[PlanOption],
    offers: Option<&Offers>,
) -> Result<ByClass, PlanError> {
    let rates = rates(problem, options);
    let rents = problem.classes.iter().map(|class| class.dollars_per_hour);
    let priced = rates.iter().zip(rents).enumerate();
    let priced = priced.filter_map(|(at, (rate, rent))| Some((at, (*rate)?, rent?)));
    let cheapest = priced.max_by(|a, b| (a.1 / a.2).total_cmp(&(b.1 / b.2)));
    let mut classes = Vec::new();
    for (class, rate) in problem.classes.iter().zip(&rates) {
        let elsewhere = cheapest.map(|(_, tokens_per_second, rent)| Elsewhere {
            dollars_per_device_hour: Span::exactly(rent),
            tokens_per_second,
        });
        let even = rate.zip(elsewhere);
        let even = even.map(|(rate, elsewhere)| break_even_lease(rate, &elsewhere, 0.0));
        let offer = offers.and_then(|all| all.offers.iter().find(|it| it.class == class.of.name));
        classes.push(ClassWorth {
            class: class.of.name.clone(),
            training_tokens_per_s: *rate,
            lease_dollars_per_hour: class.dollars_per_hour,
            break_even_lease: even.transpose()?.map(|price| price.typical),
            serving_tokens_per_s: offer.map(|it| it.tokens_per_s),
        });
    }
    let flat = problem
        .places
        .iter()
        .find_map(|place| place.lease_dollars_per_hour);
    let (let_by_token, let_by_hour) = orders(&classes)?;
    let name = |at: usize| problem.classes[at].of.name.clone();
    Ok(ByClass {
        classes,
        cheapest: cheapest.map(|(at, _, _)| name(at)),
        flat_lease_dollars_per_hour: flat,
        let_by_token,
        let_by_hour,
        lost_in_lockstep: lost_in_lockstep(options),
    })
}

/// In which order to let the classes that train and serve, paid by the token and by the hour.
fn orders(classes: &[ClassWorth]) -> Result<(Vec<String>, Vec<String>), PlanError> {
    let (mut names, mut rates) = (Vec::new(), Vec::new());
    for class in classes {
        let known = class.training_tokens_per_s.zip(class.serving_tokens_per_s);
        if let Some((training, serving)) = known {
            names.push(class.class.clone());
            rates.push(ClassRates {
                training_tokens_per_second: training,
                serving_tokens_per_second: serving,
                lease_dollars_per_device_hour: 1.0,
            });
        }
    }
    let order = lease_order(&rates)?;
    let named = |order: &[usize]| order.iter().map(|&at| names[at].clone()).collect();
    Ok((named(&order.paid_per_token), named(&order.paid_per_hour)))
}

/// Tokens per second that a device of each class trains in a job of its class alone.
fn rates(problem: &Problem<'_>, options: &[PlanOption]) -> Vec<Option<f64>> {
    let mut rates = vec![None; problem.classes.len()];
    let apart = |option: &&PlanOption| matches!(option.kind, Kind::EqualShares | Kind::Pools);
    for option in options.iter().filter(apart) {
        for (job, outcome) in option.jobs.iter().zip(&option.figures.outcomes) {
            let there = (0..rates.len()).filter(|&class| job.devices(class) > 0);
            if let [class] = there.collect::<Vec<_>>()[..] {
                let devices = job.devices(class) + job.idle[class];
                rates[class] = Some(outcome.tokens_per_s() / devices as f64);
            }
        }
    }
    rates
}

fn lost_in_lockstep(options: &[PlanOption]) -> Option<f64> {
    let rate = |kind: Kind| {
        let option = options.iter().find(|option| option.kind == kind)?;
        Some(option.figures.tokens_per_s)
    };
    let (equal, apart) = (rate(Kind::EqualShares)?, rate(Kind::Pools)?);
    (apart > 0.0).then(|| 1.0 - equal / apart)
}
