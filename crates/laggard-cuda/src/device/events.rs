//! Events that mark the end of work, used again and again, and waiting for one without spinning.

use super::trouble::Whose;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError};
use laggard_backend::BackendError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// First and longest sleep between two looks at an event. The end of work is on the device's own
/// stamps, so that looking late falsifies nothing.
const FIRST_SLEEP: Duration = Duration::from_micros(20);
const LONGEST_SLEEP: Duration = Duration::from_micros(500);

/// Events without work.
pub(crate) struct EventPool {
    context: Arc<CudaContext>,
    whose: Whose,
    free: Mutex<Vec<CudaEvent>>,
}

impl EventPool {
    pub(super) fn new(context: &Arc<CudaContext>, whose: &Whose) -> Arc<Self> {
        Arc::new(Self {
            context: Arc::clone(context),
            whose: whose.clone(),
            free: Mutex::default(),
        })
    }

    /// Marks where a stream is now.
    pub(super) fn record(self: &Arc<Self>, on: &CudaStream) -> Result<Arc<Mark>, BackendError> {
        let failed = self.whose.failed("recording an event");
        let old = self
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let event = match old {
            Some(event) => event,
            None => self.context.new_event(None).map_err(&failed)?,
        };
        event.record(on).map_err(&failed)?;
        Ok(Arc::new(Mark {
            event: Some(event),
            pool: Arc::clone(self),
        }))
    }
}

/// The end of a piece of work. Its event is not used for another while anybody holds this.
pub(crate) struct Mark {
    event: Option<CudaEvent>,
    pool: Arc<EventPool>,
}

impl Mark {
    /// Whether the stream has passed it.
    pub(super) fn is_passed(&self) -> Result<bool, DriverError> {
        self.event
            .as_ref()
            .map_or(Ok(true), CudaEvent::try_is_complete)
    }

    /// Lets a stream wait for it; the host goes on.
    pub(super) fn hold(&self, stream: &CudaStream) -> Result<(), DriverError> {
        self.event
            .as_ref()
            .map_or(Ok(()), |event| stream.wait(event))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut free = self
            .pool
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        free.extend(self.event.take());
    }
}

/// Sleeps that grow, until a deadline.
pub(crate) struct Sleeps {
    deadline: Option<Instant>,
    next: Duration,
}

impl Sleeps {
    /// None ends later than `limit` from now; a limit beyond all time is none.
    pub(super) fn within(limit: Duration) -> Self {
        Self {
            deadline: Instant::now().checked_add(limit),
            next: FIRST_SLEEP,
        }
    }

    /// Sleeps once; false if the time is over.
    pub(super) fn again(&mut self) -> bool {
        let now = Instant::now();
        let left = self.deadline.map(|at| at.saturating_duration_since(now));
        if left.is_some_and(|left| left.is_zero()) {
            return false;
        }
        std::thread::sleep(left.map_or(self.next, |left| left.min(self.next)));
        self.next = (self.next * 2).min(LONGEST_SLEEP);
        true
    }
}

/// Waits until an event is complete; false if it is not in time.
pub(super) fn settle(event: &CudaEvent, limit: Duration) -> Result<bool, DriverError> {
    let mut sleeps = Sleeps::within(limit);
    loop {
        if event.try_is_complete()? {
            return Ok(true);
        }
        if !sleeps.again() {
            return Ok(false);
        }
    }
}
