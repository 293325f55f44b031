//! Time and peak memory of `laggard analyze` on a record of known truth.
//!
//! `cargo run --release -p laggard-benches --bin analyze_scale -- LAGGARD [RANKS STEPS RUNS]`
//! writes a record with one slow rank, then runs the binary on it and prints every run. The limit
//! stated for 1,024 ranks x 1,000 steps x 10 samples on 2 cores is 5 s and 1 GiB.
#![expect(
    clippy::print_stdout,
    reason = "the figures are the result of a benchmark"
)]

use anyhow::{Context, Result, bail};
use laggard_benches::known_job::KnownJob;
use std::process::Command;
use std::time::Instant;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let binary = arguments
        .first()
        .context("give the path of the laggard binary")?;
    let number = |at: usize, default: u32| match arguments.get(at) {
        Some(text) => text
            .parse()
            .with_context(|| format!("`{text}` is not a number")),
        None => Ok(default),
    };
    let (ranks, steps, runs) = (number(1, 1024)?, number(2, 1000)?, number(3, 5)?);
    let mut job = KnownJob::clean(ranks, 8, steps, 1);
    job.rank_excess[ranks as usize / 2] = 0.2;
    let folder = tempfile::tempdir()?;
    let record = folder.path().join("record");
    let start = Instant::now();
    job.write(&record)?;
    let samples = job.samples_per_step();
    println!(
        "{ranks} ranks x {steps} steps x {samples} samples: {:?} to write",
        start.elapsed()
    );
    println!("run,seconds,peak_rss_mib");
    for run in 0..runs {
        let start = Instant::now();
        let output = Command::new(binary)
            .arg("analyze")
            .arg(&record)
            .arg("--format=json")
            .output()?;
        let seconds = start.elapsed().as_secs_f64();
        if !output.status.success() {
            bail!(
                "analysis failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        println!("{run},{seconds:.3},{:.0}", peak_rss_mib()?);
        let analysis: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let culprit = &analysis["findings"][0]["culprit"]["rank"];
        if culprit.as_u64() != Some(u64::from(ranks / 2)) {
            bail!("the slow rank was not named: {culprit}");
        }
    }
    Ok(())
}

/// Largest memory of any child so far.
fn peak_rss_mib() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    Ok(usage.max_rss() as f64 / 1024.0)
}
