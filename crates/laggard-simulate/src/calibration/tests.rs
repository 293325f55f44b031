use super::*;
use crate::error::SimulateError;
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
        place: (members, false),
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
fn far_beyond_what_was_seen_another_kind_stands_in() {
    let gather = OperationKind::Collective(Collective::AllGather);
    let reduce = OperationKind::Collective(Collective::AllReduce);
    let at = |kind, bytes| operation(kind, Phase::Forward, 0.0, bytes);
    // All but a small gather takes 1 ns a byte on the wire.
    let wire = |bytes: u64| 1e-9 * bytes as f64;
    let calibration = fit(&[
        (at(gather, 1000), 2, 1e-4),
        (at(gather, 2000), 2, 1e-4),
        (at(reduce, 1 << 20), 2, wire(1 << 20)),
        (at(reduce, 1 << 24), 2, wire(1 << 24)),
    ]);
    let seconds = |bytes| {
        let usual = calibration.seconds("a", &at(gather, bytes), (2, false), 0.5);
        usual.expect("a cost")
    };
    assert!((seconds(4000) - 1e-4).abs() < 1e-12, "{}", seconds(4000));
    let halved = wire(1 << 24) / 2.0;
    let large = seconds(1 << 24);
    assert!(large > 0.8 * halved && large < 1.2 * halved, "{large}");
}

#[test]
fn sizes_that_grow_together_are_one() {
    let kind = OperationKind::Collective(Collective::AllGather);
    // Whatever the unit of time is: FLOP are three times the bytes in all that was seen.
    for second in [1e-9, 1e9] {
        let seen: Vec<_> = (1..9_u32)
            .map(|at| {
                let bytes = 1000 * u64::from(at * at) + 7;
                let flop = 3.0 * bytes as f64;
                let operation = operation(kind, Phase::Forward, flop, bytes);
                (operation, 2, second * (1.0 + flop * 1e-3))
            })
            .collect();
        let calibration = fit(&seen);
        let line = calibration.classes[0].costs[0].line;
        let slopes = [line.per_flop_s, line.per_byte_s];
        assert_eq!(slopes.iter().filter(|it| **it > 0.0).count(), 1, "{line:?}");
        assert!(line.relative_error < 1e-9, "{line:?}");
    }
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

#[test]
fn a_schedule_is_predicted_by_what_its_operations_cost() {
    use laggard_schedule::{LayerWork, Layout, ModelWork, PartWork, generate};
    let part = PartWork {
        part: Part::FeedForward,
        forward_flop: 1e6,
        forward_attention_flop: 0.0,
        parameters: 1 << 10,
    };
    let layer = |index: u32| LayerWork {
        name: format!("layer {index}"),
        parts: vec![part],
    };
    let work = ModelWork {
        layers: (0..3).map(layer).collect(),
        element_bytes: 4,
        stream_elements: 64,
        key_value_elements: 64,
        experts_per_token: 1,
    };
    let one = generate(&Layout::data_parallel(1, 1), &work).expect("a schedule");
    let cost = |operation: &Operation| match operation.kind {
        OperationKind::Host => 1e-4,
        _ => 1e-9 * operation.flop + 1e-9 * operation.bytes as f64,
    };
    let seen: Vec<_> = one
        .operations
        .iter()
        .map(|it| (it.clone(), 1, cost(it)))
        .collect();
    let calibration = fit(&seen);
    // Twice the micro-batches: forward and backward of three layers twice, the rest as before.
    let two = generate(&Layout::data_parallel(1, 2), &work).expect("a schedule");
    let expected: f64 = two.operations.iter().map(cost).sum();
    let step = calibration.predict(&two, |_| "a", (3, 1)).expect("a step");
    assert!(
        (step.calm_s / expected - 1.0).abs() < 1e-9,
        "{step:?} {expected}"
    );
    assert!(
        (step.median_s / expected - 1.0).abs() < 1e-9,
        "{step:?} {expected}"
    );
    let meets = generate(&Layout::data_parallel(2, 1), &work).expect("a schedule");
    let refused = calibration.predict(&meets, |_| "a", (1, 1));
    assert!(matches!(refused, Err(SimulateError::NotCalibrated { .. })));
}
