//! A small record for tests: what is in it does not matter, that it comes back does.

use laggard_record::{
    Class, Clock, Closing, ClosingStatus, DeviceReading, Host, InjectedFault, Link, Manifest,
    Origin, Peak, PeakKind, RankPlace, Sample, SchemaVersion, StepWork, TableRows, Telemetry,
    TimeBasis, Workload,
};
use laggard_schedule::{
    Axis, Operation, OperationKind, Phase, Program, Schedule, ScheduleOrigin, Stream,
};
use laggard_types::{Caveat, CaveatCode, ClockDomain, Collective, DeviceState, Gauge, Stamp};

/// A job of `world` ranks on one host that computes forward and backward and reduces.
pub(crate) fn manifest(world: u32) -> Manifest {
    Manifest {
        schema_version: SchemaVersion::CURRENT,
        laggard_version: "0.1.0".into(),
        created_unix_ns: 1_700_000_000_000_000_000,
        command_line: vec!["laggard".into(), "run".into()],
        origin: Origin::Measured,
        hosts: vec![Host {
            name: "node-0".into(),
            architecture: "x86_64".into(),
            processor: "test".into(),
            cpus: world,
            emulated: false,
            machine: 0,
        }],
        classes: vec![Class {
            name: "cpu".into(),
            emulated: false,
            emulated_by: None,
            relative_rate: 1.0,
            rate_source: "the only class".into(),
            peak: Some(Peak {
                flop_per_s: 1e11,
                kind: PeakKind::Measured,
                source: "matrix product".into(),
            }),
        }],
        ranks: (0..world).map(place).collect(),
        clock: Clock {
            domain: ClockDomain::HostMonotonic,
            resolution_ns: 1,
            common_to_all_ranks: false,
            thread_cpu_time: true,
            basis: TimeBasis::Wall,
        },
        workload: Workload {
            model: "tiny".into(),
            synthetic: true,
            data_type: "f32".into(),
            parameters: 1e6,
            sequence_length: 128,
            micro_batch_sequences: 1,
            flop_per_token_causal: Some(6e6),
            flop_per_token_full: None,
            recompute_flop_per_token: 0.0,
        },
        schedule: schedule(world),
        seed: 7,
        communication: None,
        links: Vec::new(),
        caveats: vec![Caveat::new(CaveatCode::SyntheticJob, "a synthetic job")],
        truth: vec![InjectedFault {
            spec: "slow_rank:1".into(),
            kind: "slow_rank".into(),
            ranks: vec![1],
            size: 0.5,
            from_step: 0,
        }],
    }
}

/// A rank of the one host, on a processor of its own.
fn place(rank: u32) -> RankPlace {
    RankPlace {
        host: 0,
        class: 0,
        device: "core".into(),
        cpus: vec![rank],
        allowed_cpus: Vec::new(),
        cpu_quota: None,
        numa_node: None,
        other_load: None,
        accelerator: None,
        other_processes: None,
    }
}

/// The same job on `hosts` hosts of `ranks` ranks each, machines of their own, host by host.
pub(crate) fn manifest_of_hosts(hosts: u32, ranks: u32) -> Manifest {
    let mut manifest = manifest(hosts * ranks);
    let first = manifest.hosts.remove(0);
    manifest.hosts = (0..hosts)
        .map(|host| Host {
            name: format!("node-{host}"),
            machine: host,
            ..first.clone()
        })
        .collect();
    for (rank, place) in (0..).zip(&mut manifest.ranks) {
        place.host = rank / ranks;
    }
    manifest
}

/// A probe of the host's own loopback.
pub(crate) fn link() -> Link {
    Link {
        from_host: 0,
        to_host: 0,
        latency_ns: 800,
        bytes: 1 << 20,
        bandwidth_bytes_per_s: 1e10,
    }
}

/// Sample `index` of a run of `world` ranks: rank by rank within a step, three operations each.
pub(crate) fn sample(world: u32, index: u32) -> Sample {
    let (operation, rank, step) = (index % 3, index / 3 % world, index / (3 * world));
    let start_ns = i64::from(step * 3 + operation) * 1_000_000 + i64::from(rank) * 17;
    let end_ns = start_ns + 900_000 + i64::from(index % 10_007 * 7919 % 10_007);
    let cpu_start_ns = start_ns / 2;
    Sample {
        rank,
        step,
        operation,
        stamp: Stamp {
            start_ns,
            end_ns,
            cpu_start_ns,
            cpu_end_ns: cpu_start_ns + 400_000,
        },
    }
}

/// All samples of a run.
pub(crate) fn samples(world: u32, steps: u32) -> impl Iterator<Item = Sample> {
    (0..world * steps * 3).map(move |index| sample(world, index))
}

/// What rank `rank` worked on in step `step`.
pub(crate) fn step_work(rank: u32, step: u32) -> StepWork {
    StepWork {
        rank,
        step,
        tokens: 100 + i64::from(rank),
        tokens_squared: 5000,
    }
}

/// One interval of the host's processor 0.
pub(crate) fn telemetry(step: u32) -> Telemetry {
    let start_ns = i64::from(step) * 3_000_000;
    Telemetry {
        host: 0,
        cpu: 0,
        start_ns,
        end_ns: start_ns + 3_000_000,
        busy_ns: 2_900_000,
        own_ns: 2_800_000,
        steal_ns: 0,
    }
}

/// What the accelerator of a rank told at some moment: another gauge is not visible every time.
pub(crate) fn device(rank: u32, moment: u32) -> DeviceReading {
    let mut state = DeviceState::default();
    for (at, gauge) in (0..).zip(Gauge::ALL) {
        let value = i64::from(rank * 1000 + moment) << (at % 40);
        state.set(gauge, (at % 7 != moment % 7).then_some(value));
    }
    DeviceReading {
        rank,
        at_ns: i64::from(moment) * 500_000_000,
        state,
    }
}

/// All rows of a run.
pub(crate) fn rows(
    world: u32,
    steps: u32,
) -> TableRows<Vec<Sample>, Vec<StepWork>, Vec<Telemetry>> {
    let ranks = |step| (0..world).map(move |rank| step_work(rank, step));
    TableRows {
        samples: samples(world, steps).collect(),
        steps: (0..steps).flat_map(ranks).collect(),
        telemetry: (0..steps).map(telemetry).collect(),
    }
}

/// A closing whose counts `write_record` fills in.
pub(crate) fn closing(steps_completed: u32) -> Closing {
    let status = ClosingStatus::Finished;
    Closing {
        status,
        steps_completed,
        samples: 0,
        steps: 0,
        telemetry: 0,
        writer_lags: 0,
        parts: Vec::new(),
    }
}

fn schedule(world: u32) -> Schedule {
    let all_reduce = OperationKind::Collective(Collective::AllReduce);
    Schedule {
        origin: ScheduleOrigin::Trace,
        operations: vec![
            operation("forward", OperationKind::Compute, Phase::Forward),
            operation("backward", OperationKind::Compute, Phase::Backward),
            Operation {
                stream: Stream::Communication,
                after: vec![1],
                axis: Some(0),
                sequence: Some(0),
                ..operation("reduce", all_reduce, Phase::GradientReduce)
            },
        ],
        programs: vec![Program {
            operations: vec![0, 1, 2],
        }],
        program_of_rank: vec![0; world as usize],
        stage_of_rank: vec![0; world as usize],
        axes: vec![Axis {
            name: "dp".into(),
            groups: vec![(0..world).collect()],
        }],
    }
}

fn operation(name: &str, kind: OperationKind, phase: Phase) -> Operation {
    Operation::new(name.into(), kind, phase, Stream::Compute)
}
