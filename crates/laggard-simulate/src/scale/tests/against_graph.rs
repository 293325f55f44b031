//! All ranks against the schedule's graph with the same draws.

use super::{lognormal, workload};
use crate::graph::PredictedTimeline;
use crate::scale::*;
use laggard_schedule::{
    LayerWork, Layout, ModelWork, Operation, OperationKind, Part, PartWork, Phase, Schedule,
    generate,
};
use proptest::prelude::*;

/// One layer for each piece, of which a part is computed and the others exchange.
fn schedule(layout: &Layout) -> Schedule {
    let part = |part| PartWork {
        part,
        forward_flop: 0.0,
        forward_attention_flop: 0.0,
        parameters: 64,
    };
    let parts = match layout.expert_parallel {
        1 => vec![part(Part::FeedForward)],
        _ => vec![
            part(Part::Dispatch),
            part(Part::Experts),
            part(Part::Combine),
        ],
    };
    let layers = layout.pieces();
    let layer = |index: u32| LayerWork {
        name: format!("layer {index}"),
        parts: if index == layers {
            vec![part(Part::Head)]
        } else {
            parts.clone()
        },
    };
    let work = ModelWork {
        layers: (0..=layers).map(layer).collect(),
        element_bytes: 2,
        stream_elements: 64,
        key_value_elements: 64,
        experts_per_token: 1,
    };
    generate(layout, &work).expect("a possible layout")
}

/// The draws of a workload, and what they make of each operation.
struct Drawn<'a> {
    workload: &'a ScaleWorkload,
    schedule: &'a Schedule,
    /// By rank and phase, then step.
    factors: Vec<[Vec<f64>; 3]>,
    pauses: Vec<Vec<f64>>,
}

impl<'a> Drawn<'a> {
    fn new(workload: &'a ScaleWorkload, schedule: &'a Schedule) -> Self {
        let noise = Noise::new(&workload.jitter, workload.seed).expect("a jitter");
        let steps = workload.steps as usize;
        let of_phase = |rank: Rank, phase| {
            let mut factors = vec![0.0; steps];
            noise.fill((rank, phase), 0, &mut { NoiseState::START }, &mut factors);
            let lasting = workload.factors()[rank as usize];
            factors
                .iter()
                .map(|factor| factor * lasting)
                .collect::<Vec<f64>>()
        };
        let phases = [
            DrawPhase::Forward,
            DrawPhase::Backward,
            DrawPhase::Optimizer,
        ];
        let ranks = 0..workload.ranks();
        let pause = |rank: Rank, step: u32| -> f64 {
            let of = |delay: &&Delay| delay.ranks.contains(&rank) && delay.steps.contains(&step);
            let known: f64 = workload
                .delays
                .iter()
                .filter(of)
                .map(|delay| delay.seconds)
                .sum();
            let random = workload.pauses.map_or(0.0, |pauses| {
                let key = noise.key(rank, DrawPhase::Pause);
                let draw = laggard_stats::splitmix64_at(key, u64::from(step)) as f64;
                if draw < pauses.probability * 2.0_f64.powi(64) {
                    pauses.seconds
                } else {
                    0.0
                }
            });
            known + random
        };
        Self {
            factors: ranks
                .clone()
                .map(|rank| phases.map(|phase| of_phase(rank, phase)))
                .collect(),
            pauses: ranks
                .map(|rank| (0..workload.steps).map(|step| pause(rank, step)).collect())
                .collect(),
            workload,
            schedule,
        }
    }

