//! What the record says about a run beside its samples.

use crate::ClassShare;
use crate::MeasureError;
use crate::classes::distinct;
use crate::job::Job;
use crate::processors;
use crate::sharing;
use laggard_record::{
    Class, Clock, Communication, Emulation, Host, Link, Manifest, Origin, Peak, PeakKind,
    RankPlace, SchemaVersion, TimeBasis, Workload,
};
use laggard_specs::{
    Attention, Recompute, Tables, recompute_flop_per_token, training_flop_per_token,
};
use laggard_types::{Caveat, CaveatCode, ClockDomain, DataType, FlopPerSecond, Rank};
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
    /// For ranks of one process on devices of equal peaks.
    pub(crate) fn of_process(
        ranks: u32,
        peak: FlopPerSecond,
        communication: Communication,
    ) -> Self {
        Self {
            peaks: vec![peak.0; ranks as usize],
            communication,
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
        classes: classes(job, &findings.peaks)?,
        ranks: (0..settings.ranks()).map(|rank| place(job, rank)).collect(),
        clock: Clock {
            domain: ClockDomain::HostMonotonic,
            resolution_ns: clock_resolution()?,
            common_to_all_ranks: hosts.iter().all(|host| host.machine == hosts[0].machine),
            thread_cpu_time: !job.is_on_accelerators(),
            basis: job.basis,
        },
        hosts,
        workload: workload(job),
        schedule: job.schedule.clone(),
        seed: settings.seed,
        communication: Some(findings.communication.clone()),
        links: findings.links.clone(),
        caveats: caveats(job),
        truth: job.injector.truth(),
    })
}

fn place(job: &Job, rank: Rank) -> RankPlace {
    let report = &job.reports[rank as usize];
    RankPlace {
        host: job.host_of_rank[rank as usize],
        class: job.class_of_rank[rank as usize],
        device: report.device().to_owned(),
        cpus: job.processor_of(rank).into_iter().collect(),
        allowed_cpus: report.allowed_cpus.clone(),
        cpu_quota: report.cpu_quota,
        numa_node: report.numa_node(job.processor_of(rank)),
        other_load: report.other_load,
        accelerator: report.identity.clone(),
        other_processes: sharing::other_processes(&job.reports, rank as usize),
    }
}

