use super::*;
use crate::forecast::ForecastClass;
use crate::job::{Degrees, Frameworks, Machine, Precision, Shape};
use crate::network::{FabricOptions, Group};
use crate::world::World;
use laggard_schedule::{Operation, OperationKind, Phase, Stream};
use laggard_specs::{Recompute, Tables};

struct Case {
    job: Job,
    machine: Machine,
    constants: Constants,
}

fn case(model: &str, accelerator: &str, degrees: impl FnOnce(&mut Degrees)) -> Case {
    let tables = Tables::builtin().expect("tables");
    let frameworks = Frameworks::builtin().expect("frameworks");
    let accelerator = tables.accelerator(accelerator).expect("an accelerator");
    let mut job = Job {
        shape: Shape::of(tables.model(model).expect("a model")),
        degrees: Degrees {
            micro_batches: 8,
            ..Degrees::ONE
        },
        sequence_length: 4096,
        precision: Precision::Half,
        software: frameworks
            .named("megatron-lm")
            .expect("a framework")
            .software,
    };
    degrees(&mut job.degrees);
    Case {
        job,
        machine: Machine::new(accelerator, &FabricOptions::default()).expect("a machine"),
        constants: Constants::builtin().expect("constants"),
    }
}

impl Case {
    fn step(&self) -> StepTime {
        predict(&self.job, &self.machine, &self.constants)
    }
}

const H100: &str = "h100-sxm5-80gb";

#[test]
fn causes_sum_to_the_total() {
    let layouts: [fn(&mut Degrees); 4] = [
        |_| {},
        |degrees| (degrees.tensor, degrees.pipeline, degrees.data) = (8, 4, 2),
        |degrees| (degrees.zero, degrees.data) = (Zero::Parameters, 64),
        |degrees| (degrees.tensor, degrees.context, degrees.recompute) = (2, 4, Recompute::Layers),
    ];
    for (at, layout) in layouts.into_iter().enumerate() {
        let step = case("llama3-70b", H100, layout).step();
        assert!(
            (step.sum() - step.total_s).abs() < 1e-12 * step.total_s,
            "{at}"
        );
        for (cause, seconds) in step.causes() {
            assert!(
                seconds >= 0.0 && seconds.is_finite(),
                "{at}: {cause} {seconds}"
            );
        }
    }
}

/// A pipeline of equal stages without jitter idles for (p - 1) / v passes of a stage.
#[test]
fn the_bubble_is_that_of_the_schedule() {
    let bubble = |virtual_stages| {
        case("llama2-70b", H100, |degrees| {
            (degrees.tensor, degrees.pipeline) = (8, 4);
            (degrees.micro_batches, degrees.virtual_stages) = (32, virtual_stages);
        })
        .step()
        .bubble_s
    };
    let ratio = bubble(1) / bubble(4);
    assert!(ratio > 2.0 && ratio < 4.01, "{ratio}");
}

#[test]
fn more_work_and_slower_machines_take_longer() {
    let plain = case("llama3-8b", H100, |_| {}).step().total_s;
    let again = case("llama3-8b", H100, |one| one.recompute = Recompute::Layers);
    assert!(again.step().total_s > 1.2 * plain);
    let older = case("llama3-8b", "a100-sxm4-80gb", |_| {});
    assert!(older.step().total_s > 1.5 * plain);
    let mut narrow = case("llama3-8b", H100, |_| {});
    narrow.job.precision = Precision::Fp8;
    assert!(narrow.step().total_s < plain);
    let mut long = case("llama3-8b", H100, |_| {});
    long.job.sequence_length = 8192;
    assert!(
        long.step().total_s > 2.0 * plain,
        "attention grows faster than tokens"
    );
}

/// What does not depend on constants can be kept between evaluations.
#[test]
fn reusing_communication_changes_nothing() {
    let one = case("mixtral-8x7b", H100, |degrees| {
        (degrees.tensor, degrees.expert, degrees.data) = (2, 4, 16);
        degrees.zero = Zero::Optimizer;
    });
    let communication = Communication::of(&one.job, &one.machine);
    let reused = predict_with(&one.job, &one.machine, &one.constants, &communication);
    assert_eq!(reused, one.step());
    assert!(reused.expert_s > 0.0);
}

