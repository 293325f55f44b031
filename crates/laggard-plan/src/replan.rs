//! Planning again after something changed: of the options that are nearly as good as the best, the
//! one that moves the fewest devices from what they do now.
//!
//! A device moves that comes to another job, or to another use. A job goes on as the job that
//! shares most devices with it, whatever both are called; the pairs are those that move the fewest
//! in all.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

use crate::file::{PlannedOption, PlannedParts};
use crate::number::{NumberError, refuse_unless};
use crate::options::Use;
use crate::what_if::take_away;

/// More jobs of an option are paired in order of size, not in the best way.
const MOST_JOBS: usize = 12;

/// Who does what now.
#[derive(Debug, Clone, PartialEq)]
pub struct Places {
    /// Devices of each class in each job.
    jobs: Vec<BTreeMap<String, u64>>,
    /// Devices of each class in each other use, in the order of [`others`].
    others: BTreeMap<String, [u64; 5]>,
}

/// What to do after something changed. Options are named by position.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Again {
    /// The option that moves the fewest devices.
    pub chosen: usize,
    /// Devices that it moves.
    pub moved: u64,
    /// What it is worth over the best option, by the objective.
    pub of_best: f64,
    /// The best option.
    pub best: usize,
    /// Devices that the best option moves.
    pub moved_by_best: u64,
    /// The option that was chosen before, if it can still be.
    pub staying: Option<Staying>,
    /// What may be given up of the best, as a share.
    pub tolerance: f64,
}

/// Doing what was done before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Staying {
    /// The option.
    pub option: usize,
    /// Devices that it moves, since what is lost is made up for.
    pub moved: u64,
    /// What it is worth over the best option.
    pub of_best: f64,
}

/// Devices in no job.
fn others(it: &Use) -> [u64; 5] {
    [it.idle, it.lease, it.serve, it.reserve, it.off]
}

impl Places {
    /// Who does what in an option.
    #[must_use]
    pub fn of(option: &PlannedOption) -> Self {
        let job = |job: &crate::file::PlannedJob| {
            let devices = job.devices().into_iter();
            devices
                .map(|(class, count)| (class.to_owned(), count))
                .collect()
        };
        let uses = option.uses.iter();
        Self {
            jobs: option.jobs.iter().map(job).collect(),
            others: uses
                .map(|(class, it)| (class.clone(), others(it)))
                .collect(),
        }
    }

    /// The same without devices of a class that were lost: from each job and each use as large a
    /// share as it had of them, since who fails is chance.
    #[must_use]
    pub fn without(mut self, class: &str, lost: u64) -> Self {
        let jobs = self.jobs.iter_mut();
        let mut places: Vec<&mut u64> = jobs.filter_map(|job| job.get_mut(class)).collect();
        places.extend(self.others.get_mut(class).into_iter().flatten());
        take_away(&mut places, lost);
        self
    }

    /// Devices of a class.
    #[must_use]
    pub fn devices(&self, class: &str) -> u64 {
        let jobs = self.jobs.iter().filter_map(|job| job.get(class));
        let others = self.others.get(class).into_iter().flatten();
        jobs.chain(others).sum()
    }

    fn classes(&self) -> BTreeSet<&str> {
        let jobs = self.jobs.iter().flat_map(BTreeMap::keys);
        jobs.chain(self.others.keys()).map(String::as_str).collect()
    }

    /// Devices that do something else afterwards. Of a class that has become larger, the new ones
    /// do not count.
    #[must_use]
    pub fn moved_to(&self, after: &Self) -> u64 {
        let classes = self.classes();
        let both = |class: &&str| self.devices(class).min(after.devices(class));
        let all: u64 = classes.iter().map(both).sum();
        let stays = |(class, before): (&String, &[u64; 5])| -> u64 {
            let after = after.others.get(class).copied().unwrap_or_default();
            before.iter().zip(after).map(|(a, b)| (*a).min(b)).sum()
        };
        let elsewhere: u64 = self.others.iter().map(stays).sum();
        let in_jobs = most_in_pairs(&self.shared_devices(after));
        all.saturating_sub(elsewhere + in_jobs)
    }

    /// Devices that each job shares with each job afterwards, if it goes on as that.
    fn shared_devices(&self, after: &Self) -> Vec<Vec<u64>> {
        let shared = |a: &BTreeMap<String, u64>, b: &BTreeMap<String, u64>| -> u64 {
            let of = |(class, count): (&String, &u64)| b.get(class).map(|it| *it.min(count));
            a.iter().filter_map(of).sum()
        };
        let row = |a| after.jobs.iter().map(|b| shared(a, b)).collect();
        self.jobs.iter().map(row).collect()
    }
}

