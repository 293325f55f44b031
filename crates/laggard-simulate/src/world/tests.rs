use super::*;
use crate::job::{Degrees, Frameworks, Machine, Precision, Shape};
use crate::network::FabricOptions;
use crate::scale::simulate_ranks;
use laggard_specs::{Cluster, Tables};
use laggard_types::BytesPerSecond;

struct Fixture {
    tables: Tables,
    constants: Constants,
    classes: Vec<ForecastClass>,
}

impl Fixture {
    fn new() -> Self {
        let tables = Tables::builtin().expect("tables");
        let cluster = Cluster::preset("colossus-1", &tables).expect("a cluster");
        Self {
            classes: ForecastClass::of_cluster(&cluster, &tables).expect("classes"),
            constants: Constants::builtin().expect("constants"),
            tables,
        }
    }

    fn world(&self, layout: &str, micro_batches: u32, counts: &[(usize, u64)]) -> World {
        let classes: Vec<_> = counts
            .iter()
            .map(|(at, n)| (&self.classes[*at], *n))
            .collect();
        self.world_of(layout, micro_batches, &classes)
    }

    fn world_of(
        &self,
        layout: &str,
        micro_batches: u32,
        classes: &[(&ForecastClass, u64)],
    ) -> World {
        let model = self.tables.model("llama3-8b").expect("a model");
        let layout = Layout::parse(layout).expect("a layout");
        let layout = Layout {
            micro_batches: vec![micro_batches; layout.data_parallel as usize],
            ..layout
        };
        let frameworks = Frameworks::builtin().expect("frameworks");
        let job = Job {
            shape: Shape::of(model),
            degrees: Degrees::of_layout(&layout, 1),
            sequence_length: 8192,
            precision: Precision::Half,
            software: frameworks
                .named("megatron-lm")
                .expect("a framework")
                .software,
        };
        World::new((&job, model), classes, &self.constants).expect("a world")
    }

    /// The first class with another network.
    fn with_network(&self, bytes_per_s: f64) -> ForecastClass {
        let class = &self.classes[0];
        let options = FabricOptions {
            scale_out_bandwidth: Some(BytesPerSecond(bytes_per_s)),
            ..FabricOptions::default()
        };
        let accelerator = self.tables.accelerator(&class.accelerator);
        let accelerator = accelerator.expect("an accelerator");
        ForecastClass {
            machine: Machine::new(accelerator, &options).expect("a machine"),
            ..class.clone()
        }
    }
}

fn calm(steps: u32) -> Variation {
    Variation {
        jitter: Jitter::NONE,
        steps,
        seed: 1,
    }
}

#[test]
fn graph_record_and_ranks_agree_where_nothing_varies() {
    let fixture = Fixture::new();
    for (layout, micro_batches) in [
        ("dp4", 1),
        ("dp2,tp4,sp", 2),
        ("pp4", 8),
        ("dp2,tp2,pp2", 4),
    ] {
        let world = fixture.world(layout, micro_batches, &[(0, 8)]);
        let step = world.step().expect("a step").step_s;
        // From one step's cut to the next in the record.
        let samples = world.samples(&calm(4)).expect("samples");
        let last = |step: u32| {
            let of_step = samples.iter().filter(|it| it.step == step);
            of_step.map(|it| it.stamp.end_ns).max().expect("a sample")
        };
        let between = (last(2) - last(1)) as f64 * 1e-9;
        assert!(
            (between / step - 1.0).abs() < 1e-6,
            "{layout}: {between} {step}"
        );
        let run = simulate_ranks(&world.workload(&calm(3)).expect("a workload")).expect("a run");
        let wall = run.steps[2].wall_s;
        // A pipeline's exposed reduction differs between its stages; the largest counts for all.
        assert!((wall / step - 1.0).abs() < 0.01, "{layout}: {wall} {step}");
    }
}

#[test]
fn a_slower_class_sets_the_pace_of_a_mixed_world() {
    let fixture = Fixture::new();
    let step = |counts: &[(usize, u64)]| {
        let world = fixture.world("dp8", 2, counts);
        let run = simulate_ranks(&world.workload(&calm(2)).expect("a workload")).expect("a run");
        (world.step().expect("a step").step_s, run.steps[1].wall_s)
    };
    let (h100, gb200, mixed) = (step(&[(0, 8)]), step(&[(2, 8)]), step(&[(0, 4), (2, 4)]));
    assert!((mixed.0 / h100.0 - 1.0).abs() < 0.02, "{mixed:?} {h100:?}");
    assert!((mixed.1 / h100.1 - 1.0).abs() < 0.02, "{mixed:?} {h100:?}");
    assert!(gb200.0 < 0.6 * h100.0, "{gb200:?} {h100:?}");
}

