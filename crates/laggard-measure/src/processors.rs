//! What the machine gives this process: processors and memory.

use crate::MeasureError;

/// The processors that the process may use, in order: those of its affinity mask, and no more than
/// a quota (cgroup) allows.
///
/// # Errors
/// [`MeasureError::System`] if the system does not tell.
pub(crate) fn available() -> Result<Vec<u32>, MeasureError> {
    let mut allowed = allowed()?;
    if let Ok(usable) = std::thread::available_parallelism() {
        allowed.truncate(usable.get());
    }
    Ok(allowed)
}

/// The processors of the process's affinity mask, in order.
///
/// # Errors
/// [`MeasureError::System`] if the system does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn allowed() -> Result<Vec<u32>, MeasureError> {
    use nix::sched::{CpuSet, sched_getaffinity};
    use nix::unistd::Pid;

    let mask = sched_getaffinity(Pid::from_raw(0)).map_err(|error| MeasureError::System {
        what: "asking which processors may be used".to_owned(),
        why: error.to_string(),
    })?;
    let is_allowed = |cpu: &usize| mask.is_set(*cpu).unwrap_or(false);
    Ok((0..CpuSet::count())
        .filter(is_allowed)
        .map(|cpu| cpu as u32)
        .collect())
}

/// Without a way to bind threads, no rank has a processor to itself.
#[cfg(not(target_os = "linux"))]
pub(crate) fn allowed() -> Result<Vec<u32>, MeasureError> {
    Ok(Vec::new())
}

/// How many processors the process may use, also where it cannot choose among them.
pub(crate) fn count() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u32)
}

/// Name of this host.
pub fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    name.and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// What tells this machine from others, also where several hosts (containers, network namespaces)
/// are one machine with one clock: the boot identifier of Linux, else the host's name. Source:
/// random(4).
pub(crate) fn machine() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| host_name(), |id| id.trim().to_owned())
}

/// Memory node of a processor, where the system tells.
pub(crate) fn numa_node(cpu: u32) -> Option<u32> {
    let folder = std::fs::read_dir(format!("/sys/devices/system/cpu/cpu{cpu}")).ok()?;
    let node = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix("node")?.parse().ok()
    };
    folder.flatten().find_map(node)
}

/// Memory that can be had without swapping, where the system tells.
pub(crate) fn available_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    available_in(&info)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available_in(info: &str) -> Option<u64> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let info = "MemTotal:       32768000 kB\nMemAvailable:   16384000 kB\nBuffers: 1 kB\n";
        assert_eq!(available_in(info), Some(16_384_000 * 1024));
        assert_eq!(available_in("MemTotal: 1 kB\n"), None);
        assert_eq!(available_in("MemAvailable: x kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn there_is_a_processor() {
        assert!(!available().unwrap().is_empty());
    }
}
