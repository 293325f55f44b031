//! The seam `Communicator` over NCCL: collectives and messages on the streams of a rank's GPU.
//! Knows nothing of MPI: ranks find each other over the control plane.
//!
//! What NCCL lacks is made of what it has (`nccl/lower.rs`); what goes wrong is noticed by a thread
//! of its own (`communicator/watch.rs`), which ends calls whose time has run out and names the
//! ranks that are missing. Checked by the conformance suite over a stand-in for NCCL and the
//! driver; never run on a GPU yet.

mod card;
mod group;
mod lane;
mod line;
mod mail;
mod watch;
mod words;
mod world;

pub(crate) use words::{Word, Words};
pub use world::{NcclOptions, NcclWorld, Surround};

use crate::CudaError;
use crate::nccl::Registration;
use group::{Group, Matter};
use laggard_backend::agreement::SplitWish;
use laggard_backend::{BackendError, Buffer, Call, Communicator, Launch, Slice, Token};
use laggard_types::{Rank, Seconds};
use lane::{Lane, Route};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use watch::Watch;
use world::Office;

/// One rank's side of a group.
pub struct NcclCommunicator {
    group: Arc<Group>,
    collectives: Arc<Lane>,
    /// Lanes of messages, made when first used.
    messages: Mutex<BTreeMap<Route, Arc<Lane>>>,
    watch: Arc<Watch>,
    /// How many splits there were; held during one, so that they follow each other.
    splits: Mutex<u64>,
    /// Kept alive for the calls of this communicator.
    office: Arc<Office>,
}

impl NcclCommunicator {
    /// Connects the ranks of a group. Collective.
    fn connect(group: &Arc<Group>, office: &Arc<Office>) -> Result<Self, BackendError> {
        let collectives = Lane::new(group, office.tools(), Route::Collectives)?;
        collectives.connect()?;
        let watch = Arc::clone(office.watch());
        watch.add(&collectives);
        Ok(Self {
            group: Arc::clone(group),
            collectives,
            messages: Mutex::default(),
            watch,
            splits: Mutex::default(),
            office: Arc::clone(office),
        })
    }

    /// How long NCCL thinks that a collective takes (`ncclGroupSimulateEnd`); `None` where it does
    /// not say, which is before NCCL 2.22.
    ///
    /// # Errors
    /// [`CudaError::Estimate`] for a call that cannot be made, [`CudaError::Call`] if NCCL refuses.
    pub fn estimate(&self, call: Call) -> Result<Option<Seconds>, CudaError> {
        let checked = call.check(self.rank(), self.size());
        checked.map_err(|error| CudaError::Estimate {
            why: error.to_string(),
        })?;
        self.collectives.estimate(call)
    }

    /// Registers a buffer with the communicator of collectives, so that NCCL may do without copies
    /// of what is in it; `None` where NCCL is too old (before 2.19). Collective by NCCL's rules:
    /// every rank registers its buffer of a call.
    ///
    /// # Errors
    /// [`CudaError::World`] for memory of another device, [`CudaError::Call`] if NCCL refuses.
    pub fn register(&self, buffer: &Buffer) -> Result<Option<RegisteredBuffer>, CudaError> {
        let memory = Slice::whole(buffer);
        let address = self.office.tools().device.address(&memory)?;
        let Some(comm) = self.collectives.comm() else {
            return Ok(None);
        };
        let registration = comm.register(&memory, address)?;
        Ok(registration.map(|registration| RegisteredBuffer {
            lane: Arc::clone(&self.collectives),
            registration,
        }))
    }

    fn lane(&self, call: &Call) -> Result<Arc<Lane>, BackendError> {
        let rank = self.group.rank;
        let (from, to) = match call {
            Call::Send { to, .. } => (rank, *to),
            Call::Receive { from, .. } => (*from, rank),
            _ => return Ok(Arc::clone(&self.collectives)),
        };
        let route = match from == to {
            true => Route::Own,
            false => Route::Pair { from, to },
        };
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = messages.get(&route) {
            return Ok(Arc::clone(lane));
        }
        let lane = Lane::new(&self.group, self.office.tools(), route)?;
        self.watch.add(&lane);
        messages.insert(route, Arc::clone(&lane));
        Ok(lane)
    }

    /// This rank's part of a split, if it wishes to be in one.
    fn part(&self, wish: SplitWish, number: u64) -> Result<Option<Arc<Group>>, BackendError> {
        let group = &*self.group;
        group.check()?;
        group.arrive_at_split(number);
        let deadline = group.settings.deadline();
        let matter = Matter::Split(number);
        let members = (&group.members[..], group.rank);
        let wishes = group.exchange(members, matter, &wish.encode(), deadline);
        let wishes = wishes.map_err(|error| group.split_error(error, number))?;
        let Some(color) = wish.color else {
            return Ok(None);
        };
        let wishes = wishes.iter().filter_map(|bytes| {
            let bytes = bytes.as_slice().try_into().ok()?;
            Some(SplitWish::decode(bytes))
        });
        let ranks = SplitWish::part(&wishes.collect::<Vec<_>>(), color);
        let own = ranks.iter().position(|rank| *rank == group.rank);
        let own = Rank::try_from(own.unwrap_or(0)).unwrap_or(0);
        let members = ranks.iter().map(|rank| group.job_rank(*rank)).collect();
        let id = group.part_id(number, color);
        Ok(Some(Group::new(own, members, id, &group.settings)))
    }
}

/// A buffer that is registered with a communicator, until this is dropped.
pub struct RegisteredBuffer {
    lane: Arc<Lane>,
    registration: Registration,
}

impl Drop for RegisteredBuffer {
    fn drop(&mut self) {
        if let Some(comm) = self.lane.comm() {
            comm.deregister(&self.registration);
        }
    }
}

impl Communicator for NcclCommunicator {
    fn rank(&self) -> Rank {
        self.group.rank
    }

    fn size(&self) -> u32 {
        self.group.size()
    }

    fn enqueue(&self, call: Call, launch: Launch<'_>) -> Result<Token, BackendError> {
        call.check(self.rank(), self.size())?;
        self.lane(&call)?.enqueue(call, launch)
    }

    fn split(
        &self,
        color: Option<u32>,
        key: i64,
    ) -> Result<Option<Box<dyn Communicator>>, BackendError> {
        let mut splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        *splits += 1;
        let part = self.part(SplitWish { color, key }, *splits);
        let made = part.and_then(|part| {
            let part = part.map(|group| Self::connect(&group, &self.office));
            part.transpose()
        });
        let made = made.inspect_err(|error| self.group.give_up(&error.to_string()))?;
        Ok(made.map(|made| -> Box<dyn Communicator> { Box::new(made) }))
    }
}

impl Drop for NcclCommunicator {
    fn drop(&mut self) {
        let messages = self.messages.get_mut();
        let messages = messages.unwrap_or_else(PoisonError::into_inner);
        for lane in messages.values() {
            lane.close();
        }
        self.collectives.close();
    }
}
