//! What the record says about a run beside its samples.

use crate::MeasureError;
use crate::classes::distinct;
use crate::job::Job;
use crate::processors;
use laggard_record::{
    Class, Clock, Communication, Host, Link, Manifest, Origin, Peak, PeakKind, RankPlace,
    SchemaVersion, TimeBasis, Workload,
};
use laggard_specs::{Attention, Recompute, recompute_flop_per_token, training_flop_per_token};
use laggard_types::{Caveat, CaveatCode, ClockDomain, FlopPerSecond, Rank};
use nix::time::{ClockId, clock_gettime};
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

/// What was found out about the ranks of a run before its first step.
#[derive(Debug, Clone)]
pub(crate) struct Findings {
    /// Arithmetic peak of each rank, FLOP/s.
    pub peaks: Vec<f64>,
    pub communication: Communication,
    pub links: Vec<Link>,
}

impl Findings {
    /// What is true of ranks that are threads of one process on equal processors.
    pub(crate) fn of_threads(ranks: u32, peak: FlopPerSecond) -> Self {
        Self {
            peaks: vec![peak.0; ranks as usize],
            communication: Communication {
                backend: "threads".to_owned(),
                progress: "by a thread of each rank".to_owned(),
            },
            links: Vec::new(),
        }
    }
}

/// The manifest of a job.
///
/// # Errors
/// If the system does not tell its clock.
pub(crate) fn manifest(job: &Job, findings: &Findings) -> Result<Manifest, MeasureError> {
    let settings = &job.settings;
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let hosts = hosts(job);
    Ok(Manifest {
        schema_version: SchemaVersion::CURRENT,
        laggard_version: env!("CARGO_PKG_VERSION").to_owned(),
        created_unix_ns: i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX),
        command_line: settings.command_line.clone(),
        origin: Origin::Measured,
        classes: classes(job, &findings.peaks),
        ranks: (0..settings.ranks()).map(|rank| place(job, rank)).collect(),
        clock: Clock {
            domain: ClockDomain::HostMonotonic,
            resolution_ns: clock_resolution()?,
            common_to_all_ranks: hosts.iter().all(|host| host.machine == hosts[0].machine),
            thread_cpu_time: true,
            basis: job.basis,
        },
        hosts,
        workload: workload(job),
        schedule: job.schedule.clone(),
        seed: settings.seed,
        communication: Some(findings.communication.clone()),
        links: findings.links.clone(),
        caveats: caveats(),
        truth: job.injector.truth(),
    })
}

fn place(job: &Job, rank: Rank) -> RankPlace {
    let report = &job.reports[rank as usize];
    RankPlace {
        host: job.host_of_rank[rank as usize],
        class: job.class_of_rank[rank as usize],
        device: report.processor.clone(),
        cpus: job.processor_of(rank).into_iter().collect(),
        allowed_cpus: report.allowed_cpus.clone(),
        cpu_quota: report.cpu_quota,
        numa_node: report.numa_node,
        other_load: report.other_load,
    }
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
        recompute_flop_per_token: match settings.layout.recompute {
            laggard_schedule::Recompute::None => 0.0,
            laggard_schedule::Recompute::Layers => {
                let (length, all) = (u64::from(settings.sequence_length), Recompute::Layers);
                recompute_flop_per_token(&settings.model, length, Attention::Causal, all).0
            }
        },
    }
}

fn hosts(job: &Job) -> Vec<Host> {
    let emulated = job.settings.emulate_hosts > 1;
    let machines = job.machine_of_rank();
    let count = job.host_of_rank.iter().max().map_or(0, |last| last + 1);
    let host = |index: u32| {
        let is_here = |rank: &usize| job.host_of_rank[*rank] == index;
        let ranks: Vec<usize> = (0..job.reports.len()).filter(is_here).collect();
        let allowed = ranks
            .iter()
            .flat_map(|rank| &job.reports[*rank].allowed_cpus);
        let allowed: BTreeSet<&u32> = allowed.collect();
        // A host has a rank, or it would not have a number.
        let first = ranks.first().copied().unwrap_or(0);
        let report = &job.reports[first];
        Host {
            name: report.host.clone(),
            architecture: report.architecture.clone(),
            processor: report.processor.clone(),
            cpus: match (emulated, job.basis) {
                (true, TimeBasis::Wall) => ranks.len() as u32,
                // Where threads cannot choose, nothing is listed.
                _ if allowed.is_empty() => processors::count(),
                _ => allowed.len() as u32,
            },
            emulated,
            machine: machines[first],
        }
    };
    (0..count).map(host).collect()
}

fn classes(job: &Job, peaks: &[f64]) -> Vec<Class> {
    // Noise only lowers a measured peak.
    let best_of = |class: Option<u32>| {
        let mine = |rank: &usize| class.is_none_or(|it| job.class_of_rank[*rank] == it);
        let peaks = (0..peaks.len()).filter(mine).map(|rank| peaks[rank]);
        peaks.fold(0.0, f64::max)
    };
    let best = best_of(None);
    let measured = |flop_per_s: f64, source: &str| {
        Some(Peak {
            flop_per_s,
            kind: PeakKind::Measured,
            source: source.to_owned(),
        })
    };
    let emulated = distinct(&job.settings.classes);
    let emulated = emulated.into_iter().map(|class| Class {
        name: class.name.clone(),
        emulated: true,
        relative_rate: class.relative_rate,
        rate_source: class.source.clone(),
        peak: measured(
            best * class.relative_rate,
            "multiply-adds on registers of one core, f32, times the relative rate",
        ),
    });
    let found = job
        .processor_names()
        .into_iter()
        .zip(0..)
        .map(|(name, class)| Class {
            name: name.to_owned(),
            emulated: false,
            relative_rate: best_of(Some(class)) / best,
            rate_source: "measured peaks".to_owned(),
            peak: measured(
                best_of(Some(class)),
                "multiply-adds on registers of one core, f32",
            ),
        });
    match job.settings.classes.is_empty() {
        true => found.collect(),
        false => emulated.collect(),
    }
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
