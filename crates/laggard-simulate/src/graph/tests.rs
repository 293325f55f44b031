//! The graph against the closed form, against itself without symmetry, and as a record's rows.

use super::closed_form::{EvenPipeline, EvenStep, Reduction};
use super::*;
use laggard_schedule::{
    LayerWork, Layout, ModelWork, OperationKind, Part, PartWork, Phase, Recompute, Stream, Zero,
    generate,
};
use proptest::prelude::*;

/// Layers of one part each, and a head.
fn model(layers: u32, experts: bool) -> ModelWork {
    let part = |part| PartWork {
        part,
        forward_flop: 1.0,
        forward_attention_flop: 0.0,
        parameters: 1 << 16,
    };
    let parts = match experts {
        true => vec![
            part(Part::Qkv),
            part(Part::Attention),
            part(Part::Dispatch),
            part(Part::Experts),
            part(Part::Combine),
        ],
        false => vec![
            part(Part::Qkv),
            part(Part::Attention),
            part(Part::FeedForward),
        ],
    };
    let layer = |index: u32| LayerWork {
        name: format!("layer {index}"),
        parts: if index == layers {
            vec![part(Part::Head)]
        } else {
            parts.clone()
        },
    };
    ModelWork {
        layers: (0..=layers).map(layer).collect(),
        element_bytes: 2,
        stream_elements: 1 << 10,
        key_value_elements: 1 << 10,
        experts_per_token: 1,
    }
}

/// Durations of a world of equal ranks, seconds.
#[derive(Debug, Clone, Copy)]
struct Even {
    input: f64,
    compute: f64,
    transfer: f64,
    reduce: f64,
    norm: f64,
    optimizer: f64,
    gather: f64,
    layers: u32,
}

impl Even {
    fn seconds(&self, operation: &Operation) -> f64 {
        let head = operation.layer == Some(self.layers);
        match (operation.phase, operation.stream) {
            (Phase::Input, _) => self.input,
            (Phase::GradientReduce, _) => self.reduce,
            (Phase::ParameterGather, _) => self.gather,
            (Phase::GradientNorm, Stream::Compute) => self.norm,
            (Phase::GradientNorm, _) => self.norm / 2.0,
            (Phase::Optimizer, _) => self.optimizer,
            (Phase::PipelineTransfer, _) => 0.0,
            _ if head => 0.0,
            (Phase::Backward, Stream::Compute) => 2.0 * self.compute,
            (_, Stream::Compute) => self.compute,
            _ => self.transfer,
        }
    }

    /// The same by formula, with figures summed over the operations of the first stage.
    fn closed_form(&self, layout: &Layout, schedule: &Schedule) -> EvenStep {
        let list: Vec<&Operation> = schedule
            .program(0)
            .iter()
            .map(|id| &schedule.operations[*id as usize])
            .collect();
        let pass = |phases: &[Phase]| {
            let of = |operation: &&&Operation| {
                phases.contains(&operation.phase) && operation.micro_batch == Some(0)
            };
            let sum: f64 = list
                .iter()
                .filter(of)
                .map(|operation| self.seconds(operation))
                .sum();
            sum / f64::from(layout.virtual_stages)
        };
        // Seconds from the end of a pass's last kernel to the end of the pass.
        let mut after = 0.0;
        let mut reductions = Vec::new();
        for operation in list.iter().rev() {
            match operation.phase {
                Phase::GradientReduce => reductions.push(Reduction {
                    before_end_s: if layout.overlap { after } else { 0.0 },
                    seconds: self.reduce,
                }),
                Phase::Backward | Phase::Recompute => after += self.seconds(operation),
                _ => {}
            }
        }
        reductions.reverse();
        // The reduction waits for kernels, not for what is exchanged after them.
        let tail = list
            .iter()
            .rev()
            .find(|o| o.phase == Phase::Backward)
            .map_or(0.0, |o| {
                if o.stream == Stream::Compute {
                    0.0
                } else {
                    self.seconds(o)
                }
            });
        for reduction in &mut reductions {
            reduction.before_end_s += tail;
        }
        let norms = list.iter().filter(|o| o.phase == Phase::GradientNorm);
        EvenStep {
            input_s: self.input,
            pipeline: EvenPipeline {
                stages: layout.pipeline_parallel,
                chunks: layout.virtual_stages,
                micro_batches: layout.micro_batches[0],
                forward_s: pass(&[Phase::Forward]),
                backward_s: pass(&[Phase::Backward, Phase::Recompute]),
            },
            reductions,
            norm_s: norms.map(|o| self.seconds(o)).sum(),
            optimizer_s: self.optimizer,
            gather_s: list
                .iter()
                .filter(|o| o.phase == Phase::ParameterGather)
                .map(|o| self.seconds(o))
                .sum(),
        }
    }
}