/// With two stages on each of eight hosts, seven of the fifteen transfers are between hosts, and
/// those set the pace.
#[test]
fn stages_that_share_hosts_still_wait_for_the_network() {
    let of = |data: u32, pipeline: u32| {
        let one = case("llama3-70b", H100, |degrees| {
            (degrees.tensor, degrees.data, degrees.pipeline) = (4, data, pipeline);
            degrees.micro_batches = 64;
        });
        Communication::of(&one.job, &one.machine)
    };
    let (on_one, on_eight, a_host_each) = (of(1, 2), of(1, 16), of(2, 8));
    assert!(on_eight.transfer_s > 2.0 * on_one.transfer_s);
    assert!((on_eight.transfer_s / a_host_each.transfer_s - 1.0).abs() < 1e-12);
    let expect = 7.0 * on_eight.transfer_s + 8.0 * on_one.transfer_s;
    assert!((on_eight.through_s / expect - 1.0).abs() < 1e-12);
    assert!((a_host_each.through_s / (7.0 * a_host_each.transfer_s) - 1.0).abs() < 1e-12);
}

/// The operations of a layer together take what the closed form says of it.
#[test]
fn operations_add_up_to_a_layer() {
    let one = case("llama3-8b", H100, |_| {});
    let costs = OperationCosts::of(&one.job, &one.machine, &one.constants, 2);
    let kernels = Kernelry {
        machine: &one.machine,
        constants: &one.constants,
        precision: one.job.precision,
    };
    let communication = Communication::of(&one.job, &one.machine);
    let layer = LayerTimes::of(&one.job, &kernels, &communication);
    let shape = &one.job.shape;
    let (tokens, length) = (4096.0, 4096.0);
    let parameters = shape.attention_parameters() + shape.dense_ffn_parameters();
    let width = shape.heads * shape.head_dim;
    let seconds = |phase, passes: f64| {
        let name = "layer".to_owned();
        let mut operation = Operation::new(name, OperationKind::Compute, phase, Stream::Compute);
        operation.flop = passes * 2.0 * tokens * parameters;
        operation.attention_flop = passes * 4.0 * tokens * shape.attended_keys(length) * width;
        costs.seconds(&operation, (&Group::new(1, 1), false))
    };
    let sum = seconds(Phase::Forward, 1.0) + seconds(Phase::Backward, 2.0);
    let expect = layer.products() + layer.attention() + layer.elementwise();
    assert!((sum / expect - 1.0).abs() < 1e-12, "{sum} {expect}");
}

/// A world of one class, and what its first rank does of a step.
fn world(one: &Case, model: &str) -> (World, Vec<Operation>) {
    let tables = Tables::builtin().expect("tables");
    let class = ForecastClass {
        name: "class".to_owned(),
        accelerator: H100.to_owned(),
        count: one.job.degrees.ranks(),
        devices_per_node: None,
        machine: one.machine.clone(),
        failures_per_device_year: None,
    };
    let model = tables.model(model).expect("a model");
    let world = World::new((&one.job, model), &[(&class, class.count)], &one.constants);
    let world = world.expect("a world");
    let operations = &world.schedule.operations;
    let own = world.schedule.program(0).iter();
    let own = own.map(|id| operations[*id as usize].clone()).collect();
    (world, own)
}

/// Whole schedules cost what the closed form says: the update, the norm, gradients that are added
/// up, and the head, whether layers are cut into parts or not.
#[test]
fn operations_of_schedules_add_up_to_the_closed_form() {
    let close = |got: f64, expect: f64, what: &str| {
        assert!(
            (got / expect - 1.0).abs() < 1e-6,
            "{what}: {got}, not {expect}"
        );
    };
    let layouts: [fn(&mut Degrees); 3] = [
        |_| {},
        |degrees| degrees.tensor = 2,
        |degrees| (degrees.zero, degrees.data) = (Zero::Gradients, 4),
    ];
    for layout in layouts {
        let mut one = case("llama3-8b", H100, layout);
        // Schedules look the embedding up, and update the head's matrix alone.
        one.job.shape.tied = true;
        let (world, operations) = world(&one, "llama3-8b");
        let sum = |wanted: &dyn Fn(&Operation) -> bool| -> f64 {
            let found = operations.iter().filter(|it| wanted(it));
            found.map(|it| world.seconds(it, 0)).sum()
        };
        let kernels = Kernelry {
            machine: &one.machine,
            constants: &one.constants,
            precision: one.job.precision,
        };
        let update = one.step().optimizer_s;
        close(sum(&|it| it.phase == Phase::Optimizer), update, "update");
        let is_kernel = |it: &Operation| it.kind == OperationKind::Compute;
        let of_head = sum(&|it| is_kernel(it) && it.layer == Some(one.job.shape.layers));
        let micro_batches = f64::from(one.job.degrees.micro_batches);
        close(of_head, micro_batches * head(&one.job, &kernels), "head");
        let updated = update / kernels.memory(one.constants.get(Constant::OptimizerBytes));
        let pass = kernels.memory(one.job.software.gradient_bytes * updated);
        let norm = sum(&|it| is_kernel(it) && it.phase == Phase::GradientNorm);
        let added = sum(&|it| is_kernel(it) && it.phase == Phase::GradientReduce);
        match one.job.degrees.ranks() {
            1 => assert!(norm == 0.0),
            _ => close(norm, pass, "norm"),
        }
        match one.job.degrees.zero {
            Zero::Gradients => close(added, 3.0 * 7.0 * pass, "gradients"),
            _ => assert!(added == 0.0),
        }
    }
}

