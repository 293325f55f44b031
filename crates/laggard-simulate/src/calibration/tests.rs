use super::*;
use laggard_schedule::Stream;

fn operation(kind: OperationKind, phase: Phase, flop: f64, bytes: u64) -> Operation {
    Operation {
        flop,
        bytes,
        ..Operation::new("it".to_owned(), kind, phase, Stream::Compute)
    }
}

fn fit(seen: &[(Operation, u32, f64)]) -> Calibration {
    let observation = |(operation, members, seconds)| Observation {
        class: "a",
        operation,
        members,
        head: false,
        seconds,
        ratios: &[],
    };
    let all: Vec<Observation<'_>> = seen
        .iter()
        .map(|(operation, members, seconds)| observation((operation, *members, *seconds)))
        .collect();
    Calibration::fit(&all)
}

#[test]
fn a_line_is_found_again() {
    let kind = OperationKind::Collective(Collective::AllReduce);
    let cost = |bytes: u64, members: u32| {
        let wire = bytes as f64 * 2.0 * f64::from(members - 1) / f64::from(members);
        2e-5 + 1e-6 * f64::from(members - 1) + 1e-10 * wire
    };
    let at = |bytes, members| {
        let operation = operation(kind, Phase::GradientReduce, 0.0, bytes);
        (operation, members, cost(bytes, members))
    };
    let calibration = fit(&[at(1000, 2), at(1 << 20, 2), at(1 << 22, 4), at(1 << 10, 8)]);
    let unseen = operation(kind, Phase::Backward, 0.0, 1 << 24);
    let seconds = calibration
        .seconds("a", &unseen, (6, false), 0.5)
        .expect("a cost");
    assert!((seconds / cost(1 << 24, 6) - 1.0).abs() < 1e-9);
    assert_eq!(calibration.seconds("b", &unseen, (6, false), 0.5), None);
}

#[test]
fn one_size_is_taken_as_proportional_and_wider_kinds_stand_in() {
    let compute = |phase, flop| operation(OperationKind::Compute, phase, flop, 0);
    let mut of_head = compute(Phase::Forward, 5e6);
    of_head.parts = vec![Part::Head];
    let calibration = fit(&[
        (compute(Phase::Forward, 1e6), 1, 1e-3),
        (compute(Phase::Backward, 2e6), 1, 4e-3),
        (
            operation(OperationKind::Compute, Phase::Optimizer, 0.0, 1000),
            1,
            2e-3,
        ),
    ]);
    let seconds = |operation| {
        calibration
            .seconds("a", &operation, (1, false), 0.5)
            .expect("a cost")
    };
    assert!((seconds(compute(Phase::Forward, 3e6)) - 3e-3).abs() < 1e-12);
    // Not these parts, but this phase.
    assert!((seconds(of_head) - 5e-3).abs() < 1e-12);
    // The phase was not seen; both others were, and neither has a cost of its own beside FLOP.
    let recompute = seconds(compute(Phase::Recompute, 1e6));
    assert!(recompute > 0.9e-3 && recompute < 2.1e-3, "{recompute}");
    let update = operation(OperationKind::Compute, Phase::Optimizer, 0.0, 500);
    assert!((seconds(update) - 1e-3).abs() < 1e-12);
}

#[test]
fn costs_are_never_negative() {
    // Longer for less: no line with a slope fits, the mean is what remains.
    let compute = |flop| operation(OperationKind::Compute, Phase::Forward, flop, 0);
    let calibration = fit(&[(compute(1e6), 1, 2e-3), (compute(2e6), 1, 1e-3)]);
    let far = calibration
        .seconds("a", &compute(1e9), (1, false), 0.5)
        .expect("a cost");
    assert!(far > 0.9e-3 && far < 2.1e-3, "{far}");
}
