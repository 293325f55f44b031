//! What an allocation earns, costs and draws.

use laggard_specs::{Cluster, Pool};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{MoneyError, Prices, Span};
use crate::number::{
    above_zero, at_least_zero, read_above_zero, read_at_least_zero, read_maybe, read_share,
};

const HOURS_PER_YEAR: f64 = 8766.0;
const WATTS_PER_KILOWATT: f64 = 1000.0;
/// What sums may lack.
const NO_PRICE: &str = "the price of electricity";
const NO_POWER: &str = "its power";
const NO_COOLING: &str = "the power for cooling at its site";
const NO_STAFF: &str = "staff";

/// What devices do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// They train.
    Train,
    /// They serve the owner's own customers.
    Serve,
    /// They are leased to others.
    Lease,
    /// They are kept for experiments and peaks, switched on.
    Reserve,
    /// They are switched off.
    Off,
}

/// Devices of a pool that do one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Id of the pool in the cluster file.
    pub pool: String,
    /// What they do.
    pub activity: Activity,
    /// How many.
    pub devices: u64,
    /// What each earns in an hour. A lease without it is taken at the pool's rent; what serves
    /// without it is left out of the sums.
    pub income_dollars_per_device_hour: Option<Span>,
}

/// What the owner or tenant pays. What is absent is not counted, and listed as left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// A kilowatt-hour at the site's meter.
    #[serde(default, deserialize_with = "read_maybe")]
    pub electricity_dollars_per_kwh: Option<f64>,
    /// What an owner paid, by the id of the pool or the accelerator.
    #[serde(default)]
    pub bought: BTreeMap<String, Purchase>,
    /// Staff, and what else is paid for all devices together, in a year.
    #[serde(default, deserialize_with = "read_maybe")]
    pub staff_dollars_per_year: Option<f64>,
    /// Share of the hours in which devices are of use, above 0 and at most 1; 1 where it is absent.
    #[serde(default, deserialize_with = "read_share")]
    pub utilization: Option<f64>,
    /// Whether the devices are rented: then the pool's rent is paid for all of them.
    #[serde(default)]
    pub is_tenant: bool,
}

/// What a device cost its owner, and what keeping it costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purchase {
    /// What a device with its share of the host cost.
    #[serde(deserialize_with = "read_at_least_zero")]
    pub dollars_per_device: f64,
    /// What its share of network and building cost.
    #[serde(default, deserialize_with = "read_at_least_zero")]
    pub network_dollars_per_device: f64,
    /// Years until all of that is worth nothing, in equal parts.
    #[serde(deserialize_with = "read_above_zero")]
    pub years: f64,
    /// What maintenance costs in a year, as a share of all of that.
    #[serde(default, deserialize_with = "read_at_least_zero")]
    pub maintenance_share_per_year: f64,
}

impl Purchase {
    /// Depreciation and maintenance of a device, dollars per hour, in use or not.
    #[must_use]
    pub fn dollars_per_hour(&self) -> f64 {
        let paid = self.dollars_per_device + self.network_dollars_per_device;
        paid * (1.0 / self.years + self.maintenance_share_per_year) / HOURS_PER_YEAR
    }
}

impl Costs {
    /// The costs of an owner, from TOML text.
    ///
    /// # Errors
    /// Text that is no such file, or a number that cannot be: with line and column.
    pub fn from_toml_str(text: &str) -> Result<Self, MoneyError> {
        toml::from_str(text).map_err(|source| MoneyError::Costs {
            source: Box::new(source),
        })
    }

