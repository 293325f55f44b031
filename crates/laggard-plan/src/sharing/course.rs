//! Several jobs until the last of them is done: with what each is given now, with what each is
//! given anew whenever one is done, and one after the other.

use serde::Serialize;

use super::program::Goal;
use super::{SECONDS_PER_DAY, Sharer, Sharing, Wanted};
use crate::options::{Search, on};
use crate::problem::Problem;

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
        let mut left: Vec<f64> = wanted
            .iter()
            .map(|job| job.problem.training.tokens)
            .collect();
        let mut rates: Vec<f64> = self.jobs.iter().map(|job| job.tokens_per_s).collect();
        let mut done_days = vec![None; wanted.len()];
        let mut now = 0.0;
        loop {
            let mut still: Vec<usize> = (0..wanted.len()).collect();
            still.retain(|&at| done_days[at].is_none());
            let runs = still.iter().filter(|&&at| rates[at] > 0.0);
            let ends = runs.map(|&at| (left[at] / rates[at], at));
            let Some((after, first)) = ends.min_by(|a, b| a.0.total_cmp(&b.0)) else {
                return Course::new(wanted, done_days);
            };
            now += after;
            done_days[first] = Some(now / SECONDS_PER_DAY);
            still.retain(|&at| at != first);
            for &at in &still {
                left[at] = (left[at] - rates[at] * after).max(0.0);
            }
            if still.is_empty() {
                continue;
            }
            if let Some(anew) = shared_anew(wanted, &still, (&left, &rates), now) {
                for (at, rate) in still.into_iter().zip(anew) {
                    rates[at] = rate;
                }
            }
        }
    }
}

/// Tokens per second of the jobs that are not done, shared out anew; `None` where they do not train
/// more by that, or no such sharing keeps the deadlines.
fn shared_anew(
    wanted: &[Wanted<'_, '_>],
    still: &[usize],
    (left, rates): (&[f64], &[f64]),
    now: f64,
) -> Option<Vec<f64>> {
    let problem = |&at: &usize| {
        let mut problem = wanted[at].problem.clone();
        problem.training.tokens = left[at];
        problem
    };
    let problems: Vec<Problem<'_>> = still.iter().map(problem).collect();
    let jobs = still.iter().zip(&problems).map(|(&at, problem)| {
        let days_left = |days: f64| days - now / SECONDS_PER_DAY;
        Wanted {
            problem,
            // A job that is late already cannot ask for anything.
            deadline_days: wanted[at]
                .deadline_days
                .map(days_left)
                .filter(|it| *it > 0.0),
            ..wanted[at]
        }
    });
    let jobs: Vec<Wanted<'_, '_>> = jobs.collect();
    let anew = Sharer::new(&jobs, Goal::Trained).share().ok()?;
    let held = jobs.iter().zip(still);
    let held = held.map(|(job, &at)| job.value() * rates[at]).sum::<f64>();
    let rates = anew.jobs.iter().map(|job| job.tokens_per_s);
    (anew.value > held).then(|| rates.collect())
}

/// One job after the other, in the order of deadlines, each on everything.
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
        let job = search.either(&on(problem));
        let rate = job.map_or(0.0, |job| search.rate(&job));
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
