//! Records of jobs that run: recorded by ranks, flushed, closed, killed.

use crate::{all_samples, example};
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use laggard_record::{ClosingStatus, Record, RecordError, RecordWriter, Sample};
use laggard_types::CaveatCode;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

const WORLD: u32 = 3;

/// Lets each rank record `steps` steps from a thread of its own.
fn run_ranks(writer: &RecordWriter, steps: u32) {
    let ranks: Vec<_> = (0..WORLD)
        .map(|rank| {
            let mut recorder = writer.recorder(rank).expect("a recorder");
            thread::spawn(move || {
                for step in 0..steps {
                    let first = (step * WORLD + rank) * 3;
                    (first..first + 3).for_each(|i| recorder.push(example::sample(WORLD, i)));
                    recorder.push_step(example::step_work(rank, step));
                }
            })
        })
        .collect();
    ranks
        .into_iter()
        .for_each(|rank| rank.join().expect("a rank"));
}

fn sorted(mut samples: Vec<Sample>) -> Vec<Sample> {
    samples.sort_by_key(|sample| (sample.step, sample.rank, sample.operation));
    samples
}

#[test]
fn a_run_is_recorded_whole() {
    const STEPS: u32 = 5_000;
    let dir = tempfile::tempdir().expect("temporary directory");
    let writer = RecordWriter::create(dir.path(), &example::manifest(WORLD)).expect("a new record");
    run_ranks(&writer, STEPS);
    writer
        .push_telemetry((0..4).map(example::telemetry).collect())
        .expect("telemetry");
    let devices: Vec<_> = (0..9).map(|at| example::device(at % WORLD, at)).collect();
    writer.push_devices(devices.clone()).expect("devices");
    let status = ClosingStatus::Interrupted {
        signal: "SIGTERM".into(),
    };
    let closing = writer.close(status.clone(), STEPS).expect("closed");
    assert_eq!(
        (closing.samples, closing.steps, closing.telemetry),
        (45_000, 15_000, 4 + 9)
    );

    let record = Record::open(dir.path()).expect("a record");
    assert_eq!(
        record.closing.as_ref().map(|closing| &closing.status),
        Some(&status)
    );
    let expect: Vec<Sample> = example::samples(WORLD, STEPS).collect();
    assert_eq!(sorted(all_samples(&record)), expect);
    let mut steps = record.steps().expect("steps").rows;
    steps.sort_by_key(|row| (row.step, row.rank));
    assert_eq!(steps, example::rows(WORLD, STEPS).steps);
    assert_eq!(record.telemetry().expect("telemetry").rows.len(), 4);
    let read = record.devices().expect("devices");
    assert_eq!((read.rows, read.caveats), (devices, Vec::new()));
}

#[test]
fn a_flush_sees_what_a_hanging_rank_recorded() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let writer = RecordWriter::create(dir.path(), &example::manifest(WORLD)).expect("a new record");
    let mut recorder = writer.recorder(1).expect("a recorder");
    for flushes in 1..=3 {
        recorder.push(Sample {
            step: flushes,
            ..example::sample(WORLD, 3)
        });
        writer.flush().expect("flushed");
        let record = Record::open(dir.path()).expect("a record");
        assert_eq!(all_samples(&record).len(), flushes as usize);
        assert_eq!(
            record.caveats.last().map(|caveat| caveat.code),
            Some(CaveatCode::NotClosed)
        );
    }
}

#[test]
fn histograms_count_what_was_recorded() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let writer = RecordWriter::create(dir.path(), &example::manifest(WORLD)).expect("a new record");
    run_ranks(&writer, 10);
    writer.flush().expect("flushed");
    run_ranks(&writer, 10);
    writer.close(ClosingStatus::Finished, 10).expect("closed");

    let log = fs::read(dir.path().join("histograms.hlog")).expect("a log");
    let mut backward_of_rank_2 = 0;
    for entry in IntervalLogIterator::new(&log) {
        let LogEntry::Interval(interval) = entry.expect("a line of the log") else {
            continue;
        };
        if interval.tag().map(|tag| tag.as_str()) != Some("rank=2;phase=backward") {
            continue;
        }
        let bytes = base64(interval.encoded_histogram());
        let histogram: hdrhistogram::Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .expect("a histogram");
        backward_of_rank_2 += histogram.len();
        assert!(
            (900_000..912_000).contains(&histogram.max()),
            "{}",
            histogram.max()
        );
    }
    assert_eq!(backward_of_rank_2, 20);
}

