//! Records that several hosts and processes write: shared, staged, gathered, lost.

use crate::several_hosts::{Cluster, HostOfRanks, gather};
use crate::{all_samples, example};
use laggard_record::{
    Closing, ClosingStatus, Forwarded, PartClosing, Record, RecordError, RecordWriter,
    RowForwarder, Sample, accept_file, is_shared, part_files, remove_part,
};
use laggard_types::{Caveat, CaveatCode};
use std::fs;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;
use tempfile::TempDir;

const CLUSTER: Cluster = Cluster { hosts: 3, ranks: 2 };
const STEPS: u32 = 9;

fn folder() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

/// Runs the cluster with these writers, with three flushes. Returns the writers, root first.
fn run(writers: Vec<RecordWriter>) -> Vec<RecordWriter> {
    let mut hosts: Vec<HostOfRanks> = (0..)
        .zip(writers)
        .map(|(host, writer)| HostOfRanks::new(CLUSTER, host, writer))
        .collect();
    for steps in [0..3, 3..6, 6..STEPS] {
        hosts.iter_mut().for_each(|host| host.run(steps.clone()));
    }
    let end = |host: HostOfRanks| {
        let (writer, forwarded) = host.end();
        let expect = Forwarded {
            samples: 3 * 3,
            steps: 3,
            telemetry: 0,
            writer_lags: 0,
        };
        assert_eq!(forwarded, [expect; 3]);
        writer
    };
    hosts.into_iter().map(end).collect()
}

/// The root's writer and those that join in the given directories.
fn writers(record: &Path, joined: &[&Path]) -> Vec<RecordWriter> {
    let manifest = CLUSTER.manifest();
    let root = RecordWriter::create(record, &manifest).expect("a new record");
    let join = |(part, dir): (u32, &&Path)| RecordWriter::join(dir, &manifest, part);
    let joined = (1..).zip(joined).map(join);
    let writers = std::iter::once(Ok(root)).chain(joined);
    writers.collect::<Result<_, _>>().expect("parts")
}

/// Closes all parts, the root's last; `gathering` runs before that.
fn close(mut writers: Vec<RecordWriter>, gathering: impl FnOnce()) -> Closing {
    let root = writers.remove(0);
    let parts = writers.into_iter().map(RecordWriter::close_part).collect();
    gathering();
    root.close_with_parts(ClosingStatus::Finished, STEPS, parts)
        .expect("closed")
}

fn sorted(mut samples: Vec<Sample>) -> Vec<Sample> {
    samples.sort_by_key(|sample| (sample.step, sample.rank, sample.operation));
    samples
}

/// Everything that the cluster recorded is there, and nobody doubts it.
fn check_whole(dir: &Path, closing: &Closing) {
    let record = Record::open(dir).expect("a record");
    assert_eq!(record.closing.as_ref(), Some(closing));
    assert_eq!(record.caveats, record.manifest.caveats);
    let mut seen = Vec::new();
    let reading = record
        .samples(|batch| seen.extend(crate::rows_of(batch)))
        .expect("samples");
    assert_eq!((reading.rows, reading.caveats), (closing.samples, vec![]));
    let expect: Vec<Sample> = example::samples(CLUSTER.world(), STEPS).collect();
    assert_eq!(sorted(seen), expect);
    let steps = record.steps().expect("steps");
    assert_eq!(steps.caveats, []);
    assert_eq!(steps.rows.len() as u64, closing.steps);
    assert_eq!(closing.steps, u64::from(CLUSTER.world() * STEPS));
    let telemetry = record.telemetry().expect("telemetry");
    assert_eq!(telemetry.rows.len() as u64, closing.telemetry);
    assert_eq!(closing.telemetry, u64::from(CLUSTER.hosts * STEPS));
}

/// The names in a directory, in order.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string())
        .collect::<Result<_, _>>()
        .expect("plain names");
    names.sort();
    names
}

const WHOLE: [&str; 9] = [
    "closing.json",
    "device_telemetry",
    "histograms-part-00001.hlog",
    "histograms-part-00002.hlog",
    "histograms.hlog",
    "manifest.json",
    "samples",
    "steps",
    "telemetry",
];

