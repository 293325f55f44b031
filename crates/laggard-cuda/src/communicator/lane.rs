//! Where a line of calls goes: a communicator of NCCL, its memory, and the thread that makes calls
//! which cannot be made at once. NCCL does what one communicator is told in one order on all ranks,
//! so messages between two ranks have a communicator for each direction, made when first used.
//!
//! A call that can be made at once goes onto its queue's own stream. Any other (its communicator is
//! yet to be made, ranks compare their calls first, or a rank sends to itself) is made by the
//! lane's thread on the lane's stream, while the queue's stream waits for a number in memory.
//! Streams that share a hardware queue wait for each other: a device with more streams than
//! `CUDA_DEVICE_MAX_CONNECTIONS` (8 by default, CUDA C++ programming guide) may need more of these.

mod work;

use super::group::{Group, Matter, Visit};
use super::line::Line;
use super::words::copy;
use crate::nccl::{
    Comm, Config, Nccl, Place, Plan, Progress, RawStream, Side, Site, UniqueId, lower,
};
use crate::{CudaDevice, CudaError};
use cudarc::driver::CudaStream;
use laggard_backend::{BackendError, Call, Device, Launch, Slice, Token};
use laggard_types::{DataType, Rank, Seconds};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Whose calls they are; ranks are those of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Route {
    /// Collectives of the group.
    Collectives,
    /// Messages from one rank to another, of which this is one.
    Pair { from: Rank, to: Rank },
    /// Messages of this rank to itself.
    Own,
}

/// What lanes make calls with. Calls under way refer to their group and not to this, so that the
/// device that they are under way on can end.
pub(crate) struct Tools {
    pub nccl: Arc<Nccl>,
    pub config: Config,
    pub device: Arc<CudaDevice>,
}

/// One lane.
pub(crate) struct Lane {
    group: Arc<Group>,
    tools: Arc<Tools>,
    route: Route,
    line: Arc<Line>,
    /// Receives, where sends and receives are both of this rank.
    receives: Option<Arc<Line>>,
    comm: OnceLock<Comm>,
    stream: Arc<CudaStream>,
    /// Device memory for calls that need some. It grows, and what has become too small stays, as
    /// calls under way may use it.
    scratch: Mutex<Vec<Slice>>,
    jobs: Mutex<Jobs>,
    bell: Condvar,
    worker: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    /// Receives of this rank from itself.
    receives: VecDeque<Job>,
    is_at_work: bool,
    is_closed: bool,
}

/// A call that the lane's thread is to make.
#[derive(Clone)]
struct Job {
    call: Arc<Made>,
    token: Token,
}

/// A call, ready to be made.
struct Made {
    visit: Arc<Visit>,
    plan: Plan,
    /// Addresses of what is sent, of what is received, and of the scratch memory.
    addresses: [u64; 3],
}

/// Longest sleep between two looks at whether NCCL is done.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// First sleep between two looks.
const FIRST_PAUSE: Duration = Duration::from_micros(10);

impl Lane {
    pub(crate) fn new(
        group: &Arc<Group>,
        tools: &Arc<Tools>,
        route: Route,
    ) -> Result<Arc<Self>, BackendError> {
        let device = &tools.device;
        let rank = group.own_job_rank();
        let line = || Line::new(device, rank);
        Ok(Arc::new(Self {
            group: Arc::clone(group),
            tools: Arc::clone(tools),
            route,
            line: line()?,
            receives: match route {
                Route::Own => Some(line()?),
                _ => None,
            },
            comm: OnceLock::new(),
            stream: device.new_stream()?,
            scratch: Mutex::default(),
            jobs: Mutex::default(),
            bell: Condvar::new(),
            worker: Mutex::default(),
        }))
    }

