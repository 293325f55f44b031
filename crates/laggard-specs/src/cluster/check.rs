//! What a cluster file must say beyond its shape, and where it does not: every error has the line
//! and column of the key.

use std::collections::BTreeSet;

use super::{Cluster, Pool, Price, SiteLink};
use crate::error::SpecsError;
use crate::tables::Tables;

/// Most devices of a pool that are taken for meant.
const MOST_DEVICES: u64 = 100_000_000;

/// Checks a cluster, and puts the table's ids in place of other names of accelerators.
pub(super) fn check(cluster: &mut Cluster, text: &str, tables: &Tables) -> Result<(), SpecsError> {
    let file = File { text };
    let mut sites = BTreeSet::new();
    for (at, site) in cluster.sites.iter().enumerate() {
        let entry = file.entry("site", at);
        if !sites.insert(site.id.as_str()) {
            return Err(entry.wrong("id", format!("'{}' is the id of two sites", site.id)));
        }
        entry.positive("power_limit_watts", site.power_limit_watts)?;
        entry.at_least_1("power_usage_effectiveness", site.power_usage_effectiveness)?;
        if let Some(price) = &site.lease_dollars_per_device_hour {
            check_price("lease_dollars_per_device_hour", price, &entry)?;
        }
    }
    let mut pools = BTreeSet::new();
    for (at, pool) in cluster.pools.iter_mut().enumerate() {
        let entry = file.entry("pool", at);
        if !pools.insert(pool.id.clone()) {
            return Err(entry.wrong("id", format!("'{}' is the id of two pools", pool.id)));
        }
        entry.known_site("site", &pool.site, &sites)?;
        check_pool(pool, &entry)?;
        match tables.accelerator(&pool.accelerator) {
            Ok(accelerator) => pool.accelerator.clone_from(&accelerator.id),
            Err(error) => return Err(entry.wrong("accelerator", error.to_string())),
        }
    }
    for (at, link) in cluster.links.iter().enumerate() {
        check_link(link, &file.entry("link", at), &sites)?;
    }
    if cluster.pools.is_empty() {
        return Err(file
            .entry("pool", 0)
            .wrong("pool", "there is no pool".to_owned()));
    }
    Ok(())
}

fn check_pool(pool: &Pool, entry: &Entry<'_>) -> Result<(), SpecsError> {
    let counts = [
        ("count", Some(pool.count)),
        ("devices_per_node", pool.devices_per_node),
        ("scale_up_domain_devices", pool.scale_up_domain_devices),
        ("pod_devices", pool.pod_devices),
    ];
    for (key, count) in counts {
        if count.is_some_and(|count| !(1..=MOST_DEVICES).contains(&count)) {
            return Err(entry.wrong(key, format!("must be from 1 to {MOST_DEVICES}")));
        }
    }
    let numbers = [
        (
            "network_bytes_per_s_per_device",
            pool.network_bytes_per_s_per_device,
        ),
        ("power_watts_per_device", pool.power_watts_per_device),
        ("failures_per_device_year", pool.failures_per_device_year),
    ];
    for (key, number) in numbers {
        entry.positive(key, number)?;
    }
    entry.at_least_1("oversubscription", pool.oversubscription)?;
    if let Some(price) = &pool.price_dollars_per_device_hour {
        check_price("price_dollars_per_device_hour", price, entry)?;
    }
    if let Some(day) = &pool.available_from {
        entry.day("available_from", day)?;
    }
    let first = pool.available_from.as_deref().unwrap_or_default();
    for (at, step) in pool.ramp.iter().enumerate() {
        entry.day("ramp", &step.from)?;
        let is_late = match at.checked_sub(1) {
            None => step.from.as_str() >= first,
            Some(before) => step.from > pool.ramp[before].from,
        };
        if !is_late || step.count > pool.count {
            let problem = format!(
                "step from {} must come after the one before it, and have at most {} devices",
                step.from, pool.count
            );
            return Err(entry.wrong("ramp", problem));
        }
    }
    Ok(())
}

fn check_price(key: &'static str, price: &Price, entry: &Entry<'_>) -> Result<(), SpecsError> {
    for number in [price.low, price.typical, price.high] {
        entry.positive(key, Some(number))?;
    }
    if !(price.low <= price.typical && price.typical <= price.high) {
        return Err(entry.wrong(key, "must go up from low over typical to high".to_owned()));
    }
    price
        .date
        .as_ref()
        .map_or(Ok(()), |day| entry.day(key, day))
}