    /// What an hour of a device costs its owner in which it is of use, dollars: depreciation,
    /// maintenance, its share of the staff, and its power, as far as they are known. `None` where
    /// it is not said what the device cost.
    #[must_use]
    pub fn dollars_per_used_hour(
        &self,
        cluster: &Cluster,
        pool: &Pool,
        watts: Option<f64>,
    ) -> Option<f64> {
        let power = self.electricity_dollars_per_kwh.zip(watts);
        let power = power.map_or(0.0, |(price, watts)| price * watts / WATTS_PER_KILOWATT);
        let kept = self.of(pool)?.dollars_per_hour() + self.staff_of_device(cluster);
        Some((kept + power) / self.utilization.unwrap_or(1.0))
    }

    /// What an hour of use lacks, of a device whose power without and with cooling is as said: it
    /// costs more than that without it.
    #[must_use]
    pub fn lacks(&self, watts: Option<f64>, watts_at_meter: Option<f64>) -> Vec<&'static str> {
        let parts = [
            (self.electricity_dollars_per_kwh.is_none(), NO_PRICE),
            (watts.is_none(), NO_POWER),
            (watts.is_some() && watts_at_meter.is_none(), NO_COOLING),
            (self.staff_dollars_per_year.is_none(), NO_STAFF),
        ];
        let missing = parts.into_iter().filter(|(is_missing, _)| *is_missing);
        missing.map(|(_, what)| what).collect()
    }

    /// A device's share of what staff costs in an hour.
    fn staff_of_device(&self, cluster: &Cluster) -> f64 {
        let staff = self.staff_dollars_per_year.unwrap_or(0.0) / HOURS_PER_YEAR;
        staff / cluster.devices() as f64
    }

    /// What was paid for the devices of a pool.
    #[must_use]
    pub fn of(&self, pool: &Pool) -> Option<&Purchase> {
        let of_pool = self.bought.get(&pool.id);
        of_pool.or_else(|| self.bought.get(&pool.accelerator))
    }
}

/// Money and power of an allocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bill {
    /// What comes in per hour, as far as it is known.
    pub income_dollars_per_hour: Span,
    /// What goes out per hour, as far as it is known.
    pub cost_dollars_per_hour: Span,
    /// What all devices would bring per hour if they were let at their rents; absent where a rent
    /// is unknown.
    pub rent_dollars_per_hour: Option<Span>,
    /// Each pool.
    pub pools: Vec<PoolMoney>,
    /// Each site.
    pub sites: Vec<SitePower>,
    /// What the sums lack.
    pub left_out: Vec<LeftOut>,
}

/// Money and power of one pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolMoney {
    /// Id of the pool.
    pub pool: String,
    /// What comes in per hour.
    pub income_dollars_per_hour: Span,
    /// What goes out per hour, as far as it is known.
    pub cost_dollars_per_hour: Span,
    /// Power of its devices that are on, with hosts, without cooling; absent where unknown.
    pub watts: Option<f64>,
}

/// Power of one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SitePower {
    /// Id of the site.
    pub site: String,
    /// Power of computers that are on and whose power is known, without cooling.
    pub computers_watts: f64,
    /// The same at the meter; absent where the site's power usage is unknown.
    pub meter_watts: Option<f64>,
    /// The least and the most that it can be at the meter: as usual where the site's power usage is
    /// unknown.
    pub meter_range_watts: Option<(f64, f64)>,
    /// What the site can draw.
    pub limit_watts: Option<f64>,
}

/// Something that a sum lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Of which pool, or of all where absent.
    pub pool: Option<String>,
    /// What is unknown.
    pub what: String,
}

impl Bill {
    /// What is left per hour, as far as it is known.
    #[must_use]
    pub fn net_dollars_per_hour(&self) -> Span {
        self.income_dollars_per_hour
            .minus(self.cost_dollars_per_hour)
    }
}

