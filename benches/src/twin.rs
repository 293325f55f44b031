//! What the machine did by itself about the time of a trial, told by a clean run, its twin.
//! Processors that share a core with another guest's are slower for seconds or minutes, which no
//! counter of this machine tells; whoever is named for that is named rightly.

use laggard_analyze::{Analysis, HeatMap};
use laggard_stats::{median, normal_quantile, quantile};

/// Ranks of a twin that lie further apart, or vary by more from step to step, leave open what is
/// true: a third of the smallest slowness and of the smallest jitter that are put in.
const MOST_APART: f64 = 0.10 / 3.0;
const MOST_SPREAD: f64 = 0.15 / 3.0;
/// Parts of a run that are looked at by themselves: processors are not slow for all of it.
const PARTS: usize = 4;

/// How even ranks were that nothing was put into.
#[derive(Debug, Clone, Copy)]
pub struct Twin {
    /// Largest difference of the median own times of two ranks in a part of the run, relative.
    pub apart: f64,
    /// Largest spread of a rank's own time from step to step, relative.
    pub spread: f64,
}

impl Twin {
    /// From the analysis of a clean run, by figures alone: no finding, true or false, excuses
    /// another.
    pub fn of(analysis: &Analysis) -> Self {
        let map = &analysis.heat_map;
        let part = map.first_step.len().div_ceil(PARTS).max(1);
        let apart = (0..PARTS).map(|at| {
            let medians = rows(map).filter_map(|row| median(row.chunks(part).nth(at)?).ok());
            let (least, most) = medians.fold((f64::INFINITY, f64::NEG_INFINITY), |range, it| {
                (range.0.min(it), range.1.max(it))
            });
            most - least
        });
        Self {
            apart: apart.fold(0.0, f64::max),
            spread: spreads(map).into_iter().fold(0.0, f64::max),
        }
    }

    /// Whether a trial cannot be judged.
    pub fn is_uneven(self) -> bool {
        self.apart > MOST_APART || self.spread > MOST_SPREAD
    }
}

/// Spread of each rank's own time from step to step, relative to its median, from the 80th
/// percentile of the differences between neighbours as if they were normal.
pub fn spreads(map: &HeatMap) -> Vec<f64> {
    let spread = |row: &[f64]| {
        let times: Vec<f64> = row.iter().map(|excess| 1.0 + excess).collect();
        let jumps: Vec<f64> = times.windows(2).map(|it| (it[1] - it[0]).abs()).collect();
        let deviations = 2.0_f64.sqrt() * normal_quantile(0.9)?;
        Some(quantile(&jumps, 0.8).ok()? / deviations / median(&times).ok()?)
    };
    rows(map).filter_map(spread).collect()
}

/// A heat map has a row for each rank and a column for each step of runs as small as these.
fn rows(map: &HeatMap) -> impl Iterator<Item = &[f64]> {
    map.excess.chunks(map.first_step.len().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known_job::KnownJob;
    use laggard_analyze::{Options, analyze};
    use laggard_record::Record;

    fn twin(change: impl Fn(&mut KnownJob)) -> Twin {
        let mut job = KnownJob::clean(4, 2, 120, 3);
        change(&mut job);
        let dir = tempfile::tempdir().unwrap();
        job.write(dir.path()).unwrap();
        let record = Record::open(dir.path()).unwrap();
        Twin::of(&analyze(&record, &Options::default()).unwrap())
    }

    #[test]
    fn a_machine_is_uneven_where_ranks_lie_apart_or_jitter() {
        let even = twin(|_| ());
        assert!(!even.is_uneven(), "{even:?}");
        assert!((0.008..0.013).contains(&even.spread), "{even:?}");
        let slow = twin(|job| job.rank_excess[1] = 0.2);
        assert!(slow.is_uneven() && slow.spread < MOST_SPREAD, "{slow:?}");
        assert!((0.17..0.21).contains(&slow.apart), "{slow:?}");
        let late = twin(|job| {
            job.rank_excess[1] = 0.2;
            job.from_step = 80;
        });
        assert!(late.apart > 0.15, "slow in the last third: {late:?}");
        let unsteady = twin(|job| job.jitter[3] = 0.15);
        assert!(
            unsteady.is_uneven() && unsteady.spread > 0.1,
            "{unsteady:?}"
        );
    }
}
