//! Steps before those that count, for devices whose speed depends on how warm they are: whole
//! steps, so that all of the device has the load that it will be measured under.

use super::RankRunner;
use crate::MeasureError;
use laggard_backend::messenger;
use std::time::{Duration, Instant};

/// How a rank sees its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Its clocks and temperature still change, or are not visible.
    NotSteady,
    /// They do not.
    Steady,
    /// The run is to end; the device does not matter any more.
    EndOfRun,
}

impl RankRunner<'_> {
    /// Runs steps that are not recorded until the devices of all ranks are steady, or for `limit`.
    /// After each, ranks ask each other. Collective.
    ///
    /// # Errors
    /// As [`RankRunner::step`]; [`MeasureError::Exchange`] if a rank does not answer.
    pub(crate) fn soak(
        &mut self,
        limit: Duration,
        outlook: &dyn Fn() -> Outlook,
    ) -> Result<(), MeasureError> {
        let end = Instant::now() + limit;
        loop {
            self.execute(0)?;
            let outlook = match outlook() {
                Outlook::NotSteady if Instant::now() >= end => Outlook::Steady,
                other => other,
            };
            let deadline = Instant::now() + self.job.settings.timeout;
            let all = messenger::all_gather(&*self.world.messenger, &[outlook as u8], deadline);
            let all = all.map_err(|source| MeasureError::Exchange {
                rank: self.rank,
                what: "asking whether devices are steady",
                source,
            })?;
            let says = |bytes: &Vec<u8>, what: Outlook| bytes == &[what as u8];
            if all.iter().any(|bytes| says(bytes, Outlook::EndOfRun))
                || all.iter().all(|bytes| says(bytes, Outlook::Steady))
            {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Embedding;
    use crate::job::Job;
    use crate::testing;
    use laggard_backend::World;
    use laggard_backend::threads::{ThreadOptions, worlds};
    use laggard_types::{FlopPerSecond, Rank};

    /// How many steps each of three ranks runs, given what each says after its n-th.
    fn steps(limit: Duration, says: impl Fn(Rank, usize) -> Outlook + Sync) -> Vec<usize> {
        let settings = testing::settings(3, 1);
        let job = Job::new(&settings).unwrap();
        let worlds = worlds(3, &ThreadOptions::default()).unwrap();
        let embedding = Embedding::new(1, job.shape.vocabulary, job.shape.hidden);
        std::thread::scope(|scope| {
            let run = |(rank, world): (Rank, World)| {
                let (job, embedding, says) = (&job, embedding.clone(), &says);
                scope.spawn(move || {
                    let peak = FlopPerSecond(1e9);
                    let mut runner = RankRunner::start(job, rank, world, embedding, peak).unwrap();
                    let asked = std::cell::Cell::new(0);
                    let outlook = || {
                        asked.set(asked.get() + 1);
                        says(rank, asked.get())
                    };
                    runner.soak(limit, &outlook).unwrap();
                    asked.get()
                })
            };
            let threads: Vec<_> = (0..).zip(worlds).map(run).collect();
            let ended = threads.into_iter().map(|thread| thread.join().unwrap());
            ended.collect()
        })
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn all_ranks_soak_until_the_last_is_steady() {
        let last_after = |rank, asked| match asked > rank as usize {
            true => Outlook::Steady,
            false => Outlook::NotSteady,
        };
        assert_eq!(steps(LONG, last_after), [3, 3, 3]);
        // One that is steady no more is waited for again.
        let wavers = |rank, asked| match rank == 1 || asked == 4 {
            true => Outlook::Steady,
            false => Outlook::NotSteady,
        };
        assert_eq!(steps(LONG, wavers), [4, 4, 4]);
    }

    #[test]
    fn soaking_ends_with_its_time_or_the_run() {
        assert_eq!(steps(Duration::ZERO, |_, _| Outlook::NotSteady), [1, 1, 1]);
        let ends = |rank, asked| match (rank, asked) {
            (2, 2) => Outlook::EndOfRun,
            _ => Outlook::NotSteady,
        };
        assert_eq!(steps(LONG, ends), [2, 2, 2]);
    }
}
