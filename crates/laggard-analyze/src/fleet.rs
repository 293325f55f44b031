//! One table of all devices from many records that were taken over weeks, none of them on all
//! devices: how fast each is beside its class, with an interval, who stands out, and who changed.
//!
//! The logarithm of a device's time is taken as the sum of what its work takes on its class, of
//! what the run has in common, of what is lasting of the device, of what is the device's in this
//! run alone, and of what the steps of the run vary by; see [`laggard_stats::CrossedEffects`] for
//! the estimators and their sources. Runs of the same work are compared with each other as far as
//! runs are found to agree, other runs through the devices that they share. A device of few steps
//! is so pulled to its class, and one never seen is a draw from it.
//!
//! Devices stand out, or change between two dates, by t tests in sequence, each of what is most
//! unlikely beside all others (Rosner, "Percentage points for a generalized ESD many-outlier
//! procedure", Technometrics 25(2), 1983), corrected for the number of devices, dates and classes.

mod chance;
mod hosts;
mod population;
mod reading;

use crate::{AnalyzeError, Estimate};
use chance::sifted;
use laggard_types::{Caveat, CaveatCode};
use population::{Population, Segment};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Version of the form of a table of devices.
pub const FLEET_VERSION: u32 = 1;
/// Fewest devices of a class of which one can stand out.
pub(crate) const FEWEST_TO_COMPARE: usize = 4;
/// 97.5th percentile of the normal distribution: the ends of a 95 % interval.
const NORMAL_P97_5: f64 = 1.959_963_984_540_1;

/// What one record says about its devices.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetRun {
    /// What tables call it.
    pub name: String,
    /// When it began, nanoseconds of Unix time.
    pub created_unix_ns: i64,
    /// Its devices.
    pub devices: Vec<DeviceRun>,
    /// Doubts about the record.
    pub caveats: Vec<Caveat>,
}

/// One device in one run.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceRun {
    /// Its host.
    pub host: String,
    /// Its name on the host.
    pub device: String,
    /// Its class.
    pub class: String,
    /// What it did: devices with the same label did the same.
    pub work: String,
    /// Steps that it was measured in.
    pub steps: u32,
    /// Logarithm of the seconds that a step of this work typically takes it.
    pub log_seconds: f64,
    /// Variance of that, from the steps.
    pub variance: f64,
}

/// How to make the table.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetOptions {
    /// Smallest difference that is named (0.02 = 2 %).
    pub smallest: f64,
    /// Share of clean fleets of which anything is named.
    pub false_alarms: f64,
    /// What there is of classes in all, as far as that is known.
    pub stock: Vec<FleetStock>,
    /// The names of all hosts, if they are known.
    pub hosts: Option<BTreeSet<String>>,
}

impl Default for FleetOptions {
    /// 2 % is what two runs of one job may differ by without anything having changed.
    fn default() -> Self {
        Self {
            smallest: 0.02,
            false_alarms: 0.05,
            stock: Vec::new(),
            hosts: None,
        }
    }
}

/// What there is of a class, seen or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetStock {
    /// The class.
    pub class: String,
    /// Devices.
    pub devices: u64,
    /// Hosts, if that is known.
    pub hosts: Option<u64>,
}

/// The table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// Version of the form.
    pub schema_version: u32,
    /// The runs, in order of time.
    pub runs: Vec<FleetRunLine>,
    /// The classes, by name.
    pub classes: Vec<FleetClass>,
    /// The hosts that were seen, by class and name.
    pub hosts: Vec<FleetHost>,
    /// Hosts that there are by name, if that is known.
    pub all_hosts: Option<u64>,
    /// Those of them that were in no run, by name.
    pub unseen_hosts: Vec<String>,
    /// The devices that were seen, by class, host and name.
    pub devices: Vec<FleetDevice>,
    /// Smallest difference that is named.
    pub smallest: f64,
    /// Share of clean fleets of which anything is named.
    pub false_alarms: f64,
    /// Doubts.
    pub caveats: Vec<Caveat>,
}

/// One run of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetRunLine {
    /// Its name.
    pub name: String,
    /// When it began, nanoseconds of Unix time.
    pub created_unix_ns: i64,
    /// Devices.
    pub devices: u64,
}

/// One class of the table. Spreads are standard deviations of the logarithm of speed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetClass {
    /// Its name.
    pub name: String,
    /// Devices that were seen.
    pub devices: u64,
    /// Hosts that were seen.
    pub hosts: u64,
    /// Devices that there are, if that is known.
    pub all_devices: Option<u64>,
    /// Hosts that there are, if that is known.
    pub all_hosts: Option<u64>,
    /// Lasting differences between devices, those that stand out left aside.
    pub spread: f64,
    /// Of one device between its runs.
    pub run_to_run: f64,
    /// Between runs of the same work; `None` where there are too few such runs.
    pub between_runs: Option<f64>,
    /// Speed of a device that was never seen, with where 95 % of those that do not stand out are.
    pub unseen: Estimate,
    /// Speeds of the devices that stand out: as large a share of those never seen may do so too.
    pub unusual: Vec<f64>,
}

