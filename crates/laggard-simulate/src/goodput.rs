//! What failures leave of a job's time: checkpoints, work done twice, restarts, waiting for
//! spares. Failures come at a constant rate, also while a job restarts.
//!
//! The exact expectations are those of Daly, "A higher order estimate of the optimum checkpoint
//! interval for restart dumps", Future Generation Computer Systems 22(3), 2006, section 3.

mod rates;
mod spares;

use laggard_types::Seconds;
use serde::Serialize;

pub use rates::FailureRate;
pub(crate) use spares::{SparePool, spares_for};

use crate::error::{SimulateError, in_range, positive};

/// First-order formulas are refused where checkpoint and restart exceed this share of the mean
/// time between failures.
const FIRST_ORDER_LIMIT: f64 = 0.2;

/// How a job is interrupted and saves its work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interruptions {
    /// Mean time between failures of the whole job, infinite for none.
    pub mtbf: Seconds,
    /// What one checkpoint stops the job for.
    pub checkpoint: Seconds,
    /// From a failure until the job works again at the last checkpoint, noticing it included.
    pub restart: Seconds,
}

/// Seconds of a year of 365.25 days.
const SECONDS_PER_YEAR: f64 = 365.25 * 86_400.0;

/// What a checkpoint and a failure cost a job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surroundings {
    checkpoint: Seconds,
    restart: Seconds,
}

impl Surroundings {
    /// A checkpoint stops the job for the one, a failure until it works again for the other.
    ///
    /// # Errors
    /// A checkpoint that is not above zero, a restart below zero, or either not finite.
    pub fn new(checkpoint: Seconds, restart: Seconds) -> Result<Self, SimulateError> {
        positive("time of a checkpoint in seconds", checkpoint.0)?;
        in_range(
            "time of a restart in seconds",
            restart.0,
            restart.0 >= 0.0 && restart.0.is_finite(),
            "at least 0 and finite",
        )?;
        Ok(Self {
            checkpoint,
            restart,
        })
    }

    /// What failures leave of the time, with the best interval between checkpoints.
    ///
    /// # Errors
    /// A time between failures that is not above zero.
    pub fn goodput(&self, mtbf: Seconds) -> Result<Goodput, SimulateError> {
        let interruptions = self.interruptions(mtbf);
        interruptions.goodput(interruptions.best_interval()?)
    }

