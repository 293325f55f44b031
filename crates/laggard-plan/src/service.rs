//! A model to serve on the same devices: what each class serves and earns with it, and which
//! devices serve a demand so that the rest trains or earns most.

use laggard_specs::{Model, Tables};
use serde::Serialize;

use crate::compare::Objective;
use crate::hosts::{Unit, power_left};
use crate::money::{Span, break_even_token_price};
use crate::number::{above_zero, refuse_unless};
use crate::options::rates_alone;
use crate::pools::{Allocation, Effort, Member, PoolProblem, PoolsError, Use, allocate};
use crate::problem::{Class, PlanError, Problem};
use crate::serving::{
    BatchLimit, Mix, Numbers, Replica, Requests, ServingConstants, Sessions, best_replica,
    mixed_tokens_per_second,
};

/// Seconds of an hour.
const SECONDS_PER_HOUR: f64 = 3600.0;
/// Widest replica that is tried, in devices.
const MOST_DEVICES: u64 = 64;

/// What is to be served.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    /// The model.
    pub model: &'a Model,
    /// Lengths of prompts and answers, and limits of latency.
    pub requests: Requests,
    /// Demand of the busiest hour over the mean of a day, at least 1: so much more is held ready,
    /// and one over it is the share of it that is sold.
    pub peak_factor: f64,
    /// Tokens of answers per second that are asked for on average over a day.
    pub tokens_per_s: Option<f64>,
    /// Instead: sessions that are asked for.
    pub sessions: Option<f64>,
    /// Tokens per second of a session, on average over a day.
    pub session_tokens_per_s: Option<f64>,
    /// What a million tokens of answers are sold for, dollars.
    pub dollars_per_million_tokens: Option<f64>,
}

/// What a device of a class serves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Offer {
    /// The class.
    pub class: String,
    /// Tokens of answers per second and device.
    pub tokens_per_s: f64,
    /// Devices of a replica.
    pub replica_devices: u32,
    /// Numbers of the weights.
    pub numbers: Numbers,
    /// Seconds from one token of an answer to the next.
    pub seconds_per_token: f64,
    /// Seconds from a prompt to the first token, without a queue.
    pub seconds_to_first_token: f64,
    /// What keeps a replica from holding more sequences.
    pub limit: BatchLimit,
    /// Sessions that a device carries at the peak.
    pub sessions: Option<f64>,
    /// Dollars for a million tokens at which serving earns what its lease does.
    pub lease_dollars_per_million_tokens: Option<f64>,
    /// What it earns at the price of tokens, per hour.
    pub dollars_per_hour: Option<f64>,
}

/// What every class serves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Offers {
    /// The model.
    pub model: String,
    /// Tokens of a prompt and of an answer.
    pub tokens: (f64, f64),
    /// Of each class that can serve it, in the order of the classes.
    pub offers: Vec<Offer>,
    /// Classes that cannot, with the reason.
    pub refused: Vec<(String, String)>,
    /// Tokens per second of all devices together: replicas wait for nobody, so that classes add up,
    /// less what handing out requests has been measured to cost.
    pub together: Mix,
    /// How far rates are off on average on measurements that nothing is fitted on.
    pub error: f64,
}

/// Who serves a demand.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Served {
    /// Devices of each class that serve, where there are any.
    pub devices: Vec<(String, u64)>,
    /// Tokens per second that are asked for at the peak.
    pub peak_tokens_per_s: f64,
    /// Tokens per second that the devices serve.
    pub tokens_per_s: f64,
    /// Sessions that they carry at the peak.
    pub sessions: Option<f64>,
    /// By which factor the limit of the sessions that are asked for could grow.
    pub limit_multiplier: f64,
    /// Share of what they serve that is asked for over a day.
    pub share_used: f64,
    /// How much more the rest could be worth at most, relative to the bound.
    pub gap: f64,
}

