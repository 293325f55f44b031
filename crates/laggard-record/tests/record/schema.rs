//! The published form of records: JSON Schemas that match the code, and an old record that stays
//! readable. `LAGGARD_BLESS=1` rewrites the schemas.

use crate::several_hosts::{Cluster, HostOfRanks};
use crate::{all_samples, example};
use laggard_record::{
    Closing, ClosingStatus, DeviceReading, Manifest, Record, RecordWriter, write_devices,
    write_record,
};
use laggard_types::{DeviceIdentity, DeviceState, Gauge};
use schemars::{JsonSchema, schema_for};
use std::fs;
use std::path::{Path, PathBuf};

fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn blessing() -> bool {
    std::env::var_os("LAGGARD_BLESS").is_some_and(|value| value == "1")
}

fn check_schema<T: JsonSchema>(name: &str) {
    let path = crate_dir().join("../../docs/schema").join(name);
    let mut schema = serde_json::to_string_pretty(&schema_for!(T)).expect("a schema");
    schema.push('\n');
    if blessing() {
        fs::write(&path, &schema).expect("written");
    }
    let published = fs::read_to_string(&path).expect("a published schema");
    assert!(
        schema == published,
        "{name} is out of date: run the tests with LAGGARD_BLESS=1"
    );
}

#[test]
fn published_schemas_match_the_code() {
    check_schema::<Manifest>("record-manifest.schema.json");
    check_schema::<Closing>("record-closing.schema.json");
}

fn golden() -> PathBuf {
    golden_of(1)
}

fn golden_of(version: u32) -> PathBuf {
    crate_dir().join(format!("tests/golden/v{version}"))
}

#[test]
fn a_record_of_version_1_stays_readable() {
    if blessing() && !golden().exists() {
        write_record(
            &golden(),
            &example::manifest(2),
            example::rows(2, 3),
            example::closing(3),
        )
        .expect("written");
    }
    let record = Record::open(&golden()).expect("a record");
    let expect = example::rows(2, 3);
    assert_eq!(all_samples(&record), expect.samples);
    assert_eq!(record.steps().expect("steps").rows, expect.steps);
    assert_eq!(
        record.telemetry().expect("telemetry").rows,
        expect.telemetry
    );
    assert!(record.devices().expect("none").rows.is_empty());
    assert_eq!(record.closing.map(|closing| closing.samples), Some(18));
    assert_eq!(record.manifest.hosts[0].machine, 0);
    assert_eq!(record.manifest.workload.model, "tiny");
    assert_eq!(record.manifest.schedule.operations.len(), 3);
}

#[test]
fn a_record_of_version_2_in_parts_stays_readable() {
    let golden = golden_of(2);
    let cluster = Cluster { hosts: 2, ranks: 1 };
    if blessing() && !golden.exists() {
        write_parts(cluster, &golden);
    }
    let record = Record::open(&golden).expect("a record");
    let machines: Vec<u32> = (record.manifest.hosts.iter())
        .map(|host| host.machine)
        .collect();
    assert_eq!(machines, [0, 1]);
    assert_eq!(record.manifest.links, [example::link()]);
    assert_eq!(record.manifest.ranks[1].cpu_quota, Some(1.5));
    let closing = record.closing.as_ref().expect("a closing");
    assert_eq!((closing.samples, closing.parts[0].samples), (18, 9));
    let mut samples = all_samples(&record);
    samples.sort_by_key(|sample| (sample.step, sample.rank, sample.operation));
    assert_eq!(samples, example::rows(2, 3).samples);
    assert_eq!(record.steps().expect("steps").rows.len(), 6);
    assert_eq!(record.telemetry().expect("telemetry").rows.len(), 6);
}

fn write_parts(cluster: Cluster, dir: &Path) {
    let mut manifest = cluster.manifest();
    manifest.links = vec![example::link()];
    manifest.ranks[1].cpu_quota = Some(1.5);
    let root = RecordWriter::create(dir, &manifest).expect("a new record");
    let other = RecordWriter::join(dir, &manifest, 1).expect("a part");
    let ended = [(0, root), (1, other)].map(|(host, writer)| {
        let mut host = HostOfRanks::new(cluster, host, writer);
        host.run(0..3);
        host.end().0
    });
    let [root, other] = ended;
    root.close_with_parts(ClosingStatus::Finished, 3, vec![other.close_part()])
        .expect("closed");
}

/// A column that is missing reads as not visible, so that every value is looked at.
#[test]
fn what_accelerators_told_in_a_record_of_version_4_stays_readable() {
    let golden = golden_of(4);
    let told: Vec<DeviceReading> = (0..4)
        .map(|number: i64| {
            let mut state = DeviceState::default();
            for (gauge, value) in Gauge::ALL.into_iter().zip(100..) {
                // Of the first, rank 1 shows nothing.
                let is_dark = number == 1 && gauge == Gauge::SmClock;
                state.set(gauge, (!is_dark).then_some(1000 * number + value));
            }
            DeviceReading {
                rank: (number % 2) as u32,
                at_ns: 500 * number,
                state,
            }
        })
        .collect();
    let identity = DeviceIdentity {
        uuid: Some("GPU-1".to_owned()),
        numa_node: Some(1),
        most_sm_clock_mhz: Some(1980),
        ..DeviceIdentity::default()
    };
    if blessing() && !golden.exists() {
        let mut manifest = example::manifest(2);
        manifest.ranks[1].accelerator = Some(identity.clone());
        write_record(&golden, &manifest, example::rows(2, 3), example::closing(3))
            .expect("written");
        write_devices(&golden, told.clone()).expect("written");
    }
    let record = Record::open(&golden).expect("a record");
    assert_eq!(record.devices().expect("readings").rows, told);
    assert_eq!(record.manifest.ranks[1].accelerator, Some(identity));
    assert_eq!(record.manifest.ranks[0].accelerator, None);
}

#[test]
fn the_columns_are_documented() {
    let doc = crate_dir().join("../../docs/schema/record-tables.md");
    let doc = fs::read_to_string(doc).expect("the tables' description");
    let mut columns = 0;
    let of_version_1 = ["samples", "steps", "telemetry"].map(|table| (1, table));
    for (version, table) in of_version_1.into_iter().chain([(4, "device_telemetry")]) {
        assert!(doc.contains(&format!("## `{table}`")), "table {table}");
        let file = golden_of(version).join(table).join("000000.parquet");
        let file = fs::File::open(file).expect("a segment");
        let reader = parquet::file::reader::SerializedFileReader::new(file).expect("a segment");
        let metadata = parquet::file::reader::FileReader::metadata(&reader);
        for column in metadata.file_metadata().schema_descr().columns() {
            let kind = column.physical_type().to_string().to_lowercase();
            let row = format!("| `{}` | {kind} |", column.name());
            assert!(doc.contains(&row), "table {table}: {row}");
            columns += 1;
        }
    }
    assert_eq!(columns, 7 + 4 + 7 + 2 + Gauge::COUNT);
}
