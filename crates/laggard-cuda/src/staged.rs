//! The seam `Communicator` for ranks of one process without NCCL, such as ranks that share a GPU
//! where NCCL refuses that: what a call reads is copied to host memory on the call's own stream,
//! the in-process `threads` backend does the call there, and the result is copied back on that
//! stream, which waits for it. Calls are ordered and stamped as those over NCCL are; they cost what
//! copies and processors cost, and say nothing of a network of GPUs.
//!
//! Checked by the conformance suite over a stand-in for the driver; never run on a GPU yet. A
//! stream that waits may hold up others that share its hardware queue: a process with more streams
//! on a GPU than `CUDA_DEVICE_MAX_CONNECTIONS` (8 by default, 32 at most; CUDA C++ programming
//! guide) needs more of these, or its calls run out of time.

mod call;
mod lane;
mod room;

use crate::CudaDevice;
use laggard_backend::threads::{ThreadOptions, worlds};
use laggard_backend::{
    Abort, Abortable, BackendError, Call, Communicator, Device, Launch, Token, World,
};
use laggard_types::Rank;
use lane::{Lane, Route};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// What carries such collectives, as records say it.
pub const STAGED: &str = "staged through the host";

/// As many worlds as devices, whose collectives go through the host: entry `i` is what rank `i`
/// sees. All devices are of this process and listen to `abort`; ranks wait for each other for at
/// most `timeout` in one call.
///
/// # Errors
/// [`BackendError::Invalid`] for no devices, [`BackendError::Device`] if one of them fails.
pub fn staged_worlds(
    devices: &[Arc<CudaDevice>],
    abort: &Arc<Abort>,
    timeout: Duration,
) -> Result<Vec<World>, BackendError> {
    let options = ThreadOptions {
        timeout,
        ..ThreadOptions::default()
    };
    let ranks = u32::try_from(devices.len()).unwrap_or(u32::MAX);
    let hosts = worlds(ranks, &options)?;
    let world = |((rank, device), host): ((Rank, &Arc<CudaDevice>), World)| {
        let office = Arc::new(Office {
            rank,
            device: Arc::clone(device),
            host: host.device,
            abort: Arc::clone(abort),
            over: OnceLock::new(),
        });
        let listener: Weak<Office> = Arc::downgrade(&office);
        abort.listen(listener);
        Ok(World {
            control: Box::new(StagedCommunicator::new(host.control, &office)?),
            data: Box::new(StagedCommunicator::new(host.data, &office)?),
            device: Arc::clone(device) as Arc<dyn Device>,
            messenger: host.messenger,
        })
    };
    (0..).zip(devices).zip(hosts).map(world).collect()
}

/// What all communicators of a rank have in common.
struct Office {
    rank: Rank,
    device: Arc<CudaDevice>,
    /// Where calls are done.
    host: Arc<dyn Device>,
    abort: Arc<Abort>,
    /// Set once nothing is done any more.
    over: OnceLock<String>,
}

impl Office {
    fn is_over(&self) -> bool {
        self.over.get().is_some()
    }
}

impl Abortable for Office {
    /// Ends calls of the host; the device listens for itself.
    fn abort(&self, reason: &str) {
        let _ = self.over.set(reason.to_owned());
        self.host.abort(reason);
    }
}

/// One rank's side of a group.
struct StagedCommunicator {
    host: Arc<dyn Communicator>,
    office: Arc<Office>,
    collectives: Arc<Lane>,
    /// Lanes of messages, made when first used.
    messages: Mutex<BTreeMap<Route, Arc<Lane>>>,
}

impl StagedCommunicator {
    fn new(host: Box<dyn Communicator>, office: &Arc<Office>) -> Result<Self, BackendError> {
        let host: Arc<dyn Communicator> = Arc::from(host);
        Ok(Self {
            collectives: Lane::start(office, &host, Route::Collectives)?,
            host,
            office: Arc::clone(office),
            messages: Mutex::default(),
        })
    }

    fn lane(&self, call: &Call) -> Result<Arc<Lane>, BackendError> {
        let route = match call {
            Call::Send { to, .. } => Route::To(*to),
            Call::Receive { from, .. } => Route::From(*from),
            _ => return Ok(Arc::clone(&self.collectives)),
        };
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = messages.get(&route) {
            return Ok(Arc::clone(lane));
        }
        let lane = Lane::start(&self.office, &self.host, route)?;
        messages.insert(route, Arc::clone(&lane));
        Ok(lane)
    }
}

impl Communicator for StagedCommunicator {
    fn rank(&self) -> Rank {
        self.host.rank()
    }

    fn size(&self) -> u32 {
        self.host.size()
    }

    fn enqueue(&self, call: Call, launch: Launch<'_>) -> Result<Token, BackendError> {
        // As the rank of the group that errors name elsewhere too.
        call.check(self.rank(), self.size())?;
        self.lane(&call)?.enqueue(call, launch)
    }

    fn split(
        &self,
        color: Option<u32>,
        key: i64,
    ) -> Result<Option<Box<dyn Communicator>>, BackendError> {
        let Some(part) = self.host.split(color, key)? else {
            return Ok(None);
        };
        let part = Self::new(part, &self.office)?;
        Ok(Some(Box::new(part)))
    }
}

impl Drop for StagedCommunicator {
    fn drop(&mut self) {
        let messages = self.messages.get_mut();
        let messages = messages.unwrap_or_else(PoisonError::into_inner);
        for lane in messages.values() {
            lane.close();
        }
        self.collectives.close();
    }
}
