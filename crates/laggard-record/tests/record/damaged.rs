//! Records that are cut off, edited, foreign or from the future: clear words, never a panic.

use crate::{all_samples, example};
use laggard_record::{
    Link, Manifest, Record, RecordError, Sample, StepWork, TableRows, Telemetry, write_devices,
    write_record,
};
use laggard_types::{Caveat, CaveatCode, Gauge, Stamp};
use parquet::column::writer::ColumnWriterImpl;
use parquet::data_type::{Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A record of 2 ranks and 4 steps, whose rows lie in one segment.
fn record() -> TempDir {
    record_with(example::samples(2, 4))
}

fn record_with(samples: impl Iterator<Item = Sample>) -> TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let TableRows {
        steps, telemetry, ..
    } = example::rows(2, 4);
    let rows = TableRows {
        samples,
        steps,
        telemetry,
    };
    write_record(dir.path(), &example::manifest(2), rows, example::closing(4)).expect("written");
    dir
}

fn refused(dir: &Path) -> String {
    Record::open(dir).expect_err("refused").to_string()
}

fn segment(dir: &TempDir, index: u32) -> PathBuf {
    dir.path().join(format!("samples/{index:06}.parquet"))
}

/// Changes the manifest as text and says why it is refused.
fn edited(from: &str, to: &str) -> String {
    let dir = record();
    let path = dir.path().join("manifest.json");
    let text = fs::read_to_string(&path).expect("a manifest");
    assert!(text.contains(from), "nothing to edit: {from}");
    fs::write(&path, text.replacen(from, to, 1)).expect("edited");
    refused(dir.path())
}

#[test]
fn foreign_things_are_no_records() {
    let dir = tempfile::tempdir().expect("temporary directory");
    assert!(refused(dir.path()).contains("it has no manifest.json\nhint: give the directory"));
    let file = dir.path().join("file");
    fs::write(&file, "x").expect("a file");
    assert!(refused(&file).contains("it is a file, not a directory"));
    assert!(refused(&dir.path().join("none")).contains("there is nothing of that name"));
}

