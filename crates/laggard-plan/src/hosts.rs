//! The classes of a problem as whole hosts, which is what the integer program of
//! [`crate::pools`] counts.

use crate::pools::{Member, PowerLimit, Stock};
use crate::problem::{Class, Problem};

/// What of a class stays together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Unit {
    /// Class, by position.
    pub(crate) class: usize,
    /// Devices of it: a multiple of a host's.
    pub(crate) devices: u64,
    /// Power at the meter where a limit is kept there, else 0.
    pub(crate) watts: f64,
}

impl Unit {
    /// Whole hosts of each class.
    pub(crate) fn hosts(problem: &Problem<'_>) -> Vec<Self> {
        (0..problem.classes.len())
            .map(|class| Self::of(problem, class, 1))
            .collect()
    }

    /// As many whole hosts of a class as hold so many devices.
    pub(crate) fn of(problem: &Problem<'_>, class: usize, devices: u64) -> Self {
        let of = &problem.classes[class];
        let devices = devices.max(1).next_multiple_of(of.node_devices);
        let watts = limited_watts(problem, of);
        Self {
            class,
            devices,
            watts: watts * devices as f64,
        }
    }

    /// Units that options may use.
    pub(crate) fn stock(&self, problem: &Problem<'_>) -> Stock {
        let class = &problem.classes[self.class];
        Stock {
            domains: class.free() / self.devices,
            reserve: 0,
            reserve_watts: 0.0,
            site: class.site,
        }
    }

    /// A unit in a use, with what one of its devices adds and costs there.
    pub(crate) fn member(&self, of_device: f64, cost_of_device: f64) -> Member {
        Member {
            class: self.class,
            capacity: of_device * self.devices as f64,
            cost: cost_of_device * self.devices as f64,
            watts: self.watts,
            most: None,
        }
    }
}

/// What each site can draw beside what is kept and serves there.
pub(crate) fn power_left(problem: &Problem<'_>) -> Vec<PowerLimit> {
    let left = |(at, place): (usize, &crate::problem::Place)| {
        let here = problem.classes.iter().filter(|class| class.site == at);
        let taken =
            |class: &Class| (class.reserve + class.serve) as f64 * limited_watts(problem, class);
        let taken: f64 = here.map(taken).sum();
        let limit = place.limit_watts.filter(|_| place.is_kept);
        PowerLimit {
            watts: limit.map(|limit| (limit - taken).max(0.0)),
        }
    };
    problem.places.iter().enumerate().map(left).collect()
}

/// Power of a device at the meter where a limit is kept there, else 0.
fn limited_watts(problem: &Problem<'_>, class: &Class) -> f64 {
    let place = &problem.places[class.site];
    let known = problem.watts_at_meter(class);
    known.filter(|_| place.is_kept).unwrap_or(0.0)
}
