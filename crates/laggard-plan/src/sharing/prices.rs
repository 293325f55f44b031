//! A bound by prices: what jobs would train if each took what gains it most where hosts, power and
//! failures have a price.
//!
//! Whatever hosts and power cost, no sharing trains more than that with what is paid for all there
//! is (weak duality: Fisher 1981, "The Lagrangian Relaxation Method for Solving Integer Programming
//! Problems"). Jobs meet in prices alone, so that each may be taken as it is: its devices step
//! together and fail together, of however many classes they are. In a step of some length a host
//! does no more than in as long a step among its like, all of them no more than a batch; failures
//! leave the share of time that they leave so many devices. The prices are found by cutting planes
//! (Kelley 1960, "The Cutting-Plane Method for Solving Convex Programs").

use microlp::{ComparisonOp, OptimizationDirection, Problem as Linear, Solution, Variable};

use super::rates::{Lap, Rates};
use crate::hosts::{Unit, power_left};
use crate::options::Search;
use crate::problem::{Class, Problem};

/// Parts that numbers of failures are divided into, in each of which the fewest count.
const PARTS: u32 = 64;
/// Steps that are up to so many times as long are taken for as long.
const AS_LONG: f64 = 1.02;
/// Steps of all classes are told apart from this share of the shortest of one class on.
const SHORTER: f64 = 0.1;
/// Of more classes than this no prices are looked for: that would take minutes.
pub(super) const MOST_CLASSES: usize = 16;
/// How often prices are set at most.
const ROUNDS: u32 = 200;
/// What better prices could still gain, relative to the bound, that is left to them.
const LEFT: f64 = 1e-3;
/// How often the range of a price of failures is halved.
const HALVINGS: u32 = 20;

/// What a job makes of shares of all hosts of each class. Worths are in units of the caller's.
pub(super) struct Job {
    /// What a token per second is worth.
    worth: f64,
    paces: Vec<Pace>,
    parts: Vec<Part>,
    /// Failures per second of all hosts of each class.
    failures: Vec<f64>,
}

/// Steps that take about as long.
struct Pace {
    /// Tokens per second of all hosts of each class, if nothing fails.
    rates: Vec<f64>,
    /// Tokens per second of a batch in each step.
    most: f64,
}

/// Devices that fail so often, up to a number.
#[derive(Clone, Copy)]
struct Part {
    /// The largest share of time that is useful to any of them.
    useful: f64,
    /// Failures per second.
    most_failures: f64,
}

/// What failures leave of up to so many in a second; `None` where that is not known.
fn parts(all: f64, search: &Search<'_>) -> Option<Vec<Part>> {
    // What they cost grows with their square root, about.
    let upto = |at: u32| all * (f64::from(at) / f64::from(PARTS)).powi(2);
    let part = |at: u32| {
        Some(Part {
            useful: search.costs.useful_at(upto(at))?,
            most_failures: upto(at + 1),
        })
    };
    (0..PARTS).map(part).collect()
}

/// Paces from the slowest step of any class to steps that are shorter than of any, by the steps
/// of so many hosts of each class.
fn paces(laps: &[(u64, Vec<Lap>)], batch: f64) -> Vec<Pace> {
    let all = || laps.iter().flat_map(|class| &class.1);
    let shortest = all().map(|lap| lap.step_s).fold(f64::INFINITY, f64::min) * SHORTER;
    let longest = all().map(|lap| lap.step_s).fold(0.0, f64::max);
    let rates = |upto: f64| {
        let of_class = |(hosts, laps): &(u64, Vec<Lap>)| {
            // A host does no more than in the next longer step that was predicted.
            let shorter = laps.iter().take_while(|lap| lap.step_s < upto).count();
            let known = laps.iter().take(shorter + 1);
            *hosts as f64 * known.map(|lap| lap.of_host).fold(0.0, f64::max)
        };
        laps.iter().map(of_class).collect()
    };
    let mut paces = vec![Pace {
        rates: rates(shortest),
        most: f64::INFINITY,
    }];
    let mut from = shortest;
    while from <= longest {
        let upto = from * AS_LONG;
        paces.push(Pace {
            rates: rates(upto),
            most: batch / from,
        });
        from = upto;
    }
    paces.push(Pace {
        rates: rates(f64::INFINITY),
        most: batch / from,
    });
    paces
}

