//! The seam `Communicator` over MPI.

use crate::cargo::Cargo;
use crate::counts::Counts;
use crate::group::{Group, Visit};
use crate::line::{Line, Stopped};
use crate::transfer::Transfer;
use crate::work::CollectiveWork;
use laggard_backend::agreement::SplitWish;
use laggard_backend::{BackendError, Call, Communicator, CpuDevice, Launch, Token};
use laggard_types::Rank;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

/// One rank's side of a group.
pub(crate) struct MpiCommunicator {
    group: Arc<Group>,
    device: Arc<CpuDevice>,
    calls: Mutex<Calls>,
    /// How many splits there were; held during one, so that they follow each other.
    splits: Mutex<u64>,
}

/// What this rank has enqueued so far.
#[derive(Default)]
struct Calls {
    collectives: u64,
    /// The last collective: the next one waits for it, also on another queue, since MPI wants all
    /// ranks to make their calls in the same order.
    last: Option<Token>,
    /// Sends per receiver.
    sends: BTreeMap<Rank, u64>,
    /// Receives per sender.
    receives: BTreeMap<Rank, u64>,
}

impl MpiCommunicator {
    pub(crate) fn new(group: Arc<Group>, device: &Arc<CpuDevice>) -> Self {
        Self {
            group,
            device: Arc::clone(device),
            calls: Mutex::default(),
            splits: Mutex::default(),
        }
    }

    /// What every member wants of a split.
    fn exchange(&self, wish: SplitWish, number: u64) -> Result<Vec<SplitWish>, BackendError> {
        let Group { side, settings, .. } = &*self.group;
        side.check()?;
        settings.roll_call.arrive(self.group.splits_id(), number);
        let lens = vec![SplitWish::BYTES; self.group.size() as usize];
        let cargo = Cargo::all_bytes(wish.encode(), &lens).map_err(|why| self.invalid(why))?;
        let landed = side.fly(cargo, SPLIT, settings.pace, settings.deadline());
        let (_, cargo) = landed.map_err(|stopped| self.split_error(stopped, number))?;
        let bytes = cargo.into_bytes();
        let (wishes, _) = bytes.as_chunks();
        Ok(wishes.iter().map(SplitWish::decode).collect())
    }

    fn split_error(&self, stopped: Stopped, number: u64) -> BackendError {
        let missing = || self.group.missing(self.group.splits_id(), number);
        self.group.error(stopped, SPLIT, missing)
    }

    fn invalid(&self, why: String) -> BackendError {
        BackendError::Invalid {
            rank: self.group.rank(),
            call: SPLIT.to_owned(),
            why,
        }
    }

    /// This rank's part, if it wishes to be in one.
    fn part(&self, wish: SplitWish, number: u64) -> Result<Option<Arc<Group>>, BackendError> {
        let wishes = self.exchange(wish, number)?;
        let Some(color) = wish.color else {
            return Ok(None);
        };
        let ranks = SplitWish::part(&wishes, color);
        let Group { side, settings, .. } = &*self.group;
        let abort = &settings.abort;
        let calls: Arc<Line> = side.subset(&ranks, abort)?;
        let copied = calls.copy(abort, settings.deadline());
        let side = copied.map_err(|stopped| self.split_error(stopped, number))?;
        let members = ranks.iter().map(|rank| self.group.job_rank(*rank));
        let id = self.group.part_id(number, color);
        Ok(Some(Group::new(
            (calls, side),
            members.collect(),
            id,
            settings,
        )))
    }
}

/// A split in errors.
const SPLIT: &str = "split";

impl Communicator for MpiCommunicator {
    fn rank(&self) -> Rank {
        self.group.rank()
    }

    fn size(&self) -> u32 {
        self.group.size()
    }

    fn enqueue(&self, call: Call, launch: Launch<'_>) -> Result<Token, BackendError> {
        call.check(self.rank(), self.size())?;
        let what = call.to_string();
        let counts = Counts::of(&call).map_err(|why| BackendError::Invalid {
            rank: self.rank(),
            call: what.clone(),
            why,
        })?;
        // Held while enqueueing, so that numbers and the order on queues agree.
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let Calls {
            collectives,
            last,
            sends,
            receives,
        } = &mut *calls;
        let (counter, is_collective) = match &call {
            Call::Send { to, .. } => (sends.entry(*to).or_default(), false),
            Call::Receive { from, .. } => (receives.entry(*from).or_default(), false),
            _ => (collectives, true),
        };
        let number = *counter + 1;
        let visit = Arc::new(Visit {
            group: Arc::clone(&self.group),
            call,
            what,
            number,
            has_arrived: AtomicBool::new(false),
        });
        let token = if is_collective {
            let work = Box::new(CollectiveWork { visit, counts });
            let token = self.device.submit(work, launch, *last)?;
            *last = Some(token);
            token
        } else {
            let work = Box::new(Transfer { visit, counts });
            self.device.submit(work, launch, None)?
        };
        *counter = number;
        Ok(token)
    }

    fn split(
        &self,
        color: Option<u32>,
        key: i64,
    ) -> Result<Option<Box<dyn Communicator>>, BackendError> {
        let mut splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        *splits += 1;
        let part = self.part(SplitWish { color, key }, *splits);
        let part = part.inspect_err(|error| self.group.give_up(&error.to_string()))?;
        Ok(part.map(|group| -> Box<dyn Communicator> { Box::new(Self::new(group, &self.device)) }))
    }
}
