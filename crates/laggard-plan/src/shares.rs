//! Micro-batches for replicas of different speeds, so that the slowest of them ends as early as it
//! can.
//!
//! A replica that takes `fixed + m * each` seconds for m micro-batches can do
//! `floor((T - fixed) / each)` of them in T seconds. The sum of these over all replicas is a step
//! function of T that never falls, so the least T at which it reaches the global batch is the
//! optimum, and it is the end of some replica's m-th micro-batch. Any more that T leaves room for
//! are ends at exactly T, and are taken from the replicas that end there.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Replicas that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// How many there are.
    pub replicas: u64,
    /// Seconds of a step that do not grow with its micro-batches: the pipeline's filling, exposed
    /// communication, the optimizer.
    pub fixed_seconds: f64,
    /// Seconds of each micro-batch.
    pub micro_batch_seconds: f64,
    /// Most micro-batches that one replica can take; `None` for any number.
    pub most: Option<u64>,
}

/// The best way to share out micro-batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// When the last replica ends, in seconds.
    pub seconds: f64,
    /// No way to share out work, not even fractions of micro-batches, ends before this.
    pub bound_seconds: f64,
    /// For each kind of worker, how many replicas have how many micro-batches, the most first.
    pub of_worker: Vec<Vec<(u64, u64)>>,
}

/// Why work cannot be shared out.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SharesError {
    /// A time that is no time.
    #[error("worker {worker}: {field} is {value}, which is no time")]
    NoTime {
        /// Position of the worker.
        worker: usize,
        /// What is wrong with it.
        field: &'static str,
        /// Its value.
        value: f64,
    },
    /// There is room for less than the batch.
    #[error(
        "{replicas} replicas can take at most {most} micro-batches, the batch has {batch}\nhint: \
         make micro-batches larger, or the batch smaller"
    )]
    NoRoom {
        /// All replicas.
        replicas: u64,
        /// What they can take together.
        most: u64,
        /// What they should take.
        batch: u64,
    },
    /// Every replica must have a micro-batch, and there are fewer.
    #[error(
        "{replicas} replicas cannot each have one of {batch} micro-batches\nhint: make the batch \
         larger, micro-batches smaller, or replicas wider"
    )]
    TooFew {
        /// All replicas.
        replicas: u64,
        /// Micro-batches of the step.
        batch: u64,
    },
}

impl Worker {
    fn end(&self, count: u64) -> f64 {
        self.fixed_seconds + count as f64 * self.micro_batch_seconds
    }

    fn limit(&self, batch: u64) -> u64 {
        self.most.unwrap_or(batch).min(batch)
    }

    /// Most micro-batches that end by `seconds`, by the same arithmetic as [`Worker::end`].
    fn count_by(&self, seconds: f64, batch: u64) -> u64 {
        let limit = self.limit(batch);
        let guess = (seconds - self.fixed_seconds) / self.micro_batch_seconds;
        let mut count = (guess.max(0.0) as u64).min(limit);
        while count > 0 && self.end(count) > seconds {
            count -= 1;
        }
        while count < limit && self.end(count + 1) <= seconds {
            count += 1;
        }
        count
    }
}

/// Shares out `batch` micro-batches over replicas of which each has at least one, so that the last
/// one ends as early as possible. Exact. Among ways that end at the same time, workers later in the
/// list get fewer.
///
/// # Errors
/// Impossible times, no room for the batch, or fewer micro-batches than replicas.
pub fn share_out(workers: &[Worker], batch: u64) -> Result<Shares, SharesError> {
    check(workers, batch)?;
    let room = |seconds: f64| -> u64 {
        let of = |worker: &Worker| worker.replicas * worker.count_by(seconds, batch);
        workers.iter().map(of).sum()
    };
    // Everyone has one.
    let there = workers.iter().filter(|worker| worker.replicas > 0);
    let least = there.map(|worker| worker.end(1)).fold(0.0, f64::max);
    let ends = workers
        .iter()
        .filter_map(|worker| earliest_end(worker, batch, least, &room));
    let seconds = ends.fold(f64::INFINITY, f64::min);
    let of_worker = if seconds <= least {
        beside_the_slowest(workers, batch, least)?
    } else {
        take_back(workers, batch, seconds, room(seconds) - batch)
    };
    Ok(Shares {
        seconds,
        bound_seconds: bound(workers, batch).max(least),
        of_worker,
    })
}

