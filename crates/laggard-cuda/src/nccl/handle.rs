//! One rank's communicator of NCCL. Calls never block; whether they are done is asked for.

use super::config::{RawConfig, RawEstimate};
use super::{
    Code, Config, Functions, IN_PROGRESS, Nccl, Operation, Place, RawComm, RawStream, UniqueId,
};
use crate::CudaError;
use laggard_backend::Slice;
use laggard_types::{DataType, Rank, ReduceOp, Seconds};
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Whether what was asked of NCCL is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    InProgress,
}

/// Longer than a call of NCCL's takes to be made, unless it waits for its stream.
const USUAL_CALL: Duration = Duration::from_millis(100);

/// Between two looks at whether a call has been made.
const BETWEEN_LOOKS: Duration = Duration::from_micros(100);

/// A communicator. Its functions may be called from any thread, one at a time.
pub(crate) struct Comm {
    nccl: Arc<Nccl>,
    /// `None` once it is given up.
    raw: Mutex<Option<Raw>>,
}

#[derive(Clone, Copy)]
struct Raw(RawComm);

// SAFETY: NCCL's communicators belong to no thread; calls that use one are made under its lock.
unsafe impl Send for Raw {}

/// Memory registered with a communicator, which lives as long.
#[derive(Debug)]
pub(crate) struct Registration {
    handle: *mut c_void,
    _memory: Slice,
}

// SAFETY: a handle of NCCL's, which belongs to no thread.
unsafe impl Send for Registration {}
// SAFETY: as above; nothing is done with it but giving it back.
unsafe impl Sync for Registration {}

/// What a call works on: where its memory is, and on which stream.
pub(crate) struct Site<'a> {
    pub data_type: DataType,
    /// The device's address of an element.
    pub address: &'a dyn Fn(Place) -> u64,
    pub stream: RawStream,
}

impl Comm {
    /// Begins to connect; [`Comm::progress`] says when that is done. The device's context must be
    /// the thread's current one.
    pub(crate) fn begin(
        nccl: &Arc<Nccl>,
        (rank, size): (Rank, u32),
        id: UniqueId,
        config: Config,
    ) -> Result<Self, CudaError> {
        let mut config = RawConfig::new(config);
        let mut raw: RawComm = std::ptr::null_mut();
        let (rank, size) = (number(rank), number(size));
        // SAFETY: the addresses are those of a handle and of a configuration, which NCCL copies.
        let code =
            unsafe { (nccl.functions.initialise)(&raw mut raw, size, id, rank, &raw mut config) };
        nccl.check("ncclCommInitRankConfig", code)?;
        Ok(Self {
            nccl: Arc::clone(nccl),
            raw: Mutex::new(Some(Raw(raw))),
        })
    }

