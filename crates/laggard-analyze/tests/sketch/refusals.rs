//! Sketches that are damaged or contradict themselves.

use crate::world::{OwnedRows, analyzed, jittery, manifest, rows, written};
use laggard_analyze::{AnalyzeError, Level, operation_times};
use laggard_record::{Manifest, Origin, SketchBaseline};
use laggard_simulate::simulate_ranks;

fn parts() -> (Manifest, OwnedRows) {
    let workload = jittery("dp8", 12);
    let run = simulate_ranks(&workload).expect("a workload");
    (manifest(&workload, &run), rows(&run))
}

fn refused(change: impl FnOnce(&mut Manifest, &mut OwnedRows)) -> AnalyzeError {
    let (mut manifest, mut rows) = parts();
    change(&mut manifest, &mut rows);
    analyzed(&manifest, rows).expect_err("a refusal")
}

fn set_baseline(manifest: &mut Manifest, baseline: SketchBaseline) {
    manifest.origin = Origin::Sketch(baseline);
}

#[test]
fn too_little_is_refused() {
    let few = refused(|_, rows| rows.steps.truncate(3));
    assert!(
        matches!(
            few,
            AnalyzeError::TooFewSteps {
                complete: 3,
                needed: 4
            }
        ),
        "{few}"
    );
    let missing = refused(|_, rows| {
        rows.ranks.remove(5);
    });
    let is_fifth = matches!(
        missing,
        AnalyzeError::MissingRanks {
            missing: 1,
            ranks: 8,
            first: 5
        }
    );
    assert!(is_fifth, "{missing}");
    let last = refused(|_, rows| rows.ranks.truncate(7));
    assert!(
        matches!(last, AnalyzeError::MissingRanks { first: 7, .. }),
        "{last}"
    );
    let timeless = refused(|manifest, _| {
        let baseline = SketchBaseline {
            even_step_ns: 0,
            class_step_ns: 1,
            lasting_step_ns: 1,
        };
        set_baseline(manifest, baseline);
    });
    assert!(
        matches!(timeless, AnalyzeError::TimelessSketch),
        "{timeless}"
    );
}

#[test]
fn rows_that_come_twice_count_once() {
    let (manifest, mut rows) = parts();
    let whole = analyzed(&manifest, rows.clone()).expect("an analysis");
    rows.steps.push(rows.steps[4]);
    rows.steps.swap(0, 9);
    rows.ranks.push(rows.ranks[2]);
    rows.ranks.swap(0, 5);
    let again = analyzed(&manifest, rows).expect("an analysis");
    assert_eq!(again.step_time, whole.step_time);
    assert_eq!(again.ranks, whole.ranks);
    let is_said = |it: &laggard_types::Caveat| it.message.contains("1 steps came twice");
    assert!(again.caveats.iter().any(is_said));
}

#[test]
fn an_impossible_step_of_equal_ranks_is_not_used() {
    let (mut manifest, rows) = parts();
    let Origin::Sketch(baseline) = manifest.origin.clone() else {
        unreachable!("a sketch was made")
    };
    let longer = SketchBaseline {
        even_step_ns: baseline.class_step_ns * 2,
        ..baseline
    };
    let whole = analyzed(&manifest, rows.clone()).expect("an analysis");
    set_baseline(&mut manifest, longer);
    let analysis = analyzed(&manifest, rows).expect("an analysis");
    assert_eq!(analysis.penalty, whole.penalty);
    assert!(crate::share(&analysis, Level::Generation).abs() < 1e-15);
    let is_said = |it: &laggard_types::Caveat| it.message.contains("which cannot be");
    assert!(analysis.caveats.iter().any(is_said));
}

#[test]
fn operations_of_a_sketch_are_not_known() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (manifest, rows) = parts();
    let record = written(&dir.path().join("record"), &manifest, rows);
    let error = operation_times(&record).expect_err("a refusal");
    assert!(matches!(error, AnalyzeError::Sketch), "{error}");
}