impl Service<'_> {
    fn check(&self) -> Result<(), PlanError> {
        let peak = self.peak_factor;
        let is_factor = peak >= 1.0 && peak.is_finite();
        refuse_unless(is_factor, "the peak factor", peak, "at least 1 and finite")?;
        let numbers = [
            ("tokens per second to serve", self.tokens_per_s),
            ("sessions to serve", self.sessions),
            ("tokens per second of a session", self.session_tokens_per_s),
            (
                "the price of a million tokens",
                self.dollars_per_million_tokens,
            ),
        ];
        for (what, value) in numbers {
            value.map_or(Ok(0.0), |value| above_zero(what, value))?;
        }
        Ok(())
    }

    /// Sessions that use all that they are allowed.
    fn of_sessions(&self) -> Option<Sessions> {
        Some(Sessions {
            limit_tokens_per_second: self.session_tokens_per_s?,
            share_used: 1.0,
            peak_factor: self.peak_factor,
        })
    }

    /// What is asked of a replica: sessions that use all that they are allowed must get it as fast.
    fn requests(&self) -> Requests {
        let of_session = self.session_tokens_per_s.map(|rate| 1.0 / rate);
        let limits = [self.requests.most_seconds_per_token, of_session];
        Requests {
            most_seconds_per_token: limits.into_iter().flatten().reduce(f64::min),
            ..self.requests
        }
    }

    /// Tokens per second that are asked for at the peak.
    fn peak_demand(&self) -> Result<Option<f64>, PlanError> {
        let of_sessions = self.of_sessions().zip(self.sessions);
        match (self.tokens_per_s, of_sessions) {
            (Some(mean), _) => Ok(Some(mean * self.peak_factor)),
            (None, Some((each, count))) => Ok(Some(each.needed_for(count)?)),
            (None, None) => Ok(None),
        }
    }

    /// Sessions that so many tokens per second carry.
    fn carried_by(&self, tokens_per_s: f64) -> Result<Option<f64>, PlanError> {
        let carried = self.of_sessions().map(|it| it.carried_by(tokens_per_s));
        Ok(carried.transpose()?)
    }
}

/// What every class of a problem serves.
///
/// # Errors
/// Numbers that cannot be, or no class that can serve the model.
pub fn offers(
    problem: &Problem<'_>,
    service: &Service<'_>,
    tables: &Tables,
    constants: &ServingConstants,
) -> Result<Offers, PlanError> {
    service.check()?;
    let (mut offers, mut refused) = (Vec::new(), Vec::new());
    let mut last = None;
    let mut rates = Vec::new();
    for class in &problem.classes {
        match offer(class, service, tables, constants) {
            Ok(offer) => {
                rates.push(class.of.count as f64 * offer.tokens_per_s);
                offers.push(offer);
            }
            Err(error) => {
                let text = error.to_string();
                let reason = text.lines().next().unwrap_or_default().to_owned();
                refused.push((class.of.name.clone(), reason));
                last = Some(error);
            }
        }
    }
    match last {
        Some(error) if offers.is_empty() => Err(error),
        _ => Ok(Offers {
            model: service.model.name.clone(),
            tokens: (
                service.requests.input_tokens,
                service.requests.output_tokens,
            ),
            offers,
            refused,
            together: mixed_tokens_per_second(&rates, &constants.dispatch_loss),
            error: constants.error_on_mlperf,
        }),
    }
}

fn offer(
    class: &Class,
    service: &Service<'_>,
    tables: &Tables,
    constants: &ServingConstants,
) -> Result<Offer, PlanError> {
    let accelerator = tables.accelerator(&class.of.accelerator)?;
    let domain = u64::from(class.of.machine.fabric.domain_ranks());
    let widest = domain
        .max(class.node_devices)
        .min(MOST_DEVICES)
        .min(class.of.count);
    let widest = Replica {
        model: service.model,
        accelerator,
        devices: widest as u32,
        numbers: Numbers::smallest_of(accelerator),
        corrections: class.of.machine.corrections(),
    };
    let rate = best_replica(&widest, &service.requests(), constants)?;
    let tokens_per_s = rate.output_tokens_per_second;
    let sold = 1.0 / service.peak_factor;
    let lease = class.dollars_per_hour.map(Span::exactly);
    let lease = lease.map(|lease| break_even_token_price(lease, tokens_per_s, sold));
    let earned = |price: f64| tokens_per_s * sold * SECONDS_PER_HOUR * price / 1e6;
    Ok(Offer {
        class: class.of.name.clone(),
        tokens_per_s,
        replica_devices: rate.devices,
        numbers: widest.numbers,
        seconds_per_token: rate.seconds_per_token,
        seconds_to_first_token: rate.seconds_to_first_token,
        limit: rate.limit,
        sessions: service.carried_by(tokens_per_s)?,
        lease_dollars_per_million_tokens: lease.transpose()?.map(|price| price.typical),
        dollars_per_hour: service.dollars_per_million_tokens.map(earned),
    })
}