/// One host of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetHost {
    /// Its name.
    pub host: String,
    /// The class of its devices.
    pub class: String,
    /// Devices that were seen.
    pub devices: u64,
    /// Speed of the slowest of them over that of the class.
    pub slowest: Estimate,
}

/// One device of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetDevice {
    /// Its host.
    pub host: String,
    /// Its name on the host.
    pub device: String,
    /// Its class.
    pub class: String,
    /// The runs that it was seen in, by position, in order of time.
    pub runs: Vec<usize>,
    /// Steps of all of them.
    pub steps: u64,
    /// Its speed since the last change over that of its class (0.9 = it takes 11 % longer).
    pub speed: Estimate,
    /// Why it is named, if it is.
    pub named: Option<Named>,
    /// Lasting changes, in order of time.
    pub changes: Vec<SpeedChange>,
}

/// Why a device is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    /// Slower than the spread of its class explains.
    Slow,
    /// Slower than it was before.
    TurnedSlow,
}

/// A lasting change of a device's speed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeedChange {
    /// The last run before it, by position.
    pub last_before: usize,
    /// The first run after it, by position.
    pub first_after: usize,
    /// Speed after over speed before.
    pub ratio: Estimate,
}

/// Makes the table.
///
/// # Errors
/// No runs or no devices in them, the same record twice, or options that are no shares.
pub fn fleet(runs: &[FleetRun], options: &FleetOptions) -> Result<Fleet, AnalyzeError> {
    check(options)?;
    let mut runs: Vec<&FleetRun> = runs.iter().collect();
    runs.sort_by(|a, b| {
        let key = |run: &FleetRun| run.created_unix_ns;
        key(a).cmp(&key(b)).then(a.name.cmp(&b.name))
    });
    refuse_copies(&runs)?;
    let devices = runs.iter().flat_map(|run| &run.devices);
    let classes: BTreeSet<&str> = devices.map(|it| it.class.as_str()).collect();
    if classes.is_empty() {
        return Err(AnalyzeError::NoDevices);
    }
    let line = |run: &&FleetRun| FleetRunLine {
        name: run.name.clone(),
        created_unix_ns: run.created_unix_ns,
        devices: run.devices.len() as u64,
    };
    let mut table = Fleet {
        schema_version: FLEET_VERSION,
        runs: runs.iter().map(line).collect(),
        classes: Vec::new(),
        hosts: Vec::new(),
        all_hosts: options.hosts.as_ref().map(|all| all.len() as u64),
        unseen_hosts: unseen(&runs, options),
        devices: Vec::new(),
        smallest: options.smallest,
        false_alarms: options.false_alarms,
        caveats: doubts(&runs),
    };
    table.caveats.extend(never_seen(&classes, options));
    // Half for devices that stand out, half for those that change.
    let allowed = options.false_alarms / (2 * classes.len()) as f64;
    for class in classes {
        let population = sifted(Population::new(&runs, class)?, allowed)?;
        table.add_class(class, &population, options)?;
    }
    Ok(table)
}

fn check(options: &FleetOptions) -> Result<(), AnalyzeError> {
    let shares = [
        ("the smallest difference that is named", options.smallest),
        ("the share of false alarms", options.false_alarms),
    ];
    for (what, value) in shares {
        if !(value > 0.0 && value < 1.0) {
            return Err(AnalyzeError::NotAShare { what, value });
        }
    }
    Ok(())
}

fn refuse_copies(runs: &[&FleetRun]) -> Result<(), AnalyzeError> {
    let same = |pair: &&[&FleetRun]| {
        let (a, b) = (pair[0], pair[1]);
        a.created_unix_ns == b.created_unix_ns && a.devices == b.devices
    };
    match runs.windows(2).find(same) {
        Some(pair) => Err(AnalyzeError::SameRecord {
            first: pair[0].name.clone(),
            second: pair[1].name.clone(),
        }),
        None => Ok(()),
    }
}

/// Each kind of doubt once, with the number of runs that it is about.
fn doubts(runs: &[&FleetRun]) -> Vec<Caveat> {
    let mut found: BTreeMap<CaveatCode, (&str, BTreeSet<usize>)> = BTreeMap::new();
    for (at, run) in runs.iter().enumerate() {
        for caveat in &run.caveats {
            let entry = found.entry(caveat.code);
            entry
                .or_insert((&caveat.message, BTreeSet::new()))
                .1
                .insert(at);
        }
    }
    let all = runs.len();
    let caveat = |(code, (message, of)): (CaveatCode, (&str, BTreeSet<usize>))| {
        Caveat::new(code, format!("{} of {all} runs: {message}", of.len()))
    };
    found.into_iter().map(caveat).collect()
}

