//! A GPU's timer against the host's clock. The host reads its clock, launches a stamp on a stream
//! of its own, and reads again as soon as it sees the stamp in its memory: the timer was read in
//! between. Of several tries the quickest counts.

use super::memory::PinnedWords;
use super::trouble::Whose;
use crate::clock::{ClockMap, ClockSample, resolution_ns};
use crate::{ClockReport, Gpu};
use cudarc::driver::{CudaStream, result};
use laggard_backend::{BackendError, monotonic_ns};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Tries of one comparison.
const TRIES: usize = 8;
/// Stamps by which the steps of the timer are judged.
const FIRST_TRIES: usize = 32;
/// Words for stamps; one is lost where a stamp does not come in time.
const WORDS: usize = 64;
/// How long one stamp is waited for: a GPU that has so much else to do says little by it.
const PATIENCE: Duration = Duration::from_millis(100);
/// The first ones, before which the kernel is brought to the GPU.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// Looks at a stamp before the processor is offered to others.
const LOOKS: u32 = 1 << 14;

/// Why a clock cannot be compared.
const COMPARING: &str = "comparing its clock with the host's";

/// What compares, and what came of it.
pub(crate) struct Time {
    gpu: Arc<Gpu>,
    whose: Whose,
    stream: Arc<CudaStream>,
    words: Arc<PinnedWords>,
    free: Vec<usize>,
    map: ClockMap,
}

impl Time {
    /// Compares for the first time.
    pub(super) fn new(gpu: &Arc<Gpu>, whose: &Whose) -> Result<Self, BackendError> {
        // Before other streams, so that stamps do not wait behind their blocks.
        let first = result::stream::get_priority_range().map(|(_, first)| first);
        let stream = first.and_then(|first| gpu.new_stream(Some(first)));
        let stream = stream.map_err(whose.failed("making a stream"))?;
        let words = Arc::new(PinnedWords::new(gpu.context(), whose, WORDS)?);
        let nothing = ClockSample {
            device_ns: 0,
            before_ns: 0,
            after_ns: 0,
        };
        let mut time = Self {
            gpu: Arc::clone(gpu),
            whose: whose.clone(),
            stream,
            words,
            free: (0..WORDS).collect(),
            map: ClockMap::new(nothing, 1),
        };
        let mut samples = vec![time.try_once(FIRST_PATIENCE)?];
        for _ in 1..FIRST_TRIES {
            samples.push(time.try_once(FIRST_PATIENCE)?);
        }
        let times: Vec<i64> = samples.iter().map(|sample| sample.device_ns).collect();
        let best = samples.iter().min_by_key(|sample| sample.width_ns());
        time.map = ClockMap::new(*best.unwrap_or(&nothing), resolution_ns(&times));
        Ok(time)
    }

    /// Compares again, if a time of the device is later than the last comparison. Where that does
    /// not succeed, what is known so far has to do, with the wider bound that follows from it.
    pub(super) fn cover(&mut self, device_ns: i64) {
        if device_ns <= self.map.covers_until_ns() {
            return;
        }
        let tries: Result<Vec<_>, _> = (0..TRIES).map(|_| self.try_once(PATIENCE)).collect();
        match tries {
            Ok(samples) => {
                if let Some(best) = samples.iter().min_by_key(|sample| sample.width_ns()) {
                    self.map.add(*best);
                }
            }
            Err(error) => tracing::debug!(%error, "the device's clock was not compared"),
        }
    }

    /// A time of the device on the host's clock, nanoseconds.
    pub(super) fn host(&mut self, device_ns: i64) -> i64 {
        self.map.host(device_ns).ns
    }

    pub(super) fn report(&self) -> ClockReport {
        self.map.report()
    }

    fn try_once(&mut self, patience: Duration) -> Result<ClockSample, BackendError> {
        let late = || {
            let why = format!("no stamp came within {patience:?}");
            self.whose.error(COMPARING, why, "")
        };
        let at = *self.free.last().ok_or_else(late)?;
        let word = self.words.word(at);
        word.store(0, Ordering::Release);
        let deadline = Instant::now() + patience;
        let before_ns = monotonic_ns()?;
        let launched = self.gpu.stamp(self.words.address(at), &self.stream);
        launched.map_err(|error| self.whose.refused(COMPARING, &error))?;
        let device_ns = loop {
            let mut found = 0;
            for _ in 0..LOOKS {
                found = word.load(Ordering::Acquire);
                if found != 0 {
                    break;
                }
                std::hint::spin_loop();
            }
            if found != 0 {
                break found as i64;
            }
            if Instant::now() > deadline {
                // It may still be written.
                let late = late();
                self.free.pop();
                std::mem::forget(Arc::clone(&self.words));
                return Err(late);
            }
            std::thread::yield_now();
        };
        Ok(ClockSample {
            device_ns,
            before_ns,
            after_ns: monotonic_ns()?,
        })
    }
}
