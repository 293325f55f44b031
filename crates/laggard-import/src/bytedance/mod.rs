//! Traces of ByteDance's what-if analysis: workers are cells of data-parallel replica and pipeline
//! stage, all steps alike. Source: ByteDance-Seed/StragglerAnalysis, commit 8efcd7f, and its
//! paper, "Understanding Stragglers in Large Model Training Using What-if Analysis", OSDI 2025.

mod dependencies;
mod meta;
mod rows;
mod transfers;

use crate::Imported;
use crate::error::ImportError;
use crate::parquet_table::ParquetTable;
use dependencies::{OperationKey, build_schedule};
use laggard_record::{
    Class, Clock, Host, Manifest, Origin, RankPlace, Sample, SchemaVersion, TimeBasis, Workload,
};
use laggard_schedule::{Replay, Schedule};
use laggard_types::{Caveat, CaveatCode, ClockDomain, Stamp};
use meta::{Meta, read_meta};
use rows::{Row, read_rows};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Shape of the trace.
#[derive(Debug, Clone, Copy)]
struct Grid {
    replicas: u32,
    stages: u32,
}

impl Grid {
    fn world(self) -> u32 {
        self.replicas * self.stages
    }

    fn rank(self, replica: u32, stage: u32) -> u32 {
        replica * self.stages + stage
    }
}

/// A trace whose rows are checked, each by itself.
struct Trace<'a> {
    path: &'a Path,
    grid: Grid,
    rows: &'a [Row],
    meta: &'a Meta,
    steps: &'a BTreeSet<i64>,
}

/// Reads a trace whose columns are at hand.
pub(crate) fn import(path: &Path, table: &ParquetTable) -> Result<Imported, ImportError> {
    let rows = read_rows(path, table)?;
    let meta = read_meta(path)?;
    let inconsistent = |why: String| ImportError::Inconsistent {
        path: path.to_owned(),
        why,
    };
    let grid = grid_of(&rows, &meta).map_err(inconsistent)?;
    let steps: BTreeSet<i64> = rows.iter().map(|row| row.step).collect();
    let first = *steps.first().expect("a trace with rows has a step");
    let pattern: Vec<Row> = rows
        .iter()
        .filter(|row| row.dp_rank == 0 && row.step == first)
        .copied()
        .collect();
    check_unique(path, &pattern)?;
    let (schedule, operations) = build_schedule(grid, &pattern).map_err(inconsistent)?;
    Replay::new(&schedule).map_err(|why| ImportError::Unplayable {
        path: path.to_owned(),
        why,
    })?;
    let trace = Trace {
        path,
        grid,
        rows: &rows,
        meta: &meta,
        steps: &steps,
    };
    let samples = samples_of(&trace, &operations)?;
    let manifest = manifest_of(&trace, schedule);
    Ok(Imported {
        manifest,
        samples,
        steps: steps.len() as u32,
    })
}

fn grid_of(rows: &[Row], meta: &Meta) -> Result<Grid, String> {
    let replicas = 1 + rows.iter().map(|row| row.dp_rank).max().unwrap_or(0);
    let stages = 1 + rows.iter().map(|row| row.stage).max().unwrap_or(0);
    let cells: BTreeSet<(u32, u32)> = rows.iter().map(|row| (row.dp_rank, row.stage)).collect();
    if cells.len() as u64 != u64::from(replicas) * u64::from(stages) {
        return Err(format!(
            "{replicas} data-parallel replicas of {stages} stages need {} workers, \
             but there are {}",
            u64::from(replicas) * u64::from(stages),
            cells.len()
        ));
    }
    let sizes = [
        ("dp_size", meta.dp_size, replicas),
        ("pp_size", meta.pp_size, stages),
    ];
    for (name, said, found) in sizes {
        if let Some(said) = said.filter(|said| *said != found) {
            return Err(format!(
                "the meta file says {name} {said}, but the trace has {found}"
            ));
        }
    }
    Ok(Grid { replicas, stages })
}

