//! How a thread waits for MPI: it looks, lets others run, and then sleeps ever longer. Whoever
//! waits makes MPI's progress, so it never sleeps long; but ranks share processors, so that it must
//! not spin either.

use std::time::{Duration, Instant};

/// The first sleep, and by how much each is longer than the last. The system adds its timer slack,
/// 50 us by default on Linux.
const FIRST_SLEEP: Duration = Duration::from_micros(5);
const SLEEP_GROWTH: u32 = 2;

/// The longest sleep: with the system's slack, progress is made about every 0.1 ms.
const LONGEST_SLEEP: Duration = Duration::from_micros(50);

/// How eagerly a thread looks before it sleeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Looks so often, letting other threads run in between.
    pub yields: u32,
    /// Looks for so long, whatever `yields` says.
    pub spin: Duration,
}

impl Pace {
    /// For waits of unknown length: a few looks, then sleep.
    pub(crate) const USUAL: Self = Self {
        yields: 8,
        spin: Duration::ZERO,
    };
}

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended<T> {
    /// With what was waited for.
    Ready(T),
    /// At the deadline.
    Late,
}

/// Waits until `look` gives something, and an error of it ends the wait as well.
pub(crate) fn wait_until<T, E>(
    pace: Pace,
    deadline: Instant,
    mut look: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Ended<T>, E> {
    if let Some(found) = look()? {
        return Ok(Ended::Ready(found));
    }
    let spin_until = (!pace.spin.is_zero()).then(|| Instant::now() + pace.spin);
    let mut yields = 0;
    while yields < pace.yields || spin_until.is_some_and(|until| Instant::now() < until) {
        std::thread::yield_now();
        yields += 1;
        if let Some(found) = look()? {
            return Ok(Ended::Ready(found));
        }
    }
    let mut sleep = FIRST_SLEEP;
    loop {
        if Instant::now() >= deadline {
            return Ok(Ended::Late);
        }
        std::thread::sleep(sleep);
        sleep = (sleep * SLEEP_GROWTH).min(LONGEST_SLEEP);
        if let Some(found) = look()? {
            return Ok(Ended::Ready(found));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const PACE: Pace = Pace {
        yields: 3,
        spin: Duration::ZERO,
    };

    #[test]
    fn a_wait_ends_with_what_it_finds_with_an_error_or_at_the_deadline() {
        let mut looks = 0;
        let far = Instant::now() + Duration::from_secs(60);
        let found = wait_until(PACE, far, || {
            looks += 1;
            Ok::<_, Infallible>((looks == 7).then_some("there"))
        });
        assert_eq!((found, looks), (Ok(Ended::Ready("there")), 7));
        let failed = wait_until(PACE, far, || Err::<Option<()>, _>("broken"));
        assert_eq!(failed, Err("broken"));
        let late = wait_until(PACE, Instant::now(), || Ok::<_, Infallible>(None::<()>));
        assert_eq!(late, Ok(Ended::Late));
        let soon = Instant::now() + Duration::from_millis(5);
        let late = wait_until(PACE, soon, || Ok::<_, Infallible>(None::<()>));
        assert_eq!(late, Ok(Ended::Late));
        assert!(Instant::now() >= soon);
    }

    #[test]
    fn a_long_wait_sleeps_between_looks() {
        const SLEEPS: u32 = 400;
        let begin = Instant::now();
        let mut looks = 0;
        let found = wait_until(PACE, begin + Duration::from_secs(60), || {
            looks += 1;
            Ok::<_, Infallible>((looks == 1 + PACE.yields + SLEEPS).then_some(()))
        });
        assert_eq!(found, Ok(Ended::Ready(())));
        // No sleep is shorter than asked for, so that this bound holds on any machine.
        let longer = |sleep: &Duration| Some((*sleep * SLEEP_GROWTH).min(LONGEST_SLEEP));
        let sleeps = std::iter::successors(Some(FIRST_SLEEP), longer);
        let least: Duration = sleeps.take(SLEEPS as usize).sum();
        let took = begin.elapsed();
        assert!(took >= least, "{looks} looks in {took:?}");
    }
}
