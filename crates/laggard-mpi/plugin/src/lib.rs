//! laggard's MPI plugin: what `laggard-mpi` asks of MPI, through rsmpi, behind the C interface of
//! `abi.rs`. Built once per MPI, loaded at run time. Checks no sequence of calls and keeps no
//! books: that is the loader's part.
#![expect(
    unsafe_code,
    reason = "raw pointers come in through the C interface and go out to MPI"
)]

#[path = "../../src/abi.rs"]
#[expect(dead_code, reason = "shared with the loader, which makes operations")]
mod abi;
mod halves;
mod start;

use abi::{
    Comm, Completion, Entry, MEANINGLESS, NOT_NOW, Operation, PANICKED, Place, Request, SUCCESS,
    Started, Status, TRUNCATED, Table, VERSION,
};
use halves::HalfOps;
use mpi::environment::Universe;
use mpi::traits::AsRaw;
use mpi::{Threading, ffi};
use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, OnceLock, PoisonError};

static TABLE: Table = Table {
    version: VERSION,
    init,
    finalize,
    abort,
    library_version,
    error_text,
    adopt,
    duplicate,
    subset,
    free,
    start: start_operation,
    test,
    cancel,
};

/// MPI itself; dropping it finalises.
static UNIVERSE: Mutex<Option<Universe>> = Mutex::new(None);

/// The reductions that MPI does not have.
static HALF_OPS: OnceLock<HalfOps> = OnceLock::new();

/// The plugin's only symbol.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn laggard_mpi_plugin_table() -> *const Table {
    &raw const TABLE
}

const _: Entry = laggard_mpi_plugin_table;

/// An error status.
struct Failed(Status);

/// Turns a status of MPI into a result.
fn check(status: c_int) -> Result<(), Failed> {
    if status == SUCCESS {
        return Ok(());
    }
    let mut class: c_int = 0;
    // SAFETY: the answer goes to a local.
    let classified = unsafe { ffi::MPI_Error_class(status, &raw mut class) };
    let is_truncated = classified == SUCCESS && class == ffi::MPI_ERR_TRUNCATE as c_int;
    Err(Failed(if is_truncated { TRUNCATED } else { status }))
}

/// Runs what a function of the table does; neither errors nor panics leave it otherwise than as a
/// status.
fn guarded(body: impl FnOnce() -> Result<(), Failed>) -> Status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(Failed(status))) => status,
        Err(_) => PANICKED,
    }
}

const _: () = assert!(size_of::<ffi::MPI_Comm>() <= size_of::<Comm>());
const _: () = assert!(size_of::<ffi::MPI_Request>() <= size_of::<Request>());
const _: () = assert!(align_of::<ffi::MPI_Comm>() <= align_of::<Comm>());
const _: () = assert!(align_of::<ffi::MPI_Request>() <= align_of::<Request>());

/// The communicator in a handle.
fn comm_of(handle: Comm) -> ffi::MPI_Comm {
    // SAFETY: the handle was written by `store`, so it begins with the bytes of a communicator,
    // which is a pointer or an integer and no larger than the handle (asserted above).
    unsafe { std::mem::transmute_copy(&handle) }
}

/// The handle of a communicator.
fn handle_of(comm: ffi::MPI_Comm) -> Comm {
    let mut handle = Comm(0);
    // SAFETY: the handle is as large and as aligned as a communicator (asserted above), and any
    // bytes make a handle.
    unsafe { (&raw mut handle).cast::<ffi::MPI_Comm>().write(comm) };
    handle
}

/// UCX, which MPICH may be built upon, aborts a process that copies from the memory of another one
/// of its host at the moment when that dies. Survivors are needed: they say who died. So this way
/// of copying is left out, unless the user has chosen.
fn outlive_peers() {
    const CHOICE: &str = "UCX_TLS";
    if std::env::var_os(CHOICE).is_none() {
        // SAFETY: MPI is not initialised, so that nothing of it reads the environment now; laggard
        // itself sets no variable and reads its own before this.
        unsafe { std::env::set_var(CHOICE, "^cma") };
    }
}

