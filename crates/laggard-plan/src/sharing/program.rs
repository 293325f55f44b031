//! The integer program of a sharing.

use super::rates::{Drawn, Rates};
use super::{Hosts, Wanted};
use crate::hosts::{Unit, power_left};
use crate::pools::{Effort, PoolProblem, PoolsError, Use, allocate};
use crate::problem::{Class, Problem};

/// Watts of a kilowatt.
const KILOWATT: f64 = 1e3;

/// A share of what the fewest devices of a class alone train that a solver can tell from nothing,
/// and that classes together train more than.
const SEEN: f64 = 1e-3;

/// What is to be large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Model FLOP per second of all jobs, by weight.
    Trained,
    /// What devices that no job has earn, less what power costs.
    Earned,
}

/// Jobs with what they train where.
pub(super) struct Ask<'s, 'p, 'a> {
    pub(super) wanted: &'s [Wanted<'p, 'a>],
    pub(super) rates: &'s [Rates],
    pub(super) goal: Goal,
}

/// Devices that no job has.
pub(super) struct Rest {
    /// Devices of each class that are leased or serve.
    pub(super) devices: Vec<u64>,
    /// Classes whose devices serve rather than being leased.
    pub(super) serves: Vec<bool>,
    /// What they earn, less what their power costs.
    pub(super) dollars_per_hour: f64,
}

