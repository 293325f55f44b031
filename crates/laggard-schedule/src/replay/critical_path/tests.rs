//! Closed forms of 1F1B, and what holds for every graph.

use super::*;
use crate::replay::Node;
use crate::replay::tests::model;
use crate::{Layout, Operation, Phase, Schedule, Stream, generate};
use proptest::prelude::*;

const FORWARD: f64 = 2.0;
const BACKWARD: f64 = 5.0;

struct Evaluated {
    schedule: Schedule,
    replay: Replay,
    own: Vec<f64>,
    times: Times,
}

impl Evaluated {
    fn new(text: &str, micro_batches: u32, of: impl Fn(&Node, &Operation) -> f64) -> Self {
        let layout = Layout::parse(text).expect("readable");
        let layout = Layout {
            micro_batches: vec![micro_batches; layout.data_parallel as usize],
            ..layout
        };
        // A layer for every piece.
        let schedule = generate(&layout, &model(layout.pieces())).expect("a possible layout");
        let replay = Replay::new(&schedule).expect("a sound schedule");
        let of = |node: &Node| of(node, &schedule.operations[node.operation as usize]);
        let own: Vec<f64> = replay.nodes().iter().map(of).collect();
        let mut times = Times::default();
        let durations = Durations {
            lanes: 1,
            own: &own,
            delay: None,
        };
        replay.evaluate(durations, &mut times);
        Self {
            schedule,
            replay,
            own,
            times,
        }
    }

    /// Layers take their phase's time; the head and all else take none.
    fn pipeline(stages: u32, micro_batches: u32) -> Self {
        Self::new(&format!("dp1,pp{stages}"), micro_batches, |_, operation| {
            let of_layer = operation.kind == crate::OperationKind::Compute
                && operation.layer.is_some_and(|layer| layer < stages);
            match operation.phase {
                Phase::Forward if of_layer => FORWARD,
                Phase::Backward if of_layer => BACKWARD,
                _ => 0.0,
            }
        })
    }

    fn durations(&self) -> Durations<'_> {
        Durations {
            lanes: 1,
            own: &self.own,
            delay: None,
        }
    }

    fn path(&self) -> Vec<u32> {
        self.replay.critical_path(self.durations(), &self.times, 0)
    }

    fn slack(&self) -> Vec<f64> {
        self.replay.slack(self.durations(), &self.times, 0)
    }

    fn operation(&self, node: u32) -> &Operation {
        &self.schedule.operations[self.replay.nodes()[node as usize].operation as usize]
    }

    /// The node of a layer's pass.
    fn node(&self, layer: u32, phase: Phase, micro_batch: u32) -> usize {
        let nodes = 0..self.replay.nodes().len();
        let is_it = |node: &usize| {
            let operation = self.operation(*node as u32);
            (
                operation.layer,
                operation.phase,
                operation.micro_batch,
                operation.stream,
            ) == (Some(layer), phase, Some(micro_batch), Stream::Compute)
        };
        nodes.into_iter().find(is_it).expect("such a pass")
    }
}

const SHAPES: [(u32, u32); 6] = [(1, 3), (2, 2), (2, 7), (4, 4), (4, 9), (6, 12)];

/// 1F1B of equal stages takes m + p - 1 micro-batches (Narayanan et al. 2019, section 3.2): the
/// first forward goes down the stages, the last stage works without a pause, and the last backward
/// comes up.
#[test]
fn the_path_of_a_pipeline_goes_down_along_the_last_stage_and_up() {
    for (stages, micro_batches) in SHAPES {
        let step = Evaluated::pipeline(stages, micro_batches);
        let one = FORWARD + BACKWARD;
        let want = f64::from(micro_batches + stages - 1) * one;
        assert_eq!(step.times.finish[0], want, "pp{stages}");
        let path = step.path();
        let sum: f64 = path.iter().map(|node| step.own[*node as usize]).sum();
        assert_eq!(sum, want, "pp{stages}");
        let passes = path.iter().filter(|node| step.own[**node as usize] > 0.0);
        let count = passes.clone().count() as u32;
        assert_eq!(count, 2 * (micro_batches + stages - 1), "pp{stages}");
        let forward = passes.filter(|node| step.operation(**node).phase == Phase::Forward);
        assert_eq!(forward.count() as u32, micro_batches + stages - 1);
        for pair in path.windows(2) {
            let (end, start) = (step.times.end[pair[0] as usize], pair[1] as usize);
            assert_eq!(end, step.times.start[start], "pp{stages}: no gaps");
        }
    }
}