unsafe extern "C" fn init(started: *mut Started) -> Status {
    guarded(|| {
        let mut universe = UNIVERSE.lock().unwrap_or_else(PoisonError::into_inner);
        outlive_peers();
        let (begun, threading) =
            mpi::initialize_with_threading(Threading::Multiple).ok_or(Failed(NOT_NOW))?;
        let world = begun.world().as_raw();
        *universe = Some(begun);
        // SAFETY: MPI is initialised; the handler is a constant of MPI.
        check(unsafe { ffi::MPI_Comm_set_errhandler(world, ffi::RSMPI_ERRORS_RETURN) })?;
        let half_ops = HalfOps::create()?;
        HALF_OPS.set(half_ops).map_err(|_| Failed(NOT_NOW))?;
        // SAFETY: the caller passes a place for the answer.
        unsafe {
            started.write(Started {
                world: handle_of(world),
                is_concurrent: u32::from(threading == Threading::Multiple),
            });
        }
        Ok(())
    })
}

unsafe extern "C" fn finalize() -> Status {
    guarded(|| {
        let mut universe = UNIVERSE.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropping it finalises. rsmpi does not pass the status on; MPI says whether it happened.
        drop(universe.take().ok_or(Failed(NOT_NOW))?);
        let mut is_final: c_int = 0;
        // SAFETY: may be called at any time, also after finalising.
        check(unsafe { ffi::MPI_Finalized(&raw mut is_final) })?;
        if is_final == 0 {
            return Err(Failed(ffi::MPI_ERR_OTHER as c_int));
        }
        Ok(())
    })
}

unsafe extern "C" fn abort(world: Comm, exit_code: c_int) -> Status {
    // SAFETY: the caller passes the world's communicator.
    guarded(|| check(unsafe { ffi::MPI_Abort(comm_of(world), exit_code) }))
}

/// Copies a text out, cut to the room that there is; returns its length.
///
/// # Safety
/// `to` must have room for `capacity` bytes.
unsafe fn copy_out(text: &[u8], to: *mut c_char, capacity: usize) -> usize {
    let length = text.len().min(capacity);
    // SAFETY: both sides have `length` bytes, and a fresh copy of the text overlaps nothing.
    unsafe { text.as_ptr().copy_to_nonoverlapping(to.cast(), length) };
    length
}

unsafe extern "C" fn library_version(text: *mut c_char, capacity: usize) -> usize {
    let version = catch_unwind(mpi::environment::library_version);
    let version = version.ok().and_then(Result::ok).unwrap_or_default();
    // SAFETY: the caller passes room for `capacity` bytes.
    unsafe { copy_out(version.trim_end_matches('\0').as_bytes(), text, capacity) }
}

unsafe extern "C" fn error_text(code: Status, text: *mut c_char, capacity: usize) -> usize {
    let mut buffer = [0u8; ffi::MPI_MAX_ERROR_STRING as usize + 1];
    let mut length: c_int = 0;
    let to = buffer.as_mut_ptr().cast();
    // SAFETY: the buffer has room for the longest text that MPI writes.
    if unsafe { ffi::MPI_Error_string(code, to, &raw mut length) } != SUCCESS {
        return 0;
    }
    let length = usize::try_from(length).unwrap_or(0).min(buffer.len());
    // SAFETY: the caller passes room for `capacity` bytes.
    unsafe { copy_out(&buffer[..length], text, capacity) }
}

unsafe extern "C" fn adopt(comm: Comm, place: *mut Place) -> Status {
    guarded(|| {
        let comm = comm_of(comm);
        let mut found = Place::default();
        // SAFETY: the caller passes a communicator; the answers go to locals.
        unsafe {
            check(ffi::MPI_Comm_set_errhandler(comm, ffi::RSMPI_ERRORS_RETURN))?;
            check(ffi::MPI_Comm_rank(comm, &raw mut found.rank))?;
            check(ffi::MPI_Comm_size(comm, &raw mut found.size))?;
        }
        // SAFETY: the caller passes a place for the answer.
        unsafe { place.write(found) };
        Ok(())
    })
}

unsafe extern "C" fn duplicate(comm: Comm, copy: *mut Comm, request: *mut Request) -> Status {
    // SAFETY: handles are as large and aligned as what MPI writes (asserted above); the caller
    // leaves the copy in its place until the request is complete.
    guarded(|| unsafe {
        copy.write(Comm(0));
        request.write(Request(0));
        check(ffi::MPI_Comm_idup(
            comm_of(comm),
            copy.cast(),
            request.cast(),
        ))
    })
}