    /// Whether all that was asked is done, or what went wrong, also by itself: a peer that is gone,
    /// a broken link. Does not wait for a call that is being made, which is in progress.
    pub(crate) fn progress(&self) -> Result<Progress, CudaError> {
        let raw = match self.raw.try_lock() {
            Ok(raw) => raw,
            Err(TryLockError::Poisoned(raw)) => raw.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Progress::InProgress),
        };
        let Raw(raw) = (*raw).ok_or(CudaError::Closed)?;
        let nccl = &self.nccl;
        let mut state: Code = 0;
        // SAFETY: the handle is live, and the address that of an integer.
        let code = unsafe { (nccl.functions.async_error)(raw, &raw mut state) };
        nccl.check("ncclCommGetAsyncError", code)?;
        if state == IN_PROGRESS {
            return Ok(Progress::InProgress);
        }
        nccl.check("a communicator", state)?;
        Ok(Progress::Done)
    }

    /// Enqueues operations as one group.
    pub(crate) fn enqueue(
        &self,
        operations: &[Operation],
        site: &Site<'_>,
    ) -> Result<Progress, CudaError> {
        self.with(|nccl, raw| {
            group(nccl, raw, operations, site)?;
            // SAFETY: it takes no arguments, and ends the group that was begun.
            let code = unsafe { (nccl.functions.group_end)() };
            nccl.check("ncclGroupEnd", code)?;
            Ok(if code == IN_PROGRESS {
                Progress::InProgress
            } else {
                Progress::Done
            })
        })
    }

    /// How long NCCL thinks that operations take; `None` where it does not say.
    pub(crate) fn estimate(
        &self,
        operations: &[Operation],
        site: &Site<'_>,
    ) -> Result<Option<Seconds>, CudaError> {
        let Some(simulate_end) = self.nccl.functions.simulate_end else {
            return Ok(None);
        };
        self.with(|nccl, raw| {
            let mut estimate = RawEstimate::new();
            group(nccl, raw, operations, site)?;
            // SAFETY: the address is that of such a structure; it ends the group that was begun.
            let code = unsafe { simulate_end(&raw mut estimate) };
            nccl.check("ncclGroupSimulateEnd", code)?;
            let microseconds = f64::from(estimate.microseconds);
            Ok((microseconds > 0.0).then_some(Seconds(microseconds * 1e-6)))
        })
    }

    /// Registers memory, of which the device has this address, so that NCCL needs no copies of it;
    /// `None` where NCCL is too old.
    pub(crate) fn register(
        &self,
        memory: &Slice,
        address: u64,
    ) -> Result<Option<Registration>, CudaError> {
        let Some(register) = self.nccl.functions.register else {
            return Ok(None);
        };
        let bytes = memory.len * memory.data_type().size_bytes();
        self.with(|nccl, raw| {
            let mut handle: *mut c_void = std::ptr::null_mut();
            // SAFETY: the handle is live, and the registration keeps the memory.
            let code = unsafe { register(raw, pointer(address), bytes, &raw mut handle) };
            nccl.check("ncclCommRegister", code)?;
            Ok(Some(Registration {
                handle,
                _memory: memory.clone(),
            }))
        })
    }

    /// Gives a registration back. Does nothing where the communicator is gone.
    pub(crate) fn deregister(&self, registration: &Registration) {
        let Some(deregister) = self.nccl.functions.deregister else {
            return;
        };
        let gone = self.with(|nccl, raw| {
            // SAFETY: both handles are live.
            let code = unsafe { deregister(raw, registration.handle) };
            nccl.check("ncclCommDeregister", code)
        });
        if let Err(error) = gone {
            tracing::debug!(%error, "a registration was not given back");
        }
    }

    /// Stops whatever is under way, also on the device, and frees the communicator. What is called
    /// afterwards fails. Does nothing while another thread makes a call that does not end, as where
    /// a stream is full: to be repeated then.
    pub(crate) fn abort(&self) {
        if let Some(raw) = self.take() {
            // SAFETY: the handle is live, and nobody has it any more.
            let code = unsafe { (self.nccl.functions.abort)(raw.0) };
            if let Err(error) = self.nccl.check("ncclCommAbort", code) {
                tracing::debug!(%error, "a communicator was not stopped");
            }
        }
    }

    /// Begins to free the communicator once what it does is done; [`Comm::destroy`] when
    /// [`Comm::progress`] says so.
    pub(crate) fn finalize(&self) -> Result<(), CudaError> {
        self.with(|nccl, raw| {
            // SAFETY: the handle is live.
            let code = unsafe { (nccl.functions.finalize)(raw) };
            nccl.check("ncclCommFinalize", code)
        })
    }

    /// Frees a communicator that is finalised.
    pub(crate) fn destroy(&self) {
        if let Some(raw) = self.take() {
            // SAFETY: the handle is live, and nobody has it any more.
            let code = unsafe { (self.nccl.functions.destroy)(raw.0) };
            if let Err(error) = self.nccl.check("ncclCommDestroy", code) {
                tracing::debug!(%error, "a communicator was not freed");
            }
        }
    }

    fn take(&self) -> Option<Raw> {
        let begin = Instant::now();
        loop {
            match self.raw.try_lock() {
                Ok(mut raw) => return raw.take(),
                Err(TryLockError::Poisoned(raw)) => return raw.into_inner().take(),
                Err(TryLockError::WouldBlock) if begin.elapsed() > USUAL_CALL => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_LOOKS),
            }
        }
    }

    fn with<T>(
        &self,
        call: impl FnOnce(&Nccl, RawComm) -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        let raw = self.raw.lock().unwrap_or_else(PoisonError::into_inner);
        match *raw {
            Some(raw) => call(&self.nccl, raw.0),
            None => Err(CudaError::Closed),
        }
    }
}

