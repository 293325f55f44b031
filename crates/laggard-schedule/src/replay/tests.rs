//! Closed forms that an evaluation must meet.

use super::*;
use crate::{LayerWork, Layout, ModelWork, Part, PartWork, Phase, Schedule, generate};
use proptest::prelude::*;

/// Equal layers of one part, and a head that is as one of them.
pub(super) fn model(layers: u32) -> ModelWork {
    let layer = |index: u32| LayerWork {
        name: format!("layer {index}"),
        parts: vec![PartWork {
            part: if index == layers {
                Part::Head
            } else {
                Part::FeedForward
            },
            forward_flop: 1.0,
            forward_attention_flop: 0.0,
            parameters: 1 << 18,
        }],
    };
    ModelWork {
        layers: (0..=layers).map(layer).collect(),
        element_bytes: 4,
        stream_elements: 64,
        key_value_elements: 64,
        experts_per_token: 1,
    }
}

/// A data-parallel step with a bucket for each of `layers`, the head being one.
fn schedule(replicas: u32, layers: u32) -> Schedule {
    let layout = Layout::data_parallel(replicas, 1);
    generate(&layout, &model(layers - 1)).expect("a possible layout")
}

/// Durations from a function of rank and operation.
fn durations(
    replay: &Replay,
    schedule: &Schedule,
    of: impl Fn(Rank, &crate::Operation) -> f64,
) -> Vec<f64> {
    let of = |node: &Node| of(node.rank, &schedule.operations[node.operation as usize]);
    replay.nodes().iter().map(of).collect()
}

/// When a step ends.
pub(crate) fn length(replay: &Replay, own: &[f64]) -> f64 {
    let mut times = Times::default();
    replay.evaluate(
        Durations {
            lanes: 1,
            own,
            delay: None,
        },
        &mut times,
    );
    times.finish[0]
}

#[test]
fn the_slowest_rank_sets_the_step_and_communication_hides_behind_backward() {
    let schedule = schedule(3, 4);
    let replay = Replay::new(&schedule).expect("a sound schedule");
    assert!(
        replay.is_cut(),
        "data parallelism is cut at its last bucket"
    );
    let cost = |transfer: f64| {
        durations(&replay, &schedule, |rank, operation| {
            match operation.phase {
                Phase::Forward => 1.0 + f64::from(rank),
                Phase::Backward => 2.0,
                Phase::GradientReduce => transfer,
                Phase::Optimizer => 0.5,
                _ => 0.25,
            }
        })
    };
    // Rank 2: 0.5 optimizer + 0.25 input + 4 x 3 forward + 4 x 2 backward; one bucket is exposed.
    let want = 0.5 + 0.25 + 12.0 + 8.0;
    assert!((length(&replay, &cost(0.125)) - (want + 0.125)).abs() < 1e-12);
    // Communication-bound: 4 buckets one after the other, the first ready after one backward.
    assert!((length(&replay, &cost(10.0)) - (0.5 + 0.25 + 12.0 + 2.0 + 40.0)).abs() < 1e-12);
}

#[test]
fn steps_of_every_layout_are_independent() {
    for text in [
        "dp2",
        "dp2,zero1",
        "dp2,zero2",
        "dp2,zero3",
        "dp1,tp2",
        "dp2,tp2,sp",
        "dp1,cp2",
        "dp4,ep2",
        "dp1,pp2",
        "dp2,tp2,cp2,pp2,vp2,sp,zero1,recompute",
    ] {
        let layout = Layout::parse(text).expect("readable");
        let micro_batches = vec![2; layout.data_parallel as usize];
        let layout = Layout {
            micro_batches,
            ..layout
        };
        let mut work = model(layout.pieces());
        if layout.expert_parallel > 1 {
            work.layers[0].parts[0].part = Part::Experts;
        }
        let schedule = generate(&layout, &work).expect("a possible layout");
        let replay = Replay::new(&schedule).expect("a sound schedule");
        assert!(replay.is_cut(), "{text}");
    }
}

#[test]
fn delays_count_before_the_meeting() {
    let schedule = schedule(2, 1);
    let replay = Replay::new(&schedule).expect("a sound schedule");
    let own = durations(&replay, &schedule, |_, _| 1.0);
    let delay = durations(&replay, &schedule, |rank, operation| {
        if operation.phase == Phase::GradientReduce && rank == 1 {
            3.0
        } else {
            0.0
        }
    });
    let mut times = Times::default();
    replay.evaluate(
        Durations {
            lanes: 1,
            own: &own,
            delay: Some(&delay),
        },
        &mut times,
    );
    // optimizer, input, forward, backward, then the delay, then the reduction.
    assert!((times.finish[0] - 8.0).abs() < 1e-12);
}

#[test]
fn a_circle_is_an_error() {
    let mut schedule = schedule(2, 1);
    let last = schedule.operations.len() as u32 - 1;
    schedule.operations[0].after.push(last);
    assert!(matches!(
        Replay::new(&schedule),
        Err(ReplayError::Circular { .. })
    ));
}

#[test]
fn dangling_references_are_errors() {
    let mut wrong_operation = schedule(2, 1);
    wrong_operation.programs[0].operations.push(99);
    assert!(matches!(
        Replay::new(&wrong_operation),
        Err(ReplayError::Dangling { .. })
    ));
    let mut wrong_axis = schedule(2, 1);
    for operation in &mut wrong_axis.operations {
        operation.axis = operation.axis.map(|_| 7);
    }
    assert!(matches!(
        Replay::new(&wrong_axis),
        Err(ReplayError::Dangling { .. })
    ));
    let mut wrong_rank = schedule(2, 1);
    wrong_rank.axes[0].groups[0].push(5);
    assert!(matches!(
        Replay::new(&wrong_rank),
        Err(ReplayError::Dangling { .. })
    ));
}

proptest! {
    /// In data parallelism the step is as long as the worst rank alone would make it, as long as
    /// the ranks differ in one segment only.
    #[test]
    fn the_worst_rank_alone_explains_the_step(
        costs in prop::collection::vec(0.1f64..10.0, 5),
        transfer in 0.0f64..3.0,
    ) {
        let schedule = schedule(5, 3);
        let replay = Replay::new(&schedule).expect("a sound schedule");
        let cheapest = costs.iter().copied().fold(f64::INFINITY, f64::min);
        let own = durations(&replay, &schedule, |rank, operation| match operation.phase {
            Phase::Forward | Phase::Backward => costs[rank as usize],
            Phase::GradientReduce => transfer,
            _ => 1.0,
        });
        let base = durations(&replay, &schedule, |_, operation| match operation.phase {
            Phase::Forward | Phase::Backward => cheapest,
            Phase::GradientReduce => transfer,
            _ => 1.0,
        });
        let mut times = Times::default();
        replay.evaluate(Durations { lanes: 1, own: &base, delay: None }, &mut times);
        let mut worst: f64 = 0.0;
        let mut finish = Vec::new();
        for rank in 0..5 {
            let nodes = replay.nodes_of_rank(rank);
            let alone: Vec<f64> = nodes.iter().map(|&node| own[node as usize]).collect();
            let durations = Durations { lanes: 1, own: &alone, delay: None };
            replay.evaluate_alone(rank, durations, &times, &mut finish);
            worst = worst.max(finish[0]);
        }
        prop_assert!((worst - length(&replay, &own)).abs() < 1e-9);
    }
}