    /// Connects the lane's ranks. Collective over them.
    pub(crate) fn connect(&self) -> Result<(), BackendError> {
        let Group {
            rank,
            members,
            settings,
            ..
        } = &*self.group;
        let pair;
        let (members, rank, matter): (&[Rank], _, _) = match self.route {
            Route::Collectives => (members, *rank, Matter::Join),
            Route::Pair { from, to } => {
                pair = [from, to].map(|rank| self.group.job_rank(rank));
                (&pair, Rank::from(*rank == to), Matter::Pair(from, to))
            }
            Route::Own => return Ok(()),
        };
        let deadline = settings.deadline();
        let id = match rank {
            0 => self
                .tools
                .nccl
                .unique_id()
                .map_err(|why| self.error(&why))?,
            _ => UniqueId::default(),
        };
        let told = self
            .group
            .tell((members, rank), matter, &id.bytes(), deadline)?;
        let id = UniqueId::from_bytes(&told).ok_or_else(|| BackendError::System {
            what: "joining a communicator".to_owned(),
            why: format!("rank {} sent an id of {} bytes", members[0], told.len()),
        })?;
        self.tools.device.make_current()?;
        let size = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let comm = Comm::begin(&self.tools.nccl, (rank, size), id, self.tools.config);
        let comm = comm.map_err(|why| self.error(&why))?;
        let what = format!("{size} ranks to make a communicator of NCCL");
        self.settle(&comm, deadline, &what)?;
        let _ = self.comm.set(comm);
        Ok(())
    }

    /// The lines of the lane.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &Arc<Line>> {
        [&self.line].into_iter().chain(&self.receives)
    }

    /// The group of the lane.
    pub(crate) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// What the lane is for.
    pub(crate) fn route(&self) -> Route {
        self.route
    }

    /// The communicator, once there is one.
    pub(crate) fn comm(&self) -> Option<&Comm> {
        self.comm.get()
    }

    /// Enqueues a call that has been checked. What goes wrong from here on is the token's error.
    pub(crate) fn enqueue(
        self: &Arc<Self>,
        call: Call,
        launch: Launch<'_>,
    ) -> Result<Token, BackendError> {
        let line = match (&call, &self.receives) {
            (Call::Receive { .. }, Some(receives)) => receives,
            _ => &self.line,
        };
        let turn = line.turn();
        let made = Arc::new(self.make(call, line, turn.number)?);
        let is_direct = self.is_direct();
        let mut outcome = self.group.check();
        let visit = Arc::clone(&made.visit);
        let device = &self.tools.device;
        let token = device.put(launch, turn.last, visit, &mut |stream| {
            if outcome.is_ok() {
                outcome = self.put(&made, stream.cu_stream().cast(), is_direct);
            }
            Ok(())
        })?;
        turn.note(Arc::clone(&made.visit), token);
        if outcome.is_ok() && !is_direct {
            outcome = self.hand_over(Job { call: made, token });
        }
        drop(turn);
        if let Err(error) = outcome {
            self.stop(token, &error);
        }
        Ok(token)
    }

    /// Puts a call on the stream of its queue, or only its place there.
    fn put(&self, made: &Made, stream: RawStream, is_direct: bool) -> Result<(), BackendError> {
        let Visit { line, number, .. } = &*made.visit;
        line.arrive(stream, *number)?;
        if is_direct {
            self.launch(made, stream)?;
            line.complete(stream, *number)
        } else {
            line.await_end(stream, *number)
        }
    }

    /// What NCCL thinks that a call takes.
    pub(crate) fn estimate(&self, call: Call) -> Result<Option<Seconds>, CudaError> {
        let Some(comm) = self.comm.get() else {
            return Ok(None);
        };
        let made = self.make(call, &self.line, 0);
        let made = made.map_err(|error| CudaError::Estimate {
            why: error.to_string(),
        })?;
        let (plan, address) = (&made.plan, |place| made.address(place));
        comm.estimate(
            &plan.operations,
            &Site {
                data_type: plan.data_type,
                address: &address,
                stream: self.raw_stream(),
            },
        )
    }

    fn raw_stream(&self) -> RawStream {
        self.stream.cu_stream().cast()
    }

    fn make(&self, call: Call, line: &Arc<Line>, number: u32) -> Result<Made, BackendError> {
        let group = &self.group;
        let plan = lower(&call, group.rank, group.size());
        let address = |slice: Option<&Slice>| match slice {
            Some(slice) if slice.len > 0 => self.tools.device.address(slice),
            _ => Ok(0),
        };
        let (send, recv) = sides(&call);
        let addresses = [address(send)?, address(recv)?, self.scratch(&plan)?];
        let visit = Arc::new(Visit {
            group: Arc::clone(group),
            what: call.to_string(),
            call,
            line: Arc::clone(line),
            number,
        });
        Ok(Made {
            visit,
            plan,
            addresses,
        })
    }

    /// The address of as much scratch memory as a plan needs.
    fn scratch(&self, plan: &Plan) -> Result<u64, BackendError> {
        let bytes = plan.scratch * plan.data_type.size_bytes();
        if bytes == 0 {
            return Ok(0);
        }
        let mut all = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let device = &self.tools.device;
        let has_room = |slice: &&Slice| slice.len * slice.data_type().size_bytes() >= bytes;
        if all.last().filter(has_room).is_none() {
            let len = bytes
                .next_power_of_two()
                .div_ceil(DataType::F32.size_bytes());
            all.push(Slice::whole(&device.allocate(DataType::F32, len)?));
        }
        all.last().map_or(Ok(0), |slice| device.address(slice))
    }

    /// Whether the next call can be made at once.
    fn is_direct(&self) -> bool {
        let jobs = self.jobs();
        !self.group.settings.check_calls
            && self.comm.get().is_some()
            && jobs.waiting.is_empty()
            && !jobs.is_at_work
    }

    /// Puts a call on a stream. Calls of NCCL may be a while in the making, the first ones above
    /// all, as they connect ranks: this returns when they are on the stream.
    fn launch(&self, made: &Made, stream: RawStream) -> Result<(), BackendError> {
        let Made {
            visit,
            plan,
            addresses: [send, _, scratch],
        } = made;
        if plan.staged > 0 {
            let bytes = plan.staged * plan.data_type.size_bytes();
            copy(self.group.own_job_rank(), (*send, *scratch), bytes, stream)?;
        }
        let Some(comm) = self.comm.get().filter(|_| !plan.operations.is_empty()) else {
            return Ok(());
        };
        let site = Site {
            data_type: plan.data_type,
            address: &|place| made.address(place),
            stream,
        };
        let progress = comm.enqueue(&plan.operations, &site);
        match progress.map_err(|why| self.error(&why))? {
            Progress::Done => Ok(()),
            Progress::InProgress => {
                let deadline = self.group.settings.deadline();
                let settled = self.settle(comm, deadline, &visit.what);
                settled.map_err(|error| self.group.late(error, &visit.what, || visit.absent()))
            }
        }
    }
}