/// Decodes standard base64.
fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for digit in text
        .bytes()
        .filter_map(|byte| DIGITS.iter().position(|d| *d == byte))
    {
        bits = bits << 6 | digit as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

#[test]
fn nothing_is_ever_overwritten() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let manifest = example::manifest(WORLD);
    let refuse = |path: &Path, expect: &str| {
        let message = RecordWriter::create(path, &manifest)
            .expect_err("refused")
            .to_string();
        assert!(message.contains(expect), "{message}");
    };
    let record = dir.path().join("a").join("record");
    drop(RecordWriter::create(&record, &manifest).expect("a new record, parents included"));
    refuse(
        &record,
        "already holds a run record\nhint: choose another directory",
    );
    refuse(
        dir.path(),
        "is not empty and is not a run record (it holds `a`)",
    );
    refuse(&record.join("manifest.json"), "cannot create");
    Record::open(&record).expect("still a record");
}

#[test]
fn a_rank_that_is_not_there_gets_no_recorder() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let writer = RecordWriter::create(dir.path(), &example::manifest(WORLD)).expect("a new record");
    let refused = writer.recorder(WORLD).err();
    assert_eq!(refused, Some(RecordError::NoSuchRank { rank: 3, ranks: 3 }));
}

#[test]
fn a_vanished_directory_shows_at_the_next_check() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("record");
    let writer = RecordWriter::create(&path, &example::manifest(WORLD)).expect("a new record");
    let mut recorder = writer.recorder(0).expect("a recorder");
    recorder.push(example::sample(WORLD, 0));
    writer.check().expect("nothing was written yet");
    fs::remove_dir_all(&path).expect("removed");
    let flushed = writer
        .flush()
        .expect_err("there is no directory to write to");
    let message = flushed.to_string();
    assert!(message.contains("samples/.tmp-000000.parquet"), "{message}");
    assert!(
        message.contains("hint: was the directory removed?"),
        "{message}"
    );
    // The rank goes on undisturbed, and the first failure stays.
    recorder.push(example::sample(WORLD, 1));
    assert_eq!(writer.check(), Err(flushed.clone()));
    assert_eq!(writer.close(ClosingStatus::Finished, 1), Err(flushed));
}

#[test]
fn a_failed_segment_leaves_the_earlier_ones() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let writer = RecordWriter::create(dir.path(), &example::manifest(WORLD)).expect("a new record");
    let mut recorder = writer.recorder(0).expect("a recorder");
    recorder.push(example::sample(WORLD, 0));
    writer.flush().expect("flushed");
    // A directory in the place of the next segment: it cannot be given its name.
    fs::create_dir(dir.path().join("samples/000001.parquet")).expect("an obstacle");
    recorder.push(example::sample(WORLD, 1));
    assert!(matches!(
        writer.flush(),
        Err(RecordError::Io { action: "name", .. })
    ));
    drop(writer);
    assert!(!dir.path().join("samples/.tmp-000001.parquet").exists());
    let record = Record::open(dir.path()).expect("a record");
    assert_eq!(all_samples(&record), [example::sample(WORLD, 0)]);
}

/// Names the record in the environment of the process that is to be killed.
const CHILD: &str = "LAGGARD_RECORD_TEST_CHILD";

#[test]
fn a_killed_run_stays_readable() {
    if let Some(dir) = std::env::var_os(CHILD) {
        record_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("record");
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args([
            "--exact",
            "recording::a_killed_run_stays_readable",
            "--nocapture",
        ])
        .env(CHILD, &path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second process");
    let mut output = BufReader::new(child.stdout.take().expect("its output")).lines();
    let flushed = output.any(|line| line.expect("its words").contains("flushed"));
    child.kill().expect("killed");
    child.wait().expect("dead");
    assert!(flushed, "the second process ended early");

    let record = Record::open(&path).expect("a record");
    assert!(record.closing.is_none());
    assert_eq!(
        record.caveats.last().map(|caveat| caveat.code),
        Some(CaveatCode::NotClosed)
    );
    let expect: Vec<Sample> = example::samples(WORLD, 100).collect();
    assert_eq!(sorted(all_samples(&record)), expect);
}

/// Flushes some samples, says so, leaves half a segment behind and waits for the kill.
fn record_until_killed(dir: &Path) -> ! {
    let writer = RecordWriter::create(dir, &example::manifest(WORLD)).expect("a new record");
    run_ranks(&writer, 100);
    writer.flush().expect("flushed");
    let segment = fs::read(dir.join("samples/000000.parquet")).expect("a segment");
    fs::write(
        dir.join("samples/.tmp-000001.parquet"),
        &segment[..segment.len() / 2],
    )
    .expect("half a segment");
    writeln!(std::io::stdout(), "flushed").expect("the other process listens");
    // Bounded, in case that the other process dies first.
    thread::park_timeout(std::time::Duration::from_secs(60));
    std::process::abort();
}
