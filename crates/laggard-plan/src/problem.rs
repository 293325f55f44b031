//! What is asked: a cluster as classes of equal accelerators with their limits and prices, and the
//! job that is to be trained on it. Knows nothing of options.

mod error;
mod places;

use laggard_simulate::{
    Constants, ForecastClass, Machine, Precision, Shape, Software, Surroundings,
};
use laggard_specs::{Attention, Cluster, Model, Pool, Tables, training_flop_per_token};
use serde::Serialize;
use std::collections::BTreeMap;

use crate::layouts::{BATCH_TOLERANCE, Demand, Space, weakest};
use crate::money::{DrawBasis, Prices};
use crate::what_if::take_away;

pub use error::PlanError;
pub use places::{Link, Place};

use places::{links, places};

/// Larger batches are refused: they are a slip of the hand.
const MOST_SEQUENCES: u64 = 1 << 31;
/// More classes at a site are refused: every set of them is judged.
const MOST_CLASSES_AT_SITE: usize = 16;
/// More classes in all are refused: each is planned with by itself too.
const MOST_CLASSES: usize = 1024;

/// The job to train.
#[derive(Debug, Clone, Copy)]
pub struct Training<'a> {
    /// The model.
    pub model: &'a Model,
    /// Tokens to train on.
    pub tokens: f64,
    /// Most tokens of a step, to within 5 %.
    pub batch_tokens: u64,
    /// Tokens of a sequence.
    pub sequence_length: u32,
    /// Arithmetic of the products.
    pub precision: Precision,
    /// What the framework does.
    pub software: Software,
    /// What happens around the steps.
    pub around: Surroundings,
}

/// What the owner says beside the cluster's file.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Power of the only site, watts, instead of the cluster's own limit.
    pub power_limit_watts: Option<f64>,
    /// Rent that a class brings when it is leased, dollars per device and hour, by pool id or
    /// accelerator; instead of the cluster's typical price.
    pub lease_dollars_per_hour: BTreeMap<String, f64>,
    /// Price of a kilowatt-hour at the meter.
    pub dollars_per_kwh: Option<f64>,
    /// What is kept of a class for experiments and peaks, by pool id or accelerator; rounded up to
    /// whole hosts.
    pub reserve: BTreeMap<String, Reserve>,
}

/// How much of a class is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reserve {
    /// So many devices.
    Devices(u64),
    /// A share of them, from 0 to 1.
    Share(f64),
}

/// What is known before any cluster.
#[derive(Debug, Clone, Copy)]
pub struct Known<'k> {
    /// Accelerators and models.
    pub tables: &'k Tables,
    /// Rents and power.
    pub prices: &'k Prices,
    /// Constants of the cost model.
    pub constants: &'k Constants,
}

/// Accelerators that can stand in for each other.
#[derive(Debug, Clone)]
pub struct Class {
    /// Name, count, machine and failures.
    pub of: ForecastClass,
    /// Position of its site.
    pub site: usize,
    /// Devices that are turned off together.
    pub node_devices: u64,
    /// Power of a device with its share of the host, without cooling.
    pub watts: Option<f64>,
    /// Whether that is what the maker or the cluster's file allows for, not a measurement.
    pub is_nameplate: bool,
    /// Rent of a device, dollars per hour.
    pub dollars_per_hour: Option<f64>,
    /// Devices that are kept for experiments and peaks: they are on, and no job has them.
    pub reserve: u64,
    /// Devices that serve whatever else is done.
    pub serve: u64,
    /// What a device earns that serves at the price of its tokens, dollars per hour.
    pub serving_dollars_per_hour: Option<f64>,
    /// What those that serve whatever else is done are asked for, as a share of what they could
    /// sell; 1 where there is no demand.
    pub asked_share: f64,
    /// Speed of the kernels of the slowest device in use over that of the class; 1 where nothing is
    /// known of single devices.
    pub pace: f64,
}

impl Class {
    /// Devices that options may use.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.of.count - self.reserve - self.serve
    }

    /// Whether it is called so: by its pool or by its accelerator.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.of.name == name || self.of.accelerator == name
    }
}

