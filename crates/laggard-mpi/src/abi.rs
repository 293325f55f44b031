//! The C interface between laggard and its MPI plugin: the one description of it, compiled into
//! both. It names no type of any MPI, so that one loader fits every plugin. A change of anything
//! here is a new [`VERSION`].

use std::ffi::{c_char, c_int, c_void};

/// The version of this interface; the loader refuses any other.
pub(crate) const VERSION: u32 = 1;

/// The type of the plugin's only symbol, `laggard_mpi_plugin_table`. The table lives as long as the
/// process.
pub(crate) type Entry = unsafe extern "C" fn() -> *const Table;

/// A status: [`SUCCESS`], an error code of MPI (positive), or one of this interface (negative).
pub(crate) type Status = c_int;

/// All went well.
pub(crate) const SUCCESS: Status = 0;

/// The plugin's own code panicked.
pub(crate) const PANICKED: Status = -1;

/// MPI was initialised before, or has been finalised.
pub(crate) const NOT_NOW: Status = -2;

/// An operation that has no meaning, such as a sum of bytes.
pub(crate) const MEANINGLESS: Status = -3;

/// A message was longer than the memory for it.
pub(crate) const TRUNCATED: Status = -4;

/// A communicator, as the plugin's MPI writes it into 64 bits. 0 before it is set.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Comm(pub u64);

/// Something under way, as the plugin's MPI writes it into 64 bits.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request(pub u64);

/// How the threads of a process may call MPI.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Started {
    /// The world's communicator; errors on it return.
    pub world: Comm,
    /// Not zero if several threads may call at the same time; else the loader makes them take
    /// turns.
    pub is_concurrent: u32,
}

/// This process's place in a communicator.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// Rank, from 0.
    pub rank: c_int,
    /// Ranks.
    pub size: c_int,
}

/// What [`Table::start`] can start.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `MPI_Iallreduce` of `send_count` elements.
    AllReduce,
    /// `MPI_Ireduce_scatter` with `recv_counts`.
    ReduceScatter,
    /// `MPI_Iallgatherv` with `recv_counts` and `recv_starts`.
    AllGather,
    /// `MPI_Ibcast` of `recv`, `recv_count` elements from `peer`.
    Broadcast,
    /// `MPI_Ireduce` of `send_count` elements to `peer`.
    Reduce,
    /// `MPI_Ialltoallv` with all counts and starts.
    AllToAll,
    /// `MPI_Igatherv` to `peer` with `recv_counts` and `recv_starts`.
    Gather,
    /// `MPI_Iscatterv` from `peer` with `send_counts` and `send_starts`.
    Scatter,
    /// `MPI_Isend` of `send_count` elements to `peer`.
    Send,
    /// `MPI_Irecv` of at most `recv_count` elements from `peer`.
    Receive,
    /// `MPI_Ibarrier`.
    Barrier,
}

/// What an element is.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    /// One byte, which cannot be reduced.
    Byte,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
}

/// How elements are reduced. Averages are sums that the loader scales.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// Nothing is reduced.
    None,
    /// Their sum.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

/// One operation. Everything that it points to must stay where it is until the operation is
/// complete. Pointers that the kind does not need are null, numbers zero.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    /// What to start.
    pub kind: Kind,
    /// Of which elements.
    pub element: Element,
    /// Reduced in which way.
    pub reduction: Reduction,
    /// Root, receiver or sender.
    pub peer: c_int,
    /// Tag of a message.
    pub tag: c_int,
    /// Elements to send.
    pub send_count: c_int,
    /// Elements to receive.
    pub recv_count: c_int,
    /// Not zero if this rank's contribution already lies where MPI expects it for a call in place:
    /// in `recv`, or, for the root of a scatter, in `send`.
    pub in_place: c_int,
    /// What is sent.
    pub send: *const c_void,
    /// Where results go.
    pub recv: *mut c_void,
    /// Elements to send, per rank.
    pub send_counts: *const c_int,
    /// First element to send, per rank.
    pub send_starts: *const c_int,
    /// Elements to receive, per rank.
    pub recv_counts: *const c_int,
    /// Where the first element received goes, per rank.
    pub recv_starts: *const c_int,
}

/// What became of a request.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Completion {
    /// Not zero if the request is complete, and gone.
    pub is_complete: c_int,
    /// Not zero if it was cancelled and had no effect.
    pub was_cancelled: c_int,
    /// Bytes received, if it was a receive.
    pub received_bytes: c_int,
}

/// The functions of a plugin. All may be called from any thread; at the same time only if
/// [`Started::is_concurrent`]. None unwinds.
#[repr(C)]
pub(crate) struct Table {
    /// [`VERSION`] of the interface that the plugin was built with. First, so that it can be read
    /// whatever the version.
    pub version: u32,
    /// Initialises MPI and asks for concurrent threads.
    pub init: unsafe extern "C" fn(started: *mut Started) -> Status,
    /// Finalises MPI; waits for all ranks.
    pub finalize: unsafe extern "C" fn() -> Status,
    /// Ends all processes of the job.
    pub abort: unsafe extern "C" fn(world: Comm, exit_code: c_int) -> Status,
    /// Writes the library's name and version, in UTF-8, not terminated; returns its length, cut to
    /// `capacity`.
    pub library_version: unsafe extern "C" fn(text: *mut c_char, capacity: usize) -> usize,
    /// Writes what an error code of MPI means, likewise.
    pub error_text: unsafe extern "C" fn(code: Status, text: *mut c_char, capacity: usize) -> usize,
    /// Makes errors on a communicator return, and tells this process's place in it.
    pub adopt: unsafe extern "C" fn(comm: Comm, place: *mut Place) -> Status,
    /// Starts duplicating a communicator. `copy` is valid when the request is complete, and must
    /// stay where it is until then.
    pub duplicate:
        unsafe extern "C" fn(comm: Comm, copy: *mut Comm, request: *mut Request) -> Status,
    /// A communicator of some ranks of another, in this order; called by those alone, and waits for
    /// them.
    pub subset: unsafe extern "C" fn(
        comm: Comm,
        ranks: *const c_int,
        count: c_int,
        tag: c_int,
        subset: *mut Comm,
    ) -> Status,
    /// Frees a communicator.
    pub free: unsafe extern "C" fn(comm: *mut Comm) -> Status,
    /// Starts an operation.
    pub start: unsafe extern "C" fn(
        comm: Comm,
        operation: *const Operation,
        request: *mut Request,
    ) -> Status,
    /// Whether a request is complete; makes progress.
    pub test: unsafe extern "C" fn(request: *mut Request, completion: *mut Completion) -> Status,
    /// Cancels a receive, and waits until it is cancelled or has turned out to be complete.
    pub cancel: unsafe extern "C" fn(request: *mut Request, completion: *mut Completion) -> Status,
}