impl Lane {
    /// Waits until NCCL has done what it was told, and ends when the group does.
    fn settle(&self, comm: &Comm, deadline: Instant, what: &str) -> Result<(), BackendError> {
        let (begin, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            match comm.progress() {
                Ok(Progress::Done) => return Ok(()),
                Ok(Progress::InProgress) => {}
                Err(why) => {
                    self.group.check()?;
                    return Err(self.error(&why));
                }
            }
            self.group.check()?;
            let now = Instant::now();
            if now >= deadline {
                return Err(BackendError::Timeout {
                    rank: self.group.own_job_rank(),
                    waited: now - begin,
                    waiting_for: what.to_owned(),
                    missing: Vec::new(),
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// An error of NCCL as one of this rank.
    fn error(&self, why: &CudaError) -> BackendError {
        BackendError::System {
            what: format!("rank {}: NCCL", self.group.own_job_rank()),
            why: why.to_string(),
        }
    }
}

impl Made {
    fn address(&self, place: Place) -> u64 {
        let [send, recv, scratch] = self.addresses;
        let first = match place.side {
            Side::Send => send,
            Side::Recv => recv,
            Side::Scratch => scratch,
        };
        first + (place.element * self.plan.data_type.size_bytes()) as u64
    }
}

/// What a call reads and what it writes. What only other ranks have is the other side again.
fn sides(call: &Call) -> (Option<&Slice>, Option<&Slice>) {
    match call {
        Call::AllReduce { send, recv, .. }
        | Call::ReduceScatter { send, recv, .. }
        | Call::AllGather { send, recv, .. }
        | Call::AllToAll { send, recv, .. } => (Some(send), Some(recv)),
        Call::Broadcast { buffer, .. }
        | Call::Send { buffer, .. }
        | Call::Receive { buffer, .. } => (Some(buffer), Some(buffer)),
        Call::Reduce { send, recv, .. } | Call::Gather { send, recv, .. } => {
            (Some(send), recv.as_ref())
        }
        Call::Scatter { send, recv, .. } => (send.as_ref(), Some(recv)),
        Call::Barrier => (None, None),
    }
}