/// The schedule is taken from one replica's first step, which must name each operation once.
fn check_unique(path: &Path, pattern: &[Row]) -> Result<(), ImportError> {
    let mut seen = BTreeMap::new();
    for row in pattern {
        if let Some(earlier) = seen.insert((row.stage, row.kind, row.sequence), row.row) {
            return Err(duplicate(path, row, earlier));
        }
    }
    Ok(())
}

fn duplicate(path: &Path, row: &Row, earlier: usize) -> ImportError {
    let (kind, sequence) = (row.kind.name(), row.sequence);
    let why = format!(
        "`{kind}` {sequence} of replica {}, stage {}, step {} is in row {earlier} already",
        row.dp_rank, row.stage, row.step
    );
    ImportError::BadRow {
        path: path.to_owned(),
        row: row.row,
        why,
    }
}

/// All rows as samples, step by step, one after the other in time.
fn samples_of(
    trace: &Trace<'_>,
    operations: &BTreeMap<OperationKey, u32>,
) -> Result<Vec<Sample>, ImportError> {
    let Trace {
        path,
        grid,
        rows,
        steps,
        ..
    } = *trace;
    let number: BTreeMap<i64, u32> = steps.iter().copied().zip(0..).collect();
    let mut length_ns = vec![0i64; steps.len()];
    let mut samples = Vec::with_capacity(rows.len());
    let mut seen: BTreeMap<(u32, u32, u32), usize> = BTreeMap::new();
    for row in rows {
        let rank = grid.rank(row.dp_rank, row.stage);
        let step = number[&row.step];
        let Some(&operation) = operations.get(&(row.stage, row.kind, row.sequence)) else {
            let first = steps.first().expect("a trace with rows has a step");
            let (name, sequence) = (row.kind.name(), row.sequence);
            let why = format!("`{name}` {sequence} is not in replica 0's step {first}");
            return Err(ImportError::BadRow {
                path: path.to_owned(),
                row: row.row,
                why,
            });
        };
        if let Some(earlier) = seen.insert((step, rank, operation), row.row) {
            return Err(duplicate(path, row, earlier));
        }
        let start_ns = nanoseconds(row.start_s);
        let end_ns = start_ns + nanoseconds(row.duration_s);
        let length = &mut length_ns[step as usize];
        *length = (*length).max(end_ns);
        let stamp = Stamp {
            start_ns,
            end_ns,
            cpu_start_ns: 0,
            cpu_end_ns: 0,
        };
        samples.push(Sample {
            rank,
            step,
            operation,
            stamp,
        });
    }
    check_complete(trace, operations, &seen)?;
    let begins: Vec<i64> = length_ns
        .iter()
        .scan(0i64, |begin, length| {
            Some(std::mem::replace(begin, begin.saturating_add(*length)))
        })
        .collect();
    for sample in &mut samples {
        let begin = begins[sample.step as usize];
        sample.stamp.start_ns = sample.stamp.start_ns.saturating_add(begin);
        sample.stamp.end_ns = sample.stamp.end_ns.saturating_add(begin);
    }
    samples.sort_by_key(|sample| (sample.step, sample.rank, sample.stamp.start_ns));
    Ok(samples)
}

/// Every worker must have every operation of its stage in every step.
fn check_complete(
    trace: &Trace<'_>,
    operations: &BTreeMap<OperationKey, u32>,
    seen: &BTreeMap<(u32, u32, u32), usize>,
) -> Result<(), ImportError> {
    let Trace {
        path, grid, steps, ..
    } = *trace;
    if seen.len() == steps.len() * operations.len() * grid.replicas as usize {
        return Ok(());
    }
    for (number, step) in (0..).zip(steps) {
        for replica in 0..grid.replicas {
            for ((stage, kind, sequence), operation) in operations {
                let rank = grid.rank(replica, *stage);
                if !seen.contains_key(&(number, rank, *operation)) {
                    let kind = kind.name();
                    let why = format!(
                        "replica {replica}, stage {stage} lacks `{kind}` {sequence} in step {step}"
                    );
                    return Err(ImportError::Inconsistent {
                        path: path.to_owned(),
                        why,
                    });
                }
            }
        }
    }
    unreachable!("every key seen is one of these, so fewer of them means that one is missing")
}