    /// Young's and Daly's first-order interval between checkpoints; `None` where it misleads.
    ///
    /// # Errors
    /// A time between failures that is not above zero.
    pub fn first_order_interval(&self, mtbf: Seconds) -> Result<Option<Seconds>, SimulateError> {
        match self.interruptions(mtbf).first_order_interval() {
            Err(SimulateError::NotFirstOrder { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    fn interruptions(&self, mtbf: Seconds) -> Interruptions {
        Interruptions {
            mtbf,
            checkpoint: self.checkpoint,
            restart: self.restart,
        }
    }
}

/// Mean time between failures of devices that each fail so often in a year; `None` where nothing
/// fails, or a rate is not known.
pub fn time_between_failures(devices: impl Iterator<Item = (Option<f64>, u64)>) -> Option<Seconds> {
    let of = |(rate, count): (Option<f64>, u64)| match count {
        0 => Some(0.0),
        _ => Some(rate? * count as f64),
    };
    let per_year: f64 = devices.map(of).sum::<Option<f64>>()?;
    (per_year > 0.0).then(|| Seconds(SECONDS_PER_YEAR / per_year))
}

/// Shares of a job's time by cause; they sum to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Goodput {
    /// Work between checkpoints that the shares are of, in seconds.
    pub interval_s: f64,
    /// Work that was kept.
    pub useful: f64,
    /// Checkpoints that were kept.
    pub checkpoint: f64,
    /// Work and checkpoints that a failure undid.
    pub lost_work: f64,
    /// Restarts, those that failed too.
    pub restart: f64,
    /// Too few healthy nodes.
    pub waiting_for_spares: f64,
}

impl Interruptions {
    /// Checks the times.
    ///
    /// # Errors
    /// A mean time between failures that is not above zero, a negative time, or one that is not
    /// finite.
    pub fn check(&self) -> Result<(), SimulateError> {
        let mtbf = self.mtbf.0;
        in_range(
            "time between failures in seconds",
            mtbf,
            mtbf > 0.0,
            "above zero",
        )?;
        for (name, time) in [
            ("checkpoint in seconds", self.checkpoint.0),
            ("restart in seconds", self.restart.0),
        ] {
            in_range(
                name,
                time,
                time >= 0.0 && time.is_finite(),
                "at least 0 and finite",
            )?;
        }
        Ok(())
    }

    /// The exact expectation of the time that a segment of `work` and its checkpoint take:
    /// `M e^(R/M) (e^((w + C)/M) - 1)`. Infinite where it exceeds the range of `f64`.
    ///
    /// # Errors
    /// As [`Self::check`], or a `work` that is not above zero.
    pub fn expected_time(&self, work: Seconds) -> Result<Seconds, SimulateError> {
        self.check()?;
        let work = positive("work in seconds", work.0)?;
        let mtbf = self.mtbf.0;
        if mtbf.is_infinite() {
            return Ok(Seconds(work + self.checkpoint.0));
        }
        let attempts = ((work + self.checkpoint.0) / mtbf).exp_m1();
        Ok(Seconds(mtbf * (self.restart.0 / mtbf).exp() * attempts))
    }

    /// Shares of time when the job saves after every `work`.
    ///
    /// # Errors
    /// As [`Self::expected_time`].
    pub fn goodput(&self, work: Seconds) -> Result<Goodput, SimulateError> {
        let total = self.expected_time(work)?.0;
        let mtbf = self.mtbf.0;
        let segment = work.0 + self.checkpoint.0;
        let failures = if mtbf.is_infinite() {
            0.0
        } else {
            (segment / mtbf).exp_m1()
        };
        let shares = if total.is_infinite() {
            // No segment is ever finished: what each failure costs, without end.
            let restart = (self.restart.0 / mtbf).exp_m1();
            [0.0, 0.0, 1.0 / (1.0 + restart), restart / (1.0 + restart)]
        } else if failures > 0.0 {
            let lost = mtbf * failures - segment;
            let restart = mtbf * failures * (self.restart.0 / mtbf).exp_m1();
            [work.0, self.checkpoint.0, lost, restart].map(|time| time / total)
        } else {
            [work.0 / total, self.checkpoint.0 / total, 0.0, 0.0]
        };
        let [useful, checkpoint, lost_work, restart] = shares;
        Ok(Goodput {
            interval_s: work.0,
            useful,
            checkpoint,
            lost_work,
            restart,
            waiting_for_spares: 0.0,
        })
    }

    /// The work between checkpoints that leaves the most useful time: the root of
    /// `1 - e^(-(w + C)/M) = w/M`. It does not depend on the restart.
    ///
    /// # Errors
    /// As [`Self::check`]; or a checkpoint of no time or a job without failures, for which there
    /// is none: save always, or never.
    pub fn best_interval(&self) -> Result<Seconds, SimulateError> {
        self.check()?;
        let cost = positive("checkpoint in seconds", self.checkpoint.0)? / self.mtbf.0;
        positive("time between failures in seconds", self.mtbf.0)?;
        // Above zero at 0, below zero at 1, falling between.
        let excess = |x: f64| -(-(x + cost)).exp_m1() - x;
        let (mut low, mut high) = (0.0_f64, 1.0_f64);
        // Halvings until the ends are neighbours.
        while low.next_up() < high {
            let middle = f64::midpoint(low, high);
            if excess(middle) > 0.0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(Seconds(high * self.mtbf.0))
    }

    /// Young's and Daly's first-order interval, `sqrt(2 C M)`.
    ///
    /// # Errors
    /// As [`Self::best_interval`]; or checkpoint and restart above 0.2 of the time between
    /// failures, where the formula, which neglects failures during either, misleads.
    pub fn first_order_interval(&self) -> Result<Seconds, SimulateError> {
        self.check()?;
        let checkpoint = positive("checkpoint in seconds", self.checkpoint.0)?;
        let mtbf = positive("time between failures in seconds", self.mtbf.0)?;
        let share = (checkpoint + self.restart.0) / mtbf;
        if share > FIRST_ORDER_LIMIT {
            return Err(SimulateError::NotFirstOrder {
                share,
                limit: FIRST_ORDER_LIMIT,
            });
        }
        Ok(Seconds((2.0 * checkpoint * mtbf).sqrt()))
    }
}

impl Goodput {
    /// The same job where a share of the calendar passes without enough healthy nodes.
    ///
    /// # Errors
    /// A share outside [0, 1].
    pub fn waiting(&self, share: f64) -> Result<Self, SimulateError> {
        let share = in_range(
            "share of time without enough nodes",
            share,
            (0.0..=1.0).contains(&share),
            "between 0 and 1",
        )?;
        let left = 1.0 - share;
        Ok(Self {
            interval_s: self.interval_s,
            useful: left * self.useful,
            checkpoint: left * self.checkpoint,
            lost_work: left * self.lost_work,
            restart: left * self.restart,
            waiting_for_spares: share + left * self.waiting_for_spares,
        })
    }

    /// Sum of the shares, 1 but for rounding.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.useful + self.checkpoint + self.lost_work + self.restart + self.waiting_for_spares
    }
}

#[cfg(test)]
mod tests;
