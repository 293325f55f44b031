//! Pools that are nearly alike, taken as one where a site has more of them than ways to use them
//! can be told apart.
//!
//! Only pools of one accelerator and one shape of host and fabric are put together. What is put
//! together has the network of its slowest member and the power of its hungriest, so that no step
//! is promised that a member cannot keep up with, and no limit is broken; rents and failures are
//! the mean. Groups depend on what pools are, not on how many devices they have: they stay the same
//! where devices are lost.

use laggard_specs::{Cluster, Pool, Price};
use serde::Serialize;
use std::collections::BTreeMap;

/// Pools of a site that are planned with apart, where they are no more kinds than that.
pub const MOST_APART: usize = 8;

/// Which pools of a cluster are planned with as one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alike {
    /// Pools by position, each in one group.
    #[serde(skip)]
    groups: Vec<Vec<usize>>,
    /// Names of the groups of several pools, and of their members.
    pub members: BTreeMap<String, Vec<String>>,
    /// How far members of a group are apart.
    pub spread: Spread,
}

/// How far members of a group are apart at most: the largest number over the smallest, less 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Spread {
    /// Their network cards and what is left of them above the pods: no job would be faster by a
    /// larger share if its members were planned with apart.
    pub network: f64,
    /// Their power.
    pub power: f64,
    /// Their rent.
    pub rent: f64,
    /// Their failure rates.
    pub failures: f64,
}

/// What pools of a group may differ in.
const NUMBERS: [fn(&Pool) -> Option<f64>; 5] = [
    |pool| pool.network_bytes_per_s_per_device,
    |pool| pool.oversubscription,
    |pool| pool.power_watts_per_device,
    |pool| {
        pool.price_dollars_per_device_hour
            .as_ref()
            .map(|it| it.typical)
    },
    |pool| pool.failures_per_device_year,
];

impl Spread {
    fn of(pools: &[&Pool]) -> Self {
        let [network, above, power, rent, failures] = NUMBERS.map(|number| ratio(pools, number));
        Self {
            network: network * above - 1.0,
            power: power - 1.0,
            rent: rent - 1.0,
            failures: failures - 1.0,
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            network: self.network.max(other.network),
            power: self.power.max(other.power),
            rent: self.rent.max(other.rent),
            failures: self.failures.max(other.failures),
        }
    }
}

/// The largest of a number over the smallest; 1 where pools have none.
fn ratio(pools: &[&Pool], number: fn(&Pool) -> Option<f64>) -> f64 {
    let known = || pools.iter().filter_map(|pool| number(pool));
    let most = known().fold(f64::MIN, f64::max);
    let least = known().fold(f64::MAX, f64::min);
    if most > least { most / least } else { 1.0 }
}

impl Alike {
    /// Groups the pools of a cluster; those of `apart` stay alone, since something is said of them
    /// by name. At most [`MOST_APART`] groups are made of the pools of a site, unless it has more
    /// accelerators or shapes of hosts.
    #[must_use]
    pub fn of(cluster: &Cluster, apart: &dyn Fn(&Pool) -> bool) -> Self {
        let mut groups = Vec::new();
        for site in &cluster.sites {
            let here = |at: &usize| cluster.pools[*at].site == site.id;
            let here: Vec<usize> = (0..cluster.pools.len()).filter(here).collect();
            groups.extend(of_site(&cluster.pools, here, apart));
        }
        groups.sort();
        let mut members = BTreeMap::new();
        let mut spread = Spread::default();
        for group in groups.iter().filter(|group| group.len() > 1) {
            let pools = pools_of(&cluster.pools, group);
            spread = spread.with(Spread::of(&pools));
            let names = pools.iter().map(|pool| pool.id.clone());
            members.insert(name(&pools), names.collect());
        }
        Self {
            groups,
            members,
            spread,
        }
    }

    /// The cluster, or one of the same pools with other counts, with one pool for each group.
    #[must_use]
    pub fn together(&self, cluster: &Cluster) -> Cluster {
        let of = |group: &Vec<usize>| one(&pools_of(&cluster.pools, group));
        Cluster {
            pools: self.groups.iter().map(of).collect(),
            ..cluster.clone()
        }
    }

