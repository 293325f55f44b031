//! How slow the slowest device of each host is: devices of a host work in one job or in none.

use super::population::Population;
use crate::{Estimate, FleetHost};
use laggard_stats::{Effect, normal_cdf};
use std::collections::BTreeMap;

/// The probabilities of a figure's ends and of the figure.
const LOW: f64 = 0.025;
const MIDDLE: f64 = 0.5;
const HIGH: f64 = 0.975;
/// Deviations beyond which nothing is looked for.
const REACH: f64 = 10.0;
/// Halvings that leave no more than rounding.
const HALVINGS: u32 = 60;

/// The hosts of a class, by name.
pub(super) fn of_class(class: &str, population: &Population<'_>) -> Vec<FleetHost> {
    let mut hosts: BTreeMap<&str, Vec<Effect>> = BTreeMap::new();
    for device in &population.devices {
        if let Some(last) = device.segments.last() {
            let effect = population.fit.units[last.unit];
            hosts.entry(device.host).or_default().push(effect);
        }
    }
    let line = |(host, effects): (&str, Vec<Effect>)| FleetHost {
        host: host.to_owned(),
        class: class.to_owned(),
        devices: effects.len() as u64,
        slowest: slowest(&effects),
    };
    hosts.into_iter().map(line).collect()
}

/// Speed of the slowest of some devices: the median of the longest of independent normal times.
fn slowest(effects: &[Effect]) -> Estimate {
    let ends = |sign: f64| {
        effects
            .iter()
            .map(move |it| it.value + sign * REACH * it.deviation)
    };
    let (lowest, highest) = (
        ends(-1.0).fold(f64::INFINITY, f64::min),
        ends(1.0).fold(f64::NEG_INFINITY, f64::max),
    );
    let at = |probability: f64| {
        let (mut low, mut high) = (lowest, highest);
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            let below = |it: &Effect| normal_cdf((middle - it.value) / it.deviation);
            let all: f64 = effects.iter().map(below).product();
            match all < probability {
                true => low = middle,
                false => high = middle,
            }
        }
        (-high).exp()
    };
    Estimate {
        value: at(MIDDLE),
        low: at(HIGH),
        high: at(LOW),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_several_is_slower_than_each() {
        let effect = |value, deviation| Effect { value, deviation };
        let one = slowest(&[effect(0.1, 0.01)]);
        assert!((one.value - (-0.1_f64).exp()).abs() < 1e-9);
        assert!((one.low - (-0.1_f64 - 0.0196).exp()).abs() < 1e-5);
        assert!(one.low < one.value && one.value < one.high);
        // The median of the larger of two normal values: where each is with probability 1/sqrt 2.
        let two = slowest(&[effect(0.0, 0.02), effect(0.0, 0.02)]);
        let expect = (-0.02 * 0.544_952_1_f64).exp();
        assert!((two.value - expect).abs() < 1e-6, "{two:?}");
        // One far behind alone decides.
        let far = slowest(&[effect(0.0, 0.01), effect(0.3, 0.01)]);
        assert!((far.value - (-0.3_f64).exp()).abs() < 1e-9);
    }
}
