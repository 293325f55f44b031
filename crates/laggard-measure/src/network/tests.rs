//! The arithmetic: its gradients against differences of the loss, its FLOP against the tables'
//! counts, and its values over many steps.

use super::*;
use crate::Settings;
use crate::job::Job;
use crate::memory::uniform;
use crate::rank::learning_rate;
use crate::testing;
use laggard_backend::{CpuDevice, CpuOptions, Device, Launch, QueueId, Task};
use laggard_schedule::Phase;
use laggard_stats::Rng;
use std::time::Duration;

fn batch(micro_batch: usize, weight: f32) -> Batch {
    let tokens = Tokens {
        sequences: 2,
        length: 12,
        parts: 1,
        part: 0,
        which: micro_batch as u32,
    };
    Batch {
        micro_batch,
        peers: vec![tokens.clone()],
        tokens,
        weight,
    }
}

/// A one-rank network that executes kernels at once.
struct Bench {
    device: CpuDevice,
    queue: QueueId,
    network: Network,
}

impl Bench {
    fn new(settings: &Settings) -> Self {
        let job = Job::new(settings).unwrap();
        let device = CpuDevice::new(CpuOptions::default());
        let queue = device.create_queue("test").unwrap();
        let portion = job.portion(0).unwrap();
        let memory = Memory::allocate(&device, &portion, job.capacity(0)).unwrap();
        memory.initialize(&portion, 5).unwrap();
        let bench = Self {
            device,
            queue,
            network: Network::new(portion, memory),
        };
        bench.write_input(3);
        bench
    }

    fn write_input(&self, seed: u64) {
        let mut rng = Rng::new(seed);
        let input = self.whole(Region::Input, 0);
        let values: Vec<f32> = (0..input.len).map(|_| uniform(1.0, &mut rng)).collect();
        input.write_f32(&values).unwrap();
    }

    fn execute(&self, kernels: Kernels) {
        let task = Task {
            kernels: kernels.unwrap().into(),
            work_scale: 1.0,
            extra_flop: 0,
        };
        let launch = Launch {
            queue: self.queue,
            after: &[],
            tag: 0,
        };
        let token = self.device.enqueue(&task, launch).unwrap();
        self.device.wait(token, Duration::from_secs(60)).unwrap();
    }

    fn forward(&self) {
        (0..=self.network.portion().model.layers)
            .for_each(|layer| self.execute(self.pass(Phase::Forward, layer, &batch(0, 0.5))));
    }

    fn pass(&self, phase: Phase, layer: usize, batch: &Batch) -> Kernels {
        self.network.kernels(phase, layer, &[], batch)
    }

    fn backward(&self, batch: &Batch) {
        (0..=self.network.portion().model.layers)
            .rev()
            .for_each(|layer| self.execute(self.pass(Phase::Backward, layer, batch)));
    }

    /// The loss, from outputs and targets, in `f64`.
    fn loss(&self) -> f64 {
        self.forward();
        let batch = batch(0, 0.5);
        let (model, tokens) = (self.network.portion().model, &batch.tokens);
        let logits = self.whole(Region::Logits, 0).read_f32().unwrap();
        let target = self.whole(Region::NegativeTargets, 0).read_f32().unwrap();
        let per_sequence = tokens.length * model.vocabulary;
        let mut squares: f64 = logits[..tokens.sequences * per_sequence]
            .iter()
            .enumerate()
            .map(|(index, logit)| f64::from(*logit) + f64::from(target[index % per_sequence]))
            .map(|error| error * error)
            .sum();
        if model.experts.is_some() {
            for layer in 0..model.layers {
                let logits = self.whole(Region::RouterLogits, layer).read_f32().unwrap();
                squares += logits.iter().map(|x| f64::from(x * x)).sum::<f64>();
            }
        }
        squares * f64::from(batch.weight) / (2.0 * tokens.length as f64)
    }

    fn whole(&self, region: Region, layer: usize) -> Slice {
        Slice::whole(self.network.memory().buffer(region, (layer, 0)).unwrap())
    }

