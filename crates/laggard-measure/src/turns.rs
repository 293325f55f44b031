//! Jobs that step in turns, so that what slows the machine down for a while slows all of them
//! alike. While others have their turn, the clock of a job stands still.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Steps of a turn: so few that a turn is short beside what is to be felt by all, and more than
/// one, since the first begins without what ranks do ahead of the slowest.
const STEPS: u32 = 4;

/// Whose turn it is, of all jobs.
#[derive(Debug)]
struct Turns {
    begin: Instant,
    state: Mutex<State>,
    passed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Nobody's before all ranks of all jobs have come.
    whose: Option<usize>,
    jobs: Vec<Seat>,
}

/// A job's place among others.
#[derive(Debug)]
struct Seat {
    ranks: u32,
    /// Ranks that have come to their first step, that have ended the turn at hand, and that have
    /// ended their last step.
    came: u32,
    ended: u32,
    left: u32,
    /// Whether nobody waits for it any more.
    is_over: bool,
    /// Turns that it has had.
    turns: u32,
    /// Since when its clock stands still, and for how long it has before; nanoseconds.
    since_ns: i64,
    still_ns: i64,
}

/// The turns of one job.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    job: usize,
}

impl Turn {
    /// Turns for jobs of so many ranks.
    pub(crate) fn of_jobs(ranks: impl Iterator<Item = u32>) -> Vec<Self> {
        let seat = |ranks| Seat {
            ranks,
            came: 0,
            ended: 0,
            left: 0,
            is_over: false,
            turns: 0,
            since_ns: 0,
            still_ns: 0,
        };
        let jobs: Vec<Seat> = ranks.map(seat).collect();
        let count = jobs.len();
        let turns = Arc::new(Turns {
            begin: Instant::now(),
            state: Mutex::new(State { whose: None, jobs }),
            passed: Condvar::new(),
        });
        let of_job = |job| Self {
            turns: Arc::clone(&turns),
            job,
        };
        (0..count).map(of_job).collect()
    }

