//! What a job trains on so many hosts of a class alone, and the curves drawn through that.

use crate::hosts::Unit;
use crate::options::Search;
use crate::pools::{Curve, Piece, PoolsError};

/// Up to so many hosts every number of them is predicted, above it halves of halves, down to the
/// fewest that the job can be trained on.
const FEW_HOSTS: u64 = 4;
/// From this share of all on there are further sizes, each so much of the next larger one: bounds
/// are as far above what jobs train as these lie apart.
const CLOSE: (f64, f64) = (0.125, 0.85);

/// How a curve is drawn between the sizes that were predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drawn {
    /// Straight from one to the next.
    Through,
    /// As high as it may be: no size trains more than the next larger one that was predicted, nor
    /// more of each host than the better of its neighbours. Classes of one job add up.
    Above,
    /// The same, but classes of one job train no more together than as much of the fastest of them
    /// would that is as fast in all: more and slower devices fail more often and fill a batch
    /// sooner.
    Together,
}

/// How long a step of a job on one class takes, and what a host trains in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lap {
    /// Length of the step, seconds.
    pub(super) step_s: f64,
    /// Tokens per second of each host that works, if nothing fails.
    pub(super) of_host: f64,
}

/// Predicted rates of one job.
#[derive(Debug, Clone)]
pub(super) struct Rates {
    /// For each class, hosts with the tokens per second that they train, upwards; of a class that
    /// has the memory only together with others, more hosts than there are; empty where the job
    /// cannot be trained with it.
    points: Vec<Vec<(u64, f64)>>,
    /// Hosts of each class.
    own: Vec<u64>,
    /// For each class, the most tokens per second that a host of it adds.
    of_host: Vec<f64>,
    /// The class with the fastest devices, and what more hosts of it than there are would train, up
    /// to as fast as all classes are.
    beyond: Option<(usize, Vec<(u64, f64)>)>,
}

impl Rates {
    pub(super) fn new(search: &mut Search<'_>) -> Self {
        let problem = search.costs.problem;
        let units = Unit::hosts(problem);
        let free = |unit: &Unit| problem.classes[unit.class].free();
        let all: u64 = units.iter().map(free).sum();
        let of_class = |unit: &Unit| match free(unit) / unit.devices {
            0 => Vec::new(),
            own => match points(search, unit, own) {
                // No others have more memory to give than all would as devices of this class.
                found if found.is_empty() => points(search, unit, all / unit.devices),
                found => found,
            },
        };
        let points: Vec<Vec<(u64, f64)>> = units.iter().map(of_class).collect();
        let of_host = |points: &Vec<(u64, f64)>| {
            let each = points.iter().map(|&(hosts, rate)| rate / hosts as f64);
            each.fold(0.0, f64::max)
        };
        let mut rates = Self {
            of_host: points.iter().map(of_host).collect(),
            points,
            own: units.iter().map(|unit| free(unit) / unit.devices).collect(),
            beyond: None,
        };
        rates.beyond = rates.beyond(search, &units);
        rates
    }

    /// What the fastest class would train if all others were of it.
    fn beyond(&self, search: &mut Search<'_>, units: &[Unit]) -> Option<(usize, Vec<(u64, f64)>)> {
        let of_device = |class: &usize| self.of_host[*class] / units[*class].devices as f64;
        let classes = self.classes();
        let fastest = classes
            .iter()
            .copied()
            .max_by(|a, b| of_device(a).total_cmp(&of_device(b)))?;
        let all = self.as_many(fastest);
        let (own, mut hosts) = (self.own[fastest], all);
        let mut points = Vec::new();
        while hosts > own {
            let mut counts = vec![0; units.len()];
            counts[fastest] = hosts * units[fastest].devices;
            let Some(job) = search.equal(&counts) else {
                break;
            };
            points.push((hosts, search.rate(&job)));
            hosts = fewer(hosts, all).max(own);
        }
        let last = self.points[fastest].last();
        points.extend(last.filter(|_| self.is_enough(fastest)));
        points.reverse();
        Some((fastest, points))
    }

    /// As many hosts of a class as are as fast as all hosts together.
    fn as_many(&self, class: usize) -> u64 {
        (self.most(&self.own) / self.of_host[class]).ceil() as u64
    }

    /// Steps of the job on each class alone, of up to as many hosts as are as fast as all; the
    /// shortest first.
    pub(super) fn laps(&self, search: &mut Search<'_>) -> Vec<Vec<Lap>> {
        let units = Unit::hosts(search.costs.problem);
        let of_class = |(unit, points): (&Unit, &Vec<(u64, f64)>)| {
            if points.is_empty() {
                return Vec::new();
            }
            let all = self.as_many(unit.class);
            let mut sizes: Vec<u64> = points.iter().map(|point| point.0).collect();
            let most = sizes.iter().copied().fold(0, u64::max);
            let larger = std::iter::successors(Some(all), |&hosts| Some(fewer(hosts, all)));
            sizes.extend(larger.take_while(|&hosts| hosts > most));
            let laps = sizes
                .into_iter()
                .filter_map(|hosts| lap(search, unit, hosts));
            let mut laps: Vec<Lap> = laps.collect();
            laps.sort_by(|a, b| a.step_s.total_cmp(&b.step_s));
            laps
        };
        units.iter().zip(&self.points).map(of_class).collect()
    }

    /// All hosts of a class.
    pub(super) fn own(&self, class: usize) -> u64 {
        self.own[class]
    }

