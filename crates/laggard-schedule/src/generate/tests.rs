//! What is known of these layouts in closed form must hold exactly.

use super::*;
use crate::{LayerWork, Operation, OperationKind, PartWork, Phase, Replay, Stream};
use laggard_types::Collective;

/// A model whose layers have 24 forward FLOP and 48 parameters each; the head has none of either.
fn model(layers: u32, experts: bool) -> ModelWork {
    let part = |part, forward_flop, parameters| PartWork {
        part,
        forward_flop,
        forward_attention_flop: 0.0,
        parameters,
    };
    let layer = |index: u32| LayerWork {
        name: format!("layer {index}"),
        parts: match experts {
            false => vec![
                part(Part::Qkv, 6.0, 12),
                part(Part::Attention, 6.0, 12),
                part(Part::FeedForward, 12.0, 24),
            ],
            true => vec![
                part(Part::Qkv, 6.0, 12),
                part(Part::Attention, 6.0, 12),
                part(Part::Dispatch, 0.0, 0),
                part(Part::Experts, 12.0, 24),
                part(Part::Combine, 0.0, 0),
            ],
        },
    };
    let head = LayerWork {
        name: "head".to_owned(),
        parts: vec![part(Part::Head, 0.0, 0)],
    };
    ModelWork {
        layers: (0..layers).map(layer).chain([head]).collect(),
        element_bytes: 4,
        stream_elements: 96,
        key_value_elements: 48,
        experts_per_token: 2,
    }
}

fn layout(text: &str, micro_batches: u32) -> Layout {
    let layout = Layout::parse(text).expect("readable");
    Layout {
        micro_batches: vec![micro_batches; layout.data_parallel as usize],
        bucket_bytes: 200,
        ..layout
    }
}

fn made(text: &str, micro_batches: u32, model: &ModelWork) -> Schedule {
    generate(&layout(text, micro_batches), model).expect(text)
}

/// Length of a step in which computing takes one second per FLOP and all else no time.
fn length(schedule: &Schedule) -> f64 {
    let replay = Replay::new(schedule).expect("a step that ends");
    let flop = |node: &crate::Node| schedule.operations[node.operation as usize].flop;
    let own: Vec<f64> = replay.nodes().iter().map(flop).collect();
    crate::replay::tests::length(&replay, &own)
}

fn count(schedule: &Schedule, rank: u32, what: impl Fn(&Operation) -> bool) -> usize {
    let operations = schedule.program(rank).iter();
    operations
        .filter(|id| what(&schedule.operations[**id as usize]))
        .count()
}

fn bytes(schedule: &Schedule, rank: u32, collective: Collective) -> u64 {
    let operations = schedule.program(rank).iter();
    let operations = operations.map(|id| &schedule.operations[*id as usize]);
    let kind = OperationKind::Collective(collective);
    let wanted =
        operations.filter(|operation| operation.kind == kind && operation.bucket.is_some());
    wanted.map(|operation| operation.bytes).sum()
}

/// Narayanan et al. 2021, section 2.2: equal stages idle for p - 1 micro-batches in m, and for
/// 1/v of that with v pieces each.
#[test]
fn bubbles_are_those_of_the_papers() {
    let model = model(24, false);
    let per_layer = 3.0 * 24.0;
    for (stages, micro_batches) in [(1, 3), (2, 2), (4, 4), (4, 9), (6, 12), (8, 3)] {
        let step = length(&made(&format!("dp1,pp{stages}"), micro_batches, &model));
        let one = 24.0 / f64::from(stages) * per_layer;
        assert_eq!(
            step,
            f64::from(micro_batches + stages - 1) * one,
            "pp{stages}"
        );
    }
    for (stages, pieces, micro_batches) in [(2, 2, 4), (4, 2, 8), (4, 3, 4), (2, 6, 2), (6, 2, 12)]
    {
        let text = format!("dp1,pp{stages},vp{pieces}");
        let step = length(&made(&text, micro_batches, &model));
        let one = 24.0 / f64::from(stages) * per_layer;
        let bubble = f64::from(stages - 1) * one / f64::from(pieces);
        assert_eq!(step, f64::from(micro_batches) * one + bubble, "{text}");
    }
}