/// The bill of an allocation of a cluster. Devices that no line names are off.
///
/// # Errors
/// A pool that the cluster does not have, more devices than a pool has, impossible numbers.
pub fn bill(
    cluster: &Cluster,
    lines: &[Line],
    prices: &Prices,
    costs: &Costs,
) -> Result<Bill, MoneyError> {
    check(cluster, lines, costs)?;
    let mut bill = Bill {
        income_dollars_per_hour: Span::exactly(0.0),
        cost_dollars_per_hour: Span::exactly(0.0),
        rent_dollars_per_hour: Some(Span::exactly(0.0)),
        pools: Vec::new(),
        sites: Vec::new(),
        left_out: missing_costs(costs),
    };
    for site in &cluster.sites {
        bill.sites.push(SitePower {
            site: site.id.clone(),
            computers_watts: 0.0,
            meter_watts: site.power_usage_effectiveness.map(|_| 0.0),
            meter_range_watts: None,
            limit_watts: site.power_limit_watts,
        });
    }
    for pool in &cluster.pools {
        let of_pool = lines.iter().filter(|line| line.pool == pool.id);
        let terms = Terms {
            cluster,
            pool,
            rent: prices.rent(pool).map(|price| Span::from(&price)),
            watts_per_device: prices.draw(pool).map(|draw| draw.watts_per_device),
            costs,
        };
        bill.add_pool(&terms, &of_pool.collect::<Vec<_>>());
    }
    let usual = prices.usual_overhead();
    for (power, site) in bill.sites.iter_mut().zip(&cluster.sites) {
        let own = site.power_usage_effectiveness.map(|it| (it, it));
        let times = |(low, high)| (low * power.computers_watts, high * power.computers_watts);
        power.meter_range_watts = own.or(usual).map(times);
    }
    Ok(bill)
}

/// A pool with its prices.
struct Terms<'a> {
    cluster: &'a Cluster,
    pool: &'a Pool,
    rent: Option<Span>,
    watts_per_device: Option<f64>,
    costs: &'a Costs,
}

impl Bill {
    fn add_pool(&mut self, terms: &Terms<'_>, lines: &[&Line]) {
        let (pool, costs) = (terms.pool, terms.costs);
        let all = pool.count as f64;
        self.rent_dollars_per_hour = match (self.rent_dollars_per_hour, terms.rent) {
            (Some(sum), Some(rent)) => Some(sum.plus(rent.times(all))),
            _ => None,
        };
        let income = self.income(lines, terms.rent);
        let is_on = |line: &&&Line| line.activity != Activity::Off;
        let on: u64 = lines.iter().filter(is_on).map(|line| line.devices).sum();
        let watts = match on {
            0 => Some(0.0),
            _ => terms.watts_per_device.map(|watts| watts * on as f64),
        };
        let paid = self.add_power(terms, watts);
        let staff = costs.staff_of_device(terms.cluster);
        let kept = costs.of(pool).map_or(0.0, Purchase::dollars_per_hour) + staff;
        let mut cost = Span::exactly(kept * all);
        if costs.of(pool).is_none() && !costs.is_tenant {
            self.leave_out(pool, "what its devices cost");
        }
        if costs.is_tenant {
            match terms.rent {
                Some(rent) => cost = cost.plus(rent.times(all)),
                None => self.leave_out(pool, "its rent"),
            }
        }
        if let (Some(watts), Some(price)) = (paid, costs.electricity_dollars_per_kwh) {
            cost = cost.plus(Span::exactly(watts / WATTS_PER_KILOWATT * price));
        }
        self.income_dollars_per_hour = self.income_dollars_per_hour.plus(income);
        self.cost_dollars_per_hour = self.cost_dollars_per_hour.plus(cost);
        self.pools.push(PoolMoney {
            pool: pool.id.clone(),
            income_dollars_per_hour: income,
            cost_dollars_per_hour: cost,
            watts,
        });
    }

