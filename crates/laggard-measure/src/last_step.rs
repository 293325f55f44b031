//! Agreement of all ranks on the last step, or somebody would wait in a collective for ever. It
//! costs nothing while nobody asks.
//!
//! Every step has a reduction over all ranks, which nobody leaves before rank 0 has come. So rank 0
//! decides, between two of its steps. Where all ranks are threads of one process, it says that step
//! `s + 1` is not begun any more before it begins step `s`: whoever has finished step `s` sees
//! that. Where ranks are processes, word takes a while: rank 0 says so of step `s + 2`, and begins
//! step `s + 1` only when everybody has heard it; nobody can be further than in step `s + 1` then.

use crate::MeasureError;
use crate::team::{END, Team};
use laggard_backend::BackendError;
use laggard_types::Rank;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The last step, as one process knows it.
pub(crate) struct LastStep {
    /// The step that is not begun any more.
    end: AtomicU32,
    /// Whether rank 0 shall end the run.
    asked: AtomicBool,
    /// Whether rank 0 has told the other processes, and they have heard.
    told: AtomicBool,
    heard: AtomicBool,
}

impl LastStep {
    pub(crate) fn new(steps: u32) -> Self {
        Self {
            end: AtomicU32::new(steps),
            asked: AtomicBool::new(false),
            told: AtomicBool::new(false),
            heard: AtomicBool::new(false),
        }
    }

    /// Asks rank 0 of this process to end the run.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Whether somebody of this process wants the run to end.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// What rank 0 of another process has said.
    pub(crate) fn set(&self, end: u32) {
        self.end.fetch_min(end, Ordering::AcqRel);
    }

    /// Whether a rank shall begin a step.
    ///
    /// # Errors
    /// If another process does not hear in time that the run ends.
    pub(crate) fn begins(
        &self,
        rank: Rank,
        step: u32,
        team: Option<(&Team, Duration)>,
    ) -> Result<bool, MeasureError> {
        if rank == 0 {
            match team {
                None if self.asked.load(Ordering::Acquire) => self.set(step + 1),
                None => {}
                Some((team, patience)) => self.lead(team, step, patience)?,
            }
        }
        Ok(step < self.end.load(Ordering::Acquire))
    }

    /// Rank 0 of several processes, about to begin a step.
    fn lead(&self, team: &Team, step: u32, patience: Duration) -> Result<(), MeasureError> {
        let is_new = self.asked.load(Ordering::Acquire) && !self.told.load(Ordering::Relaxed);
        if is_new {
            let end = step.saturating_add(2);
            if end >= self.end.load(Ordering::Acquire) {
                // It ends by itself before word would have spread.
                return Ok(());
            }
            self.told.store(true, Ordering::Relaxed);
            self.set(end);
            team.tell_all(END, &end.to_le_bytes())?;
        }
        let is_due = self.told.load(Ordering::Relaxed)
            && !self.heard.load(Ordering::Relaxed)
            && step + 1 >= self.end.load(Ordering::Acquire);
        if is_due {
            self.heard.store(true, Ordering::Relaxed);
            return team
                .all_have_heard(Instant::now() + patience)
                .map_err(|(missing, waited)| MeasureError::Start {
                    rank: 0,
                    source: BackendError::Timeout {
                        rank: 0,
                        waited,
                        waiting_for: "word that all ranks know the last step".to_owned(),
                        missing,
                    },
                });
        }
        Ok(())
    }
}