unsafe extern "C" fn subset(
    comm: Comm,
    ranks: *const c_int,
    count: c_int,
    tag: c_int,
    subset: *mut Comm,
) -> Status {
    guarded(|| {
        let comm = comm_of(comm);
        let mut all = MaybeUninit::<ffi::MPI_Group>::uninit();
        let mut part = MaybeUninit::<ffi::MPI_Group>::uninit();
        let mut made = MaybeUninit::<ffi::MPI_Comm>::uninit();
        // SAFETY: the caller passes a communicator and `count` of its ranks; each group and
        // communicator is read only after MPI has said that it wrote it.
        unsafe {
            check(ffi::MPI_Comm_group(comm, all.as_mut_ptr()))?;
            check(ffi::MPI_Group_incl(
                all.assume_init(),
                count,
                ranks,
                part.as_mut_ptr(),
            ))?;
            let part_group = part.assume_init();
            check(ffi::MPI_Comm_create_group(
                comm,
                part_group,
                tag,
                made.as_mut_ptr(),
            ))?;
            check(ffi::MPI_Group_free(part.as_mut_ptr()))?;
            check(ffi::MPI_Group_free(all.as_mut_ptr()))?;
            subset.write(handle_of(made.assume_init()));
        }
        Ok(())
    })
}

unsafe extern "C" fn free(comm: *mut Comm) -> Status {
    // SAFETY: the caller passes a communicator that it does not use any more.
    guarded(|| check(unsafe { ffi::MPI_Comm_free(comm.cast()) }))
}

unsafe extern "C" fn start_operation(
    comm: Comm,
    operation: *const Operation,
    request: *mut Request,
) -> Status {
    guarded(|| {
        let ops = HALF_OPS.get().ok_or(Failed(NOT_NOW))?;
        // SAFETY: the caller passes an operation, whose memory it leaves in its place until the
        // request is complete, and a place for the request, as large as MPI's (asserted above).
        unsafe {
            request.write(Request(0));
            start::start(comm_of(comm), &*operation, request.cast(), ops)
        }
    })
}

unsafe extern "C" fn test(request: *mut Request, completion: *mut Completion) -> Status {
    guarded(|| {
        let mut is_complete: c_int = 0;
        let mut status = MaybeUninit::<ffi::MPI_Status>::zeroed();
        // SAFETY: the caller passes a request that is under way; a zeroed status is a valid one.
        unsafe {
            check(ffi::MPI_Test(
                request.cast(),
                &raw mut is_complete,
                status.as_mut_ptr(),
            ))?;
            completion.write(if is_complete == 0 {
                Completion::default()
            } else {
                completion_of(&status.assume_init())?
            });
        }
        Ok(())
    })
}

unsafe extern "C" fn cancel(request: *mut Request, completion: *mut Completion) -> Status {
    guarded(|| {
        let mut status = MaybeUninit::<ffi::MPI_Status>::zeroed();
        // SAFETY: the caller passes a receive that is under way; a zeroed status is a valid one.
        unsafe {
            check(ffi::MPI_Cancel(request.cast()))?;
            check(ffi::MPI_Wait(request.cast(), status.as_mut_ptr()))?;
            completion.write(completion_of(&status.assume_init())?);
        }
        Ok(())
    })
}

/// What the status of a complete request says.
fn completion_of(status: &ffi::MPI_Status) -> Result<Completion, Failed> {
    let mut completion = Completion {
        is_complete: 1,
        ..Completion::default()
    };
    // SAFETY: the status is one that MPI wrote, or the empty one.
    unsafe {
        check(ffi::MPI_Test_cancelled(
            status,
            &raw mut completion.was_cancelled,
        ))?;
        if completion.was_cancelled == 0 {
            let bytes = &raw mut completion.received_bytes;
            check(ffi::MPI_Get_count(status, ffi::RSMPI_UINT8_T, bytes))?;
        }
    }
    Ok(completion)
}

/// The error of an operation that makes no sense.
const fn meaningless() -> Failed {
    Failed(MEANINGLESS)
}