#[test]
fn a_large_world_is_made_without_a_graph_of_all_ranks() {
    let fixture = Fixture::new();
    let world = fixture.world(
        "dp6875,tp8,pp4",
        8,
        &[(0, 150_000), (1, 50_000), (2, 20_000)],
    );
    assert_eq!(world.class_of_rank.len(), 220_000);
    let workload = world.workload(&calm(1)).expect("a workload");
    assert!(
        workload.class_factors[0] > 1.6,
        "{:?}",
        workload.class_factors
    );
    assert!(
        workload
            .stages
            .iter()
            .all(|it| it.forward_s > 0.0 && it.optimizer_s > 0.0)
    );
}

/// Under ZeRO-3 every pass gathers its parameters: what nothing hides of that is in sketches too,
/// as often as there are micro-batches.
#[test]
fn sketches_have_gathers_of_sharded_parameters() {
    let fixture = Fixture::new();
    let slow = fixture.with_network(2e9);
    let step = |class: &ForecastClass, micro_batches| {
        let world = fixture.world_of("dp16,zero3", micro_batches, &[(class, 16)]);
        let run = simulate_ranks(&world.workload(&calm(2)).expect("a workload")).expect("a run");
        (world.step().expect("a step").step_s, run.steps[1].wall_s)
    };
    for micro_batches in [1, 4] {
        let (graph, sketch) = step(&slow, micro_batches);
        let (fast, _) = step(&fixture.classes[0], micro_batches);
        assert!(graph > 2.0 * fast, "most of it is exposed: {graph} {fast}");
        assert!(
            (sketch / graph - 1.0).abs() < 0.01,
            "{micro_batches}: {sketch} {graph}"
        );
    }
}

/// What is communicated takes as long as on the class whose step is longest, which need not be that
/// of the slowest kernels.
#[test]
fn the_class_of_the_longest_step_sets_what_is_communicated() {
    let fixture = Fixture::new();
    let slow_network = fixture.with_network(1e9);
    // H200 computes as fast as H100, but for its memory; A GB200 much faster.
    for class in [&fixture.classes[1], &fixture.classes[2]] {
        let exposed = |classes: &[(&ForecastClass, u64)]| {
            let world = fixture.world_of("dp32", 1, classes);
            let workload = world.workload(&calm(1)).expect("a workload");
            workload.stages[0].reduce_exposed_s
        };
        let alone = exposed(&[(&slow_network, 32)]);
        assert!(alone > 10.0 * exposed(&[(class, 32)]));
        for classes in [
            [(&slow_network, 16), (class, 16)],
            [(class, 16), (&slow_network, 16)],
        ] {
            assert!((exposed(&classes) / alone - 1.0).abs() < 1e-9);
        }
    }
    let faster_kernels = ForecastClass {
        machine: Machine {
            half_peak: 2.0 * slow_network.machine.half_peak,
            ..slow_network.machine.clone()
        },
        ..slow_network.clone()
    };
    let exposed = |classes: &[(&ForecastClass, u64)]| {
        let world = fixture.world_of("dp32", 1, classes);
        let workload = world.workload(&calm(1)).expect("a workload");
        workload.stages[0].reduce_exposed_s
    };
    let alone = exposed(&[(&faster_kernels, 32)]);
    let mixed = exposed(&[(&faster_kernels, 16), (&fixture.classes[0], 16)]);
    assert!((mixed / alone - 1.0).abs() < 1e-9, "{mixed} {alone}");
}

/// Layers that do not divide are cut as the closed form has them.
#[test]
fn uneven_stages_are_those_of_the_closed_form() {
    let fixture = Fixture::new();
    let layers_of = |layout: &str| {
        let world = fixture.world(layout, 8, &[(0, 24)]);
        let of_stage = |stage: u32| {
            let ranks = world.schedule.stage_of_rank.iter();
            let rank = ranks.take_while(|of| **of != stage).count();
            let program = world.schedule.program(rank as Rank).iter();
            let operations = program.map(|id| &world.schedule.operations[*id as usize]);
            let own = operations.filter(|it| it.kind == OperationKind::Compute);
            let layers: std::collections::BTreeSet<u32> = own.filter_map(|it| it.layer).collect();
            layers.into_iter().filter(|layer| *layer < 32).count()
        };
        (0..world.schedule.stages())
            .map(of_stage)
            .collect::<Vec<_>>()
    };
    assert_eq!(layers_of("pp3"), [11, 11, 10]);
    assert_eq!(layers_of("pp6"), [5, 5, 5, 6, 6, 5]);
    let of_17 = layers_of("pp17");
    assert_eq!((of_17[0], of_17[16]), (1, 1));
    assert!(of_17[1..16].iter().all(|layers| *layers == 2));
}