fn nanoseconds(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64
}

fn manifest_of(trace: &Trace<'_>, schedule: Schedule) -> Manifest {
    let Trace {
        path,
        grid,
        rows,
        meta,
        steps,
    } = *trace;
    let files = [Some(path), meta.path.as_deref()].into_iter().flatten();
    Manifest {
        schema_version: SchemaVersion::CURRENT,
        laggard_version: env!("CARGO_PKG_VERSION").to_owned(),
        // The trace does not say when it was taken.
        created_unix_ns: 0,
        command_line: Vec::new(),
        origin: Origin::Imported {
            tool: "ByteDance what-if".to_owned(),
            files: files.map(|file| file.display().to_string()).collect(),
        },
        // One host for all: the trace names none, so nothing may be blamed on one.
        hosts: vec![Host {
            name: "unknown".to_owned(),
            architecture: "unknown".to_owned(),
            processor: "unknown".to_owned(),
            cpus: 0,
            emulated: false,
            machine: 0,
        }],
        classes: vec![Class {
            name: "unknown".to_owned(),
            emulated: false,
            emulated_by: None,
            relative_rate: 1.0,
            rate_source: "the trace does not tell classes apart".to_owned(),
            peak: None,
        }],
        ranks: places_of(grid, rows),
        clock: Clock {
            domain: ClockDomain::Trace,
            resolution_ns: resolution_ns(rows),
            common_to_all_ranks: true,
            thread_cpu_time: false,
            basis: TimeBasis::Wall,
        },
        workload: Workload {
            model: meta
                .trial_name
                .clone()
                .unwrap_or_else(|| "unknown".to_owned()),
            synthetic: false,
            data_type: "unknown".to_owned(),
            parameters: 0.0,
            sequence_length: 0,
            micro_batch_sequences: 0,
            flop_per_token_causal: None,
            flop_per_token_full: None,
            recompute_flop_per_token: 0.0,
        },
        schedule,
        seed: 0,
        communication: None,
        links: Vec::new(),
        caveats: caveats_of(meta, steps),
        truth: Vec::new(),
    }
}

fn places_of(grid: Grid, rows: &[Row]) -> Vec<RankPlace> {
    let mut places: Vec<RankPlace> = (0..grid.world())
        .map(|_| RankPlace {
            host: 0,
            class: 0,
            device: String::new(),
            cpus: Vec::new(),
            allowed_cpus: Vec::new(),
            cpu_quota: None,
            numa_node: None,
            other_load: None,
            accelerator: None,
            other_processes: None,
        })
        .collect();
    for row in rows {
        let device = &mut places[grid.rank(row.dp_rank, row.stage) as usize].device;
        if device.is_empty() {
            *device = format!(
                "worker dp {} pp {} (rank {} of the trace)",
                row.dp_rank, row.stage, row.trace_rank
            );
        }
    }
    places
}

/// Times are stored as 32-bit floats: the latest begin is the least resolved.
fn resolution_ns(rows: &[Row]) -> i64 {
    let latest = rows.iter().map(|row| row.start_s).fold(0.0, f64::max) as f32;
    nanoseconds(f64::from(latest.next_up() - latest)).max(1)
}

fn caveats_of(meta: &Meta, steps: &BTreeSet<i64>) -> Vec<Caveat> {
    let incomplete = |message: String| Caveat::new(CaveatCode::IncompleteTrace, message);
    let mut caveats = vec![incomplete(
        "the trace tells neither model, tokens nor accelerators: no MFU can be given".to_owned(),
    )];
    let devices = meta
        .tp_size
        .unwrap_or(1)
        .saturating_mul(meta.dsp_size.unwrap_or(1));
    if devices > 1 {
        caveats.push(incomplete(format!(
            "a rank stands for {devices} GPUs, whose differences the trace does not show"
        )));
    }
    if let (Some(first), Some(last)) = (steps.first(), steps.last())
        && last.abs_diff(*first) >= steps.len() as u64
    {
        caveats.push(incomplete(format!(
            "the trace has {} of the steps {first} to {last}; they are numbered anew, from 0",
            steps.len()
        )));
    }
    caveats
}