/// What a job takes.
struct Taken {
    /// What it gains at most, after what it pays.
    gain: f64,
    /// What it trains for that, before it pays.
    worth: f64,
    /// Shares of all hosts of each class.
    shares: Vec<f64>,
}

impl Job {
    /// A job of which a token per second is worth so much. `None` where failures are not known.
    pub(super) fn new(worth: f64, rates: &Rates, search: &mut Search<'_>) -> Option<Self> {
        let problem = search.costs.problem;
        let of_class = |(at, class): (usize, &Class)| {
            let hosts = class.free() / class.node_devices;
            search.costs.failures_per_s(at, hosts * class.node_devices)
        };
        let failures = problem.classes.iter().enumerate().map(of_class);
        let failures = failures.collect::<Option<Vec<f64>>>()?;
        let parts = parts(failures.iter().sum(), search)?;
        let laps = rates.laps(search).into_iter().enumerate();
        let laps: Vec<(u64, Vec<Lap>)> = laps.map(|(at, laps)| (rates.own(at), laps)).collect();
        Some(Self {
            worth,
            paces: paces(&laps, problem.training.batch_tokens as f64),
            parts,
            failures,
        })
    }

    /// What gains it most where all hosts of each class cost so much.
    fn best(&self, prices: &[f64]) -> Taken {
        let mut best = Taken {
            gain: 0.0,
            worth: 0.0,
            shares: vec![0.0; self.failures.len()],
        };
        for part in &self.parts {
            for pace in &self.paces {
                if self.worth * part.useful * pace.most <= best.gain {
                    continue;
                }
                let free = self.take((*part, pace), prices, 0.0);
                if free.gain <= best.gain {
                    continue;
                }
                let taken = self.failing((*part, pace), prices, free);
                if taken.gain > best.gain {
                    best = taken;
                }
            }
        }
        best
    }

    /// What gains most of what fails no more often than a part may, given that of whatever fails:
    /// failures get the least price at which that is so.
    fn failing(&self, (part, pace): (Part, &Pace), prices: &[f64], free: Taken) -> Taken {
        let failures = |taken: &Taken| -> f64 {
            let each = taken.shares.iter().zip(&self.failures);
            each.map(|(share, failures)| share * failures).sum()
        };
        let at = |price: f64| self.take((part, pace), prices, price);
        if failures(&free) <= part.most_failures {
            return free;
        }
        let (mut low, mut high) = (0.0, free.worth / part.most_failures);
        let (mut more, mut fewer) = (free, at(high));
        while failures(&fewer) > part.most_failures {
            (low, more) = (high, fewer);
            high *= 2.0;
            fewer = at(high);
        }
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            let taken = at(middle);
            match failures(&taken) > part.most_failures {
                true => (low, more) = (middle, taken),
                false => (high, fewer) = (middle, taken),
            }
        }
        // Between the two lies what fails exactly so often.
        let (above, below) = (failures(&more), failures(&fewer));
        let of_more = (part.most_failures - below) / (above - below);
        let between = |more: f64, fewer: f64| of_more * more + (1.0 - of_more) * fewer;
        let shares = more.shares.iter().zip(&fewer.shares);
        Taken {
            gain: more.gain.min(fewer.gain),
            worth: between(more.worth, fewer.worth),
            shares: shares.map(|(more, fewer)| between(*more, *fewer)).collect(),
        }
    }

    /// What gains most at a pace where all hosts of each class cost so much, and failures: with
    /// what is paid for as many of these as there may be.
    fn take(&self, (part, pace): (Part, &Pace), prices: &[f64], of_failures: f64) -> Taken {
        let cost = |class: usize| prices[class] + of_failures * self.failures[class];
        let classes = (0..prices.len()).filter(|&class| pace.rates[class] > 0.0);
        let mut classes: Vec<usize> = classes.collect();
        let of_token = |class: usize| cost(class) / pace.rates[class];
        classes.sort_by(|&a, &b| of_token(a).total_cmp(&of_token(b)));
        let each = self.worth * part.useful;
        let mut taken = Taken {
            gain: of_failures * part.most_failures,
            worth: 0.0,
            shares: vec![0.0; prices.len()],
        };
        let mut left = pace.most;
        for class in classes {
            let gain = each - of_token(class);
            if gain <= 0.0 || left <= 0.0 {
                break;
            }
            let rate = pace.rates[class].min(left);
            left -= rate;
            taken.gain += gain * rate;
            taken.worth += each * rate;
            taken.shares[class] = rate / pace.rates[class];
        }
        taken
    }
}

