//! From an operation of the C interface to the call of MPI that starts it.

use crate::abi::{Element, Kind, Operation, Reduction};
use crate::halves::HalfOps;
use crate::{Failed, check, meaningless};
use mpi::ffi;
use std::ffi::{c_int, c_void};

unsafe extern "C" {
    /// From `constants.c`.
    fn laggard_mpi_in_place() -> *mut c_void;
}

/// Starts an operation.
///
/// # Safety
/// What the operation points to must be as long as its counts say and stay in its place until the
/// request is complete.
pub(crate) unsafe fn start(
    comm: ffi::MPI_Comm,
    operation: &Operation,
    request: *mut ffi::MPI_Request,
    half_ops: &HalfOps,
) -> Result<(), Failed> {
    let o = operation;
    // SAFETY: the function only returns a constant of MPI.
    let in_place = (o.in_place != 0).then(|| unsafe { laggard_mpi_in_place() });
    let places = Places {
        send: in_place.map_or(o.send, |p| p.cast_const()),
        recv: in_place.unwrap_or(o.recv),
    };
    // SAFETY: the caller vouches for all pointers.
    let status = unsafe {
        match o.kind {
            Kind::AllReduce | Kind::ReduceScatter | Kind::Reduce => {
                let op = op(o.element, o.reduction, half_ops)?;
                reduce(comm, o, (places, op), request)
            }
            Kind::AllGather | Kind::Gather | Kind::Scatter | Kind::AllToAll => {
                exchange(comm, o, places, request)
            }
            Kind::Broadcast | Kind::Send | Kind::Receive | Kind::Barrier => tell(comm, o, request),
        }
    };
    check(status.ok_or_else(meaningless)?)
}

/// The pointers of an operation, or what says that it is in place. Each MPI function takes that on
/// one side alone.
#[derive(Clone, Copy)]
struct Places {
    send: *const c_void,
    recv: *mut c_void,
}

/// Starts an operation that reduces; `None` for another kind.
///
/// # Safety
/// As for [`start`].
unsafe fn reduce(
    comm: ffi::MPI_Comm,
    o: &Operation,
    (places, op): (Places, ffi::MPI_Op),
    request: *mut ffi::MPI_Request,
) -> Option<c_int> {
    let (send, recv, n) = (places.send, o.recv, o.send_count);
    let t = data_type(o.element);
    // SAFETY: the caller vouches for all pointers; MPI checks the rest, and errors return.
    Some(unsafe {
        match o.kind {
            Kind::AllReduce => ffi::MPI_Iallreduce(send, recv, n, t, op, comm, request),
            Kind::Reduce => ffi::MPI_Ireduce(send, recv, n, t, op, o.peer, comm, request),
            Kind::ReduceScatter => {
                ffi::MPI_Ireduce_scatter(send, recv, o.recv_counts, t, op, comm, request)
            }
            _ => return None,
        }
    })
}

/// Starts an operation with a block per rank; `None` for another kind.
///
/// # Safety
/// As for [`start`].
unsafe fn exchange(
    comm: ffi::MPI_Comm,
    o: &Operation,
    places: Places,
    request: *mut ffi::MPI_Request,
) -> Option<c_int> {
    let t = data_type(o.element);
    let (sends, send_starts) = (o.send_counts, o.send_starts);
    let (recvs, recv_starts) = (o.recv_counts, o.recv_starts);
    let (n, m, root) = (o.send_count, o.recv_count, o.peer);
    // SAFETY: the caller vouches for all pointers; MPI checks the rest, and errors return.
    Some(unsafe {
        match o.kind {
            Kind::AllGather => {
                let (send, recv) = (places.send, o.recv);
                ffi::MPI_Iallgatherv(send, n, t, recv, recvs, recv_starts, t, comm, request)
            }
            Kind::Gather => {
                let (send, recv) = (places.send, o.recv);
                ffi::MPI_Igatherv(send, n, t, recv, recvs, recv_starts, t, root, comm, request)
            }
            Kind::Scatter => {
                let (send, recv) = (o.send, places.recv);
                ffi::MPI_Iscatterv(send, sends, send_starts, t, recv, m, t, root, comm, request)
            }
            Kind::AllToAll => {
                let (from, to) = ((o.send, sends, send_starts), (o.recv, recvs, recv_starts));
                ffi::MPI_Ialltoallv(
                    from.0, from.1, from.2, t, to.0, to.1, to.2, t, comm, request,
                )
            }
            _ => return None,
        }
    })
}

/// Starts an operation from one rank, or without data; `None` for another kind.
///
/// # Safety
/// As for [`start`].
unsafe fn tell(
    comm: ffi::MPI_Comm,
    o: &Operation,
    request: *mut ffi::MPI_Request,
) -> Option<c_int> {
    let t = data_type(o.element);
    let (n, m, peer, tag) = (o.send_count, o.recv_count, o.peer, o.tag);
    // SAFETY: the caller vouches for all pointers; MPI checks the rest, and errors return.
    Some(unsafe {
        match o.kind {
            Kind::Broadcast => ffi::MPI_Ibcast(o.recv, m, t, peer, comm, request),
            Kind::Send => ffi::MPI_Isend(o.send, n, t, peer, tag, comm, request),
            Kind::Receive => ffi::MPI_Irecv(o.recv, m, t, peer, tag, comm, request),
            Kind::Barrier => ffi::MPI_Ibarrier(comm, request),
            _ => return None,
        }
    })
}

fn data_type(element: Element) -> ffi::MPI_Datatype {
    // SAFETY: these are constants of MPI.
    unsafe {
        match element {
            Element::Byte => ffi::RSMPI_UINT8_T,
            Element::Bf16 | Element::F16 => ffi::RSMPI_UINT16_T,
            Element::F32 => ffi::RSMPI_FLOAT,
            Element::F64 => ffi::RSMPI_DOUBLE,
            Element::I32 => ffi::RSMPI_INT32_T,
            Element::I64 => ffi::RSMPI_INT64_T,
        }
    }
}

fn op(element: Element, reduction: Reduction, half_ops: &HalfOps) -> Result<ffi::MPI_Op, Failed> {
    let of_halves = match element {
        Element::Byte => return Err(meaningless()),
        Element::Bf16 => Some(&half_ops.bf16),
        Element::F16 => Some(&half_ops.f16),
        Element::F32 | Element::F64 | Element::I32 | Element::I64 => None,
    };
    // SAFETY: these are constants of MPI.
    Ok(unsafe {
        match (reduction, of_halves) {
            (Reduction::None, _) => return Err(meaningless()),
            (Reduction::Sum, Some(ops)) => ops.sum,
            (Reduction::Min, Some(ops)) => ops.min,
            (Reduction::Max, Some(ops)) => ops.max,
            (Reduction::Sum, None) => ffi::RSMPI_SUM,
            (Reduction::Min, None) => ffi::RSMPI_MIN,
            (Reduction::Max, None) => ffi::RSMPI_MAX,
        }
    })
}
