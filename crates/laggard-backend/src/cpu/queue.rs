//! One queue of a CPU device: a worker thread that executes work in order, and the state through
//! which others see how far it is. Knows nothing of kernels or of collectives: both are [`Work`].

use crate::gate::{Abortable, Gate, Patience};
use crate::memory::Scratch;
use crate::{BackendError, QueueId, TaggedStamp, Token};
use laggard_types::{Rank, Stamp};
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Work of a queue, with its own idea of which part of it is timed. Dropped before its token is
/// complete.
pub trait Work: Send {
    /// Executes it on the queue's thread and returns the stamp of its timed part. `scratch` is that
    /// thread's own, for whatever the work needs while it lasts.
    ///
    /// # Errors
    /// Whatever went wrong; the queue stops there, and the work's meeting is given up.
    fn run(&mut self, scratch: &mut Scratch) -> Result<Stamp, BackendError>;

    /// Where it meets other ranks, if it does.
    fn meeting(&self) -> Option<Arc<dyn Meeting>> {
        None
    }
}

/// A place where ranks wait for each other, as seen by one of them.
pub trait Meeting: Send + Sync {
    /// What is waited for, and the ranks (of the job) that have not come.
    fn missing(&self) -> (String, Vec<Rank>);

    /// Tells the other ranks that this one will not come.
    fn give_up(&self, why: &str);
}

/// Something that must be complete before a job begins.
pub(crate) struct Dependency {
    pub queue: Arc<Queue>,
    pub position: u64,
    /// Whether a failure there is a failure here; if not, only the order matters.
    pub inherits_failure: bool,
}

pub(crate) struct Job {
    pub work: Box<dyn Work>,
    pub after: Vec<Dependency>,
    pub tag: u64,
}

/// What a queue is told at its creation.
pub(crate) struct QueueSettings {
    pub id: QueueId,
    pub rank: Rank,
    pub spin: Duration,
    pub stamp_capacity: usize,
}

#[derive(Default)]
struct Inbox {
    jobs: VecDeque<Job>,
    submitted: u64,
}

/// The shared side of a queue.
pub(crate) struct Queue {
    settings: QueueSettings,
    inbox: Mutex<Inbox>,
    arrivals: Gate,
    closed: AtomicBool,
    completed: AtomicU64,
    progress: Gate,
    /// The first failure and its position: a queue stops there.
    failure: OnceLock<(u64, BackendError)>,
    running: Mutex<Option<Arc<dyn Meeting>>>,
    /// Tag of the work at hand, plus one; 0 while there is none.
    at_work: AtomicU64,
    stamps: Mutex<Vec<TaggedStamp>>,
}