/// Rajbhandari et al. 2020, section 7: stages 1 and 2 move what plain data parallelism moves, a
/// reduce-scatter and an all-gather; stage 3 gathers once more.
#[test]
fn zero_moves_the_bytes_of_the_paper() {
    let model = model(5, false);
    let all = 5 * 48 * 4;
    let moved = |text, micro_batches| {
        let schedule = made(text, micro_batches, &model);
        let of = |collective| bytes(&schedule, 0, collective);
        (
            of(Collective::AllReduce),
            of(Collective::ReduceScatter),
            of(Collective::AllGather),
        )
    };
    assert_eq!(moved("dp4", 3), (all, 0, 0));
    assert_eq!(moved("dp4,zero1", 3), (0, all, all));
    assert_eq!(moved("dp4,zero2", 1), (0, all, all));
    assert_eq!(moved("dp4,zero2", 3), (0, 3 * all, all));
    assert_eq!(moved("dp4,zero3", 1), (0, all, 2 * all));
    assert_eq!(moved("dp4,zero3", 3), (0, 3 * all, 6 * all));
    assert_eq!(moved("dp2,tp2,zero1", 1), (0, all / 2, all / 2));
    assert_eq!(moved("dp1,zero3", 1), (0, 0, 0), "nobody to share with");
}

/// Shoeybi et al. 2019, section 3: two all-reduces forward and two backward per layer; Korthikanti
/// et al. 2022, section 4.2.2: a gather and a scatter for each, and inputs gathered once more.
#[test]
fn tensor_parallel_layers_meet_as_often_as_in_the_papers() {
    let model = model(3, false);
    let meetings = |text: &str, collective| {
        let schedule = made(text, 2, &model);
        count(&schedule, 1, |operation| {
            operation.kind == OperationKind::Collective(collective)
                && operation.stream == Stream::ModelCommunication
        })
    };
    let passes = 2 * 3;
    // The head's input gradient is reduced as well.
    assert_eq!(meetings("dp1,tp2", Collective::AllReduce), passes * 4 + 2);
    assert_eq!(
        meetings("dp1,tp2,recompute", Collective::AllReduce),
        passes * 6 + 2
    );
    // Of three layers one.
    assert_eq!(
        meetings("dp1,tp2,recompute1", Collective::AllReduce),
        passes * 4 + 2 * 2 + 2
    );
    assert_eq!(meetings("dp1,tp2,sp", Collective::AllReduce), 0);
    assert_eq!(
        meetings("dp1,tp2,sp", Collective::ReduceScatter),
        passes * 4 + 2
    );
    assert_eq!(
        meetings("dp1,tp2,sp", Collective::AllGather),
        passes * 6 + 4
    );
    assert_eq!(meetings("dp2,tp1", Collective::AllReduce), 0);
    let keys = |collective| meetings("dp1,cp2", collective);
    assert_eq!(
        keys(Collective::AllGather),
        passes,
        "keys and values, forward"
    );
    assert_eq!(
        keys(Collective::ReduceScatter),
        passes,
        "their gradients, backward"
    );
}

#[test]
fn experts_are_exchanged_and_reduced_apart() {
    let model = model(2, true);
    let schedule = made("dp4,ep2", 1, &model);
    let exchanges = count(&schedule, 0, |operation| {
        operation.kind == OperationKind::Collective(Collective::AllToAll)
    });
    assert_eq!(exchanges, 2 * 4, "two forward, two backward per layer");
    let axis = |name: &str| schedule.axes.iter().position(|axis| axis.name == name);
    let groups = |name: &str| &schedule.axes[axis(name).expect(name)].groups;
    assert_eq!(groups("ep"), &[vec![0, 1], vec![2, 3]]);
    assert_eq!(groups("expert dp"), &[vec![0, 2], vec![1, 3]]);
    let expert_axis = axis("expert dp").map(|axis| axis as u32);
    let reduced: u64 = schedule
        .operations
        .iter()
        .filter(|operation| operation.axis == expert_axis)
        .map(|operation| operation.bytes)
        .sum();
    assert_eq!(reduced, 2 * 24 * 4 / 2, "half of the experts on each rank");
    let none = generate(&layout("dp4,ep2", 1), &super::tests::model(2, false));
    assert!(none.is_err(), "a model without experts");
}