impl Drop for Comm {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Begins a group and puts operations into it.
fn group(
    nccl: &Nccl,
    raw: RawComm,
    operations: &[Operation],
    site: &Site<'_>,
) -> Result<(), CudaError> {
    // SAFETY: it takes no arguments.
    let code = unsafe { (nccl.functions.group_start)() };
    nccl.check("ncclGroupStart", code)?;
    for operation in operations {
        if let Err(error) = put(nccl, raw, operation, site) {
            // A group that was begun is to be ended, whatever comes of it.
            // SAFETY: it takes no arguments.
            unsafe { (nccl.functions.group_end)() };
            return Err(error);
        }
    }
    Ok(())
}

fn put(nccl: &Nccl, raw: RawComm, operation: &Operation, site: &Site<'_>) -> Result<(), CudaError> {
    let Functions {
        all_reduce,
        reduce_scatter,
        reduce,
        all_gather,
        broadcast,
        send: send_to,
        receive,
        ..
    } = nccl.functions;
    let at = |place| pointer((site.address)(place));
    let (kind, stream) = (data_type_code(site.data_type), site.stream);
    // SAFETY: the handle and the stream are live, and addresses and counts are those of memory of
    // the device that the caller keeps until the operation is done.
    let (call, code) = unsafe {
        match *operation {
            Operation::AllReduce {
                send,
                recv,
                count,
                op,
            } => (
                "ncclAllReduce",
                all_reduce(at(send), at(recv), count, kind, op_code(op), raw, stream),
            ),
            Operation::ReduceScatter {
                send,
                recv,
                count,
                op,
            } => (
                "ncclReduceScatter",
                reduce_scatter(at(send), at(recv), count, kind, op_code(op), raw, stream),
            ),
            Operation::Reduce {
                send,
                recv,
                count,
                op,
                root,
            } => {
                let (op, root) = (op_code(op), number(root));
                let code = reduce(at(send), at(recv), count, kind, op, root, raw, stream);
                ("ncclReduce", code)
            }
            Operation::AllGather { send, recv, count } => (
                "ncclAllGather",
                all_gather(at(send), at(recv), count, kind, raw, stream),
            ),
            Operation::Broadcast {
                send,
                recv,
                count,
                root,
            } => (
                "ncclBroadcast",
                broadcast(at(send), at(recv), count, kind, number(root), raw, stream),
            ),
            Operation::Send { from, count, peer } => (
                "ncclSend",
                send_to(at(from), count, kind, number(peer), raw, stream),
            ),
            Operation::Receive { to, count, peer } => (
                "ncclRecv",
                receive(at(to), count, kind, number(peer), raw, stream),
            ),
        }
    };
    nccl.check(call, code)
}

/// Device addresses are integers to the driver and pointers to NCCL.
fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// Ranks fit, since there are less than 2^31 of them.
fn number(rank: u32) -> c_int {
    c_int::try_from(rank).unwrap_or(c_int::MAX)
}

/// `ncclDataType_t`.
const fn data_type_code(data_type: DataType) -> c_int {
    match data_type {
        DataType::I32 => 2,
        DataType::I64 => 4,
        DataType::F16 => 6,
        DataType::F32 => 7,
        DataType::F64 => 8,
        DataType::Bf16 => 9,
    }
}

/// `ncclRedOp_t`.
const fn op_code(op: ReduceOp) -> c_int {
    match op {
        ReduceOp::Sum => 0,
        ReduceOp::Max => 2,
        ReduceOp::Min => 3,
        ReduceOp::Avg => 4,
    }
}