fn layouts() -> impl Strategy<Value = (Layout, u32)> {
    let degrees = (1..4_u32, 1..3_u32, 1..5_u32, 1..4_u32);
    let modes = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (degrees, modes, 1..4_u32, 1..5_u32).prop_map(|((dp, tp, pp, vp), modes, layers, mb)| {
        let (overlap, zero, sequence, recompute) = modes;
        let vp = if pp == 1 { 1 } else { vp };
        let micro_batches = if vp > 1 { mb * pp } else { mb };
        let layout = Layout {
            tensor_parallel: tp,
            pipeline_parallel: pp,
            virtual_stages: vp,
            // Chunks that are done early reduce at times that the formula does not know.
            overlap: overlap && vp == 1,
            zero: if zero { Zero::Optimizer } else { Zero::None },
            sequence_parallel: sequence && tp > 1,
            recompute: if recompute {
                Recompute::Layers
            } else {
                Recompute::None
            },
            ..Layout::data_parallel(dp, micro_batches)
        };
        let layers = layers * layout.pieces();
        (layout, layers)
    })
}

fn times() -> impl Strategy<Value = Even> {
    (proptest::array::uniform7(0.0..1.0_f64), 0.0..3.0_f64).prop_map(|(t, reduce)| Even {
        input: t[0],
        compute: t[1],
        transfer: t[2],
        reduce,
        norm: t[4],
        optimizer: t[5],
        gather: t[6],
        layers: 0,
    })
}

proptest! {
    #[test]
    fn agrees_with_the_closed_form((layout, layers) in layouts(), even in times()) {
        let even = Even { layers, ..even };
        let schedule = generate(&layout, &model(layers, false)).expect("a possible layout");
        let graph = predict_step(&schedule, |_| 0, |operation, _| even.seconds(operation));
        let graph = graph.expect("a prediction");
        let formula = even.closed_form(&layout, &schedule).seconds();
        let error = (graph.step_s - formula).abs();
        prop_assert!(
            error <= 1e-9 * formula,
            "{layout}: graph {} s, formula {formula} s", graph.step_s
        );
        prop_assert_eq!(graph.evaluated as u32, layout.ranks_per_replica());
    }

    /// Whatever the durations of two kinds of replicas are, evaluating one of each kind is exact.
    #[test]
    fn symmetry_changes_nothing(
        (layout, layers) in layouts(),
        even in times(),
        extra in 0.0..1.0_f64,
        expert in any::<bool>(),
    ) {
        let expert = expert && layout.zero == Zero::None;
        let layout = Layout {
            data_parallel: 8,
            micro_batches: [vec![layout.micro_batches[0]; 8]].concat(),
            expert_parallel: if expert { 2 } else { 1 },
            ..layout
        };
        let schedule = generate(&layout, &model(layers, expert)).expect("a possible layout");
        let kind = |rank| u64::from(layout.coordinates(rank).data >= 6);
        let seconds = |operation: &Operation, rank| {
            let own = operation.kind == OperationKind::Compute && kind(rank) == 1;
            even.seconds(operation) + if own { extra } else { 0.0 }
        };
        let folded = predict_step(&schedule, kind, seconds).expect("a prediction");
        let whole = predict_step(&schedule, u64::from, seconds).expect("a prediction");
        prop_assert_eq!(whole.evaluated, schedule.world_size());
        let blocks = if expert { 2 } else { 1 } * layout.ranks_per_replica();
        prop_assert_eq!(folded.evaluated as u32, 2 * blocks);
        prop_assert!((folded.step_s - whole.step_s).abs() <= 1e-12 * whole.step_s);
        for (a, b) in folded.ranks.iter().zip(&whole.ranks) {
            prop_assert!((a.compute_s - b.compute_s).abs() < 1e-12);
            prop_assert!((a.idle_s - b.idle_s).abs() <= 1e-9 * whole.step_s);
        }
    }
}