/// Everything that options are made from.
#[derive(Debug, Clone)]
pub struct Problem<'a> {
    /// The job.
    pub training: Training<'a>,
    /// The classes.
    pub classes: Vec<Class>,
    /// The sites.
    pub places: Vec<Place>,
    /// What joins them.
    pub links: Vec<Link>,
    /// Price of a kilowatt-hour at the meter.
    pub dollars_per_kwh: Option<f64>,
    /// Power that was measured under load over nameplate, of the accelerators that have both.
    pub measured_share_of_nameplate: Option<f64>,
    /// Constants of the cost model.
    pub constants: Constants,
    /// What was left out or taken for granted, in sentences.
    pub caveats: Vec<String>,
}

impl<'a> Problem<'a> {
    /// The problem of a cluster. Classes that nothing can be predicted for are left out, with a
    /// caveat.
    ///
    /// # Errors
    /// Numbers that are not above zero, limits that contradict each other, or no class left.
    pub fn new(
        cluster: &Cluster,
        training: Training<'a>,
        terms: &Terms,
        known: &Known<'_>,
    ) -> Result<Self, PlanError> {
        check(&training, terms)?;
        let mut problem = Self {
            training,
            classes: Vec::new(),
            places: places(cluster, terms)?,
            links: links(cluster),
            dollars_per_kwh: terms.dollars_per_kwh,
            measured_share_of_nameplate: known.prices.measured_share_of_nameplate(),
            constants: known.constants.clone(),
            caveats: Vec::new(),
        };
        check_names(cluster, "lease price", terms.lease_dollars_per_hour.keys())?;
        check_names(cluster, "reserve", terms.reserve.keys())?;
        let mut reasons = Vec::new();
        for pool in &cluster.pools {
            match ForecastClass::of_pool(pool, known.tables) {
                Ok(of) => {
                    let place = cluster.sites.iter().position(|site| site.id == pool.site);
                    let class = class(of, pool, place.unwrap_or(0), (terms, known.prices));
                    problem.classes.push(class);
                }
                Err(error) => {
                    let text = error.to_string();
                    let reason = text.lines().next().unwrap_or_default();
                    reasons.push(format!("{}: {reason}", pool.id));
                }
            }
        }
        problem.classes.retain(|class| class.of.count > 0);
        if problem.classes.is_empty() {
            let reasons = reasons.join("; ");
            return Err(PlanError::NoClass { reasons });
        }
        problem.refuse_too_many_classes()?;
        let left_out = |reason: &String| format!("left out of everything: {reason}");
        problem.caveats.extend(reasons.iter().map(left_out));
        problem.reserve(terms)?;
        problem.see_which_limits_are_kept(cluster, terms)?;
        problem.note_what_is_missing();
        Ok(problem)
    }

    fn refuse_too_many_classes(&self) -> Result<(), PlanError> {
        let at_site = |at: usize| self.classes.iter().filter(move |class| class.site == at);
        let most_at_site = (0..self.places.len()).map(|at| at_site(at).count()).max();
        for (classes, most, place) in [
            (self.classes.len(), MOST_CLASSES, "in all"),
            (
                most_at_site.unwrap_or(0),
                MOST_CLASSES_AT_SITE,
                "at one site",
            ),
        ] {
            if classes > most {
                return Err(PlanError::TooManyClasses {
                    classes,
                    most,
                    place,
                });
            }
        }
        Ok(())
    }

    /// Keeps what is to be kept of each class, in whole hosts.
    fn reserve(&mut self, terms: &Terms) -> Result<(), PlanError> {
        for (name, reserve) in &terms.reserve {
            // What is said of a pool goes before what is said of its accelerator.
            let own = |class: &Class| terms.reserve.contains_key(&class.of.name);
            let is_pool = self.classes.iter().any(|class| class.of.name == *name);
            let is_meant = |class: &&mut Class| match is_pool {
                true => class.of.name == *name,
                false => class.of.accelerator == *name && !own(class),
            };
            let mut meant: Vec<&mut Class> = self.classes.iter_mut().filter(is_meant).collect();
            let count: u64 = meant.iter().map(|class| class.of.count).sum();
            let devices = match *reserve {
                _ if meant.is_empty() => continue,
                Reserve::Devices(devices) => devices,
                Reserve::Share(share) if (0.0..=1.0).contains(&share) => {
                    (share * count as f64).ceil() as u64
                }
                Reserve::Share(share) => {
                    let (class, percent) = (name.clone(), share * 100.0);
                    return Err(PlanError::ReserveShare { class, percent });
                }
            };
            if devices > count {
                return Err(PlanError::ReserveTooLarge {
                    class: name.clone(),
                    reserve: devices,
                    count,
                });
            }
            // Of each of several pools as large a share.
            let mut left: Vec<u64> = meant.iter().map(|class| class.of.count).collect();
            take_away(&mut left.iter_mut().collect::<Vec<_>>(), devices);
            for (class, left) in meant.iter_mut().zip(left) {
                let kept = class.of.count - left;
                class.reserve = kept
                    .next_multiple_of(class.node_devices)
                    .min(class.of.count);
            }
        }
        Ok(())
    }