    fn income(&mut self, lines: &[&Line], rent: Option<Span>) -> Span {
        let mut income = Span::exactly(0.0);
        for line in lines.iter().filter(|line| line.devices > 0) {
            let of_device = match (line.activity, line.income_dollars_per_device_hour) {
                (_, Some(of_device)) => Some(of_device),
                (Activity::Lease, None) => rent,
                _ => None,
            };
            match (line.activity, of_device) {
                (_, Some(of_device)) => {
                    income = income.plus(of_device.times(line.devices as f64));
                }
                (Activity::Lease | Activity::Serve, None) => self.left_out.push(LeftOut {
                    pool: Some(line.pool.clone()),
                    what: "what its devices earn".to_owned(),
                }),
                _ => {}
            }
        }
        income
    }

    /// Adds a pool's power to its site, and gives what is paid for: that at the meter, without
    /// cooling where that is not known.
    fn add_power(&mut self, terms: &Terms<'_>, watts: Option<f64>) -> Option<f64> {
        let Some(watts) = watts else {
            self.leave_out(terms.pool, NO_POWER);
            return None;
        };
        let mut sites = terms.cluster.sites.iter();
        let at = sites.position(|site| site.id == terms.pool.site)?;
        let site = &mut self.sites[at];
        site.computers_watts += watts;
        let usage = terms.cluster.sites[at].power_usage_effectiveness;
        let meter = usage.map(|usage| usage * watts);
        if let (Some(sum), Some(meter)) = (&mut site.meter_watts, meter) {
            *sum += meter;
        }
        if meter.is_none() && watts > 0.0 {
            self.leave_out(terms.pool, NO_COOLING);
        }
        meter.or(Some(watts))
    }

    fn leave_out(&mut self, pool: &Pool, what: &str) {
        self.left_out.push(LeftOut {
            pool: Some(pool.id.clone()),
            what: what.to_owned(),
        });
    }
}

fn missing_costs(costs: &Costs) -> Vec<LeftOut> {
    let is_owner = !costs.is_tenant;
    let parts = [
        (
            costs.electricity_dollars_per_kwh.is_none() && is_owner,
            NO_PRICE,
        ),
        (costs.staff_dollars_per_year.is_none() && is_owner, NO_STAFF),
    ];
    let missing = parts.into_iter().filter(|(is_missing, _)| *is_missing);
    missing
        .map(|(_, what)| LeftOut {
            pool: None,
            what: what.to_owned(),
        })
        .collect()
}

fn check(cluster: &Cluster, lines: &[Line], costs: &Costs) -> Result<(), MoneyError> {
    for line in lines {
        if !cluster.pools.iter().any(|pool| pool.id == line.pool) {
            let pool = line.pool.clone();
            return Err(MoneyError::NoPool { pool });
        }
        if let Some(income) = line.income_dollars_per_device_hour {
            at_least_zero("the income of a device", income.low)?;
            at_least_zero("the income of a device", income.typical)?;
            at_least_zero("the income of a device", income.high)?;
        }
    }
    for pool in &cluster.pools {
        let of_pool = lines.iter().filter(|line| line.pool == pool.id);
        let used = of_pool
            .map(|line| line.devices)
            .fold(0, u64::saturating_add);
        if used > pool.count {
            return Err(MoneyError::TooMany {
                pool: pool.id.clone(),
                devices: pool.count,
                used,
            });
        }
    }
    if let Some(price) = costs.electricity_dollars_per_kwh {
        at_least_zero("the price of electricity", price)?;
    }
    if let Some(staff) = costs.staff_dollars_per_year {
        at_least_zero("what staff costs in a year", staff)?;
    }
    for (name, paid) in &costs.bought {
        let is_there = |pool: &Pool| pool.id == *name || pool.accelerator == *name;
        if !cluster.pools.iter().any(is_there) {
            let pool = name.clone();
            return Err(MoneyError::NoPool { pool });
        }
        at_least_zero("the price of a device", paid.dollars_per_device)?;
        at_least_zero("the price of its network", paid.network_dollars_per_device)?;
        above_zero("the years of depreciation", paid.years)?;
        at_least_zero("the share for maintenance", paid.maintenance_share_per_year)?;
    }
    Ok(())
}