    /// Seconds in step `step`, whose update is the one that the step after it begins with.
    fn seconds(&self, operation: &Operation, rank: Rank, step: Option<usize>) -> f64 {
        let workload = self.workload;
        let times = &workload.stages[self.schedule.stage_of_rank[rank as usize] as usize];
        let factor = |phase: DrawPhase, step: usize| {
            let drawn = &self.factors[rank as usize][phase as usize];
            drawn.get(step).copied().unwrap_or(0.0)
        };
        // Where the whole world gathers parameters, the graph's step ends behind the gather.
        let layout = &workload.layout;
        let ends_with_gather = layout.zero == Zero::Optimizer
            && layout.tensor_parallel * layout.pipeline_parallel == 1;
        let next = match ends_with_gather {
            true => step.unwrap_or(0),
            false => step.map_or(0, |step| step + 1),
        };
        match operation.phase {
            Phase::Optimizer => {
                return times.optimizer_s * factor(DrawPhase::Optimizer, next);
            }
            Phase::ParameterGather => {
                let buckets = f64::from(workload.layout.virtual_stages);
                return times.gather_exposed_s / buckets;
            }
            _ => {}
        }
        let Some(step) = step else {
            return 0.0;
        };
        let share = 1.0 / f64::from(workload.layout.virtual_stages);
        let head = operation.layer == Some(workload.layout.pieces());
        let computed = match (operation.phase, workload.layout.expert_parallel) {
            (_, 1) => true,
            (Phase::Forward, _) => operation.parts.contains(&Part::Dispatch),
            _ => operation.parts.contains(&Part::Experts),
        };
        match (operation.phase, operation.kind) {
            (Phase::Input, _) => workload.input_s + self.pauses[rank as usize][step],
            (Phase::Forward, OperationKind::Compute) if computed && !head => {
                share * times.forward_s * factor(DrawPhase::Forward, step)
            }
            (Phase::Backward, OperationKind::Compute) if computed && !head => {
                share * times.backward_s * factor(DrawPhase::Backward, step)
            }
            (Phase::Forward, OperationKind::Collective(_)) if !head => match operation.parts[0] {
                // All in the last exchange of the pass.
                Part::FeedForward => share * times.forward_exposed_s,
                Part::Experts if workload.layout.tensor_parallel == 1 => {
                    share * times.forward_exposed_s / 2.0
                }
                Part::Combine => share * times.forward_exposed_s,
                _ => 0.0,
            },
            (Phase::Backward, OperationKind::Collective(_)) if !head => match operation.parts[0] {
                Part::Experts => share * times.backward_exposed_s / 2.0,
                _ => 0.0,
            },
            (Phase::PipelineTransfer, _) => workload.transfer_s,
            (Phase::GradientReduce, _) if self.is_last_reduction(operation, rank) => {
                times.reduce_exposed_s
            }
            (Phase::GradientNorm, OperationKind::Collective(_)) => workload.norm_s,
            _ => 0.0,
        }
    }

    fn is_last_reduction(&self, operation: &Operation, rank: Rank) -> bool {
        let program = self.schedule.program(rank).iter();
        let mut list = program.map(|id| &self.schedule.operations[*id as usize]);
        let last = list.rfind(|other| other.phase == Phase::GradientReduce);
        last.is_some_and(|last| std::ptr::eq(last, operation))
    }

    /// Lengths of steps by the graph.
    fn walls(&self) -> Vec<f64> {
        let mut timeline = PredictedTimeline::new(self.schedule).expect("a schedule");
        let mut step = |step| {
            let seconds = |operation: &Operation, rank| self.seconds(operation, rank, step);
            timeline.step(seconds).expect("durations");
            timeline.step_seconds()
        };
        step(None);
        (0..self.workload.steps as usize)
            .map(|at| step(Some(at)))
            .collect()
    }
}

/// Equal to the graph; where members of a stage share passes and transfers take time, members that
/// are early can begin a transfer early, so that only bounds are known.
fn check_against_graph(workload: &ScaleWorkload) {
    let layout = &workload.layout;
    let schedule = schedule(layout);
    let expect = Drawn::new(workload, &schedule).walls();
    let walls = |transfer_s| {
        let workload = ScaleWorkload {
            transfer_s,
            ..workload.clone()
        };
        let run = simulate_ranks(&workload).expect("a workload");
        run.steps
            .iter()
            .map(|step| step.wall_s)
            .collect::<Vec<f64>>()
    };
    let most = walls(workload.transfer_s);
    let least = match layout.tensor_parallel * layout.expert_parallel {
        1 => most.clone(),
        _ => walls(0.0),
    };
    for (step, expect) in expect.iter().enumerate() {
        assert!(
            least[step] <= expect * (1.0 + 1e-9) && expect * (1.0 - 1e-9) <= most[step],
            "{layout} {:?} step {step}: {} to {} s, the graph {expect} s",
            layout.micro_batches,
            least[step],
            most[step]
        );
    }
}

