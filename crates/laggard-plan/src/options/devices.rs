//! What the devices of each class do: which of them the power lets run, and what becomes of those
//! that are in no job.

use serde::{Deserialize, Serialize};

use super::JobPlan;
use crate::problem::{Class, Problem};

/// What the devices of a class do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// Work in a job.
    pub train: u64,
    /// Belong to a job that has nothing for them.
    pub idle: u64,
    /// Are leased.
    pub lease: u64,
    /// Serve.
    pub serve: u64,
    /// Are kept for experiments and peaks.
    pub reserve: u64,
    /// Are off.
    pub off: u64,
}

impl Use {
    /// All devices of the class; `None` where no number holds them.
    #[must_use]
    pub fn all(&self) -> Option<u64> {
        let counts = [
            self.train,
            self.idle,
            self.lease,
            self.serve,
            self.reserve,
            self.off,
        ];
        counts.into_iter().try_fold(0_u64, u64::checked_add)
    }
}

/// What becomes of devices that are in no job.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Rest {
    Idle,
    Leased,
    /// They serve; those that cannot are leased, or off where they have no price either.
    Served,
    Off,
}

/// What each class does where some of its devices are on and jobs have theirs.
pub(super) fn uses(problem: &Problem<'_>, on: &[u64], jobs: &[JobPlan], rest: Rest) -> Vec<Use> {
    let of = |(at, class): (usize, &Class)| {
        let mut all = Use {
            serve: class.serve,
            reserve: class.reserve,
            ..Use::default()
        };
        for job in jobs {
            all.idle += job.idle[at];
            all.train += job.devices(at);
        }
        let others = on[at].saturating_sub(all.train + all.idle);
        let can_serve = class.serving_dollars_per_hour.is_some();
        match rest {
            Rest::Served if can_serve => all.serve += others,
            Rest::Served if class.dollars_per_hour.is_none() => {}
            Rest::Leased | Rest::Served => all.lease = others,
            Rest::Idle => all.idle += others,
            Rest::Off => {}
        }
        all.off = class.of.count - (all.train + all.idle + all.lease + all.serve + all.reserve);
        all
    };
    problem.classes.iter().enumerate().map(of).collect()
}

/// Devices of each class that options may use and that the power of their site lets run beside
/// those that are kept and serve: where it does not suffice for all, those with the least peak per
/// watt are off, then those with less memory; whole hosts. Classes that do not take part are off.
pub(super) fn on_within_power(
    problem: &Problem<'_>,
    takes_part: impl Fn(usize) -> bool,
) -> Vec<u64> {
    let classes = &problem.classes;
    let free = |at: usize| {
        if takes_part(at) {
            classes[at].free()
        } else {
            0
        }
    };
    let mut on: Vec<u64> = (0..classes.len()).map(free).collect();
    for (at, place) in problem.places.iter().enumerate() {
        let Some(limit) = place.limit_watts.filter(|_| place.is_kept) else {
            continue;
        };
        let here = (0..on.len()).filter(|&class| classes[class].site == at);
        let mut known: Vec<(usize, f64)> = here
            .filter_map(|class| Some((class, problem.watts_at_meter(&classes[class])?)))
            .collect();
        let per_watt = |&(class, watts): &(usize, f64)| {
            let machine = &classes[class].of.machine;
            (machine.half_peak / watts, machine.memory_bytes)
        };
        known.sort_by(|a, b| {
            let (a, b) = (per_watt(a), per_watt(b));
            a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        let runs = |class: usize| on[class] + classes[class].reserve + classes[class].serve;
        let drawn = known
            .iter()
            .map(|&(class, watts)| runs(class) as f64 * watts);
        let mut excess = drawn.sum::<f64>() - limit;
        for (class, watts) in known {
            if excess <= 0.0 {
                break;
            }
            let node = classes[class].node_devices;
            let off = ((excess / watts).ceil() as u64)
                .next_multiple_of(node)
                .min(on[class]);
            on[class] -= off;
            excess -= off as f64 * watts;
        }
    }
    on
}
