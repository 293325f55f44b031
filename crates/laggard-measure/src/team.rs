//! The other processes of a run, as one of them sees them: what is said over the control plane, and
//! how a failure is put in words that name ranks and hosts.

use crate::MeasureError;
use crate::place::Places;
use laggard_backend::control::{ControlPlane, Envelope, Position};
use laggard_backend::{BackendError, Device};
use laggard_schedule::Schedule;
use laggard_types::Rank;
use std::collections::BTreeSet;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Kinds of messages of a run.
pub(crate) const END: u8 = 1;
const END_HEARD: u8 = 2;
const ASK_END: u8 = 3;
/// Rows, from a rank to its host's writer, and the end of them.
pub(crate) const ROWS: u8 = 4;
pub(crate) const ROWS_DONE: u8 = 5;
/// A file of a host's part of the record, and the end of the part, to rank 0.
pub(crate) const PART_FILE: u8 = 6;
pub(crate) const PART_DONE: u8 = 7;

/// The operation of a rank of which only the step is known yet.
const NOT_LOOKED: u32 = u32::MAX;

/// The other processes.
pub(crate) struct Team {
    pub control: Arc<ControlPlane>,
    pub places: Places,
    pub rank: Rank,
    ends: Mutex<Receiver<Envelope>>,
    heard: Mutex<Receiver<Envelope>>,
    asks: Mutex<Receiver<Envelope>>,
    /// Pieces of files, and ends of parts.
    pub part_files: Mutex<Receiver<Envelope>>,
    pub parts_done: Mutex<Receiver<Envelope>>,
}

impl Team {
    pub(crate) fn new(control: Arc<ControlPlane>, places: Places, rank: Rank) -> Self {
        let inbox = |kind| Mutex::new(control.inbox(kind));
        Self {
            ends: inbox(END),
            heard: inbox(END_HEARD),
            asks: inbox(ASK_END),
            part_files: inbox(PART_FILE),
            parts_done: inbox(PART_DONE),
            places,
            rank,
            control,
        }
    }

    pub(crate) fn size(&self) -> u32 {
        self.places.reports.len() as u32
    }

    /// Tells heartbeats where this rank is.
    pub(crate) fn is_in(&self, step: u32) {
        let operation = NOT_LOOKED;
        self.control.progress().set(Position { step, operation });
    }

    /// Tells heartbeats what this rank's device is at.
    pub(crate) fn is_at(&self, device: &dyn Device) {
        let progress = self.control.progress();
        if let (Some(position), Some(tag)) = (progress.get(), device.at_work().first()) {
            let operation = *tag as u32;
            progress.set(Position {
                operation,
                ..position
            });
        }
    }

    /// Gives operations their names, for messages about ranks that are gone.
    pub(crate) fn describe(&self, schedule: &Schedule) {
        let names: Vec<String> = schedule
            .operations
            .iter()
            .map(|it| it.name.clone())
            .collect();
        self.control.describe(move |_, position| {
            let name = names.get(position.operation as usize);
            name.map_or_else(String::new, |name| format!("operation `{name}`"))
        });
    }

    /// Rank 0 tells everybody.
    pub(crate) fn tell_all(&self, kind: u8, payload: &[u8]) -> Result<(), MeasureError> {
        let told = self.control.send_down(kind, payload.to_vec());
        told.map_err(|source| self.failed(source))
    }

    /// Waits until every other rank has heard of the last step; else who has not, and how long that
    /// took.
    pub(crate) fn all_have_heard(&self, deadline: Instant) -> Result<(), (Vec<Rank>, Duration)> {
        let begin = Instant::now();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: BTreeSet<Rank> = (1..self.size()).collect();
        while !missing.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            match heard.recv_timeout(left) {
                Ok(envelope) => _ = missing.remove(&envelope.from),
                Err(_) => return Err((missing.into_iter().collect(), begin.elapsed())),
            }
        }
        Ok(())
    }

    /// The step that rank 0 has said is not begun any more, once; it is told that this was heard.
    pub(crate) fn told_end(&self) -> Result<Option<u32>, MeasureError> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(envelope) = ends.try_recv() else {
            return Ok(None);
        };
        let Ok(bytes) = <[u8; 4]>::try_from(envelope.payload.as_slice()) else {
            return Ok(None);
        };
        Ok(Some(u32::from_le_bytes(bytes)))
    }

    /// Tells rank 0 that its word on the last step was heard and acted upon.
    pub(crate) fn has_heard_end(&self) -> Result<(), MeasureError> {
        let told = self.control.send_to_root(END_HEARD, Vec::new());
        told.map_err(|source| self.failed(source))
    }

    /// Asks rank 0 to end the run; it is no error if rank 0 is gone, which shows elsewhere.
    pub(crate) fn ask_root_to_end(&self, why: &str) {
        if self.rank != 0
            && let Err(error) = self.control.send_to_root(ASK_END, why.as_bytes().to_vec())
        {
            tracing::debug!(%error, "rank 0 could not be asked to end");
        }
    }

    /// What another rank wants the run to end for, on rank 0.
    pub(crate) fn asked_to_end(&self) -> Option<String> {
        let asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        let envelope = asks.try_recv().ok()?;
        Some(String::from_utf8_lossy(&envelope.payload).into_owned())
    }

    /// The error of a message that could not be sent.
    pub(crate) fn failed(&self, source: BackendError) -> MeasureError {
        MeasureError::Team {
            rank: self.rank,
            source,
        }
    }

    /// An error as its reader can act upon it: with the ranks that are gone, if any are, and the
    /// hosts of ranks that are missing.
    pub(crate) fn explain(&self, error: MeasureError) -> MeasureError {
        let losses = self.control.losses();
        if !losses.is_empty() && error.is_echo_or_wait() {
            let words: Vec<String> = losses.iter().map(ToString::to_string).collect();
            return MeasureError::Lost {
                rank: self.rank,
                words: words.join("\n"),
            };
        }
        let missing = error.missing();
        if missing.is_empty() {
            return error;
        }
        let place = |rank: &Rank| format!("rank {rank} is on host {}", self.places.host(*rank));
        let hosts: Vec<String> = missing.iter().map(place).collect();
        MeasureError::Missing {
            source: Box::new(error),
            hosts: hosts.join("\n"),
        }
    }
}