    /// Waits until a rank may begin a step; for how long the clock of its job has stood still, in
    /// nanoseconds.
    pub(crate) fn begins(&self, step: u32) -> i64 {
        let mut state = self.state();
        if step == 0 {
            state.jobs[self.job].came += 1;
            state.jobs[self.job].since_ns = self.now_ns();
            self.open(&mut state);
        }
        loop {
            let seat = &state.jobs[self.job];
            let is_its = state.whose == Some(self.job) && seat.turns == step / STEPS;
            if is_its || seat.is_over {
                return seat.still_ns;
            }
            let passed = self.turns.passed.wait(state);
            state = passed.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A rank has ended a step; the last of its job at the end of a turn passes that on.
    pub(crate) fn ends(&self, step: u32) {
        if step % STEPS < STEPS - 1 {
            return;
        }
        let mut state = self.state();
        let seat = &mut state.jobs[self.job];
        seat.ended += 1;
        if seat.ended == seat.ranks && !seat.is_over {
            seat.ended = 0;
            seat.turns += 1;
            seat.since_ns = self.now_ns();
            self.pass(&mut state);
        }
    }

    /// A rank goes. Where it has failed, or the others have gone too, nobody waits for its job any
    /// more.
    pub(crate) fn leaves(&self, has_failed: bool) {
        let mut state = self.state();
        let seat = &mut state.jobs[self.job];
        seat.left += 1;
        if has_failed || seat.left == seat.ranks {
            self.end(&mut state);
        }
    }

    /// The job has ended, however far it has come.
    pub(crate) fn close(&self) {
        self.end(&mut self.state());
    }

    fn end(&self, state: &mut State) {
        let seat = &mut state.jobs[self.job];
        if seat.is_over {
            return;
        }
        seat.is_over = true;
        match state.whose {
            Some(whose) if whose == self.job => self.pass(state),
            Some(_) => {}
            None => self.open(state),
        }
        // Those of its ranks that wait for a turn have none to come.
        self.turns.passed.notify_all();
    }

    /// Gives the first turn once everybody has come.
    fn open(&self, state: &mut State) {
        if state
            .jobs
            .iter()
            .all(|it| it.is_over || it.came == it.ranks)
        {
            state.whose = Some(state.jobs.len().saturating_sub(1));
            self.pass(state);
        }
    }

    /// Gives the turn to the next job that goes on.
    fn pass(&self, state: &mut State) {
        let Some(whose) = state.whose else { return };
        let all = state.jobs.len();
        let mut others = (1..=all).map(|further| (whose + further) % all);
        if let Some(next) = others.find(|&at| !state.jobs[at].is_over) {
            let seat = &mut state.jobs[next];
            seat.still_ns += self.now_ns() - seat.since_ns;
            state.whose = Some(next);
        }
        self.turns.passed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.turns.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ns(&self) -> i64 {
        self.turns.begin.elapsed().as_nanos() as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    const NOBODY: usize = usize::MAX;

    /// Runs the ranks of jobs on threads, each with so many steps; a rank of the first job fails in
    /// this step. What ranks were told, of each job.
    fn run(ranks: &[u32], steps: &[u32], fails: Option<u32>) -> Vec<Vec<i64>> {
        let turns = Turn::of_jobs(ranks.iter().copied());
        let at_work = &AtomicUsize::new(NOBODY);
        thread::scope(|scope| {
            let mut jobs = Vec::new();
            for (job, turn) in turns.iter().enumerate() {
                let rank = move |rank: u32| {
                    let mut told = Vec::new();
                    for step in 0..steps[job] {
                        told.push(turn.begins(step));
                        if job == 0 && rank == 0 && fails == Some(step) {
                            turn.leaves(true);
                            return told;
                        }
                        // With a rank for each job, nobody else works meanwhile.
                        let alone = ranks.iter().all(|ranks| *ranks == 1);
                        let before = at_work.swap(job, Ordering::SeqCst);
                        assert!(!alone || before == NOBODY, "{job} beside {before}");
                        thread::sleep(Duration::from_micros(200));
                        at_work.swap(NOBODY, Ordering::SeqCst);
                        turn.ends(step);
                    }
                    turn.leaves(false);
                    told
                };
                let spawned = (0..ranks[job]).map(|at| scope.spawn(move || rank(at)));
                jobs.push(spawned.collect::<Vec<_>>());
            }
            let joined = jobs.into_iter().map(|ranks| {
                let told = ranks.into_iter().map(|rank| rank.join().expect("a rank"));
                let told: Vec<Vec<i64>> = told.collect();
                let longest = told.iter().max_by_key(|told| told.len()).expect("a rank");
                for (at, still) in longest.iter().enumerate() {
                    let same = |it: &Vec<i64>| it.get(at).is_none_or(|it| it == still);
                    assert!(told.iter().all(same), "ranks of a job have one clock");
                }
                longest.clone()
            });
            joined.collect()
        })
    }

    #[test]
    fn nobody_works_beside_another_and_clocks_stand_still_between_turns() {
        let told = run(&[1, 1, 1], &[10, 10, 3], None);
        for still in &told {
            for (step, pair) in (1..).zip(still.windows(2)) {
                let is_new_turn = step % STEPS == 0;
                assert_eq!(pair[1] > pair[0], is_new_turn, "{told:?}");
            }
        }
        // Another has had four steps meanwhile.
        assert!(told[0][4] - told[0][3] > 4 * 200_000, "{told:?}");
    }

    #[test]
    fn ranks_of_a_job_have_one_clock() {
        let told = run(&[3, 2], &[9, 17], None);
        assert_eq!([told[0].len(), told[1].len()], [9, 17]);
    }

    #[test]
    fn a_job_that_fails_or_never_starts_keeps_nobody_waiting() {
        let told = run(&[2, 1], &[9, 9], Some(5));
        assert_eq!(told[1].len(), 9);
        let turns = Turn::of_jobs([1, 1].into_iter());
        turns[0].close();
        assert_eq!(turns[1].begins(0), turns[1].begins(1));
    }
}
