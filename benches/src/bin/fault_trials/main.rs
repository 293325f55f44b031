//! Whether runs across hosts end well when a rank, a host or the launcher does not.
//!
//! Each trial starts `laggard run` under mpirun on a bed of `scripts/testbed.sh`, waits until the
//! record's manifest is there, lets a random time pass, does one fault, and holds what happens
//! against the limits: a survivor names the ranks that are gone, and nobody else, within the run's
//! own time limit and a slack; soon after no process is left; and the record can be analysed if it
//! had been flushed before. When the launcher is killed there is nobody to tell: then all
//! processes must be gone within that limit.
//!
//! `fault_trials --help` shows what can be asked for. Exits with 1 if any trial is wrong, with 77
//! if the machine cannot make such a bed.
#![cfg_attr(
    target_os = "linux",
    expect(clippy::print_stdout, reason = "the table is the result")
)]

#[cfg(target_os = "linux")]
mod bed;
#[cfg(target_os = "linux")]
mod campaign;
#[cfg(target_os = "linux")]
mod loss;
#[cfg(target_os = "linux")]
mod trial;

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<std::process::ExitCode> {
    campaign::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("hosts on one machine need Linux")
}