fn workload(job: &Job) -> Workload {
    let settings = &job.settings;
    // A layout that is executed fits its model.
    let share = settings
        .layout
        .recomputed_share(settings.model.layers as u32);
    let share = share.unwrap_or_default();
    let per_token = |attention| {
        let length = u64::from(settings.sequence_length);
        Some(training_flop_per_token(&settings.model, length, attention).0)
    };
    Workload {
        model: settings.model.id.clone(),
        synthetic: true,
        data_type: settings.data_type.name().to_owned(),
        parameters: settings.model.parameters() as f64,
        sequence_length: settings.sequence_length,
        micro_batch_sequences: settings.micro_batch_sequences,
        flop_per_token_causal: per_token(Attention::Causal),
        flop_per_token_full: per_token(Attention::Full),
        recompute_flop_per_token: {
            let (length, all) = (u64::from(settings.sequence_length), Recompute::Layers);
            let again = recompute_flop_per_token(&settings.model, length, Attention::Causal, all);
            again.0 * share
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

fn classes(job: &Job, peaks: &[f64]) -> Result<Vec<Class>, MeasureError> {
    let tables = Tables::builtin()?;
    let peak_of = |class: Option<u32>| {
        let is_mine = |rank: &usize| class.is_none_or(|it| job.class_of_rank[*rank] == it);
        let mine: Vec<usize> = (0..peaks.len()).filter(is_mine).collect();
        fastest(job, peaks, &mine, &tables)
    };
    let best = peak_of(None);
    let share = |peak: &Option<Peak>| {
        let (peak, best) = peak.as_ref().zip(best.as_ref())?;
        Some(peak.flop_per_s / best.flop_per_s)
    };
    let emulated = distinct(&job.settings.classes);
    let emulated = emulated.into_iter().map(|class| Class {
        name: class.name.clone(),
        emulated: true,
        emulated_by: Some(class.emulation),
        relative_rate: class.relative_rate,
        rate_source: class.source.clone(),
        peak: best.clone().map(|best| emulated_peak(best, class)),
    });
    let found = job
        .device_names()
        .into_iter()
        .zip(0..)
        .map(|(name, class)| {
            let peak = peak_of(Some(class));
            let rate = share(&peak);
            Class {
                name: name.to_owned(),
                emulated: false,
                emulated_by: None,
                relative_rate: rate.unwrap_or(1.0),
                rate_source: match (rate, &peak) {
                    (Some(_), Some(peak)) if peak.kind == PeakKind::Datasheet => "datasheet peaks",
                    (Some(_), _) => "measured peaks",
                    (None, _) => "no peak of this device is known",
                }
                .to_owned(),
                peak,
            }
        });
    Ok(match job.settings.classes.is_empty() {
        true => found.collect(),
        false => emulated.collect(),
    })
}

/// What ranks of an emulated class can do at most, where one that is not emulated can do so much.
fn emulated_peak(whole: Peak, class: &ClassShare) -> Peak {
    let (part, what) = match class.emulation {
        Emulation::ExtraArithmetic => (class.relative_rate, "the relative rate".to_owned()),
        confined => (confined.part(), format!("its part: {confined}")),
    };
    Peak {
        flop_per_s: whole.flop_per_s * part,
        source: format!("{}, times {what}", whole.source),
        ..whole
    }
}

/// The highest peak of some ranks: of accelerators their datasheets', of processors what was
/// measured, since noise only lowers that.
fn fastest(job: &Job, peaks: &[f64], ranks: &[usize], tables: &Tables) -> Option<Peak> {
    if job.is_on_accelerators() {
        let names = ranks.iter().map(|rank| job.reports[*rank].device());
        return names
            .filter_map(|name| datasheet_peak(tables, name, job.settings.data_type))
            .max_by(|a, b| a.flop_per_s.total_cmp(&b.flop_per_s));
    }
    let measured = ranks.iter().map(|rank| peaks[*rank]);
    Some(Peak {
        flop_per_s: measured.fold(0.0, f64::max),
        kind: PeakKind::Measured,
        source: "multiply-adds on registers of one core, f32".to_owned(),
    })
}

/// A device's dense peak in a type, where the tables know the device by the name that its driver
/// gives it.
pub(crate) fn datasheet_peak(tables: &Tables, name: &str, data_type: DataType) -> Option<Peak> {
    let accelerator = tables.accelerator(name).ok()?;
    let peak = match data_type {
        DataType::Bf16 => accelerator.dense_bf16_flop_per_s,
        DataType::F16 => accelerator.dense_fp16_flop_per_s,
        _ => None,
    };
    Some(Peak {
        flop_per_s: peak?.0,
        kind: PeakKind::Datasheet,
        source: accelerator.sources.first().cloned().unwrap_or_default(),
    })
}

/// What only the writer can know; what follows from the rest of the manifest, analyses say.
fn caveats(job: &Job) -> Vec<Caveat> {
    let message = "the synthetic layers are linear: no softmax, activation function or norm; \
                   attention computes the full square, and the embedding is not trained";
    let mut list = vec![Caveat::new(CaveatCode::SyntheticJob, message)];
    list.extend(sharing::caveats(&job.reports));
    list.extend(job.settings.doubts.iter().cloned());
    list
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
    laggard_backend::monotonic_ns().map_err(|error| MeasureError::System {
        what: "reading the clock".to_owned(),
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::by_threads;
    use crate::testing;

    #[test]
    fn gpus_are_held_against_their_datasheets() {
        let mut settings = testing::settings(3, 5);
        settings.data_type = DataType::Bf16;
        let devices = ["NVIDIA H200", "NVIDIA A100-SXM4-80GB", "Nobody's"].map(testing::gpu);
        let job = Job::on(&settings, &devices, &[]).unwrap();
        let findings = Findings::of_process(3, FlopPerSecond(1e9), by_threads());
        let manifest = manifest(&job, &findings).unwrap();
        let class = |at: usize| &manifest.classes[at];
        let peak = class(1).peak.as_ref().unwrap();
        assert_eq!((peak.flop_per_s, peak.kind), (3.12e14, PeakKind::Datasheet));
        assert!((class(1).relative_rate - 312.0 / 989.4).abs() < 1e-6);
        assert_eq!(class(1).rate_source, "datasheet peaks");
        assert_eq!(
            (class(2).peak.as_ref(), class(2).relative_rate),
            (None, 1.0)
        );
        assert_eq!(manifest.ranks[0].device, "NVIDIA H200");
        assert!(!manifest.clock.thread_cpu_time);
        assert_eq!(manifest.workload.data_type, "bf16");
    }
}
