//! What `plan_peers` measured, held: plans no worse than the best peer's, and the errors of
//! predicted steps.

use super::amp::{AmpCluster, trials};
use super::errors::{Errors, pick};
use super::mixed::{Lab, measured};
use super::problems::PROBLEMS;
use super::profiles::directory;
use super::published::{Said, belongs, said};
use laggard_plan::fastest_pipeline;
use laggard_specs::published_training;
use std::path::PathBuf;

/// Sailor's profiles under `LAGGARD_TRACES`. Without them a test that needs them says so and is
/// passed over, unless `LAGGARD_REQUIRE` holds `traces`.
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn profiles() -> Option<PathBuf> {
    let found = directory();
    let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
    if found.is_none() {
        assert!(
            !required.contains("traces"),
            "LAGGARD_REQUIRE asks for LAGGARD_TRACES"
        );
        eprintln!("skipped: set LAGGARD_TRACES to the directory of real traces to run this test");
    }
    found
}

#[test]
fn plans_are_as_good_as_the_best_peers() {
    let Some(directory) = profiles() else { return };
    for problem in PROBLEMS {
        let classes = problem.classes(&directory).expect("profiles");
        let costs = problem.costs(classes).expect("costs");
        let found = fastest_pipeline(&costs).expect("a plan");
        let step = costs
            .simulated_seconds(&found.best)
            .expect("a plan that fits");
        let plan = costs.describe(&found.best);
        let (devices, peer) = (problem.devices, problem.best_peer_s);
        // The peer's step is known to two or three digits after the point.
        assert!(
            step < peer + 0.005,
            "{devices:?}: {step} s, {peer} s is known: {plan}"
        );
        // The search takes the simulator's rules, but for stages of several classes the worst pair.
        let off = found.best.seconds / step - 1.0;
        assert!(
            (-0.002..0.05).contains(&off),
            "{devices:?}: {off} off: {plan}"
        );
        assert!(found.bound_seconds <= step * 1.002, "{devices:?}: {plan}");
    }
}

#[test]
fn steps_on_mixed_gpus_are_as_predicted() {
    let Some(directory) = profiles() else { return };
    let lab = Lab::read(&directory).expect("profiles");
    let steps = measured().expect("measured steps");
    let (mut own, mut sailor, mut earlier) =
        (Errors::default(), Errors::default(), Errors::default());
    for step in &steps {
        let predicted = lab.predict(step).expect("a prediction").seconds;
        if step.set == "eight" {
            own.add(predicted, step.seconds);
            sailor.add(
                lab.sailor_seconds(step).expect("a prediction"),
                step.seconds,
            );
        } else {
            earlier.add(predicted, step.seconds);
        }
    }
    assert!(own.mean_size() < 0.08 && own.bias().abs() < 0.05, "{own}");
    assert!(
        earlier.mean_size() < 0.03 && earlier.bias().abs() < 0.03,
        "{earlier}"
    );
    // The simulator itself, with its own profiles and links, is 10.0 % off here, 9.2 % too fast.
    assert!((sailor.mean_size() - 0.10).abs() < 0.002, "{sailor}");
    assert!((sailor.bias() + 0.092).abs() < 0.001, "{sailor}");
}

#[test]
fn trials_of_amp_are_as_predicted() {
    let cluster = AmpCluster::new().expect("a cluster");
    let (mut own, mut pairs) = (Errors::default(), Vec::new());
    let trials = trials().expect("trials");
    assert_eq!(trials.len(), 53);
    for trial in &trials {
        let Some(seconds) = trial.seconds else {
            continue;
        };
        let predicted = cluster.predict(trial);
        own.add(predicted, seconds);
        pairs.push((predicted, seconds));
    }
    assert_eq!(pairs.len(), 43);
    assert!(own.mean_size() < 0.25, "{own}");
    let pick = pick(&pairs);
    assert!(pick.regret < 0.05, "{pick}");
}

/// Every published row of mixed training is spoken of; of those with an MFU, a faster network never
/// makes less of it.
#[test]
fn every_published_row_of_mixed_training_is_spoken_of() {
    let rows = laggard_specs::rows(published_training()).expect("the rows");
    let mut predicted = Vec::new();
    for row in rows.iter().filter(|row| belongs(row)) {
        if let Said::Between {
            predicted: [slow, fast],
            ..
        } = said(row).expect(&row.row_id)
        {
            assert!(
                0.0 < slow && slow <= fast && fast < 100.0,
                "{}: {slow} {fast}",
                row.row_id
            );
            predicted.push(row.row_id.as_str());
        }
    }
    let expect = [
        "HEXISCALE-001",
        "HEXISCALE-003",
        "HEXISCALE-006",
        "HEXISCALE-007",
    ];
    assert_eq!(predicted, expect);
}
