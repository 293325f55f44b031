//! SIGINT and SIGTERM end a run after the step at hand with a complete record; SIGUSR1 flushes.

use anyhow::{Context, Result};
use laggard_measure::Signal;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What has been asked for by signals.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    interrupt: Arc<AtomicBool>,
    terminate: Arc<AtomicBool>,
    flush: Arc<AtomicBool>,
}

impl Signals {
    /// Listens from now on. A second SIGINT or SIGTERM ends the process at once.
    pub(crate) fn listen() -> Result<Self> {
        let signals = Self::default();
        let asked = [(SIGINT, &signals.interrupt), (SIGTERM, &signals.terminate)];
        for (signal, flag) in asked {
            signal_hook::flag::register_conditional_shutdown(
                signal,
                128 + signal,
                Arc::clone(flag),
            )
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(flag)))
            .context("cannot listen for signals")?;
        }
        signal_hook::flag::register(SIGUSR1, Arc::clone(&signals.flush))
            .context("cannot listen for signals")?;
        Ok(signals)
    }

    /// The signal that asks the run to end.
    pub(crate) fn stop(&self) -> Option<Signal> {
        let name = if self.interrupt.load(Ordering::Relaxed) {
            "SIGINT"
        } else if self.terminate.load(Ordering::Relaxed) {
            "SIGTERM"
        } else {
            return None;
        };
        Some(Signal {
            name: name.to_owned(),
        })
    }

    /// Whether a flush was asked for since the last call.
    pub(crate) fn flush(&self) -> bool {
        self.flush.swap(false, Ordering::Relaxed)
    }
}