/// Why a rank gives up when its device goes away.
const DROPPED: &str = "its device was dropped";

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    pub(crate) fn new(settings: QueueSettings) -> Self {
        let stamps = Mutex::new(Vec::with_capacity(settings.stamp_capacity));
        Self {
            settings,
            inbox: Mutex::default(),
            arrivals: Gate::default(),
            closed: AtomicBool::new(false),
            completed: AtomicU64::new(0),
            progress: Gate::default(),
            failure: OnceLock::new(),
            running: Mutex::default(),
            at_work: AtomicU64::new(0),
            stamps,
        }
    }

    pub(crate) fn submit(&self, job: Job) -> Token {
        let position = {
            let mut inbox = locked(&self.inbox);
            inbox.submitted += 1;
            inbox.jobs.push_back(job);
            inbox.submitted
        };
        self.arrivals.ring();
        Token {
            queue: self.settings.id,
            position,
        }
    }

    /// Whether a position was ever given out.
    pub(crate) fn knows(&self, position: u64) -> bool {
        position > 0 && position <= locked(&self.inbox).submitted
    }

    /// Whether the work at a position is complete; the failure that stopped the queue at or before
    /// it, if one did.
    pub(crate) fn poll(&self, position: u64) -> Result<bool, BackendError> {
        match self.failure.get() {
            Some((at, error)) if position >= *at => Err(error.clone()),
            _ => Ok(self.completed.load(Ordering::Acquire) >= position),
        }
    }

    pub(crate) fn wait(&self, position: u64, limit: Duration) -> Result<(), BackendError> {
        let patience = Patience {
            spin: self.settings.spin,
            limit: Some(limit),
        };
        if self
            .progress
            .wait(patience, || !matches!(self.poll(position), Ok(false)))
        {
            return self.poll(position).map(|_| ());
        }
        // A meeting may have to ask other processes, which takes time; the queue goes on meanwhile.
        let running = locked(&self.running).clone();
        let (waiting_for, missing) = match running {
            Some(meeting) => meeting.missing(),
            None => (
                format!("work {position} of queue {}", self.settings.id.0),
                Vec::new(),
            ),
        };
        Err(BackendError::Timeout {
            rank: self.settings.rank,
            waited: limit,
            waiting_for,
            missing,
        })
    }

    pub(crate) fn drain(&self, into: &mut Vec<TaggedStamp>) {
        into.append(&mut locked(&self.stamps));
    }

    /// Tag of the work that is being executed, if any is.
    pub(crate) fn at_work(&self) -> Option<u64> {
        self.at_work.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Ends the worker after the job that it is at; that job no longer waits for other ranks.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let running = locked(&self.running).clone();
        if let Some(meeting) = running {
            meeting.give_up(DROPPED);
        }
        self.arrivals.ring();
    }

    /// The worker: executes jobs until the queue is closed.
    pub(crate) fn work(&self) {
        let mut scratch = Scratch::default();
        while let Some(job) = self.next() {
            self.execute(job, &mut scratch);
        }
        for job in std::mem::take(&mut locked(&self.inbox).jobs) {
            if let Some(meeting) = job.work.meeting() {
                meeting.give_up(DROPPED);
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut job = None;
        let patience = Patience {
            spin: self.settings.spin,
            limit: None,
        };
        self.arrivals.wait(patience, || {
            if self.closed.load(Ordering::SeqCst) {
                return true;
            }
            job = locked(&self.inbox).jobs.pop_front();
            job.is_some()
        });
        job
    }

    fn execute(&self, mut job: Job, scratch: &mut Scratch) {
        let position = self.completed.load(Ordering::Relaxed) + 1;
        let meeting = job.work.meeting();
        if let Some(meeting) = &meeting {
            *locked(&self.running) = Some(Arc::clone(meeting));
            if self.closed.load(Ordering::SeqCst) {
                meeting.give_up(DROPPED);
            }
        }
        let outcome = self.await_dependencies(&job, position).and_then(|()| {
            self.at_work
                .store(job.tag.wrapping_add(1), Ordering::Relaxed);
            self.guarded(|| job.work.run(scratch))
        });
        self.at_work.store(0, Ordering::Relaxed);
        match outcome {
            Ok(stamp) => {
                // Beyond the preallocated capacity this grows, outside of any timed part.
                locked(&self.stamps).push(TaggedStamp {
                    tag: job.tag,
                    stamp,
                });
            }
            Err(error) => {
                tracing::debug!(rank = self.settings.rank, position, %error, "work failed");
                // Whoever sees the failure may close the queue, and then this is the reason to be
                // given, not that.
                locked(&self.running).take();
                // Before giving up, which may abort the world: this is the error to be kept.
                self.fail(position, error.clone());
                if let Some(meeting) = &meeting {
                    meeting.give_up(&error.to_string());
                }
            }
        }
        if meeting.is_some() {
            locked(&self.running).take();
        }
        // Claims on memory end with the job, and must have ended when the token is complete.
        drop(job);
        self.completed.store(position, Ordering::Release);
        self.progress.ring();
    }

    fn await_dependencies(&self, job: &Job, position: u64) -> Result<(), BackendError> {
        self.poll(position)?;
        for dependency in &job.after {
            // Unlimited, since what is waited for is itself bounded: arithmetic, or a collective
            // with a deadline. An abort ends it too.
            let patience = Patience {
                spin: self.settings.spin,
                limit: None,
            };
            let queue = &dependency.queue;
            queue.progress.wait(patience, || {
                !matches!(queue.poll(dependency.position), Ok(false))
            });
            if dependency.inherits_failure {
                queue.poll(dependency.position)?;
            }
        }
        self.poll(position).map(|_| ())
    }

    fn guarded(
        &self,
        run: impl FnOnce() -> Result<Stamp, BackendError>,
    ) -> Result<Stamp, BackendError> {
        // The scratch may be half written after a panic; its contents never matter.
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            Err(BackendError::Panicked {
                queue: self.settings.id.0,
                message: panic_message(panic.as_ref()),
            })
        })
    }

    fn fail(&self, position: u64, error: BackendError) {
        // Only the first failure counts.
        let _ = self.failure.set((position, error));
        self.progress.ring();
    }
}

impl Abortable for Queue {
    fn abort(&self, reason: &str) {
        let position = self.completed.load(Ordering::Acquire) + 1;
        let rank = self.settings.rank;
        self.fail(
            position,
            BackendError::Aborted {
                rank,
                reason: reason.to_owned(),
            },
        );
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "no message".to_owned())
}