/// However experts are shared out, all ranks together update every parameter once.
#[test]
fn sharded_updates_are_of_all_parameters() {
    let update = |tensor, expert, data| {
        case("mixtral-8x7b", H100, |degrees| {
            (degrees.tensor, degrees.expert, degrees.data) = (tensor, expert, data);
            degrees.zero = Zero::Optimizer;
        })
        .step()
        .optimizer_s
    };
    let all = update(1, 1, 1);
    for (tensor, expert, data) in [(1, 1, 8), (2, 1, 4), (8, 1, 1), (2, 4, 4), (1, 8, 8)] {
        let ranks = f64::from(tensor * data);
        let sum = ranks * update(tensor, expert, data);
        assert!(
            (sum / all - 1.0).abs() < 1e-9,
            "{tensor} {expert} {data}: {sum} {all}"
        );
    }
}

/// With experts that tensor-parallel ranks share, a layer is gathered in two parts, each of its own
/// size: as many bytes as without experts of the same parameters.
#[test]
fn shared_experts_are_gathered_by_replicas() {
    let gather = |expert| {
        let one = case("mixtral-8x7b", H100, |degrees| {
            (degrees.tensor, degrees.expert, degrees.data) = (8, expert, 64);
            degrees.zero = Zero::Parameters;
        });
        Communication::of(&one.job, &one.machine).shard_s
    };
    // Whole experts on eight ranks each, or an eighth of each expert on as many: the same bytes.
    let (parts, whole) = (gather(1), gather(8));
    assert!((parts / whole - 1.0).abs() < 0.1, "{parts} {whole}");
}

/// Gradients that are sharded are scattered after each micro-batch.
#[test]
fn sharded_gradients_are_scattered_each_time() {
    let exposed = |zero, micro_batches| {
        let one = case("llama3-8b", H100, |degrees| {
            (degrees.zero, degrees.data) = (zero, 64);
            degrees.micro_batches = micro_batches;
        });
        one.step().gradients_s
    };
    let once = exposed(Zero::Optimizer, 1);
    assert!((exposed(Zero::Optimizer, 8) / once - 1.0).abs() < 0.2);
    assert!((exposed(Zero::Gradients, 1) / once - 1.0).abs() < 1e-12);
    assert!(exposed(Zero::Gradients, 8) > 3.0 * exposed(Zero::Optimizer, 8));
}

/// Some of the layers take their share of the time that all take, in the step and in its schedule.
#[test]
fn some_layers_are_computed_again() {
    let of = |recompute, recompute_layers| {
        case("llama2-70b", H100, |degrees| {
            (degrees.tensor, degrees.pipeline) = (8, 4);
            (degrees.recompute, degrees.recompute_layers) = (recompute, recompute_layers);
        })
    };
    let of_step = |one: &Case| one.step().recompute_s;
    let all = of(Recompute::Layers, None);
    for (layers, share) in [(0, 0.0), (5, 0.25), (20, 1.0), (30, 1.0)] {
        let some = of(Recompute::Layers, Some(layers));
        assert!(
            (of_step(&some) - share * of_step(&all)).abs() < 1e-12,
            "{layers}"
        );
        let of_schedule = |one: &Case| -> f64 {
            let (world, operations) = world(one, "llama2-70b");
            let again = operations.iter().filter(|it| it.phase == Phase::Recompute);
            again.map(|it| world.seconds(it, 0)).sum()
        };
        let (some, all) = (of_schedule(&some), of_schedule(&all));
        assert!(
            (some - share * all).abs() < 1e-9 * all,
            "{layers}: {some} {all}"
        );
    }
    assert!(of_step(&of(Recompute::None, None)) == 0.0);
}
