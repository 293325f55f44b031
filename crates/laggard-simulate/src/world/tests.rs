use super::*;
use crate::job::{Frameworks, Precision, Shape};
use crate::scale::simulate_ranks;
use laggard_specs::{Cluster, Tables};

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
        let classes: Vec<_> = counts
            .iter()
            .map(|(at, n)| (&self.classes[*at], *n))
            .collect();
        World::new((&job, model), &classes, &self.constants).expect("a world")
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