/// Degrees, and what is on: ZeRO-1, uneven micro-batches.
fn layouts() -> impl Strategy<Value = Layout> {
    let degrees = (1..5_u32, 1..3_u32, 1..5_u32, 1..4_u32, 1..3_u32);
    let modes = (any::<bool>(), any::<bool>());
    (degrees, modes, proptest::collection::vec(1..5_u32, 4))
        .prop_filter("one rank waits for nobody", |((dp, tp, pp, ..), ..)| {
            dp * tp * pp > 1
        })
        .prop_map(|((dp, tp, pp, vp, ep), (zero, uneven), shares)| {
            let vp = if pp == 1 { 1 } else { vp };
            let ep = if dp % 2 == 0 { ep } else { 1 };
            let group = if vp > 1 { pp } else { 1 };
            let share = |replica: usize| group * shares[if uneven { replica / 2 } else { 0 }];
            Layout {
                tensor_parallel: tp,
                pipeline_parallel: pp,
                virtual_stages: vp,
                expert_parallel: ep,
                zero: if zero && ep == 1 {
                    Zero::Optimizer
                } else {
                    Zero::None
                },
                micro_batches: (0..dp as usize).map(share).collect(),
                bucket_bytes: 1 << 40,
                ..Layout::data_parallel(dp, 1)
            }
        })
}

/// Times of a stage where everything takes as long as the layout has it.
fn stage_times(layout: &Layout, stage: u32, t: &[f64; 8]) -> StageTimes {
    let (tp, ep, dp) = (
        layout.tensor_parallel,
        layout.expert_parallel,
        layout.data_parallel,
    );
    let gathers = layout.zero == Zero::Optimizer && dp > 1;
    StageTimes {
        forward_s: 1.0 + 0.3 * f64::from(stage),
        backward_s: 1.0 + t[0] + 0.1 * f64::from(stage % 2),
        forward_exposed_s: if tp * ep > 1 { t[1] } else { 0.0 },
        backward_exposed_s: if ep > 1 { t[2] } else { 0.0 },
        reduce_exposed_s: if dp > 1 { t[3] } else { 0.0 },
        optimizer_s: 3.0 * t[4],
        gather_exposed_s: if gathers { t[5] } else { 0.0 },
    }
}

fn worlds() -> impl Strategy<Value = ScaleWorkload> {
    let numbers = proptest::array::uniform8(0.0..1.0_f64);
    let modes = (any::<bool>(), any::<bool>(), any::<u64>());
    (layouts(), numbers, modes).prop_map(|(layout, t, (correlated, paused, seed))| {
        let (ranks, pp) = (layout.world_size() as u32, layout.pipeline_parallel);
        let split = ranks > layout.data_parallel || layout.expert_parallel > 1;
        let has_norm = split || layout.zero == Zero::Optimizer;
        let slow = SlowRanks {
            ranks: 0..1,
            factor: 1.3,
        };
        let delay = Delay {
            ranks: 0..ranks.div_ceil(2),
            steps: 3..5,
            seconds: 4.0,
        };
        ScaleWorkload {
            stages: (0..pp)
                .map(|stage| stage_times(&layout, stage, &t))
                .collect(),
            transfer_s: if pp > 1 && t[6] > 0.3 { t[6] } else { 0.0 },
            norm_s: if has_norm { t[7] } else { 0.0 },
            class_factors: vec![1.0, 1.7],
            class_of_rank: (0..ranks).map(|rank| u16::from(rank % 3 == 2)).collect(),
            slow: vec![slow],
            jitter: lognormal(0.2, if correlated { 0.8 } else { 0.0 }),
            pauses: paused.then_some(Pauses {
                probability: 0.2,
                seconds: 2.0,
            }),
            delays: vec![delay],
            seed,
            ..workload(layout, 20)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn agrees_with_the_graph(workload in worlds()) {
        check_against_graph(&workload);
    }
}
