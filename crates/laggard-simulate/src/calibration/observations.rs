//! What a run tells of the costs of operations.

use super::{Observation, Places};
use laggard_record::Manifest;
use laggard_types::Rank;

/// The observations of a run, by what operations of its schedule took: rank, id, seconds and, at
/// evenly spaced quantiles, what they took over that.
#[must_use]
pub fn observations<'a>(
    manifest: &'a Manifest,
    times: impl IntoIterator<Item = (Rank, u32, f64, &'a [f64])>,
) -> Vec<Observation<'a>> {
    let places = Places::of(&manifest.schedule);
    let observation = |(rank, operation, seconds, ratios): (Rank, u32, f64, &'a [f64])| {
        let operation = &manifest.schedule.operations[operation as usize];
        let class = manifest.ranks[rank as usize].class;
        Observation {
            class: &manifest.classes[class as usize].name,
            operation,
            place: places.place(operation),
            seconds,
            ratios,
        }
    };
    times.into_iter().map(observation).collect()
}