#[test]
fn every_layer_is_reduced_once_and_as_early_as_it_can_be() {
    let model = model(5, false);
    let layout = Layout {
        bucket_bytes: 2 * 48 * 4,
        ..layout("dp2", 3)
    };
    let schedule = generate(&layout, &model).expect("a possible layout");
    assert_eq!(schedule.programs.len(), 1, "equal ranks share a program");
    let names: Vec<_> = schedule
        .operations
        .iter()
        .map(|o| o.name.as_str())
        .collect();
    let at = |name: &str| names.iter().rposition(|n| *n == name).expect(name);
    assert_eq!(at("bucket 0 all_reduce"), at("layer 3 backward") + 1);
    assert_eq!(at("bucket 2 all_reduce"), at("layer 0 backward") + 1);
    assert_eq!(schedule.operations.last().map(|o| o.after.len()), Some(3));
    let total: f64 = schedule.operations.iter().map(|o| o.flop).sum();
    assert!((total - 3.0 * 5.0 * 72.0).abs() < 1e-9);
    let late = Layout {
        overlap: false,
        ..layout
    };
    let schedule = generate(&late, &model).expect("a possible layout");
    let phases: Vec<_> = schedule.operations.iter().map(|o| o.phase).collect();
    let first_reduce = phases.iter().position(|p| *p == Phase::GradientReduce);
    assert!(first_reduce > phases.iter().rposition(|p| *p == Phase::Backward));
}

#[test]
fn uneven_shares_get_programs_of_their_own() {
    let layout = Layout {
        micro_batches: vec![1, 3, 1],
        ..layout("dp3", 1)
    };
    let schedule = generate(&layout, &model(2, false)).expect("a possible layout");
    assert_eq!(schedule.program_of_rank, [0, 1, 0]);
    assert!(schedule.program(1).len() > schedule.program(0).len());
}

/// Every layout of up to 64 ranks can be evaluated, and each meeting has all of its members.
#[test]
fn all_meet_in_any_layout() {
    let mut tried = 0;
    for text in layouts() {
        for micro_batches in [1, 2, 4, 8] {
            let layout = layout(&text, micro_batches);
            let model = model(12, layout.expert_parallel > 1);
            let Ok(schedule) = generate(&layout, &model) else {
                continue;
            };
            tried += 1;
            let replay = Replay::new(&schedule).expect(&text);
            for members in replay.meetings() {
                let node = |node: &u32| replay.nodes()[*node as usize];
                let operation = |n: &u32| &schedule.operations[node(n).operation as usize];
                let first = operation(&members[0]);
                let group = schedule
                    .group(first.axis.expect("an axis"), node(&members[0]).rank)
                    .expect("a group");
                match first.kind {
                    OperationKind::Collective(_) => {
                        assert_eq!(members.len(), group.len(), "{text}")
                    }
                    _ => assert_eq!(members.len(), 2, "{text}: {}", first.name),
                }
                for member in members {
                    assert_eq!(operation(member).bytes, first.bytes, "{text}");
                }
            }
        }
    }
    assert!(tried > 500, "{tried}");
}

fn layouts() -> Vec<String> {
    let mut list = Vec::new();
    for degrees in ["dp1", "dp2", "dp4"] {
        for tensor in ["", ",tp2", ",tp2,sp"] {
            for pipeline in ["", ",pp2", ",pp4", ",pp2,vp2", ",pp4,vp3"] {
                for rest in ["", ",cp2", ",ep2", ",cp2,ep2"] {
                    for zero in [
                        "",
                        ",zero1",
                        ",zero2",
                        ",zero3",
                        ",zero3,recompute",
                        ",recompute1",
                    ] {
                        list.push(format!("{degrees}{tensor}{pipeline}{rest}{zero}"));
                    }
                }
            }
        }
    }
    list
}