#[test]
fn a_bubble_is_known_from_the_literature() {
    // Narayanan et al. 2021, section 2.2.1: the bubble is (p - 1)/m of the ideal time, and 1/v of
    // that with interleaving.
    let pipeline = EvenPipeline {
        stages: 4,
        chunks: 1,
        micro_batches: 8,
        forward_s: 1.0,
        backward_s: 2.0,
    };
    assert!((pipeline.seconds() - 24.0 * (1.0 + 3.0 / 8.0)).abs() < 1e-12);
    let interleaved = EvenPipeline {
        chunks: 2,
        forward_s: 0.5,
        backward_s: 1.0,
        ..pipeline
    };
    assert!((interleaved.seconds() - 24.0 * (1.0 + 3.0 / 16.0)).abs() < 1e-12);
    assert!((pipeline.bubble_share() - 3.0 / 11.0).abs() < 1e-12);
}

#[test]
fn a_world_too_large_for_a_graph_is_predicted_by_symmetry() {
    let layout = Layout {
        tensor_parallel: 8,
        pipeline_parallel: 4,
        ..Layout::data_parallel(6_875, 8)
    };
    let even = EVEN;
    let schedule = generate(&layout, &model(8, false)).expect("a possible layout");
    let even = Even { layers: 8, ..even };
    let graph = predict_step(&schedule, |_| 0, |operation, _| even.seconds(operation));
    let graph = graph.expect("a prediction");
    assert_eq!((graph.ranks.len(), graph.evaluated), (220_000, 32));
    let formula = even.closed_form(&layout, &schedule).seconds();
    assert!((graph.step_s - formula).abs() <= 1e-9 * formula);
    let refused = predict_step(&schedule, u64::from, |operation, _| even.seconds(operation));
    assert!(
        matches!(refused, Err(SimulateError::LargeGraph { .. })),
        "{refused:?}"
    );
}

const EVEN: Even = Even {
    input: 0.1,
    compute: 1.0,
    transfer: 0.25,
    reduce: 0.5,
    norm: 0.02,
    optimizer: 0.3,
    gather: 0.4,
    layers: 0,
};

#[test]
fn a_duration_that_is_no_time_is_refused() {
    let layout = Layout::data_parallel(2, 1);
    let schedule = generate(&layout, &model(1, false)).expect("a possible layout");
    for bad in [f64::NAN, -1.0, f64::INFINITY] {
        let refused = predict_step(&schedule, |_| 0, |_, _| bad);
        let message = refused.expect_err("no time").to_string();
        assert!(message.contains("`input` of rank 0"), "{message}");
    }
}

#[test]
fn rows_lie_on_one_clock() {
    let layout = Layout {
        tensor_parallel: 2,
        pipeline_parallel: 2,
        zero: Zero::Optimizer,
        ..Layout::data_parallel(2, 2)
    };
    let schedule = generate(&layout, &model(4, false)).expect("a possible layout");
    let even = Even { layers: 4, ..EVEN };
    let form = even.closed_form(&layout, &schedule);
    let mut timeline = PredictedTimeline::new(&schedule).expect("a schedule");
    let mut rows = Vec::new();
    for step in 0..3 {
        let slow = |operation: &Operation, rank: Rank| {
            let late = step == 1 && rank == 3 && operation.phase == Phase::Optimizer;
            even.seconds(operation) + if late { 7.0 } else { 0.0 }
        };
        rows.extend(timeline.step(slow).expect("durations"));
        // Nothing precedes the first step; the late update is waited for in the next.
        let extra = [-form.optimizer_s - form.gather_s, 0.0, 7.0][step];
        let expect = form.seconds() + extra;
        assert!(
            (timeline.step_seconds() - expect).abs() < 1e-9,
            "step {step}"
        );
    }
    rows.extend(timeline.finish());
    let per_step: usize = (0..8).map(|rank| schedule.program(rank).len()).sum();
    assert_eq!(rows.len(), 3 * per_step);
    for rank in 0..8 {
        let of_rank: Vec<_> = rows.iter().filter(|row| row.rank == rank).collect();
        assert!(of_rank.windows(2).all(|pair| pair[0].step <= pair[1].step));
        assert!(
            of_rank
                .iter()
                .all(|row| row.stamp.start_ns <= row.stamp.end_ns)
        );
    }
    let late = rows.iter().find(|row| {
        let phase = schedule.operations[row.operation as usize].phase;
        row.rank == 3 && row.step == 1 && phase == Phase::Optimizer
    });
    let stamp = late.expect("a row of the late update").stamp;
    assert_eq!(stamp.end_ns - stamp.start_ns, 7_300_000_000);
}
