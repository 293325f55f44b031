//! Reading the two clocks of a stamp.

use crate::BackendError;
use laggard_types::Stamp;
use nix::time::{ClockId, clock_gettime};

/// One reading of both clocks, in nanoseconds: the begin of something that the calling thread does.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    wall_ns: i64,
    cpu_ns: i64,
}

impl Reading {
    /// Reads at the begin of work: the wall clock last, so that it is closest to the work.
    ///
    /// # Errors
    /// [`BackendError::System`] if a clock cannot be read.
    pub fn begin() -> Result<Self, BackendError> {
        let cpu_ns = cpu_ns()?;
        Ok(Self {
            wall_ns: monotonic_ns()?,
            cpu_ns,
        })
    }

    /// Reads at the end of work: the wall clock first, so that it is closest to the work.
    ///
    /// # Errors
    /// [`BackendError::System`] if a clock cannot be read.
    pub fn end(self) -> Result<Stamp, BackendError> {
        let end_ns = monotonic_ns()?;
        Ok(Stamp {
            start_ns: self.wall_ns,
            end_ns,
            cpu_start_ns: self.cpu_ns,
            cpu_end_ns: cpu_ns()?,
        })
    }
}

/// The host's monotonic clock, in nanoseconds: what stamps of its processors are read from.
///
/// # Errors
/// [`BackendError::System`] if the clock cannot be read.
pub fn monotonic_ns() -> Result<i64, BackendError> {
    read(ClockId::CLOCK_MONOTONIC)
}

/// CPU time of the calling thread, in nanoseconds.
pub(crate) fn cpu_ns() -> Result<i64, BackendError> {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: ClockId) -> Result<i64, BackendError> {
    let time = clock_gettime(clock).map_err(|e| BackendError::System {
        what: "reading a clock".to_owned(),
        why: e.to_string(),
    })?;
    // The casts widen on every platform; their width differs between platforms.
    Ok(time.tv_sec() as i64 * 1_000_000_000 + time.tv_nsec() as i64)
}
