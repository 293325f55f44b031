//! Several jobs until the last of them is done: with what each is given now, with what each is
//! given anew whenever one is done, and one after the other.

use serde::Serialize;

use super::program::Goal;
use super::{SECONDS_PER_DAY, Sharer, Sharing, Wanted};
use crate::options::{Search, farthest, on, reaches};

/// Jobs until the last of them is done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Course {
    /// Model FLOP per second by weight, on average until the last is done.
    pub value: f64,
    /// Each job's day of being done, in the order in which they were wanted; `None` where it never
    /// is.
    pub done_days: Vec<Option<f64>>,
}

impl Course {
    fn new(wanted: &[Wanted<'_, '_>], done_days: Vec<Option<f64>>) -> Self {
        let done = wanted.iter().zip(&done_days);
        let done = done.filter(|(_, day)| day.is_some());
        let flop = |(job, _): (&Wanted<'_, '_>, _)| {
            job.weight * job.problem.training.tokens * job.problem.flop_per_token()
        };
        let flop: f64 = done.map(flop).sum();
        let last = done_days.iter().flatten().copied().fold(0.0, f64::max);
        let value = match last > 0.0 {
            true => flop / (last * SECONDS_PER_DAY),
            false => 0.0,
        };
        Self { value, done_days }
    }

    /// The day on which the last job is done; `None` where one never is.
    #[must_use]
    pub fn last_day(&self) -> Option<f64> {
        let latest = |last: Option<f64>, day: &Option<f64>| Some(last?.max((*day)?));
        self.done_days.iter().fold(Some(0.0), latest)
    }
}

impl Sharing {
    /// Every job keeps what it has, and what a job had stands still once it is done.
    #[must_use]
    pub fn held(&self, wanted: &[Wanted<'_, '_>]) -> Course {
        let days = self.jobs.iter().map(|job| job.days);
        Course::new(wanted, days.collect())
    }

    /// Whenever a job is done, the cluster is shared out anew to those that are not, where they
    /// train more by that. What moving them costs is not counted.
    #[must_use]
    pub fn given_on(&self, wanted: &[Wanted<'_, '_>]) -> Course {
        let tokens = wanted.iter().map(|job| job.problem.training.tokens);
        let mut left: Vec<f64> = tokens.collect();
        let mut rates: Vec<f64> = self.jobs.iter().map(|job| job.tokens_per_s).collect();
        let mut done_days = vec![None; wanted.len()];
        let mut still: Vec<usize> = (0..wanted.len()).collect();
        let mut sharer: Option<Sharer<'_, '_>> = None;
        let mut now = 0.0;
        loop {
            let runs = still.iter().enumerate();
            let runs = runs.filter(|(_, at)| rates[**at] > 0.0);
            let ends = runs.map(|(place, &at)| (left[at] / rates[at], place));
            let Some((after, place)) = ends.min_by(|a, b| a.0.total_cmp(&b.0)) else {
                return Course::new(wanted, done_days);
            };
            now += after;
            done_days[still.remove(place)] = Some(now / SECONDS_PER_DAY);
            if still.is_empty() {
                return Course::new(wanted, done_days);
            }
            for &at in &still {
                left[at] = (left[at] - rates[at] * after).max(0.0);
            }
            let held: Vec<f64> = still.iter().map(|&at| rates[at]).collect();
            let needed = still.iter().map(|&at| {
                let seconds = wanted[at].deadline_days? * SECONDS_PER_DAY - now;
                // A job that is late already cannot ask for anything.
                (seconds > 0.0).then(|| left[at] / seconds)
            });
            if let Some(sharer) = &mut sharer {
                sharer.forget(place);
            }
            let sharer = sharer.get_or_insert_with(|| {
                let jobs: Vec<Wanted<'_, '_>> = still.iter().map(|&at| wanted[at]).collect();
                Sharer::new(&jobs, Goal::Trained)
            });
            if let Some(anew) = sharer.anew(&held, needed.collect()) {
                for (&at, rate) in still.iter().zip(anew) {
                    rates[at] = rate;
                }
            }
        }
    }
}

impl Sharer<'_, '_> {
    /// Leaves a job out from now on.
    fn forget(&mut self, at: usize) {
        self.wanted.remove(at);
        self.searches.remove(at);
        self.rates.remove(at);
        let known = std::mem::take(&mut self.known).into_iter();
        let others = known.filter(|((job, _), _)| *job != at);
        let moved = |((job, hosts), it)| ((job - usize::from(job > at), hosts), it);
        self.known = others.map(moved).collect();
    }

    /// Tokens per second of the jobs, shared out anew, where some need so many; `None` where they
    /// do not train more by that than is held, or no such sharing keeps the deadlines.
    fn anew(&mut self, held: &[f64], needed: Vec<Option<f64>>) -> Option<Vec<f64>> {
        for (job, needed) in self.wanted.iter_mut().zip(needed) {
            let days = |needed| job.problem.training.tokens / needed / SECONDS_PER_DAY;
            job.deadline_days = needed.map(days);
        }
        let anew = self.share().ok()?;
        let jobs = self.wanted.iter().zip(held);
        let held: f64 = jobs.map(|(job, rate)| job.value() * rate).sum();
        let rates = anew.jobs.iter().map(|job| job.tokens_per_s);
        (anew.value > held).then(|| rates.collect())
    }
}

/// One job after the other, in the order of deadlines, each on everything that it can span.
#[must_use]
pub fn in_turn(wanted: &[Wanted<'_, '_>]) -> Course {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    let deadline = |at: usize| wanted[at].deadline_days.unwrap_or(f64::INFINITY);
    order.sort_by(|&a, &b| deadline(a).total_cmp(&deadline(b)));
    let mut now = 0.0;
    let mut done_days = vec![None; wanted.len()];
    for at in order {
        let problem = wanted[at].problem;
        let mut search = Search::of(problem);
        let rates = farthest(&reaches(problem)).into_iter().map(|sites| {
            let at = problem.classes.iter().zip(on(problem));
            let there = at.map(|(class, on)| if sites.contains(&class.site) { on } else { 0 });
            let job = search.either(&there.collect::<Vec<_>>());
            job.map_or(0.0, |job| search.rate(&job))
        });
        let rate = rates.fold(0.0, f64::max);
        // Where it does not fit or failures leave it nothing, it never ends, and the others do
        // without it.
        if rate > 0.0 {
            now += problem.training.tokens / rate / SECONDS_PER_DAY;
            done_days[at] = Some(now);
        }
    }
    Course::new(wanted, done_days)
}

#[cfg(test)]
mod tests;
