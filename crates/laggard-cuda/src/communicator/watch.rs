//! The thread that looks after all communicators of a rank: tells the roll call how far streams
//! have come, asks NCCL for errors that happened by themselves, ends calls whose time has run out,
//! and ends everything after an abort. Looks at numbers in memory, and asks the driver nothing.

use super::lane::{Lane, Route};
use crate::CudaError;
use laggard_backend::{Abortable, BackendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two looks. A rank that is asked who has come knows it as of its last look.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// The lanes to look after.
#[derive(Default)]
struct Rounds {
    lanes: Vec<Weak<Lane>>,
    aborted: Option<String>,
    is_over: bool,
}

/// What the watch and those that it watches share.
#[derive(Default)]
pub(crate) struct Watch {
    rounds: Mutex<Rounds>,
    bell: Condvar,
}

/// The thread of a watch; ends when dropped.
pub(crate) struct Watcher {
    watch: Arc<Watch>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to watch.
    pub(crate) fn start() -> Result<(Arc<Self>, Watcher), BackendError> {
        let watch: Arc<Self> = Arc::default();
        let of_thread = Arc::clone(&watch);
        let thread = std::thread::Builder::new()
            .name("laggard-nccl-watch".to_owned())
            .spawn(move || of_thread.run())
            .map_err(|error| BackendError::System {
                what: "starting a thread".to_owned(),
                why: error.to_string(),
            })?;
        let watcher = Watcher {
            watch: Arc::clone(&watch),
            thread: Some(thread),
        };
        Ok((watch, watcher))
    }

    /// Adds a lane.
    pub(crate) fn add(&self, lane: &Arc<Lane>) {
        self.rounds().lanes.push(Arc::downgrade(lane));
    }

    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut rounds = self.rounds();
        while !rounds.is_over {
            rounds.lanes.retain(|lane| lane.strong_count() > 0);
            let lanes: Vec<_> = rounds.lanes.iter().filter_map(Weak::upgrade).collect();
            let aborted = rounds.aborted.clone();
            drop(rounds);
            for lane in lanes {
                look(&lane, aborted.as_deref());
            }
            let waited = self.bell.wait_timeout(self.rounds(), BETWEEN_LOOKS);
            rounds = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Abortable for Watch {
    fn abort(&self, reason: &str) {
        self.rounds().aborted = Some(reason.to_owned());
        self.bell.notify_all();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watch.rounds().is_over = true;
        self.watch.bell.notify_all();
        // The watch itself may hold the last reference to what holds this.
        let me = std::thread::current().id();
        let thread = self
            .thread
            .take()
            .filter(|thread| thread.thread().id() != me);
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the watch over NCCL's calls panicked");
        }
    }
}

/// Looks after one lane.
fn look(lane: &Lane, aborted: Option<&str>) {
    let group = lane.group();
    if let Some(reason) = aborted {
        let (rank, reason) = (group.own_job_rank(), reason.to_owned());
        group.fail(&BackendError::Aborted { rank, reason });
    }
    if group.check().is_err() {
        return lane.let_go();
    }
    if lane.route() == Route::Collectives {
        lane.lines()
            .for_each(|line| group.arrive(line.arrived().into()));
    }
    let now = Instant::now();
    for line in lane.lines() {
        if let Some((visit, token)) = line.look(now, group.settings.timeout) {
            return lane.stop(token, &visit.timeout());
        }
    }
    let Some(Err(why)) = lane.comm().map(|comm| comm.progress()) else {
        return;
    };
    // A communicator that this rank has closed itself.
    if why == CudaError::Closed {
        return;
    }
    let error = BackendError::System {
        what: format!("rank {}: NCCL", group.own_job_rank()),
        why: why.to_string(),
    };
    match lane.lines().find_map(|line| line.first()) {
        Some((_, token)) => lane.stop(token, &error),
        None => {
            group.give_up(&error.to_string());
            lane.let_go();
        }
    }
}