/// The last stage never waits. On the first, the k-th forward of those that fill the pipeline runs
/// k backwards ahead of its need.
#[test]
fn slack_of_a_pipeline() {
    for (stages, micro_batches) in SHAPES.into_iter().filter(|(p, m)| p < m) {
        let step = Evaluated::pipeline(stages, micro_batches);
        let slack = step.slack();
        for micro_batch in 0..micro_batches {
            for phase in [Phase::Forward, Phase::Backward] {
                let last = step.node(stages - 1, phase, micro_batch);
                assert_eq!(slack[last], 0.0, "pp{stages}: {phase:?} {micro_batch}");
            }
        }
        for micro_batch in 0..stages {
            let first = step.node(0, Phase::Forward, micro_batch);
            let want = f64::from(micro_batch) * BACKWARD;
            assert_eq!(slack[first], want, "pp{stages}: forward {micro_batch}");
        }
        let up = step.node(0, Phase::Backward, micro_batches - 1);
        assert_eq!(slack[up], 0.0, "pp{stages}: the last backward");
    }
}

#[test]
fn a_rank_with_time_to_spare_has_slack() {
    let step = Evaluated::new("dp3", 2, |node, operation| match operation.phase {
        Phase::Forward | Phase::Backward => 1.0 + f64::from(node.rank),
        _ => 0.0,
    });
    let slack = step.slack();
    // Four passes of the layer and four of the head, each a second shorter on the rank before.
    for (node, slack) in step.replay.nodes().iter().zip(slack) {
        let operation = &step.schedule.operations[node.operation as usize];
        let want = match operation.stream {
            Stream::Compute if operation.phase != Phase::Optimizer => {
                8.0 * f64::from(2 - node.rank)
            }
            _ => continue,
        };
        // Gradients of the head are reduced while the layer's backward goes on.
        assert_eq!(slack, want, "{} of rank {}", operation.name, node.rank);
    }
    let ranks: Vec<u32> = step
        .path()
        .iter()
        .map(|node| step.replay.nodes()[*node as usize].rank)
        .collect();
    assert!(
        ranks[..ranks.len() - 1].iter().all(|rank| *rank == 2),
        "{ranks:?}"
    );
}

#[test]
fn delays_are_part_of_the_path() {
    let step = Evaluated::new("dp2", 1, |_, _| 1.0);
    let delay: Vec<f64> = (0..step.own.len())
        .map(|node| node as f64 * 0.125)
        .collect();
    let durations = Durations {
        delay: Some(&delay),
        ..step.durations()
    };
    let mut times = Times::default();
    step.replay.evaluate(durations, &mut times);
    let path = step.replay.critical_path(durations, &times, 0);
    for pair in path.windows(2) {
        assert!(times.end[pair[0] as usize] <= times.start[pair[1] as usize]);
    }
    let slack = step.replay.slack(durations, &times, 0);
    assert!(path.iter().all(|node| slack[*node as usize] == 0.0));
}

#[test]
fn a_rank_alone_is_exact_in_plain_data_parallelism_only() {
    let exact = |text: &str| Evaluated::new(text, 2, |_, _| 1.0).replay.is_exact_alone();
    assert!(exact("dp1") && exact("dp4"));
    for text in [
        "dp4,zero1",
        "dp4,zero3",
        "dp2,tp2",
        "dp1,pp2",
        "dp2,pp2",
        "dp2,cp2",
    ] {
        assert!(!exact(text), "{text}");
    }
}

proptest! {
    /// Lengthening a node by its slack leaves the step as long as it is, and by more lengthens it
    /// by the rest.
    #[test]
    fn slack_is_what_a_node_can_take(
        layout in prop::sample::select(vec![
            "dp2,pp2", "dp1,pp4", "dp1,pp2,vp2", "dp2,tp2,pp2,zero1",
        ]),
        seed in any::<u64>(),
        more in 0.5f64..2.0,
    ) {
        let mut state = seed | 1;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 / f64::from(1 << 24)
        };
        let drawn: Vec<f64> = (0..4096).map(|_| draw()).collect();
        let step = Evaluated::new(layout, 4, |node, operation| {
            let at = node.rank as usize * 991 + node.operation as usize;
            if operation.kind.meets() { 0.1 } else { drawn[at % drawn.len()] }
        });
        let slack = step.slack();
        let length = step.times.finish[0];
        let sum: f64 = step.path().iter().map(|node| step.own[*node as usize]).sum();
        prop_assert!((sum - length).abs() < 1e-9);
        let count = step.own.len();
        for node in (0..count).step_by(count / 16 + 1) {
            for (extra, want) in [(slack[node], length), (slack[node] + more, length + more)] {
                let mut own = step.own.clone();
                own[node] += extra;
                let mut times = Times::default();
                step.replay.evaluate(Durations { lanes: 1, own: &own, delay: None }, &mut times);
                prop_assert!((times.finish[0] - want).abs() < 1e-9);
            }
        }
    }
}
