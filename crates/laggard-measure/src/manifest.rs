//! What the record says about a run beside its samples.

use crate::MeasureError;
use crate::job::Job;
use crate::processors;
use laggard_record::{
    Class, Clock, Host, Manifest, Origin, Peak, PeakKind, RankPlace, SchemaVersion, TimeBasis,
    Workload,
};
use laggard_specs::{Attention, training_flop_per_token};
use laggard_types::{Caveat, CaveatCode, ClockDomain, FlopPerSecond, Rank};
use nix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// The manifest of a job on processors of this name and peak.
///
/// # Errors
/// If the system does not tell its clock.
pub(crate) fn manifest(
    job: &Job,
    processor: &str,
    peak: FlopPerSecond,
) -> Result<Manifest, MeasureError> {
    let settings = &job.settings;
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let place = |rank: Rank| RankPlace {
        host: job.host_of_rank[rank as usize],
        class: job.class_of_rank[rank as usize],
        device: processor.to_owned(),
        cpus: job.processor_of(rank).into_iter().collect(),
        allowed_cpus: Vec::new(),
        cpu_quota: None,
        numa_node: None,
        other_load: None,
    };
    Ok(Manifest {
        schema_version: SchemaVersion::CURRENT,
        laggard_version: env!("CARGO_PKG_VERSION").to_owned(),
        created_unix_ns: i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX),
        command_line: settings.command_line.clone(),
        origin: Origin::Measured,
        hosts: hosts(job, processor),
        classes: classes(job, processor, peak),
        ranks: (0..settings.ranks()).map(place).collect(),
        clock: Clock {
            domain: ClockDomain::HostMonotonic,
            resolution_ns: clock_resolution()?,
            common_to_all_ranks: true,
            thread_cpu_time: true,
            basis: job.basis,
        },
        workload: workload(job),
        schedule: job.schedule.clone(),
        seed: settings.seed,
        communication: None,
        links: Vec::new(),
        caveats: caveats(),
        truth: job.injector.truth(),
    })
}

fn workload(job: &Job) -> Workload {
    let settings = &job.settings;
    let per_token = |attention| {
        let length = u64::from(settings.sequence_length);
        Some(training_flop_per_token(&settings.model, length, attention).0)
    };
    Workload {
        model: settings.model.id.clone(),
        synthetic: true,
        data_type: "f32".to_owned(),
        parameters: settings.model.parameters() as f64,
        sequence_length: settings.sequence_length,
        micro_batch_sequences: settings.micro_batch_sequences,
        flop_per_token_causal: per_token(Attention::Causal),
        flop_per_token_full: per_token(Attention::Full),
        recompute_flop_per_token: 0.0,
    }
}

fn hosts(job: &Job, processor: &str) -> Vec<Host> {
    let count = job.settings.emulate_hosts;
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    let name = name.unwrap_or_else(|| "localhost".to_owned());
    let host = |index: u32| {
        let own = job
            .host_of_rank
            .iter()
            .filter(|host| **host == index)
            .count() as u32;
        Host {
            name: if count == 1 {
                name.clone()
            } else {
                format!("{name}/{index}")
            },
            architecture: std::env::consts::ARCH.to_owned(),
            processor: processor.to_owned(),
            cpus: match (count, job.basis) {
                (1, _) | (_, TimeBasis::Virtual) => processors::count(),
                (_, TimeBasis::Wall) => own,
            },
            emulated: count > 1,
            // All hosts are parts of this one.
            machine: 0,
        }
    };
    (0..count).map(host).collect()
}

fn classes(job: &Job, processor: &str, peak: FlopPerSecond) -> Vec<Class> {
    let measured = |relative_rate: f64, source: &str| {
        Some(Peak {
            flop_per_s: peak.0 * relative_rate,
            kind: PeakKind::Measured,
            source: source.to_owned(),
        })
    };
    if job.settings.classes.is_empty() {
        return vec![Class {
            name: processor.to_owned(),
            emulated: false,
            relative_rate: 1.0,
            rate_source: "the only class".to_owned(),
            peak: measured(1.0, "multiply-adds on registers of one core, f32"),
        }];
    }
    let class = |class: &crate::ClassShare| Class {
        name: class.name.clone(),
        emulated: true,
        relative_rate: class.relative_rate,
        rate_source: class.source.clone(),
        peak: measured(
            class.relative_rate,
            "multiply-adds on registers of one core, f32, times the relative rate",
        ),
    };
    job.settings.classes.iter().map(class).collect()
}

/// What only the writer can know; what follows from the rest of the manifest, analyses say.
fn caveats() -> Vec<Caveat> {
    let message = "the synthetic layers are linear: no softmax, activation function or norm; \
                   attention computes the full square, and the embedding is not trained";
    vec![Caveat::new(CaveatCode::SyntheticJob, message)]
}

/// Readings that the clock's resolution is looked for in.
const RESOLUTION_READINGS: u32 = 1000;

/// The smallest step of the clock that shows between readings.
fn clock_resolution() -> Result<i64, MeasureError> {
    let mut smallest = i64::MAX;
    let mut last = monotonic_ns()?;
    for _ in 0..RESOLUTION_READINGS {
        let now = monotonic_ns()?;
        if now > last {
            smallest = smallest.min(now - last);
        }
        last = now;
    }
    // A clock that stood still for so long has at least the resolution of the time that passed.
    Ok(if smallest == i64::MAX { 1 } else { smallest })
}

/// The clock of samples and telemetry, nanoseconds.
///
/// # Errors
/// If the system does not tell it.
pub(crate) fn monotonic_ns() -> Result<i64, MeasureError> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|error| MeasureError::System {
        what: "reading the clock".to_owned(),
        why: error.to_string(),
    })?;
    // The casts widen on every platform; their width differs between platforms.
    Ok(time.tv_sec() as i64 * 1_000_000_000 + time.tv_nsec() as i64)
}