    /// Whether the job can be trained on a class alone.
    pub(super) fn is_enough(&self, class: usize) -> bool {
        let fewest = self.points[class].first();
        fewest.is_some_and(|fewest| fewest.0 <= self.own[class])
    }

    /// The classes that the job can be trained on, alone or together with others.
    pub(super) fn classes(&self) -> Vec<usize> {
        let classes = 0..self.points.len();
        classes
            .filter(|&class| !self.points[class].is_empty())
            .collect()
    }

    /// Most tokens per second that a host of a class adds: its capacity.
    pub(super) fn of_host(&self, class: usize) -> f64 {
        self.of_host[class]
    }

    /// The capacity of all hosts of some classes: what these train together at most.
    pub(super) fn all(&self, classes: &[usize]) -> f64 {
        let each = classes.iter();
        each.map(|&it| self.own[it] as f64 * self.of_host[it]).sum()
    }

    /// What so many hosts of each class train together at most.
    pub(super) fn most(&self, hosts: &[u64]) -> f64 {
        let each = hosts.iter().zip(&self.of_host);
        each.map(|(hosts, of_host)| *hosts as f64 * of_host).sum()
    }

    /// Fewest hosts of a class that the job can be trained on, if there were so many.
    pub(super) fn fewest(&self, class: usize) -> u64 {
        self.points[class].first().map_or(1, |point| point.0)
    }

    /// Tokens per second of the fewest hosts of the slowest of some classes.
    pub(super) fn least(&self, classes: &[usize]) -> f64 {
        let fewest = classes
            .iter()
            .filter_map(|&class| self.points[class].first());
        fewest.map(|point| point.1).reduce(f64::min).unwrap_or(0.0)
    }

    /// Tokens per second by capacity of some classes: the concave curve over the points of one, or
    /// that which no sum of theirs is above.
    pub(super) fn curve(&self, classes: &[usize], drawn: Drawn) -> Result<Curve, PoolsError> {
        let of = |&class: &usize| match self.is_enough(class) {
            true => self.corners((class, &self.points[class]), drawn),
            // Together with others a host trains no more than alone among more of its class.
            false => vec![[self.own[class] as f64 * self.of_host[class]; 2].into()],
        };
        let corners = classes.iter().map(of);
        if drawn == Drawn::Together {
            let beyond = self.beyond.iter();
            let beyond = beyond.map(|(class, points)| self.corners((*class, points), drawn));
            return Curve::hull(&corners.chain(beyond).flatten().collect::<Vec<_>>());
        }
        let mut pieces: Vec<Piece> = Vec::new();
        for corners in corners {
            pieces.extend(Curve::hull(&corners)?.pieces());
        }
        pieces.sort_by(|a, b| b.slope.total_cmp(&a.slope));
        Curve::of_pieces(pieces)
    }

    /// The points of a class as capacities with rates, and those that lie as high as they may
    /// between them.
    fn corners(&self, (class, points): (usize, &[(u64, f64)]), drawn: Drawn) -> Vec<(f64, f64)> {
        let capacity = |hosts: f64| hosts * self.of_host[class];
        let at = |&(hosts, rate): &(u64, f64)| (capacity(hosts as f64), rate);
        let mut corners: Vec<(f64, f64)> = points.iter().map(at).collect();
        if drawn != Drawn::Through {
            for pair in points.windows(2).filter(|pair| pair[1].0 > pair[0].0 + 1) {
                let each = |(hosts, rate): (u64, f64)| rate / hosts as f64;
                let best = each(pair[0]).max(each(pair[1]));
                corners.push((capacity(pair[1].1 / best), pair[1].1));
            }
        }
        corners
    }
}

/// The next smaller size to predict, of up to `all` hosts.
fn fewer(hosts: u64, all: u64) -> u64 {
    let (from, close) = CLOSE;
    match hosts as f64 > from * all as f64 {
        true => ((hosts as f64 * close) as u64).min(hosts - 1),
        false => hosts / 2,
    }
}

/// A step of the best job on so many hosts of a class.
fn lap(search: &mut Search<'_>, unit: &Unit, hosts: u64) -> Option<Lap> {
    let mut counts = vec![0; search.costs.problem.classes.len()];
    counts[unit.class] = hosts * unit.devices;
    let job = search.equal(&counts)?;
    let outcome = search.costs.outcome(&job).ok()?;
    let at_work = job.devices(unit.class) as f64 / unit.devices as f64;
    Some(Lap {
        step_s: outcome.step_s,
        of_host: outcome.stepping_tokens_per_s() / at_work,
    })
}

/// What so many hosts of a class train, and fewer, upwards.
fn points(search: &mut Search<'_>, unit: &Unit, most: u64) -> Vec<(u64, f64)> {
    let problem = search.costs.problem;
    let mut counts = vec![0; problem.classes.len()];
    let mut hosts = most;
    let mut points = Vec::new();
    let mut too_few = 0;
    // Once a number is too small, halves of what lies between lead to the smallest that is not.
    while hosts > too_few {
        counts[unit.class] = hosts * unit.devices;
        match search.equal(&counts) {
            Some(job) => points.push((hosts, search.rate(&job))),
            None => too_few = hosts,
        }
        let fits = points.last().map_or(0, |point: &(u64, f64)| point.0);
        hosts = match (fits, too_few) {
            (few, 0) if few <= FEW_HOSTS => few - 1,
            (many, 0) => fewer(many, most).max(FEW_HOSTS),
            (fits, too_few) => u64::midpoint(fits, too_few),
        };
    }
    points.reverse();
    points
}