#[test]
fn hosts_write_one_shared_record() {
    let dir = folder();
    let record = dir.path();
    let writers = run(writers(record, &[record, record]));
    let closing = close(writers, || {});
    check_whole(record, &closing);
    assert_eq!(names(record), WHOLE);
    let per_part =
        |part: &'static str| (0..3).map(move |index| format!("{part}{index:06}.parquet"));
    let expect: Vec<String> = ["", "part-00001-", "part-00002-"]
        .into_iter()
        .flat_map(per_part)
        .collect();
    assert_eq!(names(&record.join("samples")), expect);
    let part = PartClosing {
        part: 1,
        samples: 54,
        steps: 18,
        telemetry: 9,
        writer_lags: 0,
        fault: None,
    };
    assert_eq!(
        closing.parts,
        [part.clone(), PartClosing { part: 2, ..part }]
    );
}

#[test]
fn parts_in_scratch_are_gathered_as_one_file_per_table() {
    let dir = folder();
    let [record, one, two] = ["record", "one", "two"].map(|name| dir.path().join(name));
    let writers = run(writers(&record, &[&one, &two]));
    let closing = close(writers, || {
        gather(&one, 1, &record);
        gather(&two, 2, &record);
    });
    check_whole(&record, &closing);
    assert_eq!(names(&record), WHOLE);
    for table in ["samples", "steps", "telemetry"] {
        let of_parts: Vec<String> = names(&record.join(table)).split_off(3);
        let expect = ["part-00001-000000.parquet", "part-00002-000000.parquet"];
        assert_eq!(of_parts, expect, "{table}");
    }
    remove_part(&one, 1).expect("removed");
    assert!(!one.exists());
    let all = part_files(&record, 0).expect("files");
    assert_eq!(all.len(), 3 * 3 + 1, "three flushes, and histograms");
}

#[test]
fn the_roots_own_part_may_be_staged_too() {
    let dir = folder();
    let [record, scratch] = ["record", "scratch"].map(|name| dir.path().join(name));
    let manifest = CLUSTER.manifest();
    let root = RecordWriter::create_staged(&record, &scratch, &manifest).expect("a new record");
    // All hosts of this machine may share its scratch directory.
    let join = |part| RecordWriter::join(&scratch, &manifest, part).expect("a part");
    let writers = run(vec![root, join(1), join(2)]);
    assert_eq!(names(&record.join("samples")), [""; 0]);
    let closing = close(writers, || {
        for part in [1, 2] {
            gather(&scratch, part, &record);
            remove_part(&scratch, part).expect("removed");
        }
    });
    check_whole(&record, &closing);
    assert_eq!(names(&record), WHOLE);
    assert_eq!(names(&record.join("samples")).len(), 3);
    assert!(!scratch.exists());
}

fn caveats_of(dir: &Path) -> Vec<Caveat> {
    let mut record = Record::open(dir).expect("a record");
    let mut caveats = record.caveats.split_off(1);
    caveats.extend(record.samples(|_| {}).expect("a reading").caveats);
    caveats
}

#[test]
fn a_killed_run_names_the_hosts_whose_parts_are_missing() {
    let dir = folder();
    let [record, scratch] = ["record", "scratch"].map(|name| dir.path().join(name));
    let writers = run(writers(&record, &[&record, &scratch]));
    // Nobody closes anything.
    drop(writers);
    let caveats = caveats_of(&record);
    let codes: Vec<CaveatCode> = caveats.iter().map(|caveat| caveat.code).collect();
    let missing = CaveatCode::MissingSamples;
    assert_eq!(codes, [CaveatCode::NotClosed, missing, missing]);
    assert!(caveats[1].message.contains("samples of 4 of 6 ranks"));
    let message = &caveats[2].message;
    assert!(
        message.starts_with("no samples of 1 of 3 hosts: `node-2`;"),
        "{message}"
    );
    let read = all_samples(&Record::open(&record).expect("a record"));
    let of_others = |sample: &Sample| sample.rank < 4;
    let expect: Vec<Sample> = example::samples(6, STEPS).filter(of_others).collect();
    assert_eq!(sorted(read), expect);
    // What the host had flushed can still be brought.
    gather(&scratch, 2, &record);
    let codes: Vec<CaveatCode> = caveats_of(&record).iter().map(|c| c.code).collect();
    assert_eq!(codes, [CaveatCode::NotClosed]);
}

#[test]
fn a_segment_that_was_lost_shows_against_the_closing() {
    let dir = folder();
    let record = dir.path();
    close(run(writers(record, &[record, record])), || {});
    fs::remove_file(record.join("samples/part-00002-000001.parquet")).expect("removed");
    let caveats = caveats_of(record);
    let expect = "144 of the 162 samples that were recorded are here; segments were lost";
    assert_eq!(caveats, [Caveat::new(CaveatCode::MissingSamples, expect)]);
}

