//! One communicator of MPI as this process uses it: operations on it that are waited for, until
//! they are complete, late, or the line has failed. Knows nothing of calls or of who is missing.

use crate::abi::{self, Comm, Completion};
use crate::cargo::{Cargo, rank_of};
use crate::flight::{Duplication, Flight};
use crate::library::{Failed, Library};
use crate::wait::{Ended, Pace, wait_until};
use laggard_backend::{Abort, Abortable, BackendError};
use laggard_types::Rank;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

/// A communicator of this process alone; freed on drop. A line that has failed stays failed.
pub(crate) struct Line {
    library: Arc<Library>,
    comm: Comm,
    place: abi::Place,
    /// This rank in the job, for errors.
    rank: Rank,
    failure: OnceLock<BackendError>,
}

/// Why an operation did not complete.
pub(crate) enum Stopped {
    /// It was late.
    Late,
    /// A message was longer than the memory for it.
    Truncated,
    /// The line has failed, or MPI has.
    Failed(BackendError),
}

impl Line {
    /// Takes a communicator over, which no other line has; it fails when the world is aborted.
    pub(crate) fn adopt(
        library: &Arc<Library>,
        comm: Comm,
        rank: Rank,
        abort: &Abort,
    ) -> Result<Arc<Self>, BackendError> {
        let place = library.adopt(comm);
        let place = place.map_err(|failed| refused(library, "adopting a communicator", failed))?;
        library.communicators().fetch_add(1, Ordering::SeqCst);
        let line = Arc::new(Self {
            library: Arc::clone(library),
            comm,
            place,
            rank,
            failure: OnceLock::new(),
        });
        let listener: Weak<Self> = Arc::downgrade(&line);
        abort.listen(listener);
        Ok(line)
    }

    /// Duplicates a communicator, together with all its other ranks.
    pub(crate) fn duplicate(
        library: &Arc<Library>,
        (comm, rank): (Comm, Rank),
        abort: &Abort,
        deadline: Instant,
        mut look: impl FnMut() -> Result<(), BackendError>,
    ) -> Result<Arc<Self>, Stopped> {
        let what = "duplicating a communicator";
        let refused = |failed| Stopped::Failed(refused(library, what, failed));
        let mut duplication = Duplication::start(library, comm).map_err(refused)?;
        let copy = wait_until(Pace::USUAL, deadline, || {
            look().map_err(Stopped::Failed)?;
            duplication.test().map_err(refused)
        })?;
        match copy {
            Ended::Late => Err(Stopped::Late),
            Ended::Ready(copy) => Self::adopt(library, copy, rank, abort).map_err(Stopped::Failed),
        }
    }

    /// Duplicates this line's communicator.
    pub(crate) fn copy(&self, abort: &Abort, deadline: Instant) -> Result<Arc<Self>, Stopped> {
        let from = (self.comm, self.rank);
        Self::duplicate(&self.library, from, abort, deadline, || self.check())
    }

    /// A line between some ranks of this one, in this order. All of them must be about to call
    /// this, and no other rank: MPI waits for them without a deadline.
    pub(crate) fn subset(&self, ranks: &[Rank], abort: &Abort) -> Result<Arc<Self>, BackendError> {
        let ranks: Vec<_> = ranks.iter().map(|rank| rank_of(*rank)).collect();
        let subset = self.library.subset(self.comm, &ranks, 0);
        let subset = subset.map_err(|failed| refused(&self.library, "splitting", failed))?;
        Self::adopt(&self.library, subset, self.rank, abort)
    }

    /// This process's rank on the line.
    pub(crate) fn rank(&self) -> Rank {
        Rank::try_from(self.place.rank).unwrap_or(0)
    }

    /// Ranks on the line.
    pub(crate) fn size(&self) -> u32 {
        u32::try_from(self.place.size).unwrap_or(1)
    }

    /// This process's rank in the job.
    pub(crate) fn job_rank(&self) -> Rank {
        self.rank
    }

    /// The line's failure, if it has failed.
    pub(crate) fn check(&self) -> Result<(), BackendError> {
        self.failure.get().cloned().map_or(Ok(()), Err)
    }

    /// Makes all waits on the line end with this error; the first counts.
    pub(crate) fn fail(&self, error: BackendError) {
        // A second failure is a consequence of the first.
        let _ = self.failure.set(error);
    }

    /// Starts an operation; `what` names it in errors.
    pub(crate) fn start(&self, cargo: Cargo, what: &str) -> Result<Flight, Stopped> {
        self.check().map_err(Stopped::Failed)?;
        let started = Flight::start(&self.library, self.comm, cargo);
        started.map_err(|failed| self.stopped(what, failed))
    }

    /// Waits for an operation. Dropping the flight after an error leaks its memory.
    pub(crate) fn land(
        &self,
        flight: &mut Flight,
        what: &str,
        pace: Pace,
        deadline: Instant,
    ) -> Result<(Completion, Cargo), Stopped> {
        let landed = wait_until(pace, deadline, || {
            // What is complete counts, also if the line has failed: so look once more after that.
            let line = self.check();
            match flight.test() {
                Ok(None) => line.map_err(Stopped::Failed).map(|()| None),
                Ok(landed) => Ok(landed),
                Err(failed) => Err(self.stopped(what, failed)),
            }
        })?;
        match landed {
            Ended::Ready(landed) => Ok(landed),
            Ended::Late => Err(Stopped::Late),
        }
    }

    /// Cancels a receive; gives it if the message came before that.
    pub(crate) fn cancel(
        &self,
        flight: Flight,
        what: &str,
    ) -> Result<Option<(Completion, Cargo)>, Stopped> {
        let cancelled = flight.cancel();
        cancelled.map_err(|failed| self.stopped(what, failed))
    }

    /// Starts an operation and waits for it.
    pub(crate) fn fly(
        &self,
        cargo: Cargo,
        what: &str,
        pace: Pace,
        deadline: Instant,
    ) -> Result<(Completion, Cargo), Stopped> {
        let mut flight = self.start(cargo, what)?;
        self.land(&mut flight, what, pace, deadline)
    }

    fn stopped(&self, what: &str, failed: Failed) -> Stopped {
        if failed == Failed(abi::TRUNCATED) {
            return Stopped::Truncated;
        }
        Stopped::Failed(refused(&self.library, what, failed))
    }
}

fn refused(library: &Library, what: &str, failed: Failed) -> BackendError {
    BackendError::System {
        what: format!("{what} with MPI"),
        why: library.explain(failed),
    }
}

impl Abortable for Line {
    fn abort(&self, reason: &str) {
        self.fail(BackendError::Aborted {
            rank: self.rank,
            reason: reason.to_owned(),
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.library.communicators().fetch_sub(1, Ordering::SeqCst);
        self.library.free(self.comm);
    }
}
