//! Records of runs on parts of a fleet, and the table that is made of them.

use laggard_analyze::{AnalyzeError, FleetOptions, FleetRun, Named, fleet};
use laggard_benches::known_job::KnownJob;
use laggard_record::{Origin, Record};
use std::path::Path;

const PER_HOST: u32 = 2;
const SLOW: f64 = 0.1;

/// Four hosts, each with the ranks of `hosts`; the second rank of host 5 is slow.
fn job(hosts: &[u32], seed: u64) -> KnownJob {
    let mut job = KnownJob::clean(hosts.len() as u32 * PER_HOST, PER_HOST, 120, seed);
    for (at, host) in hosts.iter().enumerate() {
        if *host == 5 {
            job.rank_excess[at * PER_HOST as usize + 1] = SLOW;
        }
    }
    job
}

/// The record of a job, on hosts that are called as they are numbered.
fn record(dir: &Path, hosts: &[u32], day: i64) -> Record {
    let path = dir.join(format!("day {day}"));
    let job = job(hosts, day as u64);
    job.write(&path).expect("a record");
    let mut record = Record::open(&path).expect("a readable record");
    record.manifest.created_unix_ns = day * 86_400_000_000_000;
    for (host, number) in record.manifest.hosts.iter_mut().zip(hosts) {
        host.name = format!("gpu{number}");
    }
    record.manifest.origin = Origin::Measured;
    record
}

#[test]
fn a_fleet_is_told_from_runs_on_its_parts() {
    let days: [[u32; 4]; 6] = [
        [0, 1, 2, 3],
        [2, 3, 4, 5],
        [4, 5, 6, 7],
        [6, 7, 0, 1],
        [5, 0, 3, 6],
        [1, 4, 7, 2],
    ];
    let dir = tempfile::tempdir().expect("a temporary directory");
    let run = |(day, hosts): (usize, &[u32; 4])| {
        let record = record(dir.path(), hosts, day as i64);
        FleetRun::read(&record, &format!("day {day}")).expect("a run")
    };
    let runs: Vec<FleetRun> = days.iter().enumerate().map(run).collect();
    let table = fleet(&runs, &FleetOptions::default()).expect("a table");
    assert_eq!(table.devices.len(), 16);
    for device in &table.devices {
        let is_slow = device.host == "gpu5" && device.device == "drawn #1";
        let expect = if is_slow { 1.0 / (1.0 + SLOW) } else { 1.0 };
        let found = device.speed.value;
        assert!((found - expect).abs() < 0.005, "{device:?}");
        assert_eq!(device.named, is_slow.then_some(Named::Slow), "{device:?}");
        assert_eq!(device.runs.len(), 3, "{device:?}");
    }
    let class = &table.classes[0];
    assert!(
        class.spread < 0.004 && class.run_to_run < 0.004,
        "{class:?}"
    );
}

#[test]
fn predictions_say_nothing_about_devices() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut record = record(dir.path(), &[0, 1], 1);
    record.manifest.origin = Origin::Predicted;
    let refused = FleetRun::read(&record, "x").expect_err("a prediction");
    assert!(matches!(refused, AnalyzeError::NotMeasured), "{refused}");
}
