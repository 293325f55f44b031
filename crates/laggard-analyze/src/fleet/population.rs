//! The devices of one class with all that was measured of them.

use super::FleetRun;
use crate::{AnalyzeError, Estimate};
use laggard_stats::{CrossedEffects, CrossedFit, Effect, Measurement};
use std::collections::BTreeMap;

/// A device, and the stretches of time in which its speed is one.
#[derive(Debug, Clone)]
pub(super) struct Device<'a> {
    pub(super) host: &'a str,
    pub(super) name: &'a str,
    /// Runs, in order of time.
    pub(super) runs: Vec<usize>,
    pub(super) steps: u64,
    /// In order of time; one at least.
    pub(super) segments: Vec<Segment>,
}

/// Runs of a device between two changes: a unit of the model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) unit: usize,
    pub(super) first_run: usize,
    pub(super) last_run: usize,
}

/// A class and what was found about it so far.
#[derive(Debug, Clone)]
pub(super) struct Population<'a> {
    /// By host and name.
    pub(super) devices: Vec<Device<'a>>,
    /// In order of time for each unit.
    pub(super) measurements: Vec<Measurement>,
    /// The run of each session.
    run_of_session: Vec<usize>,
    level_of_session: Vec<usize>,
    /// Whether a unit is no draw from what is usual.
    pub(super) stands_alone: Vec<bool>,
    pub(super) fit: CrossedFit,
}

impl<'a> Population<'a> {
    /// The devices of a class in runs that are in order of time.
    pub(super) fn new(runs: &[&'a FleetRun], class: &str) -> Result<Self, AnalyzeError> {
        let mut found: BTreeMap<(&str, &str), Device<'a>> = BTreeMap::new();
        let mut levels: BTreeMap<&str, usize> = BTreeMap::new();
        let mut level_of_session = Vec::new();
        let mut run_of_session = Vec::new();
        let mut raw = Vec::new();
        for (at, run) in runs.iter().enumerate() {
            let mut sessions: BTreeMap<&str, usize> = BTreeMap::new();
            for it in run.devices.iter().filter(|it| it.class == class) {
                let next = levels.len();
                let level = *levels.entry(&it.work).or_insert(next);
                let session = *sessions.entry(&it.work).or_insert_with(|| {
                    level_of_session.push(level);
                    run_of_session.push(at);
                    level_of_session.len() - 1
                });
                let key = (it.host.as_str(), it.device.as_str());
                let device = found.entry(key).or_insert_with(|| Device {
                    host: key.0,
                    name: key.1,
                    runs: Vec::new(),
                    steps: 0,
                    segments: Vec::new(),
                });
                device.runs.push(at);
                device.steps += u64::from(it.steps);
                raw.push((key, session, it));
            }
        }
        let units: BTreeMap<(&str, &str), usize> = found.keys().copied().zip(0..).collect();
        let measurement =
            |&(key, session, it): &((&str, &str), usize, &super::DeviceRun)| Measurement {
                unit: units[&key],
                session,
                value: it.log_seconds,
                variance: it.variance,
            };
        let measurements: Vec<Measurement> = raw.iter().map(measurement).collect();
        let mut devices: Vec<Device<'a>> = found.into_values().collect();
        for (unit, device) in devices.iter_mut().enumerate() {
            device.runs.dedup();
            device.segments.push(Segment {
                unit,
                first_run: device.runs[0],
                last_run: device.runs[device.runs.len() - 1],
            });
        }
        let stands_alone = vec![false; devices.len()];
        let effects = CrossedEffects {
            measurements: &measurements,
            level_of_session: &level_of_session,
            stands_alone: &stands_alone,
        };
        let fit = effects.fit(None)?;
        Ok(Self {
            devices,
            measurements,
            run_of_session,
            level_of_session,
            stands_alone,
            fit,
        })
    }

    /// The same with variances and values found anew.
    pub(super) fn refitted(mut self) -> Result<Self, AnalyzeError> {
        self.fit = self
            .effects(&self.stands_alone)
            .fit(Some(self.fit.variances))?;
        Ok(self)
    }

    fn effects<'b>(&'b self, stands_alone: &'b [bool]) -> CrossedEffects<'b> {
        CrossedEffects {
            measurements: &self.measurements,
            level_of_session: &self.level_of_session,
            stands_alone,
        }
    }

    /// Sessions that anything was measured in.
    pub(super) fn sessions(&self) -> usize {
        self.level_of_session.len()
    }

    /// The run of a measurement.
    pub(super) fn run_of(&self, it: &Measurement) -> usize {
        self.run_of_session[it.session]
    }

    /// Cuts a unit in two before a run.
    pub(super) fn split(mut self, unit: usize, first_after: usize) -> Self {
        let after = self.stands_alone.len();
        self.stands_alone.push(false);
        let run_of_session = &self.run_of_session;
        for it in &mut self.measurements {
            if it.unit == unit && run_of_session[it.session] >= first_after {
                it.unit = after;
            }
        }
        for device in &mut self.devices {
            let at = device.segments.iter().position(|it| it.unit == unit);
            let Some(at) = at else { continue };
            let before = |run: &&usize| **run < first_after;
            let last_before = device.runs.iter().rfind(before).copied();
            let segment = &mut device.segments[at];
            let second = Segment {
                unit: after,
                first_run: first_after,
                last_run: segment.last_run,
            };
            segment.last_run = last_before.unwrap_or(segment.first_run);
            device.segments.insert(at + 1, second);
        }
        self
    }

    /// By how much longer the second of two units takes, by their own measurements alone.
    pub(super) fn difference(&self, first: usize, second: usize) -> Result<Effect, AnalyzeError> {
        let mut alone = self.stands_alone.clone();
        (alone[first], alone[second]) = (true, true);
        let effects = self.effects(&alone);
        Ok(effects.difference(&self.fit.variances, [first, second])?)
    }

    /// Speed after a change over speed before.
    pub(super) fn change(&self, pair: &[Segment]) -> Result<Estimate, AnalyzeError> {
        let longer = self.difference(pair[0].unit, pair[1].unit)?;
        Ok(super::speed(longer.value, longer.deviation))
    }
}