#[test]
fn a_part_that_could_not_be_written_is_a_doubt() {
    let dir = folder();
    let [record, scratch] = ["record", "scratch"].map(|name| dir.path().join(name));
    let mut writers = writers(&record, &[&record, &scratch]);
    let (two, one) = (writers.pop().expect("two"), writers.pop().expect("one"));
    fs::remove_dir_all(&scratch).expect("removed");
    two.recorder(4)
        .expect("a recorder")
        .push(example::sample(6, 12));
    let lost = two.close_part();
    let fault = lost.fault.clone().expect("a fault");
    assert!(
        fault.contains("hint: was the directory removed?"),
        "{fault}"
    );
    assert_eq!((lost.part, lost.samples), (2, 0));

    let root = writers.pop().expect("the root");
    let closed = root.close_with_parts(ClosingStatus::Finished, 0, vec![lost, one.close_part()]);
    closed.expect("closed");
    let doubt = Record::open(&record).expect("a record").caveats.pop();
    let message = doubt.expect("a caveat").message;
    let expect = "the part of host `node-2` ends early: cannot create";
    assert!(message.starts_with(expect), "{message}");
}

#[test]
fn only_those_who_share_the_directory_find_the_marker() {
    let dir = folder();
    let [record, copy] = ["record", "copy"].map(|name| dir.path().join(name));
    let writer = RecordWriter::create(&record, &CLUSTER.manifest()).expect("a new record");
    let nonce = writer.nonce().expect("a marker").to_owned();
    assert_eq!(writer.nonce(), Ok(nonce.as_str()));
    fs::create_dir(&copy).expect("a directory of the same name elsewhere");
    let other = RecordWriter::create(&copy, &CLUSTER.manifest()).expect("a new record");
    assert_ne!(other.nonce(), Ok(nonce.as_str()));
    assert!(is_shared(&record, &nonce));
    assert!(!is_shared(&copy, &nonce));
    assert!(!is_shared(&dir.path().join("none"), &nonce));
    assert!(!is_shared(&record, ""));
    assert!(!is_shared(&copy, &format!("/../../record/.shared-{nonce}")));
    writer.close(ClosingStatus::Finished, 0).expect("closed");
    assert!(!is_shared(&record, &nonce));
    let expect = [
        "closing.json",
        "device_telemetry",
        "manifest.json",
        "samples",
        "steps",
        "telemetry",
    ];
    assert_eq!(names(&record), expect);
}

#[test]
fn a_part_does_not_join_what_it_is_no_part_of() {
    let dir = folder();
    let record = dir.path().join("record");
    let manifest = CLUSTER.manifest();
    let root = RecordWriter::create(&record, &manifest).expect("a new record");
    let refuse = |dir: &Path, part: u32, expect: &str| {
        let refused = RecordWriter::join(dir, &manifest, part);
        let message = refused.expect_err("refused").to_string();
        assert!(message.contains(expect), "{message}");
    };
    refuse(
        &record,
        0,
        "there is no part 0 to join in a record of 3 hosts",
    );
    refuse(&record, 3, "there is no part 3");
    refuse(
        dir.path(),
        1,
        "is not empty and is not a run record (it holds `record`)",
    );
    let part = RecordWriter::join(&record, &manifest, 1).expect("a part");
    let mut recorder = part.recorder(2).expect("a recorder");
    recorder.push(example::sample(6, 6));
    part.flush().expect("flushed");
    refuse(&record, 1, "already holds a run record");

    let mut other = manifest.clone();
    other.created_unix_ns += 1;
    let refused = RecordWriter::join(&record, &other, 2);
    assert!(matches!(refused, Err(RecordError::OtherRun { .. })));
    let refused = RecordWriter::create_staged(&dir.path().join("new"), &record, &manifest);
    assert!(matches!(refused, Err(RecordError::AlreadyARecord { .. })));

    let twice = vec![part.close_part(); 2];
    let refused = root.close_with_parts(ClosingStatus::Finished, 1, twice);
    assert_eq!(refused, Err(RecordError::NoSuchPart { part: 1, hosts: 3 }));
}

#[test]
fn a_file_of_another_part_is_not_accepted() {
    let dir = folder();
    let bytes = &b"anything"[..];
    let record = RecordWriter::create(dir.path(), &CLUSTER.manifest()).expect("a new record");
    let name = "samples/part-00001-000000.parquet";
    assert_eq!(accept_file(dir.path(), 1, name, bytes), Ok(8));
    // A transfer may be repeated.
    assert_eq!(accept_file(dir.path(), 1, name, bytes), Ok(8));
    for (part, name) in [(2, name), (1, "manifest.json"), (1, "../x.parquet")] {
        let name = name.to_owned();
        let refused = accept_file(dir.path(), part, &name, bytes);
        assert_eq!(refused, Err(RecordError::NotOfPart { part, name }));
    }
    drop(record);
    assert_eq!(
        names(&dir.path().join("samples")),
        ["part-00001-000000.parquet"]
    );
}

