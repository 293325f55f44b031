//! From one record to one value for each of its devices: how long it takes for the same work.

use crate::analysis::read_steps;
use crate::cells::{Cells, Slot};
use crate::doubts::emulated;
use crate::own_time::{OwnTime, WorkShare, work_time};
use crate::{AnalyzeError, DeviceRun, FleetRun};
use laggard_record::{Manifest, Origin, Record};
use laggard_schedule::Replay;
use laggard_stats::{effective_sample_size, mad, median};
use std::f64::consts::FRAC_PI_2;

impl FleetRun {
    /// Reads what a record says about its devices. `name` is what tables call the run.
    ///
    /// A device's time is its forward and backward kernels' alone, without waiting, transfers and
    /// pauses of its host, with its work evened out, step by step over that of the ranks that do
    /// the same; of all steps the median.
    ///
    /// # Errors
    /// A record that was not measured, cannot be read, or has too few complete steps.
    pub fn read(record: &Record, name: &str) -> Result<Self, AnalyzeError> {
        let manifest = &record.manifest;
        match &manifest.origin {
            Origin::Sketch(_) => return Err(AnalyzeError::Sketch),
            Origin::Predicted => return Err(AnalyzeError::NotMeasured),
            Origin::Measured | Origin::Imported { .. } => {}
        }
        let replay = Replay::new(&manifest.schedule)?;
        let cells = Cells::new(manifest, &replay)?;
        let mut caveats = record.caveats.clone();
        caveats.extend(manifest.caveats.iter().cloned());
        caveats.extend(emulated(manifest));
        let (measured, _) = read_steps(record, &replay, &mut caveats)?;
        let own = OwnTime::new(&measured, &cells);
        let work = WorkShare::new(manifest, &measured, &cells, &own);
        let names = device_names(manifest);
        let mut devices = Vec::with_capacity(cells.ranks);
        for mates in &cells.mates {
            let time =
                |step: usize, rank: usize| work_time(own.of(step, rank)) * work.factor(step, rank);
            let Some(times) = log_times(own.steps(), mates, time) else {
                continue;
            };
            let mut label = work_label(manifest, &cells, mates);
            if work.ragged {
                // Other sequences, other times: only within the run can they be compared.
                label += &format!(", run of {}", manifest.created_unix_ns);
            }
            for (column, &rank) in mates.iter().enumerate() {
                let place = &manifest.ranks[rank];
                let (log_seconds, variance) = summary(&times, column);
                devices.push(DeviceRun {
                    host: manifest.hosts[place.host as usize].name.clone(),
                    device: names[rank].clone(),
                    class: manifest.classes[place.class as usize].name.clone(),
                    work: label.clone(),
                    steps: own.steps() as u32,
                    log_seconds,
                    variance,
                });
            }
        }
        Ok(Self {
            name: name.to_owned(),
            created_unix_ns: manifest.created_unix_ns,
            devices,
            caveats,
        })
    }
}

/// The name of each rank's device on its host: the device's, with the processors that the rank is
/// bound to; where it is bound to none, with the rank's position among those of its host.
fn device_names(manifest: &Manifest) -> Vec<String> {
    let mut unbound = vec![0_u32; manifest.hosts.len()];
    let name = |place: &laggard_record::RankPlace| {
        if place.cpus.is_empty() {
            let position = &mut unbound[place.host as usize];
            let name = format!("{} #{position}", place.device);
            *position += 1;
            return name;
        }
        let cpus: Vec<String> = place.cpus.iter().map(u32::to_string).collect();
        format!("{} cpu {}", place.device, cpus.join("+"))
    };
    manifest.ranks.iter().map(name).collect()
}

/// Logarithms of times of the ranks that do the same.
struct LogTimes {
    /// Mean of each step.
    of_step: Vec<f64>,
    /// `[rank][step]`, less the step's mean.
    beside: Vec<Vec<f64>>,
}

/// `None` where a time is none.
fn log_times(
    steps: usize,
    ranks: &[usize],
    time: impl Fn(usize, usize) -> f64,
) -> Option<LogTimes> {
    let mut times = LogTimes {
        of_step: Vec::with_capacity(steps),
        beside: vec![Vec::with_capacity(steps); ranks.len()],
    };
    for step in 0..steps {
        let logs: Vec<f64> = ranks.iter().map(|&rank| time(step, rank).ln()).collect();
        let mean = logs.iter().sum::<f64>() / ranks.len() as f64;
        if !mean.is_finite() {
            return None;
        }
        times.of_step.push(mean);
        for (column, log) in times.beside.iter_mut().zip(logs) {
            column.push(log - mean);
        }
    }
    Some(times)
}

/// The typical logarithm of a rank's time, and its variance: that of a median of so many steps as
/// are independent. A rank of several is judged by its differences from the others, so that what
/// steps have in common counts as no error; its own share of their mean is made up for.
fn summary(times: &LogTimes, column: usize) -> (f64, f64) {
    let ranks = times.beside.len() as f64;
    let common = median(&times.of_step).unwrap_or(0.0);
    let (series, apart) = match times.beside.len() {
        1 => (&times.of_step, 1.0),
        _ => (&times.beside[column], ranks / (ranks - 1.0)),
    };
    let typical = median(series).unwrap_or(0.0);
    let deviation = mad(series).unwrap_or(0.0);
    let independent = effective_sample_size(series).unwrap_or(1.0).max(1.0);
    let variance = FRAC_PI_2 * deviation * deviation * apart / independent;
    let value = match times.beside.len() {
        1 => typical,
        _ => common + typical,
    };
    (value, variance)
}

/// Ranks with the same label do the same and can be compared across runs.
fn work_label(manifest: &Manifest, cells: &Cells, mates: &[usize]) -> String {
    let workload = &manifest.workload;
    let flop = |&rank: &usize| -> f64 {
        let program = manifest.schedule.program(rank as u32).iter();
        let operations = program.map(|&id| &manifest.schedule.operations[id as usize]);
        operations.map(|it| it.flop + it.attention_flop).sum()
    };
    let mean = mates.iter().map(flop).sum::<f64>() / mates.len() as f64;
    let nodes = &cells.nodes_in_slot[mates[0]];
    let kernels = nodes[Slot::Forward as usize] + nodes[Slot::Backward as usize];
    format!(
        "{} {} {} x {} tokens, {:?} clock, {mean:.6e} FLOP in {kernels} kernels",
        workload.model,
        workload.data_type,
        workload.micro_batch_sequences,
        workload.sequence_length,
        manifest.clock.basis,
    )
}
