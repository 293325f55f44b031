use super::*;
use crate::job::{Degrees, Frameworks, Machine, Precision, Shape};
use crate::network::FabricOptions;
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
            tensor: 1,
            context: 1,
            pipeline: 1,
            data: 1,
            expert: 1,
            virtual_stages: 1,
            micro_batch: 1,
            micro_batches: 8,
            sequence_parallel: false,
            zero: Zero::None,
            shard_ranks: None,
            recompute: Recompute::None,
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

/// The operations of a layer together take what the closed form says of it.
#[test]
fn operations_add_up_to_a_layer() {
    use laggard_schedule::{Operation, OperationKind, Phase, Stream};
    let one = case("llama3-8b", H100, |_| {});
    let costs = OperationCosts::of(&one.job, &one.machine, &one.constants);
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
        costs.seconds(&operation, &crate::network::Group::new(1, 1))
    };
    let sum = seconds(Phase::Forward, 1.0) + seconds(Phase::Backward, 2.0);
    let expect = layer.products() + layer.attention() + layer.elementwise();
    assert!((sum / expect - 1.0).abs() < 1e-12, "{sum} {expect}");
}