#[test]
fn damaged_rows_are_refused_and_not_recorded() {
    let dir = folder();
    let writer = RecordWriter::create(dir.path(), &CLUSTER.manifest()).expect("a new record");
    let refused = writer.receive(&[2, 2, 3]).expect_err("refused");
    let expect = "rows cannot be understood at byte 1: they are cut off";
    assert_eq!(refused.to_string(), expect);
    let closing = writer.close(ClosingStatus::Finished, 0).expect("closed");
    assert_eq!(
        (closing.samples, closing.steps, closing.telemetry),
        (0, 0, 0)
    );
}

#[test]
fn a_rank_goes_on_where_its_rows_cannot_be_sent() {
    let send = |_| Err("the leader of host node-0 is gone".to_owned());
    let forwarder = RowForwarder::start(6, Box::new(send)).expect("a thread");
    let refused = forwarder.recorder(6).err();
    assert_eq!(refused, Some(RecordError::NoSuchRank { rank: 6, ranks: 6 }));
    let mut recorder = forwarder.recorder(1).expect("a recorder");
    recorder.push(example::sample(6, 3));
    let failed = forwarder.flush().expect_err("nobody takes it");
    let expect = "cannot pass rows to the host's record writer: the leader of host node-0 is gone";
    assert_eq!(failed.to_string(), expect);
    recorder.push(example::sample(6, 4));
    assert_eq!(forwarder.check(), Err(failed.clone()));
    assert_eq!(forwarder.close(), Err(failed));
    recorder.push(example::sample(6, 5));
}

#[test]
fn rows_are_forwarded_unasked_and_at_the_end() {
    let (wire, arrived) = channel();
    let send = move |rows| wire.send(rows).map_err(|error| error.to_string());
    let forwarder = RowForwarder::start(6, Box::new(send)).expect("a thread");
    let mut recorder = forwarder.recorder(1).expect("a recorder");
    let dir = folder();
    let writer = RecordWriter::create(dir.path(), &CLUSTER.manifest()).expect("a new record");
    let arrive = || {
        let rows = arrived.recv_timeout(Duration::from_secs(60));
        writer.receive(&rows.expect("a batch")).expect("rows");
    };
    recorder.push(example::sample(6, 3));
    arrive();
    recorder.push(example::sample(6, 4));
    drop(forwarder);
    arrive();
    assert!(arrived.try_recv().is_err(), "nothing is sent twice");
    let closing = writer.close(ClosingStatus::Failed { why: "x".into() }, 0);
    assert_eq!(closing.expect("closed").samples, 2);
}

#[test]
fn lags_of_forwarding_ranks_are_counted_once() {
    let dir = folder();
    let writer = RecordWriter::create(dir.path(), &CLUSTER.manifest()).expect("a new record");
    let (wire, arrived) = channel();
    let send = move |rows| wire.send(rows).map_err(|error| error.to_string());
    let forwarder = RowForwarder::start(6, Box::new(send)).expect("a thread");
    let mut recorder = forwarder.recorder(1).expect("a recorder");
    // Far more than fits ahead of the forwarder.
    const SAMPLES: u32 = 400_000;
    (0..SAMPLES).for_each(|_| recorder.push(example::sample(6, 3)));
    forwarder
        .push_telemetry(vec![example::telemetry(0)])
        .expect("telemetry");
    let devices = vec![example::device(3, 0), example::device(3, 1)];
    forwarder.push_devices(devices.clone()).expect("devices");
    let sent = forwarder.close().expect("closed");
    assert_eq!((sent.samples, sent.telemetry), (u64::from(SAMPLES), 3));
    let batches: Vec<Vec<u8>> = arrived.iter().collect();
    assert!(batches.len() > 20 && batches.iter().all(|batch| batch.len() < 1 << 20));
    batches
        .iter()
        .for_each(|rows| writer.receive(rows).expect("rows"));
    let closing = writer.close(ClosingStatus::Finished, 0).expect("closed");
    assert_eq!((closing.samples, closing.telemetry), (sent.samples, 3));
    let record = Record::open(dir.path()).expect("a record");
    assert_eq!(record.devices().expect("devices").rows, devices);
    assert_eq!(closing.writer_lags, sent.writer_lags);
}