    /// Refuses a stated power limit that cannot be kept; one of the cluster's file is only noted.
    fn see_which_limits_are_kept(
        &mut self,
        cluster: &Cluster,
        terms: &Terms,
    ) -> Result<(), PlanError> {
        for at in 0..self.places.len() {
            let here = self.classes.iter().filter(|class| class.site == at);
            let unknown = here.filter(|class| self.watts_at_meter(class).is_none());
            let unknown: Vec<&str> = unknown.map(|class| class.of.name.as_str()).collect();
            if let (Some(limit), false) = (terms.power_limit_watts, unknown.is_empty()) {
                return Err(PlanError::UnknownPower {
                    limit_mw: limit / 1e6,
                    classes: unknown.join(", "),
                    cluster: cluster.id.clone(),
                });
            }
            self.places[at].is_kept = unknown.is_empty();
        }
        Ok(())
    }

    /// Power of a device of a class with its share of host and cooling.
    #[must_use]
    pub fn watts_at_meter(&self, class: &Class) -> Option<f64> {
        Some(class.watts? * self.places[class.site].usage_effectiveness?)
    }

    fn note_what_is_missing(&mut self) {
        let lacking = |has: &dyn Fn(&Class) -> bool| -> Option<String> {
            let names = self.classes.iter().filter(|class| !has(class));
            let names: Vec<&str> = names.map(|class| class.of.name.as_str()).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        let has_watts = |class: &Class| self.watts_at_meter(class).is_some();
        let mut notes = Vec::new();
        if let Some(names) = lacking(&has_watts) {
            notes.push(format!(
                "no power is known of {names}: MW is left out, and no power limit is kept, where \
                 they are on (power_watts_per_device, power_usage_effectiveness)"
            ));
        }
        if let Some(names) = lacking(&|class| class.dollars_per_hour.is_some()) {
            notes.push(format!(
                "no price is known of {names}: dollars are left out where they count (--lease)"
            ));
        }
        if let Some(names) = lacking(&|class| class.of.failures_per_device_year.is_some()) {
            notes.push(format!(
                "no failure rate is known of {names}: jobs with them are taken as never failing \
                 (failures_per_device_year)"
            ));
        }
        self.caveats.extend(notes);
    }

    /// Devices of all classes.
    #[must_use]
    pub fn devices(&self) -> u64 {
        self.classes.iter().map(|class| class.of.count).sum()
    }

    /// Sum of the dense peaks of all devices in half precision, FLOP/s.
    #[must_use]
    pub fn peak(&self) -> f64 {
        let of = |class: &Class| class.of.count as f64 * class.of.machine.half_peak;
        self.classes.iter().map(of).sum()
    }

    /// FLOP that MFU counts for a token: the causal convention.
    #[must_use]
    pub fn flop_per_token(&self) -> f64 {
        let length = u64::from(self.training.sequence_length);
        training_flop_per_token(self.training.model, length, Attention::Causal).0
    }

    /// Most sequences of a step.
    pub(crate) fn batch(&self) -> u64 {
        self.training.batch_tokens / u64::from(self.training.sequence_length)
    }

    pub(crate) fn demand(&self) -> Demand<'a> {
        Demand {
            model: self.training.model,
            sequence_length: self.training.sequence_length,
            global_batch: self.batch(),
            batch_excess: BATCH_TOLERANCE,
            batch_shortfall: 1.0,
            precision: self.training.precision,
            software: self.training.software,
        }
    }