/// What has a price, and the program whose solutions are prices.
pub(super) struct Market {
    linear: Linear,
    /// Price of all hosts of each class.
    classes: Vec<Variable>,
    /// Price of all power of each site that has a limit.
    sites: Vec<Variable>,
    /// For each class, which of these sites it stands at, and the share of the site's power that
    /// all its hosts draw.
    draws: Vec<Option<(usize, f64)>>,
}

impl Market {
    pub(super) fn new(problem: &Problem<'_>) -> Self {
        let mut linear = Linear::new(OptimizationDirection::Minimize);
        let mut price = || linear.add_var(1.0, (0.0, f64::INFINITY));
        let units = Unit::hosts(problem);
        let classes = units.iter().map(|_| price()).collect();
        let mut sites = Vec::new();
        let limited: Vec<Option<(usize, f64)>> = power_left(problem)
            .iter()
            .map(|limit| {
                let watts = limit.watts?.max(1.0);
                sites.push(price());
                Some((sites.len() - 1, watts))
            })
            .collect();
        let draws = units.iter().map(|unit| {
            let stock = unit.stock(problem);
            let (site, watts) = limited[stock.site]?;
            Some((site, stock.domains as f64 * unit.watts / watts))
        });
        Self {
            draws: draws.collect(),
            classes,
            sites,
            linear,
        }
    }

    /// What these jobs are worth at most together, by the best prices that were found.
    pub(super) fn bound(mut self, jobs: &[Job]) -> f64 {
        let mut gain = || self.linear.add_var(1.0, (0.0, f64::INFINITY));
        let gains: Vec<Variable> = jobs.iter().map(|_| gain()).collect();
        let mut solution: Option<Solution> = None;
        let mut bound = f64::INFINITY;
        for _ in 0..ROUNDS {
            let value = |variable: &Variable| {
                let found = solution.as_ref();
                found.map_or(0.0, |it| it.var_value(*variable).max(0.0))
            };
            let sites: Vec<f64> = self.sites.iter().map(value).collect();
            let of_power = |draws: &Option<(usize, f64)>| {
                draws.map_or(0.0, |(site, share)| share * sites[site])
            };
            let hosts = self.classes.iter().map(value);
            let prices = hosts.zip(&self.draws).map(|(of, it)| of + of_power(it));
            let prices: Vec<f64> = prices.collect();
            let taken: Vec<Taken> = jobs.iter().map(|job| job.best(&prices)).collect();
            let paid: f64 = self.classes.iter().map(value).chain(sites).sum();
            bound = bound.min(paid + taken.iter().map(|it| it.gain).sum::<f64>());
            for (gain, taken) in gains.iter().zip(&taken) {
                let row = self.row(*gain, taken);
                self.linear
                    .add_constraint(&row, ComparisonOp::Ge, taken.worth);
            }
            let solved = self.linear.solve().ok();
            solution = solved.and_then(|it| it.into_solution().ok());
            // No prices make it less than this program.
            match solution.as_ref().map(Solution::objective) {
                Some(least) if bound - least > LEFT * bound => {}
                _ => break,
            }
        }
        bound
    }

    /// That a job gains no less than with what it took, at any prices.
    fn row(&self, gain: Variable, taken: &Taken) -> Vec<(Variable, f64)> {
        let mut power = vec![0.0; self.sites.len()];
        for (share, draws) in taken.shares.iter().zip(&self.draws) {
            if let Some((site, of_site)) = draws {
                power[*site] += share * of_site;
            }
        }
        let hosts = self.classes.iter().copied().zip(taken.shares.clone());
        let power = self.sites.iter().copied().zip(power);
        let paid = hosts.chain(power).filter(|term| term.1 > 0.0);
        [(gain, 1.0)].into_iter().chain(paid).collect()
    }
}