/// Shares in a step that ends with the only micro-batch of the slowest: all others share the rest
/// as evenly as they can.
fn beside_the_slowest(
    workers: &[Worker],
    batch: u64,
    least: f64,
) -> Result<Vec<Vec<(u64, u64)>>, SharesError> {
    let is_slowest = |worker: &&Worker| worker.end(1) >= least;
    let slowest: u64 = workers
        .iter()
        .filter(is_slowest)
        .map(|it| it.replicas)
        .sum();
    let others: Vec<Worker> = workers
        .iter()
        .filter(|it| !is_slowest(it))
        .copied()
        .collect();
    let mut shares = match others.is_empty() {
        true => Vec::new(),
        false => share_out(&others, batch - slowest)?.of_worker,
    }
    .into_iter();
    let of = |worker| match is_slowest(&worker) {
        true if worker.replicas == 0 => Vec::new(),
        true => vec![(worker.replicas, 1)],
        false => shares.next().unwrap_or_default(),
    };
    Ok(workers.iter().map(of).collect())
}

/// As many micro-batches as end by `seconds`, less `surplus` of those that end exactly then.
fn take_back(
    workers: &[Worker],
    batch: u64,
    seconds: f64,
    mut surplus: u64,
) -> Vec<Vec<(u64, u64)>> {
    let mut of_worker: Vec<Vec<(u64, u64)>> = Vec::new();
    for worker in workers.iter().rev() {
        let count = worker.count_by(seconds, batch);
        let fewer = match worker.end(count) < seconds {
            true => 0,
            false => surplus.min(worker.replicas),
        };
        surplus -= fewer;
        let groups = [
            (worker.replicas - fewer, count),
            (fewer, count.saturating_sub(1)),
        ];
        of_worker.push(groups.into_iter().filter(|group| group.0 > 0).collect());
    }
    debug_assert_eq!(surplus, 0, "before that end there is no room for the batch");
    of_worker.reverse();
    of_worker
}

/// The earliest end of one of a worker's micro-batches by which there is room for the batch.
fn earliest_end(worker: &Worker, batch: u64, least: f64, room: &dyn Fn(f64) -> u64) -> Option<f64> {
    let limit = worker.limit(batch);
    let is_enough = |count: u64| {
        let end = worker.end(count).max(least);
        room(end) >= batch
    };
    if !is_enough(limit) {
        return None;
    }
    let (mut low, mut high) = (1, limit);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_enough(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Some(worker.end(high).max(least))
}

/// The end of a step whose work can be split at will.
fn bound(workers: &[Worker], batch: u64) -> f64 {
    // Micro-batches by `seconds`, without the part of a replica's fixed time that is negative work.
    let done = |seconds: f64| -> f64 {
        let of = |worker: &Worker| {
            let count = (seconds - worker.fixed_seconds).max(0.0) / worker.micro_batch_seconds;
            worker.replicas as f64 * worker.most.map_or(count, |most| count.min(most as f64))
        };
        workers.iter().map(of).sum()
    };
    let (mut low, mut high) = (0.0, f64::MIN_POSITIVE);
    for worker in workers {
        high = worker.end(worker.limit(batch)).max(high);
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if done(middle) < batch as f64 {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

fn check(workers: &[Worker], batch: u64) -> Result<(), SharesError> {
    for (index, worker) in workers.iter().enumerate() {
        let no_time = |field, value| SharesError::NoTime {
            worker: index,
            field,
            value,
        };
        let (fixed, each) = (worker.fixed_seconds, worker.micro_batch_seconds);
        if !(fixed.is_finite() && fixed >= 0.0) {
            return Err(no_time("fixed_seconds", fixed));
        }
        if !(each.is_finite() && each > 0.0) {
            return Err(no_time("micro_batch_seconds", each));
        }
    }
    let replicas = workers.iter().map(|it| it.replicas).sum();
    if batch < replicas {
        return Err(SharesError::TooFew { replicas, batch });
    }
    let most = |worker: &Worker| worker.replicas.saturating_mul(worker.limit(batch));
    let most = workers.iter().map(most).fold(0, u64::saturating_add);
    if workers.iter().any(|it| it.most == Some(0)) || most < batch {
        return Err(SharesError::NoRoom {
            replicas,
            most,
            batch,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
