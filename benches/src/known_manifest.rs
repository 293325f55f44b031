//! Records of drawn jobs: what all of them have alike.

use laggard_record::{
    Class, Clock, Closing, ClosingStatus, Host, Manifest, Origin, Peak, PeakKind, RankPlace,
    RecordError, Sample, SchemaVersion, StepWork, TableRows, Telemetry, TimeBasis, Workload,
    write_record,
};
use laggard_schedule::Schedule;
use laggard_types::{ClockDomain, Stamp};
use std::path::Path;

/// Where ranks are.
pub(crate) struct Placement<'a> {
    /// Relative rate of each rank's class; ranks of one rate form a class.
    pub(crate) rate: &'a [f64],
    /// Host of each rank.
    pub(crate) host: &'a [u32],
    /// Peak of a class of rate 1.
    pub(crate) peak_flop_per_s: f64,
    /// Tokens of a micro-batch, which is one sequence.
    pub(crate) tokens: u32,
}

/// The manifest of a drawn job.
pub(crate) fn manifest(placement: &Placement<'_>, schedule: Schedule, seed: u64) -> Manifest {
    let mut rates = placement.rate.to_vec();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let class = |rate: &f64| Class {
        name: format!("class-{rate:.2}"),
        emulated: false,
        emulated_by: None,
        relative_rate: *rate,
        rate_source: "stated".to_owned(),
        peak: Some(Peak {
            flop_per_s: placement.peak_flop_per_s * rate,
            kind: PeakKind::Datasheet,
            source: "stated".to_owned(),
        }),
    };
    let host = |index: u32| Host {
        name: format!("node{index}"),
        architecture: "none".to_owned(),
        processor: "none".to_owned(),
        cpus: 1,
        emulated: false,
        machine: index,
    };
    let place = |rank: usize| RankPlace {
        host: placement.host[rank],
        class: rates.partition_point(|rate| *rate < placement.rate[rank] - 1e-12) as u32,
        device: "drawn".to_owned(),
        cpus: Vec::new(),
        allowed_cpus: Vec::new(),
        cpu_quota: None,
        numa_node: None,
        other_load: None,
        accelerator: None,
        other_processes: None,
    };
    let hosts = placement.host.iter().max().map_or(0, |last| last + 1);
    Manifest {
        schema_version: SchemaVersion::CURRENT,
        laggard_version: env!("CARGO_PKG_VERSION").to_owned(),
        created_unix_ns: 0,
        command_line: Vec::new(),
        origin: Origin::Predicted,
        hosts: (0..hosts).map(host).collect(),
        classes: rates.iter().map(class).collect(),
        ranks: (0..placement.rate.len()).map(place).collect(),
        clock: Clock {
            domain: ClockDomain::HostMonotonic,
            resolution_ns: 1,
            common_to_all_ranks: true,
            thread_cpu_time: false,
            basis: TimeBasis::Wall,
        },
        workload: Workload {
            model: "drawn".to_owned(),
            synthetic: true,
            data_type: "f32".to_owned(),
            parameters: 1.0,
            sequence_length: placement.tokens,
            micro_batch_sequences: 1,
            flop_per_token_causal: None,
            flop_per_token_full: None,
            recompute_flop_per_token: 0.0,
        },
        schedule,
        seed,
        communication: None,
        links: Vec::new(),
        caveats: Vec::new(),
        truth: Vec::new(),
    }
}

/// The manifest of a world of equal ranks, eight to a host.
pub fn large_manifest(schedule: Schedule, seed: u64, origin: Origin) -> Manifest {
    let ranks = schedule.world_size() as u32;
    let host: Vec<u32> = (0..ranks).map(|rank| rank / 8).collect();
    let placement = Placement {
        rate: &vec![1.0; ranks as usize],
        host: &host,
        peak_flop_per_s: 1e15,
        tokens: 4096,
    };
    Manifest {
        origin,
        ..manifest(&placement, schedule, seed)
    }
}

/// Writes a record that ended well.
pub(crate) fn write(
    dir: &Path,
    manifest: &Manifest,
    (samples, steps, telemetry): (Vec<Sample>, Vec<StepWork>, Vec<Telemetry>),
) -> Result<(), RecordError> {
    let completed = samples.iter().map(|sample| sample.step + 1).max();
    let rows = TableRows {
        samples,
        steps,
        telemetry,
    };
    let closing = Closing {
        status: ClosingStatus::Finished,
        steps_completed: completed.unwrap_or(0),
        samples: 0,
        steps: 0,
        telemetry: 0,
        writer_lags: 0,
        parts: Vec::new(),
    };
    write_record(dir, manifest, rows, closing)?;
    Ok(())
}

/// A sample of an operation between two times in seconds.
pub(crate) fn sample(rank: usize, step: u32, operation: u32, start: f64, end: f64) -> Sample {
    let nanos = |seconds: f64| (seconds * 1e9).round() as i64;
    let stamp = Stamp {
        start_ns: nanos(start),
        end_ns: nanos(end),
        cpu_start_ns: 0,
        cpu_end_ns: 0,
    };
    Sample {
        rank: rank as u32,
        step,
        operation,
        stamp,
    }
}