fn check_link(
    link: &SiteLink,
    entry: &Entry<'_>,
    sites: &BTreeSet<&str>,
) -> Result<(), SpecsError> {
    entry.known_site("from", &link.from, sites)?;
    entry.known_site("to", &link.to, sites)?;
    if link.from == link.to {
        return Err(entry.wrong("to", "joins a site with itself".to_owned()));
    }
    entry.positive("bandwidth_bytes_per_s", Some(link.bandwidth_bytes_per_s))?;
    entry.positive("latency_s", Some(link.latency_s))
}

struct File<'a> {
    text: &'a str,
}

impl<'a> File<'a> {
    /// The n-th table `[[kind]]`.
    fn entry(&self, kind: &'a str, number: usize) -> Entry<'a> {
        let header = format!("[[{kind}]]");
        let lines = self.text.lines().enumerate();
        let mut headers = lines.filter(|(_, line)| {
            let bare: String = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split(' ')
                .collect();
            bare.trim() == header
        });
        Entry {
            text: self.text,
            kind,
            first_line: headers.nth(number).map_or(0, |(line, _)| line),
        }
    }
}

/// One table of the file, for the places of its keys.
struct Entry<'a> {
    text: &'a str,
    kind: &'a str,
    first_line: usize,
}

impl Entry<'_> {
    fn wrong(&self, key: &'static str, problem: String) -> SpecsError {
        let (line, column) = self.place(key);
        SpecsError::Cluster {
            line,
            column,
            key,
            problem,
        }
    }

    /// Line and column of a key, from 1; those of the table if it has no such key.
    fn place(&self, key: &str) -> (usize, usize) {
        let inside = self.text.lines().enumerate().skip(self.first_line + 1);
        let within = format!("[[{}.", self.kind);
        let inside = inside.take_while(|(_, line)| {
            let bare = line.trim_start();
            !bare.starts_with("[[") || bare.starts_with(&within)
        });
        for (at, line) in inside {
            let rest = line.trim_start();
            let after = rest.strip_prefix(key).map(str::trim_start);
            let is_inner = rest
                .trim_start_matches('[')
                .starts_with(&format!("{}.{key}", self.kind));
            if after.is_some_and(|after| after.starts_with(['=', '.'])) || is_inner {
                return (at + 1, line.len() - rest.len() + 1);
            }
        }
        (self.first_line + 1, 1)
    }

    fn positive(&self, key: &'static str, number: Option<f64>) -> Result<(), SpecsError> {
        match number {
            Some(number) if !(number > 0.0 && number.is_finite()) => {
                let problem = format!("is {number}; leave an unknown number out");
                Err(self.wrong(key, problem))
            }
            _ => Ok(()),
        }
    }

    fn at_least_1(&self, key: &'static str, number: Option<f64>) -> Result<(), SpecsError> {
        match number {
            Some(number) if !(number >= 1.0 && number.is_finite()) => {
                Err(self.wrong(key, format!("is {number}, but cannot be below 1")))
            }
            _ => Ok(()),
        }
    }

    fn known_site(
        &self,
        key: &'static str,
        site: &str,
        sites: &BTreeSet<&str>,
    ) -> Result<(), SpecsError> {
        if sites.contains(site) {
            return Ok(());
        }
        let known: Vec<&str> = sites.iter().copied().collect();
        let hint = format!("hint: the sites are {}", known.join(", "));
        Err(self.wrong(key, format!("there is no site '{site}'\n{hint}")))
    }

    fn day(&self, key: &'static str, day: &str) -> Result<(), SpecsError> {
        let parts: Vec<&str> = day.split('-').collect();
        let number = |at: usize, digits: usize| {
            let part = parts.get(at).filter(|part| part.len() == digits)?;
            part.parse::<u32>().ok()
        };
        let month = number(1, 2).is_some_and(|month| (1..=12).contains(&month));
        let date = match parts.len() {
            2 => true,
            3 => number(2, 2).is_some_and(|day| (1..=31).contains(&day)),
            _ => false,
        };
        if number(0, 4).is_some() && month && date {
            return Ok(());
        }
        let hint = "hint: write YYYY-MM-DD or YYYY-MM";
        Err(self.wrong(key, format!("'{day}' is no day\n{hint}")))
    }
}