    fn gradients(&self) -> Vec<f32> {
        self.whole(Region::Gradients, 0).read_f32().unwrap()
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    slopes(testing::tiny_model());
    slopes(testing::tiny_mixture());
}

fn slopes(model: laggard_specs::Model) {
    let bench = Bench::new(&Settings {
        model,
        ..testing::settings(1, 1)
    });
    bench.forward();
    bench.backward(&batch(0, 0.5));
    let gradients = bench.gradients();
    let parameters = bench.whole(Region::Parameters, 0);
    let original = parameters.read_f32().unwrap();
    let mut rng = Rng::new(8);
    for (layer, weight, range) in bench.network.portion().weights() {
        // Along the gradient of this weight alone, disturbed, so that the slope is large against
        // rounding and every element counts.
        let size = gradients[range.clone()]
            .iter()
            .fold(0.0f32, |most, g| most.max(g.abs()));
        let direction: Vec<f32> = gradients[range.clone()]
            .iter()
            .map(|g| g / size + uniform(0.05, &mut rng))
            .collect();
        let at = |step: f32| {
            let mut moved = original.clone();
            for (value, along) in moved[range.clone()].iter_mut().zip(&direction) {
                *value += step * along;
            }
            parameters.write_f32(&moved).unwrap();
            bench.loss()
        };
        let step = 0.01;
        let measured = (at(step) - at(-step)) / (2.0 * f64::from(step));
        let pairs = gradients[range].iter().zip(&direction);
        let expect: f64 = pairs.map(|(g, along)| f64::from(g * along)).sum();
        assert!(
            (measured / expect - 1.0).abs() < 5e-3,
            "{weight:?} of layer {layer}: slope {measured}, gradient {expect}"
        );
    }
}

fn gemm_flop(kernels: &[Kernel]) -> f64 {
    let flop = |kernel: &Kernel| match kernel {
        Kernel::Gemm { a, c, .. } => {
            // m n k, whichever way the left operand is used.
            2.0 * a.rows as f64 * a.columns as f64 * c.columns as f64
        }
        _ => 0.0,
    };
    kernels.iter().map(flop).sum()
}

#[test]
fn kernels_do_the_flop_that_the_schedule_says() {
    for model in [
        testing::tiny_model(),
        testing::model("tiny"),
        testing::model("small"),
        testing::tiny_mixture(),
    ] {
        let job = Job::new(&Settings {
            model,
            ..testing::settings(1, 1)
        })
        .unwrap();
        let bench = Bench::new(&job.settings);
        let passes = job.schedule.operations.iter().filter_map(|operation| {
            let layer = operation.layer? as usize;
            let kernels = bench.pass(operation.phase, layer, &batch(0, 0.5));
            Some((operation, kernels.unwrap()))
        });
        for (operation, kernels) in passes {
            // The schedule counts causal attention; the full square is computed.
            let expect = operation.flop + 2.0 * operation.attention_flop;
            let found = gemm_flop(&kernels);
            assert!(
                (found / expect - 1.0).abs() < 1e-9,
                "{}: {found}, {expect}",
                operation.name
            );
        }
    }
}

#[test]
fn values_stay_bounded_and_normal() {
    let bench = Bench::new(&Settings {
        model: testing::model("tiny"),
        ..testing::settings(1, 1)
    });
    for step in 0..400 {
        bench.write_input(100 + u64::from(step));
        bench.forward();
        bench.backward(&batch(0, 0.5));
        bench.execute(bench.network.optimizer(learning_rate(step)));
    }
    for ((region, index), buffer) in bench.network.memory().buffers() {
        let values = Slice::whole(buffer).read_f32().unwrap();
        let odd = |x: &f32| *x != 0.0 && !x.is_normal();
        assert!(
            !values.iter().any(odd),
            "{region:?} {index:?} has odd values"
        );
        if *region == Region::Norm {
            continue;
        }
        let largest = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        assert!(
            largest > 0.0 && largest < 100.0,
            "{region:?} {index:?} reaches {largest}"
        );
    }
}
