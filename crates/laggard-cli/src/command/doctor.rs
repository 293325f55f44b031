//! `laggard doctor`: what this machine offers, and the line that fills each gap.

mod gpus;

use crate::args::DoctorArgs;
use crate::failure::Usage;
use crate::{exit_code, output};
use anyhow::Result;
use laggard_backend::measure_peak;
use laggard_cuda::{CudaLibrary, Outcome, Surroundings, probe};
use laggard_mpi::{Flavor, Mpi};
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the peak is measured.
const PEAK_TIME: Duration = Duration::from_millis(300);

pub(crate) fn run(args: &DoctorArgs) -> Result<u8> {
    if let Some(id) = &args.only_mpi {
        let flavor = Flavor::ALL.into_iter().find(|flavor| flavor.id() == id);
        let flavor = flavor.ok_or_else(|| Usage(format!("no MPI is called `{id}`")))?;
        output::result(&mpi(flavor), Path::new("-"))?;
        return Ok(exit_code::DONE);
    }
    let mut page = String::new();
    let mut line = |what: &str, found: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "{what:<14}{found}");
    };
    line("laggard", env!("CARGO_PKG_VERSION").to_owned());
    line("processors", processors());
    let peak = measure_peak(PEAK_TIME)?.0 * 1e-9;
    line("arithmetic", format!("{peak:.0} GFLOP/s f32 on one core"));
    line(
        "clock",
        format!("monotonic, smallest step {} ns", clock_step_ns()),
    );
    line("other load", load());
    line("threads", "in-process ranks: ready".to_owned());
    for flavor in Flavor::ALL {
        line(flavor.name(), mpi_alone(flavor)?);
    }
    let surroundings = Surroundings::of_process();
    for found in probe(&surroundings) {
        line(short_name(found.library), cuda(found.outcome));
    }
    for (what, found) in gpus::lines(&surroundings) {
        line(&what, found);
    }
    let gpus = "what runs on them (kernels, streams, NCCL, NVML) has been tried over stand-ins, \
                and never on a GPU yet";
    line("GPUs", gpus.to_owned());
    output::result(&page, Path::new("-"))?;
    Ok(exit_code::DONE)
}

/// What a process of its own says of an MPI library.
fn mpi_alone(flavor: Flavor) -> Result<String> {
    let found = Command::new(std::env::current_exe()?)
        .args(["doctor", "--only-mpi", flavor.id()])
        .stdin(Stdio::null())
        .output()?;
    let words = match found.status.success() {
        true => found.stdout,
        false => found.stderr,
    };
    Ok(String::from_utf8_lossy(&words).trim_end().to_owned())
}

/// Whether runs can go over an MPI library, and over which version of it.
fn mpi(flavor: Flavor) -> String {
    match Mpi::load(flavor) {
        Ok(mpi) => {
            let version = mpi.library_version();
            format!("{version}, by {}", mpi.plugin_path().display())
        }
        Err(error) => error.to_string(),
    }
}

fn short_name(library: CudaLibrary) -> &'static str {
    match library {
        CudaLibrary::Driver => "CUDA driver",
        CudaLibrary::Nvml => "NVML",
        CudaLibrary::Nvrtc => "NVRTC",
        CudaLibrary::CublasLt => "cuBLASLt",
        CudaLibrary::Nccl => "NCCL",
    }
}

/// What there is of one of CUDA's libraries.
fn cuda(outcome: Outcome) -> String {
    match outcome {
        Outcome::Usable { path, version } => format!("{version}, {}", path.display()),
        Outcome::Unusable { path, why, fix } => {
            format!("{} cannot be used: {why}\nhint: {fix}", path.display())
        }
        Outcome::Missing { fix } => format!("not found\nhint: {fix}"),
    }
}

fn processors() -> String {
    let usable = std::thread::available_parallelism().map_or(1, |count| count.get());
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown model", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let isa = vector_isa();
    format!("{usable} usable, {name}, {}, {isa}", std::env::consts::ARCH)
}

#[cfg(target_arch = "x86_64")]
fn vector_isa() -> &'static str {
    if std::arch::is_x86_feature_detected!("avx512f") {
        "AVX-512"
    } else if std::arch::is_x86_feature_detected!("avx2") {
        "AVX2"
    } else {
        "SSE"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn vector_isa() -> &'static str {
    "portable vectors"
}

/// Smallest non-zero difference of two readings.
fn clock_step_ns() -> u128 {
    (0..1000)
        .filter_map(|_| {
            let first = Instant::now();
            let step = first.elapsed().as_nanos();
            (step > 0).then_some(step)
        })
        .min()
        .unwrap_or(0)
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let one = text
        .split(' ')
        .next()
        .and_then(|load| load.parse::<f64>().ok());
    match one {
        Some(load) if load > 0.5 => format!(
            "load {load:.1} over the last minute: step times will be disturbed\nhint: stop other \
             work, or bind it elsewhere with `taskset`"
        ),
        Some(load) => format!("load {load:.1} over the last minute: quiet"),
        None => "not known on this system".to_owned(),
    }
}
