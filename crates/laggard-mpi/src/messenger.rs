//! The seam `Messenger` over MPI: the calling thread sends and receives itself.

use crate::cargo::Cargo;
use crate::flight::Flight;
use crate::line::{Line, Stopped};
use crate::wait::Pace;
use laggard_backend::{BackendError, Messenger};
use laggard_types::Rank;
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

/// A messenger's waits are short, or it is not used: so it looks for some time before it sleeps,
/// and lets the other threads of its processor run in between.
const PACE: Pace = Pace {
    yields: 0,
    spin: Duration::from_millis(1),
};

/// MPI keeps the order of messages with the same tag.
const TAG: i32 = 0;

/// One rank's messages on a line of their own.
pub(crate) struct MpiMessenger {
    line: Arc<Line>,
}

impl MpiMessenger {
    pub(crate) fn new(line: Arc<Line>) -> Self {
        Self { line }
    }

    fn check(&self, peer: Rank, call: &str) -> Result<(), BackendError> {
        if peer >= self.line.size() {
            return Err(self.invalid(call, format!("there are {} ranks", self.line.size())));
        }
        self.line.check()
    }

    fn invalid(&self, call: &str, why: String) -> BackendError {
        BackendError::Invalid {
            rank: self.line.rank(),
            call: call.to_owned(),
            why,
        }
    }

    /// Leaves a message to a thread of its own, until it is delivered.
    fn post(&self, mut flight: Flight, to: Rank, deadline: Instant) -> Result<(), BackendError> {
        let line = Arc::clone(&self.line);
        let posted = Builder::new()
            .name("laggard-post".to_owned())
            .spawn(move || {
                let what = "send";
                if let Err(Stopped::Late) = line.land(&mut flight, what, Pace::USUAL, deadline) {
                    tracing::warn!(from = line.rank(), to, "a message was not taken in time");
                }
            });
        posted.map(|_| ()).map_err(|error| BackendError::System {
            what: "starting a thread".to_owned(),
            why: error.to_string(),
        })
    }

    fn late(&self, begin: Instant, waiting_for: String, peer: Rank) -> BackendError {
        BackendError::Timeout {
            rank: self.line.rank(),
            waited: begin.elapsed(),
            waiting_for,
            missing: vec![peer],
        }
    }

    fn mismatch(&self, len: usize, from: Rank, other_call: String) -> BackendError {
        BackendError::Mismatch {
            rank: self.line.rank(),
            call: format!("receive of {len} bytes"),
            other: from,
            other_call,
        }
    }
}

impl Messenger for MpiMessenger {
    fn rank(&self) -> Rank {
        self.line.rank()
    }

    fn size(&self) -> u32 {
        self.line.size()
    }

    fn send(&self, to: Rank, message: &[u8], deadline: Instant) -> Result<(), BackendError> {
        let what = "send";
        self.check(to, what)?;
        let begin = Instant::now();
        let cargo = Cargo::message(to, TAG, message.to_vec());
        let cargo = cargo.map_err(|why| self.invalid(what, why))?;
        let failed = |stopped| match stopped {
            Stopped::Failed(error) => error,
            Stopped::Late | Stopped::Truncated => {
                self.late(begin, format!("a message to rank {to}"), to)
            }
        };
        let mut flight = self.line.start(cargo, what).map_err(failed)?;
        match self.line.land(&mut flight, what, PACE, begin + PACE.spin) {
            // MPI delivers long messages only with both sides at hand, and this one may have to
            // receive first, or go on to something else than MPI.
            Err(Stopped::Late) if Instant::now() < deadline => self.post(flight, to, deadline),
            landed => landed.map(|_| ()).map_err(failed),
        }
    }

    fn receive(
        &self,
        from: Rank,
        message: &mut [u8],
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let what = "receive";
        self.check(from, what)?;
        let begin = Instant::now();
        let longer = || self.mismatch(message.len(), from, "a longer send".to_owned());
        let failed = |stopped| match stopped {
            Stopped::Failed(error) => error,
            Stopped::Truncated => longer(),
            Stopped::Late => self.late(begin, format!("a message from rank {from}"), from),
        };
        let cargo = Cargo::letterbox(from, TAG, message.len());
        let cargo = cargo.map_err(|why| self.invalid(what, why))?;
        let mut flight = self.line.start(cargo, what).map_err(failed)?;
        let landed = match self.line.land(&mut flight, what, PACE, deadline) {
            // The message may still come while the receive is cancelled.
            Err(Stopped::Late) => self.line.cancel(flight, what).map_err(failed)?,
            Err(stopped) => return Err(failed(stopped)),
            Ok(landed) => Some(landed),
        };
        let (completion, cargo) = landed.ok_or_else(|| failed(Stopped::Late))?;
        let came = usize::try_from(completion.received_bytes).unwrap_or(0);
        if came != message.len() {
            return Err(self.mismatch(message.len(), from, format!("send of {came} bytes")));
        }
        message.copy_from_slice(&cargo.into_bytes());
        Ok(())
    }
}