/// Hosts of the list that no run has.
fn unseen(runs: &[&FleetRun], options: &FleetOptions) -> Vec<String> {
    let devices = runs.iter().flat_map(|run| &run.devices);
    let seen: BTreeSet<&str> = devices.map(|it| it.host.as_str()).collect();
    let listed = options.hosts.iter().flatten();
    listed
        .filter(|host| !seen.contains(host.as_str()))
        .cloned()
        .collect()
}

/// Classes that there are of which no run has a device.
fn never_seen(classes: &BTreeSet<&str>, options: &FleetOptions) -> Vec<Caveat> {
    let unseen = options.stock.iter();
    let unseen = unseen.filter(|it| !classes.contains(it.class.as_str()));
    let caveat = |it: &FleetStock| {
        let text = format!(
            "no device of {} was seen, of {} that there are: nothing is known of how they differ",
            it.class, it.devices
        );
        Caveat::new(CaveatCode::IncompleteTrace, text)
    };
    unseen.map(caveat).collect()
}

impl Fleet {
    /// The devices that are named, with the reason.
    pub fn named(&self) -> impl Iterator<Item = (&FleetDevice, Named)> {
        let devices = self.devices.iter();
        devices.filter_map(|device| Some((device, device.named?)))
    }

    fn add_class(
        &mut self,
        class: &str,
        population: &Population<'_>,
        options: &FleetOptions,
    ) -> Result<(), AnalyzeError> {
        let variances = &population.fit.variances;
        let spread = variances.unit.sqrt();
        let devices = population.devices.iter();
        let hosts: BTreeSet<&str> = devices.clone().map(|it| it.host).collect();
        let stock = options.stock.iter().find(|it| it.class == class);
        let outlying = population.devices.iter().filter_map(|device| {
            let last = device.segments.last()?;
            let alone = population.stands_alone[last.unit];
            alone.then(|| (-population.fit.units[last.unit].value).exp())
        });
        self.classes.push(FleetClass {
            name: class.to_owned(),
            devices: population.devices.len() as u64,
            hosts: hosts.len() as u64,
            all_devices: stock.map(|it| it.devices),
            all_hosts: stock.and_then(|it| it.hosts),
            spread,
            run_to_run: variances.visit.sqrt(),
            between_runs: variances.session.map(f64::sqrt),
            unseen: speed(0.0, spread),
            unusual: outlying.collect(),
        });
        for device in devices {
            let device = self.line(class, device, population)?;
            self.devices.push(device);
        }
        self.hosts.extend(hosts::of_class(class, population));
        self.doubt(class, population);
        Ok(())
    }

    fn line(
        &self,
        class: &str,
        device: &population::Device<'_>,
        population: &Population<'_>,
    ) -> Result<FleetDevice, AnalyzeError> {
        let change = |pair: &[Segment]| {
            Ok(SpeedChange {
                last_before: pair[0].last_run,
                first_after: pair[1].first_run,
                ratio: population.change(pair)?,
            })
        };
        let changes = device.segments.windows(2).map(change);
        let changes: Vec<SpeedChange> = changes.collect::<Result<_, AnalyzeError>>()?;
        // A device has a segment.
        let last = device
            .segments
            .last()
            .map_or(0, |segment: &Segment| segment.unit);
        let effect = population.fit.units[last];
        let speed = speed(effect.value, effect.deviation);
        let below = 1.0 - self.smallest;
        let turned = changes.last().is_some_and(|it| it.ratio.value <= below);
        let named = match population.stands_alone[last] {
            _ if turned => Some(Named::TurnedSlow),
            true if speed.value <= below => Some(Named::Slow),
            _ => None,
        };
        Ok(FleetDevice {
            host: device.host.to_owned(),
            device: device.name.to_owned(),
            class: class.to_owned(),
            runs: device.runs.clone(),
            steps: device.steps,
            speed,
            named,
            changes,
        })
    }

    fn doubt(&mut self, class: &str, population: &Population<'_>) {
        let seen = population.devices.len();
        let once = population.devices.iter().all(|it| it.runs.len() == 1);
        let text = match seen {
            1 => format!("one device of {class} was seen: there is nothing to compare it with"),
            2..FEWEST_TO_COMPARE => format!(
                "{seen} devices of {class} were seen: no one can be named among fewer than \
                 {FEWEST_TO_COMPARE}"
            ),
            _ if once => format!(
                "no device of {class} was seen in two runs: how much of a difference lasts is not \
                 known, and half of it is taken to"
            ),
            _ => return,
        };
        self.caveats
            .push(Caveat::new(CaveatCode::IncompleteTrace, text));
    }
}

/// A speed from the logarithm of time.
fn speed(log_time: f64, deviation: f64) -> Estimate {
    let at = |deviations: f64| (-log_time + deviations * deviation).exp();
    Estimate {
        value: at(0.0),
        low: at(-NORMAL_P97_5),
        high: at(NORMAL_P97_5),
    }
}

#[cfg(test)]
mod tests;
