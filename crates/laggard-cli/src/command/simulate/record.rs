//! The predicted record of a job.

use crate::args::SimulateArgs;
use crate::command::usual;
use crate::output::talk;
use anyhow::Result;
use laggard_record::{
    Class, Clock, Closing, ClosingStatus, Host, Manifest, Origin, Peak, PeakKind, RankPlace,
    SchemaVersion, TableRows, TimeBasis, Workload, write_record, write_sketch,
};
use laggard_simulate::{
    Constants, ForecastClass, Jitter, JitterDistribution, Job, Precision, Variation, World,
    predicted_work, simulate_ranks,
};
use laggard_specs::{Attention, Model, recompute_flop_per_token, training_flop_per_token};
use laggard_types::ClockDomain;
use std::path::Path;

/// Operations of all ranks and steps up to which every one is recorded.
const MOST_SAMPLES: u64 = 20_000_000;

pub(super) fn write(
    dir: &Path,
    args: &SimulateArgs,
    (job, model): (&Job, &Model),
    used: &[(&ForecastClass, u64)],
    constants: &Constants,
) -> Result<()> {
    let world = World::new((job, model), used, constants)?;
    let variation = Variation {
        jitter: Jitter {
            distribution: match args.jitter {
                0.0 => JitterDistribution::None,
                sigma => JitterDistribution::Lognormal { sigma },
            },
            autocorrelation: args.autocorrelation,
        },
        steps: args.steps,
        seed: args.seed,
    };
    let workload = world.workload(&variation)?;
    if let Some(expected) = workload.expected_penalty()? {
        talk(&format!(
            "jitter: by order statistics kernels of a step take {:.1} % longer",
            100.0 * (expected.step.mean - 1.0)
        ));
    }
    let operations: u64 = (0..world.schedule.world_size())
        .map(|rank| world.schedule.program(rank as u32).len() as u64)
        .sum();
    let is_small = operations.saturating_mul(args.steps.into()) <= MOST_SAMPLES;
    let mut manifest = manifest(&world, (job, model), used, args.seed);
    match is_small {
        true => {
            let layout = job.layout();
            let rows = TableRows {
                samples: world.samples(&variation)?,
                steps: predicted_work(&layout, &manifest.workload, args.steps),
                telemetry: Vec::new(),
            };
            write_record(dir, &manifest, rows, closing(args.steps))?;
        }
        false => {
            let run = simulate_ranks(&workload)?;
            manifest.origin = Origin::Sketch(run.baseline.sketch());
            write_sketch(dir, &manifest, run.sketch_rows(), &closing(args.steps))?;
        }
    }
    let what = if is_small {
        "predicted record"
    } else {
        "sketch"
    };
    talk(&format!("{what}: {}", dir.display()));
    talk(&format!("next: laggard analyze {}", dir.display()));
    Ok(())
}

fn closing(steps: u32) -> Closing {
    Closing {
        status: ClosingStatus::Finished,
        steps_completed: steps,
        samples: 0,
        steps: 0,
        telemetry: 0,
        writer_lags: 0,
        parts: Vec::new(),
    }
}

fn manifest(
    world: &World,
    (job, model): (&Job, &Model),
    used: &[(&ForecastClass, u64)],
    seed: u64,
) -> Manifest {
    let mut hosts = Vec::new();
    // The host of each class that is being filled, and how many ranks it has.
    let mut filling = vec![(0, 0, 0); used.len()];
    let mut place = |of: &u16| {
        let index = usize::from(*of);
        let (class, _) = used[index];
        let per_host = class
            .devices_per_node
            .unwrap_or(usual::DEVICES_PER_NODE)
            .max(1);
        let (number, host, taken) = &mut filling[index];
        if *taken % per_host == 0 {
            *host = hosts.len() as u32;
            hosts.push(host_of(&class.name, *number, *host));
            *number += 1;
        }
        *taken += 1;
        RankPlace {
            host: *host,
            class: u32::from(*of),
            device: class.accelerator.clone(),
            cpus: Vec::new(),
            allowed_cpus: Vec::new(),
            cpu_quota: None,
            numa_node: None,
            other_load: None,
            accelerator: None,
            other_processes: None,
        }
    };
    let ranks = world.class_of_rank.iter().map(&mut place).collect();
    Manifest {
        schema_version: SchemaVersion::CURRENT,
        laggard_version: env!("CARGO_PKG_VERSION").to_owned(),
        created_unix_ns: 0,
        command_line: std::env::args().collect(),
        origin: Origin::Predicted,
        hosts,
        classes: recorded_classes(used),
        ranks,
        clock: Clock {
            domain: ClockDomain::HostMonotonic,
            resolution_ns: 1,
            common_to_all_ranks: true,
            thread_cpu_time: false,
            basis: TimeBasis::Wall,
        },
        workload: workload(job, model),
        schedule: world.schedule.clone(),
        seed,
        communication: None,
        links: Vec::new(),
        caveats: Vec::new(),
        truth: Vec::new(),
    }
}

fn host_of(class: &str, number: u64, machine: u32) -> Host {
    Host {
        name: format!("{class}-{number}"),
        architecture: "predicted".to_owned(),
        processor: "predicted".to_owned(),
        cpus: 1,
        emulated: false,
        machine,
    }
}

fn recorded_classes(used: &[(&ForecastClass, u64)]) -> Vec<Class> {
    let peaks = used.iter().map(|(class, _)| class.machine.half_peak);
    let highest = peaks.fold(f64::MIN_POSITIVE, f64::max);
    let class = |(class, _): &(&ForecastClass, u64)| Class {
        name: class.name.clone(),
        emulated: false,
        emulated_by: None,
        relative_rate: class.machine.half_peak / highest,
        rate_source: "ratio of peaks".to_owned(),
        peak: Some(Peak {
            flop_per_s: class.machine.half_peak,
            kind: PeakKind::Datasheet,
            source: format!("dense half precision of {}", class.accelerator),
        }),
    };
    used.iter().map(class).collect()
}

fn workload(job: &Job, model: &Model) -> Workload {
    let length = u64::from(job.sequence_length);
    let per_token = |attention| training_flop_per_token(model, length, attention).0;
    let again = recompute_flop_per_token(model, length, Attention::Causal, job.degrees.recompute);
    Workload {
        model: model.id.clone(),
        synthetic: true,
        data_type: match job.precision {
            Precision::Half => "bf16",
            Precision::Fp8 => "fp8",
            Precision::Fp4 => "fp4",
        }
        .to_owned(),
        parameters: model.parameters() as f64,
        sequence_length: job.sequence_length,
        micro_batch_sequences: job.degrees.micro_batch,
        flop_per_token_causal: Some(per_token(Attention::Causal)),
        flop_per_token_full: Some(per_token(Attention::Full)),
        // Of layers that are computed again only in part, the share of all.
        recompute_flop_per_token: match job.degrees.recompute_layers {
            None => again.0,
            Some(_) => again.0 * job.recomputed_share(),
        },
    }
}