    /// Most sequences of a step with the tolerance.
    pub(crate) fn most_sequences(&self) -> f64 {
        self.batch() as f64 * (1.0 + BATCH_TOLERANCE)
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape::of(self.training.model)
    }

    /// The layouts of so many ranks of some classes.
    pub(crate) fn space(&self, ranks: u64, classes: &[usize]) -> Space {
        Space::of(ranks, classes.iter().map(|&at| &self.classes[at].of))
    }

    /// The weakest machine of some classes.
    pub(crate) fn weakest(&self, classes: &[usize]) -> Machine {
        let machine = weakest(classes.iter().map(|&at| &self.classes[at].of));
        machine.unwrap_or_else(|| self.classes[0].of.machine.clone())
    }
}

fn check(training: &Training<'_>, terms: &Terms) -> Result<(), PlanError> {
    let leases = terms.lease_dollars_per_hour.values();
    let leases = leases.map(|price| ("lease price in dollars per device and hour", *price));
    let limit = terms
        .power_limit_watts
        .map(|watts| ("power limit in watts", watts));
    let energy = terms
        .dollars_per_kwh
        .map(|price| ("price of a kilowatt-hour in dollars", price));
    let numbers = [("number of tokens", training.tokens)];
    for (what, value) in numbers.into_iter().chain(limit).chain(energy).chain(leases) {
        if !(value.is_finite() && value > 0.0) {
            return Err(PlanError::NotPositive { what, value });
        }
    }
    let (batch, sequence) = (training.batch_tokens, training.sequence_length);
    if sequence == 0 {
        let (what, value) = ("sequence length in tokens", 0.0);
        return Err(PlanError::NotPositive { what, value });
    }
    if batch / u64::from(sequence) > MOST_SEQUENCES {
        return Err(PlanError::BatchTooLarge {
            batch,
            most: MOST_SEQUENCES * u64::from(sequence),
        });
    }
    if batch < u64::from(sequence) {
        return Err(PlanError::BatchBelowSequence { batch, sequence });
    }
    Ok(())
}

/// Refuses a name that no pool has.
fn check_names<'n>(
    cluster: &Cluster,
    what: &'static str,
    mut names: impl Iterator<Item = &'n String>,
) -> Result<(), PlanError> {
    let is_there = |name: &&String| {
        let is = |pool: &Pool| pool.id == **name || pool.accelerator == **name;
        cluster.pools.iter().any(is)
    };
    let Some(name) = names.find(|name| !is_there(name)) else {
        return Ok(());
    };
    let ids: Vec<&str> = cluster.pools.iter().map(|pool| pool.id.as_str()).collect();
    Err(PlanError::UnknownClass {
        what,
        name: name.clone(),
        known: ids.join(", "),
    })
}

fn class(of: ForecastClass, pool: &Pool, site: usize, (terms, prices): (&Terms, &Prices)) -> Class {
    let stated = |name: &String| terms.lease_dollars_per_hour.get(name).copied();
    let draw = prices.draw(pool);
    let is_nameplate = draw
        .as_ref()
        .is_some_and(|it| it.basis != DrawBasis::Measured);
    Class {
        of,
        site,
        node_devices: pool.devices_per_node.unwrap_or(1).max(1),
        watts: draw.map(|it| it.watts_per_device),
        is_nameplate,
        dollars_per_hour: stated(&pool.id)
            .or_else(|| stated(&pool.accelerator))
            .or_else(|| prices.rent(pool).map(|price| price.typical)),
        reserve: 0,
        serve: 0,
        serving_dollars_per_hour: None,
        asked_share: 1.0,
        pace: 1.0,
    }
}

/// What a set of knobs makes of a problem: each factor is 1 for the problem as it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Factors {
    /// On the speed of each class's kernels.
    pub speed: Vec<f64>,
    /// On the price of each class.
    pub price: Vec<f64>,
    /// On all failure rates.
    pub failures: f64,
    /// On the growth of steps with the number of ranks.
    pub jitter: f64,
}

impl Factors {
    /// The problem as it is.
    #[must_use]
    pub fn none(classes: usize) -> Self {
        Self {
            speed: vec![1.0; classes],
            price: vec![1.0; classes],
            failures: 1.0,
            jitter: 1.0,
        }
    }
}