/// Lets devices of a problem serve: enough for the demand, if there is one, and so that what the
/// others train or earn by the objective is as large as can be; and all others at the price of
/// tokens, if there is one, where an option says so.
///
/// # Errors
/// A demand that cannot be met, with what could be.
pub fn serve(
    problem: &mut Problem<'_>,
    service: &Service<'_>,
    offers: &Offers,
    objective: Objective,
    constants: &ServingConstants,
) -> Result<Option<Served>, PlanError> {
    for class in &mut problem.classes {
        let own = offers.offers.iter().find(|it| it.class == class.of.name);
        class.serving_dollars_per_hour = own.and_then(|it| it.dollars_per_hour);
    }
    let Some(peak) = service.peak_demand()? else {
        return Ok(None);
    };
    let worth = worth_of_others(problem, objective);
    // Several classes lose something when requests are handed out, one class does not.
    let mixed = peak / (1.0 - constants.dispatch_loss.high);
    let ask = Ask {
        problem,
        offers,
        worth: &worth,
    };
    let mut programs = vec![ask.of_all(mixed)];
    let apart = ask.apart()?;
    for at in 0..offers.offers.len() {
        programs.push(ask.of_one(peak, at, &apart));
    }
    let (program, found) = best(programs)?;
    let mut devices = Vec::new();
    let mut rates = Vec::new();
    for ((unit, rate), count) in program.members.iter().zip(&found.domains[0]) {
        let class = &mut problem.classes[unit.class];
        class.serve = unit.devices * count;
        rates.push(class.serve as f64 * rate);
        if class.serve > 0 {
            devices.push((class.of.name.clone(), class.serve));
        }
    }
    let tokens_per_s = mixed_tokens_per_second(&rates, &constants.dispatch_loss).low;
    // A price sells no more tokens than are asked for.
    let could_sell: f64 = rates.iter().sum::<f64>() / service.peak_factor;
    let asked = (peak / service.peak_factor / could_sell).min(1.0);
    for class in problem.classes.iter_mut().filter(|class| class.serve > 0) {
        class.asked_share = asked;
    }
    Ok(Some(Served {
        devices,
        peak_tokens_per_s: peak,
        tokens_per_s,
        sessions: service.carried_by(tokens_per_s)?,
        limit_multiplier: tokens_per_s / peak,
        share_used: peak / service.peak_factor / tokens_per_s,
        gap: found.gap(),
    }))
}

