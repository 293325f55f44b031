//! A second evaluation of schedules, written from their definition: a node starts when all before
//! it on its stream and all that it needs have ended; members of a meeting start together.

use laggard_import::Imported;
use laggard_schedule::{Operation, Schedule};
use std::collections::BTreeMap;

/// Rank and operation.
pub(crate) type Place = (u32, u32);

/// All places of a schedule, in order of rank and program.
pub(crate) fn places(schedule: &Schedule) -> impl Iterator<Item = Place> + '_ {
    (0..schedule.world_size() as u32)
        .flat_map(|rank| schedule.program(rank).iter().map(move |id| (rank, *id)))
}

/// Who meets at a place, itself included.
pub(crate) fn members(schedule: &Schedule, (rank, id): Place) -> Vec<Place> {
    let operation = &schedule.operations[id as usize];
    let Some(group) = operation.axis.and_then(|axis| schedule.group(axis, rank)) else {
        return vec![(rank, id)];
    };
    let meets =
        |other: &Operation| (other.axis, other.sequence) == (operation.axis, operation.sequence);
    let of = |rank: u32| schedule.program(rank).iter().map(move |id| (rank, *id));
    let all = group.iter().flat_map(|rank| of(*rank));
    all.filter(|(_, id)| meets(&schedule.operations[*id as usize]))
        .collect()
}

/// Length of a step with these durations, of meetings without the waiting.
pub(crate) fn step_s(schedule: &Schedule, durations: &BTreeMap<Place, f64>) -> f64 {
    let mut before: BTreeMap<Place, Vec<Place>> = BTreeMap::new();
    for rank in 0..schedule.world_size() as u32 {
        let mut last = BTreeMap::new();
        for id in schedule.program(rank) {
            let operation = &schedule.operations[*id as usize];
            let stream = last.insert(operation.stream, *id);
            let needs = operation.after.iter().copied().chain(stream);
            before.insert((rank, *id), needs.map(|needed| (rank, needed)).collect());
        }
    }
    let meetings: BTreeMap<Place, Vec<Place>> = places(schedule)
        .map(|place| (place, members(schedule, place)))
        .collect();
    let mut end: BTreeMap<Place, f64> = BTreeMap::new();
    while end.len() < before.len() {
        let done = end.len();
        for place in places(schedule) {
            let meeting = &meetings[&place];
            let needs = || meeting.iter().flat_map(|member| &before[member]);
            if end.contains_key(&place) || !needs().all(|need| end.contains_key(need)) {
                continue;
            }
            let ready = needs().map(|need| end[need]).fold(0.0, f64::max);
            end.insert(place, ready + durations[&place]);
        }
        assert!(end.len() > done, "the schedule waits for itself");
    }
    end.values().copied().fold(0.0, f64::max)
}

/// Durations of every place in every step, in seconds, of meetings without the waiting: the end
/// minus the last begin of a member, at least 0 beyond a clock error of 10 ms.
pub(crate) fn durations(imported: &Imported) -> Vec<BTreeMap<Place, f64>> {
    let schedule = &imported.manifest.schedule;
    let mut times = vec![BTreeMap::new(); imported.steps as usize];
    for sample in &imported.samples {
        let span = (sample.stamp.start_ns, sample.stamp.end_ns);
        times[sample.step as usize].insert((sample.rank, sample.operation), span);
    }
    let meetings: BTreeMap<Place, Vec<Place>> = places(schedule)
        .map(|place| (place, members(schedule, place)))
        .collect();
    let of_step = |times: &BTreeMap<Place, (i64, i64)>| {
        let own = |place: &Place, members: &Vec<Place>| {
            let begin = members
                .iter()
                .map(|member| times[member].0)
                .max()
                .unwrap_or(0);
            let own = (times[place].1 - begin) as f64 * 1e-9;
            if own <= -0.01 { 0.0 } else { own }
        };
        meetings
            .iter()
            .map(|(place, members)| (*place, own(place, members)))
            .collect()
    };
    times.iter().map(of_step).collect()
}
