//! How threads wait for each other: a gate puts them to sleep until a condition holds, and a
//! world's abort wakes everybody. No waiting thread uses CPU time beyond a bounded spin that is off
//! by default, since there may be more ranks than cores.

use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long to wait, and in which way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Looks at the condition again and again for so long before going to sleep.
    pub spin: Duration,
    /// Gives up after so long; `None` waits for as long as it takes.
    pub limit: Option<Duration>,
}

/// Looks at the condition between two readings of the clock while spinning.
const SPINS_PER_CLOCK_READ: u32 = 64;

/// Where threads sleep until a condition, kept in atomics elsewhere, may have changed.
#[derive(Default)]
pub(crate) struct Gate {
    sleepers: AtomicU32,
    lock: Mutex<()>,
    bell: Condvar,
}

impl Gate {
    /// Wakes the sleepers. To be called after every change of the condition.
    pub(crate) fn ring(&self) {
        // Pairs with the fence in `sleep`: either this sees the sleeper, or the sleeper sees the
        // change of the condition.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.bell.notify_all();
        }
    }

    /// Waits until `ready`, which is false only if the time ran out.
    pub(crate) fn wait(&self, patience: Patience, mut ready: impl FnMut() -> bool) -> bool {
        if ready() {
            return true;
        }
        if !patience.spin.is_zero() {
            let begin = Instant::now();
            while begin.elapsed() < patience.spin {
                for _ in 0..SPINS_PER_CLOCK_READ {
                    std::hint::spin_loop();
                    if ready() {
                        return true;
                    }
                }
            }
        }
        self.sleep(patience.limit, ready)
    }

    fn sleep(&self, limit: Option<Duration>, mut ready: impl FnMut() -> bool) -> bool {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let is_ready = loop {
            if ready() {
                break true;
            }
            guard = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                None => self
                    .bell
                    .wait(guard)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => break false,
                Some(left) => {
                    self.bell
                        .wait_timeout(guard, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        };
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        is_ready
    }
}

/// Something that has threads waiting in it.
pub trait Abortable: Send + Sync {
    /// Makes all waits end with an error that carries this reason.
    fn abort(&self, reason: &str);
}

/// Everything of one world in this process that an abort must wake. Aborting twice is aborting
/// once.
#[derive(Default)]
pub struct Abort {
    reason: OnceLock<String>,
    listeners: Mutex<Vec<Weak<dyn Abortable>>>,
}

impl Abort {
    /// Adds a listener; it is told at once if the abort has already happened.
    pub fn listen(&self, listener: Weak<dyn Abortable>) {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|l| l.strong_count() > 0);
        match (self.reason.get(), listener.upgrade()) {
            (Some(reason), Some(listener)) => listener.abort(reason),
            _ => listeners.push(listener),
        }
    }

    /// Aborts; the first reason counts.
    pub fn abort(&self, reason: &str) {
        let listeners = {
            let mut listeners = self
                .listeners
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let reason = self.reason.get_or_init(|| reason.to_owned());
            tracing::debug!(reason, "world aborted");
            std::mem::take(&mut *listeners)
        };
        let reason = self.reason.get().map_or("", String::as_str);
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            listener.abort(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn who_sleeps_looks_again_when_the_bell_rings_and_not_before() {
        let (gate, is_ready, looks) = (Gate::default(), AtomicBool::new(false), AtomicU32::new(0));
        let patience = Patience {
            spin: Duration::ZERO,
            limit: Some(Duration::from_secs(60)),
        };
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                gate.wait(patience, || {
                    looks.fetch_add(1, Ordering::SeqCst);
                    is_ready.load(Ordering::SeqCst)
                })
            });
            while gate.sleepers.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            // Time in which who does not sleep would look many times.
            std::thread::sleep(Duration::from_millis(20));
            // One look before the sleep, one in it, and the system may wake a sleeper for nothing.
            let before = looks.load(Ordering::SeqCst);
            assert!(before <= 4, "{before} looks without a bell");
            is_ready.store(true, Ordering::SeqCst);
            gate.ring();
            assert!(waiter.join().expect("no panic"));
        });
    }
}