/// The program of which the most comes, of equals the first; the bound is that of all.
fn best(programs: Vec<Program>) -> Result<(Program, Allocation), PlanError> {
    let mut best: Option<(Program, Allocation)> = None;
    let (mut bound, mut refusal) = (f64::NEG_INFINITY, None);
    for program in programs {
        match allocate(&program.pools, Effort::default()) {
            Ok(mut found) => {
                found.worth.value += program.elsewhere.value;
                bound = bound.max(found.bound + program.elsewhere.bound);
                let value = best.as_ref().map(|(_, best)| best.worth.value);
                if value.is_none_or(|value| found.worth.value > value) {
                    best = Some((program, found));
                }
            }
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    match (best, refusal) {
        (Some((program, found)), _) => Ok((program, Allocation { bound, ..found })),
        (None, Some(refusal)) => Err(refusal.into()),
        (None, None) => Err(PoolsError::Demands {
            uses: Vec::new(),
            share: 0.0,
        }
        .into()),
    }
}

/// What a device of each class is worth where it does not serve: the rent that it brings, or the
/// tokens per second that it trains in a job of its class alone.
fn worth_of_others(problem: &Problem<'_>, objective: Objective) -> Vec<f64> {
    let of_class =
        |worth: Vec<Option<f64>>| worth.into_iter().map(|it| it.unwrap_or(0.0)).collect();
    match objective {
        Objective::NetDollars => of_class(
            problem
                .classes
                .iter()
                .map(|class| class.dollars_per_hour)
                .collect(),
        ),
        _ => of_class(rates_alone(problem).1),
    }
}

/// The integer program of a demand.
struct Program {
    pools: PoolProblem,
    /// Those that can serve, with the tokens per second of a device.
    members: Vec<(Unit, f64)>,
    /// What is done at sites that are not in it.
    elsewhere: Elsewhere,
}

/// What is worth most where nothing serves.
#[derive(Debug, Clone, Copy, Default)]
struct Elsewhere {
    value: f64,
    bound: f64,
}

/// Who can serve, and what devices are worth that do not.
struct Ask<'a, 'p> {
    problem: &'a Problem<'p>,
    offers: &'a Offers,
    worth: &'a [f64],
}

impl Ask<'_, '_> {
    /// The tokens per second of a device of a class.
    fn rate(&self, class: &Class) -> Option<f64> {
        let mut offers = self.offers.offers.iter();
        Some(offers.find(|it| it.class == class.of.name)?.tokens_per_s)
    }

    /// Classes in units of a replica, of all sites or of one.
    fn units(&self, site: Option<usize>) -> Vec<Unit> {
        let offer = |class: &Class| {
            let mut offers = self.offers.offers.iter();
            offers.find(|it| it.class == class.of.name)
        };
        let classes = self.problem.classes.iter().enumerate();
        let here = classes.filter(|(_, class)| site.is_none_or(|site| class.site == site));
        let unit = |(at, class): (usize, &Class)| {
            let devices = offer(class).map_or(1, |offer| offer.replica_devices);
            Unit::of(self.problem, at, devices.into())
        };
        here.map(unit).collect()
    }

    /// A demand at the peak of which every class can serve a part.
    fn of_all(&self, peak: f64) -> Program {
        let units = self.units(None);
        let rate = |unit: &Unit| self.rate(&self.problem.classes[unit.class]);
        let can = units.iter().filter_map(|unit| Some((*unit, rate(unit)?)));
        self.program(&units, can.collect(), peak)
    }

    /// A demand that one of the offers serves alone: what the devices at other sites do has nothing
    /// to do with it.
    fn of_one(&self, peak: f64, offer: usize, apart: &[Elsewhere]) -> Program {
        let name = &self.offers.offers[offer].class;
        let classes = &self.problem.classes;
        let class = classes.iter().position(|class| class.of.name == *name);
        let site = class.map_or(0, |class| classes[class].site);
        let units = self.units(Some(site));
        let own = units.iter().filter(|unit| Some(unit.class) == class);
        let own = own.map(|unit| (*unit, self.offers.offers[offer].tokens_per_s));
        let mut program = self.program(&units, own.collect(), peak);
        let others = (0..apart.len()).filter(|&at| at != site);
        program.elsewhere = others.fold(Elsewhere::default(), |all, at| Elsewhere {
            value: all.value + apart[at].value,
            bound: all.bound + apart[at].bound,
        });
        program
    }

    /// What each site is worth where nothing serves; nothing is known of a site that is alone.
    fn apart(&self) -> Result<Vec<Elsewhere>, PoolsError> {
        let sites = self.problem.places.len();
        if sites < 2 {
            return Ok(vec![Elsewhere::default(); sites]);
        }
        let of = |site: usize| {
            let mut program = self.program(&self.units(Some(site)), Vec::new(), 0.0);
            program.pools.uses.remove(0);
            let found = allocate(&program.pools, Effort::default())?;
            Ok(Elsewhere {
                value: found.worth.value,
                bound: found.bound,
            })
        };
        (0..sites).map(of).collect()
    }

    /// The program of some classes, of which some can serve.
    fn program(&self, units: &[Unit], members: Vec<(Unit, f64)>, peak: f64) -> Program {
        // However little is asked for, something serves it.
        let of_unit = members
            .iter()
            .map(|(unit, rate)| unit.devices as f64 * rate);
        let peak = peak.max(of_unit.reduce(f64::min).unwrap_or(0.0));
        let place = |unit: &Unit| units.iter().position(|it| it.class == unit.class);
        let member = |unit: &Unit, of_device: f64| {
            let class = place(unit).unwrap_or(0);
            Member {
                class,
                ..unit.member(of_device, 0.0)
            }
        };
        let serving = members.iter().map(|(unit, rate)| member(unit, *rate));
        let others = units
            .iter()
            .map(|unit| member(unit, self.worth[unit.class]));
        let pools = PoolProblem {
            classes: units.iter().map(|unit| unit.stock(self.problem)).collect(),
            sites: power_left(self.problem),
            uses: vec![
                Use {
                    least_rate: peak,
                    ..Use::each("serving", serving.collect(), 0.0)
                },
                Use::each("everything else", others.collect(), 1.0),
            ],
        };
        Program {
            pools,
            members,
            elsewhere: Elsewhere::default(),
        }
    }
}

#[cfg(test)]
mod tests;
