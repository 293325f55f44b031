//! What a device of each class is worth in each use: training, a lease, serving.

use laggard_specs::{RateBasis, Tables};
use serde::Serialize;

use crate::money::{ClassRates, Elsewhere, Span, break_even_lease, lease_order};
use crate::options::{Kind, PlanOption, rates_alone};
use crate::problem::{PlanError, Problem};
use crate::service::Offers;
use crate::serving::ServingConstants;

/// A device of a class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassWorth {
    /// The class.
    pub class: String,
    /// Tokens per second that it trains in a job of its class alone, of the size that is stated.
    pub training_tokens_per_s: Option<f64>,
    /// Rent that it brings, dollars per hour.
    pub lease_dollars_per_hour: Option<f64>,
    /// Rent above which its owner trains more by leasing it out and renting the class elsewhere
    /// that trains cheapest.
    pub break_even_lease: Option<f64>,
    /// Tokens of answers that it serves per second.
    pub serving_tokens_per_s: Option<f64>,
}

/// The classes beside each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ByClass {
    /// Each class.
    pub classes: Vec<ClassWorth>,
    /// Devices of the jobs in which the classes are compared.
    pub devices: u64,
    /// The class that trains cheapest at its rent.
    pub cheapest: Option<String>,
    /// What everything is said to be leased at, dollars per device and hour.
    pub flat_lease_dollars_per_hour: Option<f64>,
    /// Which class to let first, as predicted.
    pub predicted: Option<LetFirst>,
    /// The same by published measurements of all classes, where there are any.
    pub measured: Option<LetFirst>,
    /// Share of the tokens of jobs apart that one job in equal shares loses.
    pub lost_in_lockstep: Option<f64>,
}

/// Which class to let first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LetFirst {
    /// The classes.
    pub classes: Vec<String>,
    /// What a device of each trains, over the first.
    pub trains: Vec<f64>,
    /// What a device of each serves, over the first.
    pub serves: Vec<f64>,
    /// If a lease is paid by the token: first the class that serves most for the training lost.
    pub by_token: Vec<String>,
    /// At one price for an hour of any: first the class that trains least.
    pub by_hour: Vec<String>,
    /// Where measurements are published.
    pub sources: Vec<String>,
}

impl LetFirst {
    /// Whether how a lease is paid decides which class to let first.
    #[must_use]
    pub fn depends_on_payment(&self) -> bool {
        self.by_token.first() != self.by_hour.first()
    }

    /// Of classes that train and serve so much; `None` of fewer than two.
    fn of(
        classes: Vec<String>,
        (trains, serves): (Vec<f64>, Vec<f64>),
        sources: Vec<String>,
    ) -> Result<Option<Self>, PlanError> {
        if classes.len() < 2 {
            return Ok(None);
        }
        let rates = trains
            .iter()
            .zip(&serves)
            .map(|(trains, serves)| ClassRates {
                training_tokens_per_second: *trains,
                serving_tokens_per_second: *serves,
                lease_dollars_per_device_hour: 1.0,
            });
        let order = lease_order(&rates.collect::<Vec<_>>())?;
        let named = |order: &[usize]| order.iter().map(|&at| classes[at].clone()).collect();
        let over_first = |of: &[f64]| of.iter().map(|it| it / of[0]).collect();
        Ok(Some(Self {
            by_token: named(&order.paid_per_token),
            by_hour: named(&order.paid_per_hour),
            trains: over_first(&trains),
            serves: over_first(&serves),
            classes,
            sources,
        }))
    }
}

/// What a device of each class is worth.
///
/// # Errors
/// Prices or rates that cannot be.
pub fn by_class(
    problem: &Problem<'_>,
    options: &[PlanOption],
    offers: Option<&Offers>,
    tables: &Tables,
) -> Result<ByClass, PlanError> {
    let (devices, rates) = rates_alone(problem);
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
    let predicted = predicted(&classes)?;
    let name = |at: usize| problem.classes[at].of.name.clone();
    Ok(ByClass {
        classes,
        devices,
        cheapest: cheapest.map(|(at, _, _)| name(at)),
        flat_lease_dollars_per_hour: flat,
        predicted,
        measured: measured(problem, tables)?,
        lost_in_lockstep: lost_in_lockstep(options),
    })
}

/// Which class to let first, of those that are predicted to train and to serve.
fn predicted(classes: &[ClassWorth]) -> Result<Option<LetFirst>, PlanError> {
    let (mut names, mut trains, mut serves) = (Vec::new(), Vec::new(), Vec::new());
    for class in classes {
        let known = class.training_tokens_per_s.zip(class.serving_tokens_per_s);
        if let Some((training, serving)) = known {
            names.push(class.class.clone());
            trains.push(training);
            serves.push(serving);
        }
    }
    LetFirst::of(names, (trains, serves), Vec::new())
}

/// Which class to let first by what was published of all of them.
fn measured(problem: &Problem<'_>, tables: &Tables) -> Result<Option<LetFirst>, PlanError> {
    let classes = problem.classes.iter();
    let ids: Vec<&str> = classes.map(|class| class.of.accelerator.as_str()).collect();
    let Ok(trained) = tables.class_rates(&ids, RateBasis::Measured) else {
        return Ok(None);
    };
    let Some(served) = ServingConstants::measured_together(&ids)? else {
        return Ok(None);
    };
    let names = problem.classes.iter().map(|class| class.of.name.clone());
    let trains = trained.iter().map(|it| it.relative).collect();
    let mut sources: Vec<String> = trained.into_iter().map(|it| it.source).collect();
    sources.push(format!("{}; {}", served.model, served.source));
    LetFirst::of(names.collect(), (trains, served.tokens_per_second), sources)
}

fn lost_in_lockstep(options: &[PlanOption]) -> Option<f64> {
    let rate = |kind: Kind| {
        let option = options.iter().find(|option| option.kind == kind)?;
        Some(option.figures.tokens_per_s)
    };
    let (equal, apart) = (rate(Kind::EqualShares)?, rate(Kind::Pools)?);
    (apart > 0.0).then(|| 1.0 - equal / apart)
}

#[cfg(test)]
mod tests;
