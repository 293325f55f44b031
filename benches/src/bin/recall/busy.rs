//! Another process that wants a rank's processor for itself.

use anyhow::{Context, Result, bail};
use laggard_backend::bind_thread;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// The argument with which this program is the busy process.
pub(crate) const ARGUMENT: &str = "--be-busy-on";

/// A busy process, as long as it is held.
pub(crate) struct Busy(Child);

impl Busy {
    /// Starts one on the processor that an in-process rank is bound to: the rank-th of those that
    /// this process may use.
    pub(crate) fn beside(rank: u32) -> Result<Self> {
        let cpu = *usable()
            .get(rank as usize)
            .with_context(|| format!("no processor for rank {rank}"))?;
        let mut child = Command::new(std::env::current_exe()?)
            .args([ARGUMENT, &cpu.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("no busy process")?;
        // One byte says that it is where it should be.
        let mut ready = [0];
        let told = child.stdout.as_mut().map(|it| it.read_exact(&mut ready));
        match told {
            Some(Ok(())) => Ok(Self(child)),
            _ => bail!("the busy process did not start: {:?}", child.wait()),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // It ends by itself as well, when its input closes.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// What the busy process does, until its input ends.
pub(crate) fn be_busy_on(cpu: u32) -> Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    bind_thread(Some(cpu))?;
    std::thread::spawn(|| {
        _ = std::io::stdin().read_to_end(&mut Vec::new());
        DONE.store(true, Ordering::Relaxed);
    });
    println!();
    while !DONE.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
    Ok(())
}

/// How many processors this process may use; none where processes cannot choose among them.
pub(crate) fn processors() -> u32 {
    usable().len() as u32
}

#[cfg(target_os = "linux")]
fn usable() -> Vec<u32> {
    use nix::sched::{CpuSet, sched_getaffinity};
    let Ok(mask) = sched_getaffinity(nix::unistd::Pid::from_raw(0)) else {
        return Vec::new();
    };
    let usable = (0..CpuSet::count()).filter(|cpu| mask.is_set(*cpu).unwrap_or(false));
    usable.map(|cpu| cpu as u32).collect()
}

#[cfg(not(target_os = "linux"))]
fn usable() -> Vec<u32> {
    Vec::new()
}