/// The most that pairs of a row and a column, each in one pair at most, have in all: by the sets of
/// columns that are taken.
fn most_in_pairs(shared: &[Vec<u64>]) -> u64 {
    let columns = shared.first().map_or(0, Vec::len);
    if columns > MOST_JOBS {
        return largest_first(shared);
    }
    let mut best = vec![0_u64; 1 << columns];
    for row in shared {
        // From full sets down, so that a row is in one pair at most.
        for set in (0..best.len()).rev() {
            let with = (0..columns).filter(|column| set & (1 << column) != 0);
            let pair = with.map(|column| best[set & !(1 << column)] + row[column]);
            best[set] = best[set].max(pair.max().unwrap_or(0));
        }
    }
    best.last().copied().unwrap_or(0)
}

fn largest_first(shared: &[Vec<u64>]) -> u64 {
    let rows = shared.iter().enumerate();
    let mut pairs: Vec<(u64, usize, usize)> = rows
        .flat_map(|(row, counts)| {
            counts
                .iter()
                .enumerate()
                .map(move |(at, it)| (*it, row, at))
        })
        .collect();
    pairs.sort_by(|a, b| b.cmp(a));
    let (mut rows, mut columns) = (BTreeSet::new(), BTreeSet::new());
    let mut sum = 0;
    for (count, row, column) in pairs {
        if !rows.contains(&row) && !columns.contains(&column) {
            rows.insert(row);
            columns.insert(column);
            sum += count;
        }
    }
    sum
}

/// Whether replicas of some job span classes.
fn has_stages(option: &PlannedOption) -> bool {
    let mut jobs = option.jobs.iter();
    jobs.any(|job| matches!(job.parts, PlannedParts::Stages(_)))
}

/// Finds the option that moves the fewest devices among those within the tolerance of the best.
/// `order` has the options that can be the answer with what they are worth, the best first; of
/// equally many moves the better stays. `None` where there are none.
///
/// # Errors
/// A tolerance that is no share.
pub fn plan_again(
    before: (&PlannedOption, &Places),
    after: &[PlannedOption],
    order: &[(usize, f64)],
    tolerance: f64,
) -> Result<Option<Again>, NumberError> {
    let is_share = (0.0..=1.0).contains(&tolerance);
    refuse_unless(is_share, "the tolerance", tolerance, "a share from 0 to 1")?;
    let Some(&(best, most)) = order.first() else {
        return Ok(None);
    };
    let (option, places) = before;
    let moved = |at: usize| places.moved_to(&Places::of(&after[at]));
    let least = most - tolerance * most.abs();
    let near = order.iter().filter(|(_, worth)| *worth >= least);
    let near = near.map(|&(at, worth)| (moved(at), at, worth));
    let chosen = near.reduce(|best, next| if next.0 < best.0 { next } else { best });
    let of_best = |worth: f64| if most == 0.0 { 1.0 } else { worth / most };
    // Names have numbers of devices and jobs in them, which may be others now.
    let there = |option: &PlannedOption| -> BTreeSet<String> {
        let given = option.uses.iter().filter(|(_, it)| it.train + it.idle > 0);
        let left = given.filter(|(class, _)| places.devices(class) > 0);
        left.map(|(class, _)| class.clone()).collect()
    };
    let of_kind = || {
        let kind = order.iter().map(|it| (it, &after[it.0]));
        kind.filter(|(_, it)| it.kind == option.kind)
    };
    let same_name = of_kind().find(|(_, it)| it.name == option.name);
    let same = same_name.or_else(|| {
        let alike =
            |it: &PlannedOption| there(it) == there(option) && has_stages(it) == has_stages(option);
        of_kind().find(|(_, it)| alike(it))
    });
    let staying = same.map(|(it, _)| it);
    let staying = staying.map(|&(option, worth)| Staying {
        option,
        moved: moved(option),
        of_best: of_best(worth),
    });
    Ok(chosen.map(|(fewest, chosen, worth)| Again {
        chosen,
        moved: fewest,
        of_best: of_best(worth),
        best,
        moved_by_best: moved(best),
        staying,
        tolerance,
    }))
}

#[cfg(test)]
mod tests;
