//! When a run has to end by itself: `--time-limit`, and the end of a batch job.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a run that ends by it says instead of a signal's name.
pub(crate) const NAME: &str = "the time limit";

/// So long before Slurm ends a job, a run under it ends by itself: time for the step at hand and
/// for writing the record. Slurm itself gives a job 30 s between SIGTERM and SIGKILL
/// (slurm.conf(5), `KillWait`); this is twice as much.
const BEFORE_JOB_END: Duration = Duration::from_secs(60);

/// The moment to end at, if there is one.
pub(crate) fn end(limit_s: Option<u64>) -> Option<Instant> {
    let job_end = std::env::var("SLURM_JOB_END_TIME").ok();
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let left = left(limit_s, job_end.as_deref(), since_epoch.unwrap_or_default())?;
    Instant::now().checked_add(left)
}

/// Time left, by the limit and by the job's end, seconds of Unix time (sbatch(1),
/// `SLURM_JOB_END_TIME`).
fn left(limit_s: Option<u64>, job_end: Option<&str>, now: Duration) -> Option<Duration> {
    let by_limit = limit_s.map(Duration::from_secs);
    let by_job = job_end
        .and_then(|text| text.trim().parse().ok())
        .map(|end| {
            Duration::from_secs(end)
                .saturating_sub(now)
                .saturating_sub(BEFORE_JOB_END)
        });
    by_limit.into_iter().chain(by_job).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_end_counts() {
        let check = |limit, job_end, expect: Option<u64>| {
            let now = Duration::from_secs(1000);
            assert_eq!(left(limit, job_end, now), expect.map(Duration::from_secs));
        };
        check(None, None, None);
        check(Some(5), None, Some(5));
        check(None, Some("1500"), Some(440));
        check(Some(5), Some("1500"), Some(5));
        check(Some(600), Some("1500"), Some(440));
        check(None, Some("900"), Some(0));
        check(None, Some("nonsense"), None);
    }
}