impl Ask<'_, '_, '_> {
    fn problem(&self) -> &Problem<'_> {
        self.wanted[0].problem
    }

    /// The program: a use for each job, of the classes that `way` says, and one for what is leased
    /// or serves, where that counts.
    pub(super) fn program(
        &self,
        way: &[Vec<usize>],
        more: &[f64],
        drawn: &[Drawn],
    ) -> Result<PoolProblem, PoolsError> {
        let problem = self.problem();
        let units = Unit::hosts(problem);
        let mut uses = Vec::new();
        for (at, classes) in way.iter().enumerate() {
            uses.push(self.job(at, classes, (more[at], drawn[at]))?);
        }
        if self.goal == Goal::Earned {
            uses.push(self.earning(&units));
        }
        Ok(PoolProblem {
            classes: units.iter().map(|unit| unit.stock(problem)).collect(),
            sites: power_left(problem),
            uses,
        })
    }

    fn job(
        &self,
        at: usize,
        classes: &[usize],
        (more, drawn): (f64, Drawn),
    ) -> Result<Use, PoolsError> {
        let (wanted, rates) = (&self.wanted[at], &self.rates[at]);
        let units = Unit::hosts(wanted.problem);
        let member = |&class: &usize| {
            let unit = &units[class];
            let of_device = rates.of_host(class) / unit.devices as f64;
            unit.member(of_device, self.power_cost(&wanted.problem.classes[class]))
        };
        let hosts = |class: &usize| wanted.fewest_devices.div_ceil(units[*class].devices);
        let fewest = |class: &usize| rates.fewest(*class).max(hosts(class));
        Ok(Use {
            curve: rates.curve(classes, drawn)?,
            least: classes.iter().map(fewest).min().unwrap_or(1),
            // So little may be needed that nothing seems to be enough, while there is no job
            // without some devices. Those of a class alone train as much as the fewest do.
            least_rate: wanted.needed().map_or(0.0, |needed| {
                let least = match drawn {
                    Drawn::Through => 1.0,
                    Drawn::Above | Drawn::Together => SEEN,
                };
                needed.max(rates.least(classes) * least) * more
            }),
            ..Use::each(
                wanted.name,
                classes.iter().map(member).collect(),
                self.worth(wanted),
            )
        })
    }

    /// What a token per second is worth.
    fn worth(&self, wanted: &Wanted<'_, '_>) -> f64 {
        match self.goal {
            Goal::Trained => wanted.weight * wanted.problem.flop_per_token(),
            Goal::Earned => 0.0,
        }
    }

    /// What the power of a device costs per hour, where dollars count.
    fn power_cost(&self, class: &Class) -> f64 {
        let problem = self.problem();
        let price = problem
            .dollars_per_kwh
            .filter(|_| self.goal == Goal::Earned);
        let watts = problem.watts_at_meter(class);
        price
            .zip(watts)
            .map_or(0.0, |(price, watts)| price * watts / KILOWATT)
    }

    /// Devices that are leased or serve, whichever earns more; where nothing has a price, the peak
    /// that is left counts.
    fn earning(&self, units: &[Unit]) -> Use {
        let problem = self.problem();
        let has_price = problem.classes.iter().any(|class| earned(class).is_some());
        let of = |unit: &Unit| {
            let class = &problem.classes[unit.class];
            let worth = match has_price {
                true => earned(class).map_or(0.0, |(dollars, _)| dollars),
                false => class.of.machine.half_peak,
            };
            unit.member(worth, self.power_cost(class))
        };
        Use::each("what is leased", units.iter().map(of).collect(), 1.0)
    }

    /// The hosts of each class that an allocation gives to each job.
    pub(super) fn hosts(&self, pools: &PoolProblem, domains: &[Vec<u64>]) -> Hosts {
        let classes = self.problem().classes.len();
        let jobs = pools.uses.iter().zip(domains).take(self.wanted.len());
        let of = |(of_use, domains): (&Use, &Vec<u64>)| {
            let mut hosts = vec![0; classes];
            for (member, count) in of_use.members.iter().zip(domains) {
                hosts[member.class] = *count;
            }
            hosts
        };
        jobs.map(of).collect()
    }

    /// What the hosts that no job has earn at most.
    pub(super) fn rest(&self, hosts: &Hosts) -> Result<Rest, PoolsError> {
        let problem = self.problem();
        let units = Unit::hosts(problem);
        let mut sites = power_left(problem);
        let mut classes = Vec::new();
        for unit in &units {
            let taken: u64 = hosts.iter().map(|job| job[unit.class]).sum();
            let mut stock = unit.stock(problem);
            stock.domains -= taken;
            if let Some(watts) = &mut sites[stock.site].watts {
                *watts = (*watts - taken as f64 * unit.watts).max(0.0);
            }
            classes.push(stock);
        }
        let member = |unit: &Unit| {
            let class = &problem.classes[unit.class];
            let dollars = earned(class)?.0;
            Some(unit.member(dollars, self.power_cost(class)))
        };
        let members: Vec<_> = units.iter().filter_map(member).collect();
        let pools = PoolProblem {
            classes,
            sites,
            uses: vec![Use::each("what is leased", members, 1.0)],
        };
        let found = allocate(&pools, Effort::default())?;
        let mut devices = vec![0; units.len()];
        for (member, count) in pools.uses[0].members.iter().zip(&found.domains[0]) {
            devices[member.class] = units[member.class].devices * count;
        }
        let serves = |class: &Class| earned(class).is_some_and(|(_, serves)| serves);
        Ok(Rest {
            devices,
            serves: problem.classes.iter().map(serves).collect(),
            dollars_per_hour: found.worth.value,
        })
    }

    /// What the power of jobs costs per hour, where dollars count.
    pub(super) fn power_dollars(&self, hosts: &Hosts) -> f64 {
        let problem = self.problem();
        let of_job = |job: &Vec<u64>| -> f64 {
            let classes = problem.classes.iter().zip(job);
            let of = |(class, hosts): (&Class, &u64)| {
                (hosts * class.node_devices) as f64 * self.power_cost(class)
            };
            classes.map(of).sum()
        };
        hosts.iter().map(of_job).sum()
    }
}

/// What a device earns per hour that no job has, and whether by serving.
fn earned(class: &Class) -> Option<(f64, bool)> {
    let lease = class.dollars_per_hour.map(|it| (it, false));
    let serve = class.serving_dollars_per_hour.map(|it| (it, true));
    match (lease, serve) {
        (Some(lease), Some(serve)) if serve.0 > lease.0 => Some(serve),
        (lease, serve) => lease.or(serve),
    }
}
