//! Records that are damaged or incomplete: what cannot be read is refused with its place, what can
//! be read is analysed and the rest is named.

use crate::{changed_record, refused, sound_record, text, works};
use laggard_benches::known_job::KnownJob;
use laggard_record::{Sample, SchemaVersion};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

/// Cuts a file to a part of its length.
fn truncate(path: &Path, part: f64) {
    let bytes = fs::read(path).expect("file");
    let kept = (bytes.len() as f64 * part) as usize;
    fs::write(path, &bytes[..kept]).expect("file");
}

#[test]
fn what_is_no_record_is_refused() {
    let folder = folder();
    let check = |path: &Path, says: &str| {
        refused(&["analyze", text(path)], 3, &[text(path), says]);
        refused(&["compare", text(path), text(path)], 3, &[text(path), says]);
    };
    check(&folder.path().join("missing"), "nothing of that name");
    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).expect("folder");
    check(&foreign, "no manifest.json");
    fs::write(foreign.join("notes"), "text").expect("file");
    check(&foreign.join("notes"), "a file, not a directory");
}

#[test]
fn a_broken_manifest_is_named_with_its_line() {
    let folder = folder();
    let check = |name: &str, change: &dyn Fn(&str) -> String, says: &[&str]| {
        let record = sound_record(folder.path(), name);
        let path = record.join("manifest.json");
        let manifest = fs::read_to_string(&path).expect("manifest");
        let changed = change(&manifest);
        assert_ne!(changed, manifest, "{name} changes nothing");
        fs::write(&path, changed).expect("manifest");
        refused(
            &["analyze", text(&record)],
            3,
            &[&[text(&path)], says].concat(),
        );
    };
    check("empty", &|_| String::new(), &["line 1"]);
    let half = |all: &str| all.lines().take(20).collect::<Vec<_>>().join("\n");
    check("truncated", &half, &["line 20", "EOF"]);
    let version = |number| format!("\"schema_version\": {number}");
    let current = version(SchemaVersion::CURRENT.0);
    let future = |all: &str| all.replacen(&current, &version(99), 1);
    check("future", &future, &["version 99", "upgrade"]);
    let negative = |all: &str| all.replacen("\"relative_rate\": 1.0", "\"relative_rate\": -1.0", 1);
    check("negative", &negative, &["classes[0].relative_rate", "-1"]);
    let not_a_number =
        |all: &str| all.replacen("\"relative_rate\": 1.0", "\"relative_rate\": NaN", 1);
    check("nan", &not_a_number, &["line "]);
    let elsewhere = |all: &str| all.replacen("\"host\": 0", "\"host\": 9", 1);
    check("elsewhere", &elsewhere, &["ranks[0].host", "entry 9"]);
}

#[test]
fn a_table_of_another_kind_is_refused() {
    let folder = folder();
    let ragged = folder.path().join("ragged");
    let mut job = KnownJob::clean(4, 2, 60, 7);
    job.ragged = 0.1;
    job.write(&ragged).expect("the record is written");
    let segment = ragged.join("samples/000000.parquet");
    fs::copy(ragged.join("steps/000000.parquet"), &segment).expect("segment");
    refused(
        &["analyze", text(&ragged)],
        3,
        &[text(&segment), "column `", "is missing"],
    );

    fs::write(&segment, "PAR1 and then something else").expect("segment");
    refused(
        &["analyze", text(&ragged)],
        3,
        &[text(&segment), "none of the 1 segments"],
    );
}

#[test]
fn a_truncated_segment_beside_good_ones_is_left_out_and_named() {
    let folder = folder();
    let record = sound_record(folder.path(), "record");
    let good = record.join("samples/000000.parquet");
    for part in [0.5, 0.0] {
        let broken = record.join("samples/000001.parquet");
        fs::copy(&good, &broken).expect("segment");
        truncate(&broken, part);
        let told = works(&["analyze", text(&record)]);
        assert!(told.contains("1 of 2 segments of table samples"), "{told}");
        assert!(told.contains("000001.parquet"), "{told}");
        assert!(told.contains("straggler penalty"), "{told}");
    }
}

#[test]
fn impossible_durations_are_dropped_and_named() {
    let folder = folder();
    let reverse = |sample: &mut Sample| {
        let stamp = &mut sample.stamp;
        stamp.end_ns = stamp.start_ns - 1;
    };
    let one = changed_record(folder.path(), "one", |samples| reverse(&mut samples[100]));
    let told = works(&["analyze", text(&one)]);
    assert!(told.contains("rank "), "{told}");
    assert!(
        told.contains("samples") && told.contains("impossible"),
        "{told}"
    );

    let all = changed_record(folder.path(), "all", |samples| {
        samples.iter_mut().for_each(reverse)
    });
    refused(
        &["analyze", text(&all)],
        3,
        &[text(&all), "4 of 4 ranks", "rank 0"],
    );
}

#[test]
fn missing_ranks_and_steps_are_named() {
    let folder = folder();
    let ranks = changed_record(folder.path(), "ranks", |samples| {
        samples.retain(|sample| sample.rank != 2);
    });
    refused(
        &["analyze", text(&ranks)],
        3,
        &[text(&ranks), "1 of 4 ranks", "rank 2"],
    );

    let steps = changed_record(folder.path(), "steps", |samples| {
        samples.retain(|sample| sample.step < 2);
    });
    refused(
        &["analyze", text(&steps)],
        3,
        &[text(&steps), "complete steps", "--steps"],
    );
}
