//! Sketches: what is written comes back, and what cannot be is left out or refused.

use crate::example;
use laggard_record::{
    Manifest, Origin, Record, RecordError, SketchBaseline, SketchRank, SketchRows, SketchStep,
    write_sketch,
};
use laggard_types::CaveatCode;

fn manifest(world: u32) -> Manifest {
    Manifest {
        origin: Origin::Sketch(SketchBaseline {
            even_step_ns: 90,
            class_step_ns: 95,
            lasting_step_ns: 99,
        }),
        ..example::manifest(world)
    }
}

fn step(step: u32) -> SketchStep {
    SketchStep {
        step,
        last_rank: 1,
        wall_ns: 110,
        unpaused_ns: 105,
        first_ns: 80,
        mean_ns: 90,
        second_ns: 99,
        arrival_ns: 100,
    }
}

fn rank(rank: u32) -> SketchRank {
    SketchRank {
        rank,
        last_steps: 3,
        mean_ns: 50,
        shortest_ns: 40,
        p50_ns: 49,
        p95_ns: 60,
        p99_ns: 70,
        longest_ns: 80,
        blamed_ns: 12,
    }
}

fn rows(world: u32) -> SketchRows<Vec<SketchStep>, Vec<SketchRank>> {
    SketchRows {
        steps: (0..4).map(step).collect(),
        ranks: (0..world).map(rank).collect(),
    }
}

#[test]
fn a_sketch_comes_back() {
    let dir = tempfile::tempdir().expect("temporary directory");
    // More ranks than a manifest lists line by line.
    for world in [3, 5_000] {
        let path = dir.path().join(format!("of {world}"));
        let closing = example::closing(4);
        write_sketch(&path, &manifest(world), rows(world), &closing).expect("written");
        let record = Record::open(&path).expect("a record");
        assert_eq!(
            record.sketch().map(|sketch| sketch.lasting_step_ns),
            Some(99)
        );
        assert_eq!(
            record.sketch_steps().expect("steps").rows,
            rows(world).steps
        );
        assert_eq!(
            record.sketch_ranks().expect("ranks").rows,
            rows(world).ranks
        );
        assert_eq!(record.closing, Some(closing));
        assert_eq!(record.sample_segments(), 0);
        assert!(record.steps().expect("table steps").rows.is_empty());
    }
}

#[test]
fn an_ordinary_record_is_no_sketch() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("record");
    let refused = write_sketch(&path, &example::manifest(2), rows(2), &example::closing(4));
    let is_origin = |error: &RecordError| error.to_string().contains("`origin`");
    assert!(refused.as_ref().is_err_and(is_origin), "{refused:?}");
    laggard_record::write_record(
        &path,
        &example::manifest(2),
        example::rows(2, 3),
        example::closing(3),
    )
    .expect("written");
    let record = Record::open(&path).expect("a record");
    assert_eq!(record.sketch(), None);
    assert!(record.sketch_steps().expect("steps").rows.is_empty());
}

#[test]
fn impossible_rows_are_left_out() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut list = rows(3);
    list.steps[1].arrival_ns = list.steps[1].mean_ns - 1;
    list.steps[2].last_rank = 3;
    list.ranks[0].p95_ns = 1;
    list.ranks[2].rank = 3;
    write_sketch(dir.path(), &manifest(3), list, &example::closing(4)).expect("written");
    let record = Record::open(dir.path()).expect("a record");
    let steps = record.sketch_steps().expect("steps");
    let left: Vec<u32> = steps.rows.iter().map(|row| row.step).collect();
    assert_eq!(left, [0, 3]);
    assert_eq!(steps.caveats[0].code, CaveatCode::DroppedSamples);
    let ranks = record.sketch_ranks().expect("ranks");
    assert_eq!(ranks.rows, [rank(1)]);
    assert!(
        ranks.caveats[0]
            .message
            .contains("2 rows of table sketch_ranks")
    );
}
