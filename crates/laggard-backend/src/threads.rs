//! The in-process backend: every rank is a few threads of this process, and collectives work
//! directly on the ranks' memory. It needs nothing but cores, also fewer of them than ranks, since
//! waiting ranks sleep.

mod collective;
mod group;
mod mailbox;
mod messenger;
mod post;
mod reduce;
mod split;
#[cfg(test)]
mod tests;

use crate::gate::Abort;
use crate::{
    BackendError, Call, Communicator, CpuDevice, CpuOptions, Device, Launch, Token, World,
};
use collective::CollectiveWork;
use group::{Group, Visit, Waiting};
use laggard_types::Rank;
use mailbox::Transfer;
use messenger::{Letters, ThreadMessenger};
pub use reduce::divide_sums;
use split::Wish;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// How long ranks wait for each other by default.
const USUAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How the ranks of a process are set up.
#[derive(Debug, Clone)]
pub struct ThreadOptions {
    /// How long a rank waits for the others in one call before all give up.
    pub timeout: Duration,
    /// The processors that ranks are bound to, in turn: rank `i` gets entry `i` modulo their
    /// number. Empty leaves it to the system.
    pub bind_cpus: Vec<u32>,
    /// See [`CpuOptions::spin`].
    pub spin: Duration,
    /// For how long each rank's arithmetic peak is measured, one rank after the other; see
    /// [`CpuDevice::measure_peak`]. Not measured if absent.
    pub measure_peak: Option<Duration>,
}

impl Default for ThreadOptions {
    fn default() -> Self {
        Self {
            timeout: USUAL_TIMEOUT,
            bind_cpus: Vec::new(),
            spin: Duration::ZERO,
            measure_peak: None,
        }
    }
}

/// As many worlds as ranks: entry `i` is what rank `i` sees. They may be used from any threads.
///
/// A group (control, data, or a part that was split off) that has failed, by a missing rank or a
/// mismatch, stays failed; the others of the world go on until [`Device::abort`].
///
/// # Errors
/// [`BackendError::Invalid`] for no ranks; [`BackendError::System`] if the system refuses the
/// measurement of the peak.
pub fn worlds(ranks: u32, options: &ThreadOptions) -> Result<Vec<World>, BackendError> {
    if ranks == 0 {
        let why = "a world needs at least one rank".to_owned();
        return Err(BackendError::Invalid {
            rank: 0,
            call: "worlds".to_owned(),
            why,
        });
    }
    let abort = Arc::new(Abort::default());
    let waiting = Waiting {
        timeout: options.timeout,
        spin: options.spin,
    };
    let control = Group::new((0..ranks).collect(), waiting, &abort);
    let data = Group::new((0..ranks).collect(), waiting, &abort);
    let letters = Arc::new(Letters::new(ranks));
    let listener: Weak<Letters> = Arc::downgrade(&letters);
    abort.listen(listener);
    let rank_of = |rank: Rank| {
        let cpus = &options.bind_cpus;
        let bind_cpu = (!cpus.is_empty()).then(|| cpus[rank as usize % cpus.len()]);
        let spin = options.spin;
        let settings = CpuOptions {
            rank,
            bind_cpu,
            spin,
            ..CpuOptions::default()
        };
        let device = Arc::new(CpuDevice::in_world(settings, Arc::clone(&abort)));
        if let Some(duration) = options.measure_peak {
            device.measure_peak(duration)?;
        }
        let member = |group: &Arc<Group>| ThreadCommunicator::new(group, rank, &device);
        Ok(World {
            control: Box::new(member(&control)),
            data: Box::new(member(&data)),
            device: device as Arc<dyn Device>,
            messenger: Arc::new(ThreadMessenger {
                letters: Arc::clone(&letters),
                rank,
                spin: options.spin,
            }),
        })
    };
    (0..ranks).map(rank_of).collect()
}

/// One rank's side of a group.
struct ThreadCommunicator {
    group: Arc<Group>,
    rank: Rank,
    device: Arc<CpuDevice>,
    calls: Mutex<Calls>,
}

/// What this rank has enqueued so far.
#[derive(Default)]
struct Calls {
    collectives: u64,
    /// The last collective: the next one waits for it, also on another queue, so that all ranks
    /// meet in the same order.
    last: Option<Token>,
    /// Sends per receiver.
    sends: BTreeMap<Rank, u64>,
    /// Receives per sender.
    receives: BTreeMap<Rank, u64>,
    splits: u64,
}

impl ThreadCommunicator {
    fn new(group: &Arc<Group>, rank: Rank, device: &Arc<CpuDevice>) -> Self {
        let (group, device) = (Arc::clone(group), Arc::clone(device));
        Self {
            group,
            rank,
            device,
            calls: Mutex::default(),
        }
    }
}

impl Communicator for ThreadCommunicator {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn size(&self) -> u32 {
        self.group.size()
    }

    fn enqueue(&self, call: Call, launch: Launch<'_>) -> Result<Token, BackendError> {
        call.check(self.rank, self.group.size())?;
        let visit = Arc::new(Visit {
            group: Arc::clone(&self.group),
            rank: self.rank,
            call: Arc::new(call),
        });
        // Held while enqueueing, so that numbers and the order on queues agree.
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = match &*visit.call {
            Call::Send { to, .. } => calls.sends.entry(*to).or_default(),
            Call::Receive { from, .. } => calls.receives.entry(*from).or_default(),
            _ => {
                let number = calls.collectives + 1;
                let work = Box::new(CollectiveWork { visit, number });
                let token = self.device.submit(work, launch, calls.last)?;
                calls.collectives = number;
                calls.last = Some(token);
                return Ok(token);
            }
        };
        let number = *counter + 1;
        let token = self
            .device
            .submit(Box::new(Transfer { visit, number }), launch, None)?;
        *counter = number;
        Ok(token)
    }

    fn split(
        &self,
        color: Option<u32>,
        key: i64,
    ) -> Result<Option<Box<dyn Communicator>>, BackendError> {
        let number = {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.splits += 1;
            calls.splits
        };
        let place = split::split(&self.group, self.rank, number, Wish { color, key })?;
        Ok(place.map(|(group, rank)| -> Box<dyn Communicator> {
            Box::new(Self::new(&group, rank, &self.device))
        }))
    }
}