#[test]
fn a_truncated_manifest_is_named_with_its_line() {
    let dir = record();
    let path = dir.path().join("manifest.json");
    let text = fs::read_to_string(&path).expect("a manifest");
    for keep in [0, 1, text.len() / 2, text.len() - 3] {
        fs::write(&path, &text[..keep]).expect("cut");
        let line = text[..keep].lines().count().max(1);
        match Record::open(dir.path()) {
            Err(RecordError::BrokenJson {
                path: named,
                line: found,
                ..
            }) => {
                assert_eq!(named, path);
                assert!(found.abs_diff(line) <= 1, "line {found} of {line}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_later_version_asks_for_an_upgrade() {
    let message = edited(
        "\"schema_version\": 4",
        "\"news\": 3, \"schema_version\": 5",
    );
    assert!(message.contains("has record version 5"), "{message}");
    assert!(
        message.contains("reads versions up to 4\nhint: upgrade"),
        "{message}"
    );
}

/// The manifest is refused after an edit, with this in the message.
fn check_edit(from: &str, to: &str, expect: &str) {
    let message = edited(from, to);
    assert!(message.contains(expect), "{message}");
}

#[test]
fn numbers_that_cannot_be_are_refused_with_their_field() {
    let peak = "\"flop_per_s\": 100000000000.0";
    check_edit(peak, "\"flop_per_s\": -1.0", "classes[0].peak.flop_per_s");
    check_edit(peak, "\"flop_per_s\": null", "invalid type: null");
    check_edit(peak, "\"flop_per_s\": 1e999", "number out of range");
    let rate = "\"relative_rate\": 1.0";
    check_edit(rate, "\"relative_rate\": 0.0", "classes[0].relative_rate");
    check_edit(
        "\"name\": \"forward\"",
        "\"nom\": \"forward\"",
        "unknown field `nom`",
    );
}

#[test]
fn references_that_lead_nowhere_are_refused_with_their_field() {
    check_edit(
        "\"class\": 0",
        "\"class\": 4",
        "`ranks[0].class` refers to entry 4 of 1",
    );
    check_edit("\"host\": 0", "\"host\": 1", "`ranks[0].host`");
    check_edit(
        "\"axis\": 0",
        "\"axis\": 7",
        "`schedule.operations[2].axis`",
    );
    check_edit(
        "\"axis\": 0,",
        "",
        "`schedule.operations[2].axis` is missing",
    );
    let list =
        |name: &str, space: usize, first: u32| format!("\"{name}\": [\n{:space$}{first}", "");
    let check_first = |name: &str, space: usize, from: u32, to: u32, expect: &str| {
        check_edit(&list(name, space, from), &list(name, space, to), expect);
    };
    check_first(
        "after",
        10,
        1,
        9,
        "`schedule.operations[2].after` refers to entry 9 of 3",
    );
    check_first("operations", 10, 0, 3, "`schedule.programs[0].operations`");
    check_first("program_of_rank", 6, 0, 1, "`schedule.program_of_rank[0]`");
    let ranks = list("program_of_rank", 6, 0);
    check_edit(
        &ranks,
        &format!("{ranks},\n0"),
        "`ranks` has 2 entries for 3 ranks",
    );
    let group = "\"groups\": [\n          [\n            ";
    check_edit(
        &format!("{group}0"),
        &format!("{group}1"),
        "name rank 1 twice",
    );
}

/// Adds a good link, and one that is spoilt.
fn add_links(manifest: &mut Manifest, spoil: fn(&mut Link)) {
    let mut link = example::link();
    spoil(&mut link);
    manifest.links = vec![example::link(), link];
}

#[test]
fn a_writer_refuses_what_a_reader_would() {
    let check = |spoil: fn(&mut Manifest), expect: &str| {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut manifest = example::manifest(2);
        spoil(&mut manifest);
        let rows = example::rows(2, 1);
        let refused = write_record(dir.path(), &manifest, rows, example::closing(1));
        let message = refused.expect_err("refused").to_string();
        assert!(message.contains(expect), "{message}");
        assert_eq!(fs::read_dir(dir.path()).expect("directory").count(), 0);
    };
    check(
        |m| m.workload.parameters = f64::NAN,
        "`workload.parameters` is NaN",
    );
    check(
        |m| m.truth[0].size = f64::INFINITY,
        "`truth[0].size` is inf",
    );
    check(
        |m| m.schedule.operations[0].flop = f64::NAN,
        "`schedule.operations[0].flop` is NaN",
    );
    check(
        |m| m.hosts[0].machine = 1,
        "`hosts[0].machine` refers to entry 1 of 1",
    );
    check(
        |m| m.ranks[1].cpu_quota = Some(0.0),
        "`ranks[1].cpu_quota` is 0",
    );
    check(
        |m| m.ranks[1].other_load = Some(f64::NAN),
        "`ranks[1].other_load` is NaN",
    );
    check(
        |m| add_links(m, |l| l.to_host = 1),
        "`links[1].to_host` refers to entry 1 of 1",
    );
    check(
        |m| add_links(m, |l| l.latency_ns = -1),
        "`links[1].latency_ns` is -1",
    );
    check(
        |m| add_links(m, |l| l.bandwidth_bytes_per_s = f64::INFINITY),
        "`links[1].bandwidth_bytes_per_s` is inf",
    );
    check(|m| drop(m.ranks.pop()), "`ranks` has 1 entries for 2 ranks");
}

#[test]
fn a_broken_segment_costs_only_itself() {
    let dir = record();
    let whole = fs::read(segment(&dir, 0)).expect("a segment");
    for keep in [0, 3, whole.len() / 2, whole.len() - 1] {
        fs::write(segment(&dir, 1), &whole[..keep]).expect("cut");
        let record = Record::open(dir.path()).expect("a record");
        let reading = record.samples(|_| {}).expect("a reading");
        assert_eq!(reading.rows, 24);
        let [
            Caveat {
                code: CaveatCode::DroppedSamples,
                message,
            },
        ] = &reading.caveats[..]
        else {
            panic!("{:?}", reading.caveats)
        };
        assert!(
            message.starts_with("1 of 2 segments of table samples are left out"),
            "{message}"
        );
        assert!(message.contains("samples/000001.parquet"), "{message}");
    }
    fs::remove_file(segment(&dir, 0)).expect("removed");
    let record = Record::open(dir.path()).expect("a record");
    let refused = record.samples(|_| {});
    assert!(matches!(
        refused,
        Err(RecordError::NothingReadable { segments: 1, .. })
    ));
}

#[test]
fn no_flipped_byte_makes_the_reader_panic() {
    let dir = record();
    let whole = fs::read(segment(&dir, 0)).expect("a segment");
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut broken = whole.clone();
            broken[at] ^= flip;
            fs::write(segment(&dir, 0), &broken).expect("broken");
            let record = Record::open(dir.path()).expect("a record");
            // Either outcome is fine: a panic or a row out of range is not.
            let _ = record.samples(|batch| {
                assert!(batch.rank.iter().all(|rank| (0..2).contains(rank)));
                assert!(
                    batch
                        .operation
                        .iter()
                        .all(|operation| (0..3).contains(operation))
                );
                assert!(
                    batch
                        .start_ns
                        .iter()
                        .zip(batch.end_ns)
                        .all(|(start, end)| start <= end)
                );
            });
        }
    }
}

#[test]
fn foreign_columns_are_named() {
    let check = |schema: &str, expect: &str| {
        let dir = record();
        write_foreign(&segment(&dir, 0), schema);
        let record = Record::open(dir.path()).expect("a record");
        let message = record.samples(|_| {}).expect_err("refused").to_string();
        assert!(
            message.contains("samples/000000.parquet: column "),
            "{message}"
        );
        assert!(message.contains(expect), "{message}");
    };
    check("required int32 rank;", "`step` is missing");
    check("required int64 rank;", "`rank` is INT64, not INT32");
    check("optional int32 rank;", "`rank` may be null or repeated");
}

/// A Parquet file with one column, of which one row is 0.
fn write_foreign(path: &Path, column: &str) {
    let schema = parse_message_type(&format!("message m {{ {column} }}")).expect("a schema");
    let properties = Arc::new(WriterProperties::builder().build());
    let file = File::create(path).expect("a file");
    let mut writer =
        SerializedFileWriter::new(file, Arc::new(schema), properties).expect("a writer");
    let mut group = writer.next_row_group().expect("a group");
    let mut out = group.next_column().expect("open").expect("a column");
    if column.contains("int64") {
        let typed: &mut ColumnWriterImpl<'_, Int64Type> = out.typed();
        typed.write_batch(&[0], None, None).expect("a row");
    } else {
        let typed: &mut ColumnWriterImpl<'_, Int32Type> = out.typed();
        typed.write_batch(&[0], Some(&[1]), None).expect("a row");
    }
    out.close().expect("closed");
    group.close().expect("closed");
    writer.close().expect("closed");
}

#[test]
fn impossible_samples_are_dropped_and_counted() {
    let check = |spoil: fn(&mut Sample), expect: &str| {
        // Rank 1, step 2, its second operation, and the same of the step after.
        let spoilt = [(2 * 2 + 1) * 3 + 1, (3 * 2 + 1) * 3 + 1];
        let samples = (0..24).map(|index| {
            let mut sample = example::sample(2, index);
            if spoilt.contains(&index) {
                spoil(&mut sample);
            }
            sample
        });
        let dir = record_with(samples);
        let record = Record::open(dir.path()).expect("a record");
        let reading = record.samples(|_| {}).expect("a reading");
        assert_eq!(reading.rows, 22, "{expect}");
        let message = "2 rows of table samples are impossible and were left out; the first: ";
        let caveat = Caveat::new(CaveatCode::DroppedSamples, format!("{message}{expect}"));
        assert_eq!(reading.caveats, [caveat]);
        let left = all_samples(&record);
        assert_eq!(left[..16], example::rows(2, 4).samples[..16]);
    };
    let at = |why: &str| format!("rank 1, step 2: {why}");
    check(|s| s.rank = 2, "rank 2, step 2: there is no such rank");
    check(
        |s| s.rank = u32::MAX,
        "rank -1, step 2: there is no such rank",
    );
    check(|s| s.operation = 3, &at("there is no such operation"));
    check(
        |s| s.step = u32::MAX,
        "rank 1, step -1: the step is negative",
    );
    check(
        |s| s.stamp.end_ns = s.stamp.start_ns - 1,
        &at("it ends before it begins"),
    );
    check(
        |s| s.stamp.cpu_end_ns = -1,
        &at("its cpu time goes backwards"),
    );
}

#[test]
fn a_clock_that_jumps_back_is_seen() {
    // From step 2 on, the clock of rank 0 is a day behind.
    let day = 86_400_000_000_000;
    let samples = example::samples(2, 4).map(|mut sample| {
        if sample.rank == 0 && sample.step >= 2 {
            let Stamp {
                start_ns, end_ns, ..
            } = sample.stamp;
            sample.stamp = Stamp {
                start_ns: start_ns - day,
                end_ns: end_ns - day,
                ..sample.stamp
            };
        }
        sample
    });
    let dir = record_with(samples);
    let reading = Record::open(dir.path())
        .expect("a record")
        .samples(|_| {})
        .expect("a reading");
    assert_eq!(reading.rows, 18);
    let message = &reading.caveats[0].message;
    assert!(message.starts_with("6 rows of table samples"), "{message}");
    assert!(message.ends_with("rank 0, step 2: it begins before the rank's step before it began"));
}

#[test]
fn missing_ranks_are_counted() {
    let dir = record_with(example::samples(2, 4).filter(|sample| sample.rank == 1));
    let reading = Record::open(dir.path())
        .expect("a record")
        .samples(|_| {})
        .expect("a reading");
    let message = "samples of 1 of 2 ranks; the first without any is rank 0";
    assert_eq!(
        reading.caveats,
        [Caveat::new(CaveatCode::MissingSamples, message)]
    );
}

#[test]
fn impossible_rows_of_small_tables_are_dropped() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let steps: [StepWork; 3] = [
        example::step_work(0, 0),
        example::step_work(2, 0),
        StepWork {
            tokens: -1,
            ..example::step_work(1, 0)
        },
    ];
    let telemetry: [Telemetry; 3] = [
        example::telemetry(0),
        Telemetry {
            host: 1,
            ..example::telemetry(1)
        },
        Telemetry {
            end_ns: -1,
            ..example::telemetry(2)
        },
    ];
    let rows = TableRows {
        samples: example::samples(2, 1),
        steps,
        telemetry,
    };
    write_record(dir.path(), &example::manifest(2), rows, example::closing(1)).expect("written");
    let record = Record::open(dir.path()).expect("a record");

    let read = record.steps().expect("steps");
    assert_eq!(read.rows, [example::step_work(0, 0)]);
    assert!(
        read.caveats[0]
            .message
            .ends_with("the first: rank 2, step 0")
    );
    let read = record.telemetry().expect("telemetry");
    assert_eq!(read.rows, [example::telemetry(0)]);
    assert!(
        read.caveats[0]
            .message
            .contains("2 rows of table telemetry")
    );
    let mut below = example::device(1, 0);
    below.state.set(Gauge::Power, Some(-1));
    let devices = [example::device(0, 3), example::device(9, 0), below];
    write_devices(dir.path(), devices).expect("written");
    let read = record.devices().expect("devices");
    assert_eq!(read.rows, [example::device(0, 3)]);
    let told = &read.caveats[0].message;
    assert!(told.contains("2 rows of table device_telemetry"), "{told}");
}
