//! What is written comes back.

use crate::{all_samples, example, rows_of};
use laggard_record::{
    Alignment, Record, Sample, StepWork, TableRows, Telemetry, append_alignment, write_record,
};
use laggard_types::{CaveatCode, Stamp};
use proptest::prelude::*;

#[test]
fn a_record_comes_back_whole() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (manifest, rows) = (example::manifest(3), example::rows(3, 5));
    let closing =
        write_record(dir.path(), &manifest, rows.clone(), example::closing(5)).expect("written");
    assert_eq!(
        (closing.samples, closing.steps, closing.telemetry),
        (45, 15, 5)
    );

    let record = Record::open(dir.path()).expect("a record");
    assert_eq!(record.closing, Some(closing));
    assert_eq!(record.caveats, manifest.caveats);
    assert_eq!(record.injected_faults(), manifest.truth);
    assert!(
        record.manifest.truth.is_empty(),
        "analyses must not see the truth"
    );
    assert_eq!(all_samples(&record), rows.samples);
    assert_eq!(record.steps().expect("steps").rows, rows.steps);
    assert_eq!(record.telemetry().expect("telemetry").rows, rows.telemetry);
}

#[test]
fn segments_read_side_by_side_add_up() {
    let dir = tempfile::tempdir().expect("temporary directory");
    // More than one bulk segment, and more than one row group in it.
    let (world, steps) = (8, 50_000);
    let rows = TableRows {
        samples: example::samples(world, steps),
        steps: Vec::<StepWork>::new(),
        telemetry: Vec::<Telemetry>::new(),
    };
    write_record(
        dir.path(),
        &example::manifest(world),
        rows,
        example::closing(steps),
    )
    .expect("written");
    let record = Record::open(dir.path()).expect("a record");
    assert!(record.sample_segments() > 1);

    let mut seen = 0;
    let mut total = record.tally();
    for segment in (0..record.sample_segments()).rev() {
        let mut tally = record.tally();
        record
            .read_sample_segment(segment, &mut tally, &mut |batch| {
                for row in rows_of(batch) {
                    let (step, rank) = (row.step * world * 3, row.rank * 3);
                    assert_eq!(row, example::sample(world, step + rank + row.operation));
                    seen += 1;
                }
            })
            .expect("a segment");
        total.merge(tally);
    }
    let reading = record.conclude(&total).expect("a reading");
    assert_eq!((reading.rows, reading.caveats), (seen, vec![]));
    assert_eq!(seen, u64::from(world * steps * 3));
}

#[test]
fn alignment_is_applied_on_read() {
    let dir = tempfile::tempdir().expect("temporary directory");
    write_record(
        dir.path(),
        &example::manifest(2),
        example::rows(2, 2),
        example::closing(2),
    )
    .expect("written");
    let segment = |rank, from_ns, offset_ns, method: &str| Alignment {
        rank,
        from_ns,
        offset_ns,
        drift_ppm: 100.0,
        bound_ns: 40 + i64::from(rank),
        method: method.into(),
    };
    // Rank 1 gets a better alignment later, which replaces its first one.
    append_alignment(
        dir.path(),
        &[segment(0, 0, 5, "a"), segment(1, 0, -9_999, "a")],
    )
    .expect("appended");
    append_alignment(
        dir.path(),
        &[segment(1, 0, 100, "b"), segment(1, 3_000_000, 900, "b")],
    )
    .expect("appended");

    let record = Record::open(dir.path()).expect("a record");
    assert!(record.manifest.clock.common_to_all_ranks);
    assert_eq!(record.alignment_bound_ns(1), Some(41));
    let raw = example::rows(2, 2);
    for (read, raw) in all_samples(&record).iter().zip(&raw.samples) {
        let (from, offset) = match (raw.rank, raw.stamp.start_ns) {
            (0, _) => (0, 5),
            (_, start) if start < 3_000_000 => (0, 100),
            _ => (3_000_000, 900),
        };
        let drift = ((raw.stamp.start_ns - from) as f64 / 10_000.0).round() as i64;
        assert_eq!(read.stamp.start_ns, raw.stamp.start_ns + offset + drift);
        assert_eq!(read.stamp.cpu_start_ns, raw.stamp.cpu_start_ns);
    }
    let host = record.telemetry().expect("telemetry").rows;
    assert_eq!(host[0].start_ns, raw.telemetry[0].start_ns + 5);

    let path = dir.path().join("alignment.jsonl");
    let text = std::fs::read_to_string(&path).expect("alignment");
    std::fs::write(&path, &text[..text.len() - 9]).expect("cut off");
    let record = Record::open(dir.path()).expect("a record");
    assert_eq!(
        record.caveats.last().map(|c| c.code),
        Some(CaveatCode::IncompleteTrace)
    );
    std::fs::write(&path, format!("{{\n{text}")).expect("broken");
    let message = Record::open(dir.path()).expect_err("broken").to_string();
    assert!(message.contains("alignment.jsonl at line 1"), "{message}");
}

prop_compose! {
    fn any_sample()(
        rank in 0u32..4,
        step in 0u32..i32::MAX as u32,
        operation in 0u32..3,
        start_ns in -(1i64 << 61)..(1i64 << 61),
        duration_ns in 0i64..(1i64 << 61),
        cpu_start_ns in 0i64..(1i64 << 61),
        cpu_ns in 0i64..(1i64 << 61),
    ) -> Sample {
        Sample { rank, step, operation, stamp: Stamp {
            start_ns,
            end_ns: start_ns + duration_ns,
            cpu_start_ns,
            cpu_end_ns: cpu_start_ns + cpu_ns,
        }}
    }
}

proptest! {
    #[test]
    fn any_samples_come_back(mut samples in prop::collection::vec(any_sample(), 1..200)) {
        // A rank's later step does not begin before its earlier one.
        samples.sort_by_key(|sample| (sample.rank, sample.stamp.start_ns));
        let mut steps: Vec<u32> = samples.iter().map(|sample| sample.step).collect();
        steps.sort_unstable();
        for (sample, step) in samples.iter_mut().zip(steps) {
            sample.step = step;
        }
        let dir = tempfile::tempdir().expect("temporary directory");
        let rows = TableRows {
            samples: samples.clone(),
            steps: Vec::<StepWork>::new(),
            telemetry: Vec::<Telemetry>::new(),
        };
        write_record(dir.path(), &example::manifest(4), rows, example::closing(1))
            .expect("written");
        let record = Record::open(dir.path()).expect("a record");
        prop_assert_eq!(all_samples(&record), samples);
    }
}