    /// What is to be kept in mind of that, in a sentence.
    #[must_use]
    pub fn caveat(&self) -> Option<String> {
        let pools: usize = self.members.values().map(Vec::len).sum();
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        (pools > 0).then(|| {
            format!(
                "{pools} pools that are nearly alike are planned with as {}, each with the network \
                 of its slowest member and the power of its hungriest: apart, no job would be \
                 faster by more than {}; rents differ by up to {}, power by {}, failures by {}",
                self.members.len(),
                percent(self.spread.network),
                percent(self.spread.rent),
                percent(self.spread.power),
                percent(self.spread.failures)
            )
        })
    }
}

fn pools_of<'p>(pools: &'p [Pool], group: &[usize]) -> Vec<&'p Pool> {
    group.iter().map(|&at| &pools[at]).collect()
}

/// The groups of a site: first those of equal pools, or where these are too many, all of one shape,
/// the widest of which are then split.
fn of_site(pools: &[Pool], here: Vec<usize>, apart: &dyn Fn(&Pool) -> bool) -> Vec<Vec<usize>> {
    if here.len() <= MOST_APART {
        return here.into_iter().map(|at| vec![at]).collect();
    }
    let mut shapes: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for at in here {
        let pool = &pools[at];
        let shape = (
            &pool.accelerator,
            (pool.devices_per_node, pool.scale_up_domain_devices),
            pool.pod_devices,
            NUMBERS.map(|number| number(pool).is_some()),
            apart(pool).then_some(at),
        );
        shapes.entry(shape).or_default().push(at);
    }
    let mut groups: Vec<Vec<usize>> = shapes.into_values().collect();
    while groups.len() < MOST_APART {
        let widths = groups.iter().map(|group| widest(&pools_of(pools, group)));
        let widest = widths
            .enumerate()
            .reduce(|best, next| match next.1.0 > best.1.0 {
                true => next,
                false => best,
            });
        let Some((at, (width, number))) = widest.filter(|(_, (width, _))| *width > 1.0) else {
            break;
        };
        let group = std::mem::take(&mut groups[at]);
        let number = |at: usize| NUMBERS[number](&pools[at]).unwrap_or(0.0);
        let least = group.iter().map(|&at| number(at)).fold(f64::MAX, f64::min);
        let middle = least * width.sqrt();
        let (low, high) = group.into_iter().partition(|&at| number(at) <= middle);
        groups[at] = low;
        groups.push(high);
    }
    groups
}

/// How far pools are apart in what they differ in most, and what that is.
fn widest(pools: &[&Pool]) -> (f64, usize) {
    let widths = NUMBERS
        .iter()
        .enumerate()
        .map(|(at, number)| (ratio(pools, *number), at));
    widths.fold(
        (1.0, 0),
        |best, next| if next.0 > best.0 { next } else { best },
    )
}

fn name(pools: &[&Pool]) -> String {
    match pools {
        [one] => one.id.clone(),
        [first, others @ ..] => format!("{}+{}", first.id, others.len()),
        [] => String::new(),
    }
}

/// One pool that stands for several.
fn one(pools: &[&Pool]) -> Pool {
    let [first, others @ ..] = pools else {
        unreachable!("groups have members");
    };
    if others.is_empty() {
        return (*first).clone();
    }
    let count: u64 = pools.iter().map(|pool| pool.count).sum();
    let all = |number: fn(&Pool) -> Option<f64>| pools.iter().filter_map(move |it| number(it));
    let [network, above, power, rent, failures] = NUMBERS;
    let mean = |number: fn(&Pool) -> Option<f64>| {
        // Where every member lost all it had, each counts the same.
        let weight = |pool: &Pool| if count > 0 { pool.count as f64 } else { 1.0 };
        let terms = pools
            .iter()
            .filter_map(|pool| Some((weight(pool), number(pool)?)));
        let (sum, weights) = terms.fold((0.0, 0.0), |all, it| (all.0 + it.0 * it.1, all.1 + it.0));
        (weights > 0.0).then(|| sum / weights)
    };
    let price = |typical: f64| Price {
        low: typical,
        typical,
        high: typical,
        date: None,
        source: None,
    };
    Pool {
        id: name(pools),
        count,
        network_bytes_per_s_per_device: all(network).reduce(f64::min),
        oversubscription: all(above).reduce(f64::max),
        power_watts_per_device: all(power).reduce(f64::max),
        price_dollars_per_device_hour: mean(rent).map(price),
        failures_per_device_year: mean(failures),
        ramp: Vec::new(),
        note: None,
        ..(*first).clone()
    }
}

#[cfg(test)]
mod tests;
