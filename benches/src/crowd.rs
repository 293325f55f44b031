//! Jobs whose ranks share one processor, for tests: steps are then measured by CPU time, on the
//! virtual clock of `laggard run`. Other load of the machine does not stretch it as it does wall
//! time, and it means the same on machines of any number of processors.

use laggard_backend::{BackendError, bind_thread};

/// Leaves the calling thread, and what it starts from now on, the first of the processors that it
/// may use. Where threads cannot choose, ranks have processors of their own as far as these go.
///
/// # Errors
/// [`BackendError::System`] if the system does not tell which there are, or refuses.
pub fn share_one_processor() -> Result<(), BackendError> {
    bind_thread(first_processor()?)
}

#[cfg(target_os = "linux")]
fn first_processor() -> Result<Option<u32>, BackendError> {
    use nix::sched::{CpuSet, sched_getaffinity};
    use nix::unistd::Pid;

    let mask = sched_getaffinity(Pid::from_raw(0)).map_err(|error| BackendError::System {
        what: "asking which processors may be used".to_owned(),
        why: error.to_string(),
    })?;
    let first = (0..CpuSet::count()).find(|cpu| mask.is_set(*cpu).unwrap_or(false));
    Ok(first.and_then(|cpu| u32::try_from(cpu).ok()))
}

#[cfg(not(target_os = "linux"))]
fn first_processor() -> Result<Option<u32>, BackendError> {
    Ok(None)
}
