//! Durations of a schedule's operations, from the same figures as the closed form.

use laggard_schedule::{Operation, OperationKind, Part, Phase};
use laggard_types::Collective;

use super::{Communication, LayerTimes, head};
use crate::compute::{Constant, Constants, Kernelry};
use crate::job::{Job, Machine};
use crate::network::{Group, collective_seconds};

/// Bytes of a parameter as schedules count the work of an update: single precision.
const PARAMETER_BYTES: f64 = 4.0;

/// What operations of a job cost on a machine when nothing delays them.
#[derive(Debug, Clone)]
pub struct OperationCosts {
    machine: Machine,
    /// Seconds per FLOP of a layer's products, forward and backward; element-wise kernels included.
    product: [f64; 2],
    /// Seconds per FLOP of attention, forward and backward.
    attention: [f64; 2],
    /// Seconds per FLOP of the output head.
    head: f64,
    /// Seconds per parameter of the optimizer.
    update: f64,
    host: f64,
}

impl OperationCosts {
    /// The costs of a job's operations.
    #[must_use]
    pub fn of(job: &Job, machine: &Machine, constants: &Constants) -> Self {
        let kernels = Kernelry {
            machine,
            constants,
            precision: job.precision,
        };
        let layer = LayerTimes::of(job, &kernels, &Communication::of(job, machine));
        let (shape, tensor) = (&job.shape, f64::from(job.degrees.tensor));
        let tokens = job.tokens_per_micro_batch();
        let routed = shape.experts.map_or(0.0, |one| one.active / one.count);
        let active = shape.attention_parameters()
            + shape.dense_ffn_parameters()
            + routed * shape.routed_parameters();
        let flop = 2.0 * tokens * active / tensor;
        let length = f64::from(job.sequence_length);
        let width = shape.heads * shape.head_dim / tensor;
        let scores = 4.0 * tokens * shape.attended_keys(length) * width;
        let passes = [1.0, 2.0];
        let rate = |pass: usize, seconds: f64, flop: f64| seconds / (passes[pass] * flop);
        let products = |pass: usize| layer.products_s[pass] + layer.elementwise_s[pass];
        let head_flop = 3.0 * 2.0 * tokens * shape.vocab * shape.hidden / tensor;
        Self {
            machine: machine.clone(),
            product: [0, 1].map(|pass| rate(pass, products(pass), flop)),
            attention: [0, 1].map(|pass| rate(pass, layer.attention_s[pass], scores)),
            head: head(job, &kernels) / (shape.heads_out * head_flop),
            update: kernels.memory(constants.get(Constant::OptimizerBytes)),
            host: constants.get(Constant::HostMicroBatch),
        }
    }

    /// Seconds of an operation; of a meeting point without the waiting, where `group` says how its
    /// members lie on the machine.
    #[must_use]
    pub fn seconds(&self, operation: &Operation, group: &Group) -> f64 {
        let bytes = operation.bytes as f64;
        match operation.kind {
            OperationKind::Host => self.host,
            OperationKind::Collective(collective) => {
                collective_seconds(collective, bytes, group, &self.machine.fabric)
            }
            OperationKind::Send | OperationKind::Receive => {
                collective_seconds(Collective::SendRecv, bytes, group, &self.machine.fabric)
            }
            OperationKind::Compute => self.compute(operation),
        }
    }

    fn compute(&self, operation: &Operation) -> f64 {
        if operation.flop <= 0.0 && operation.attention_flop <= 0.0 {
            return operation.bytes as f64 / PARAMETER_BYTES * self.update;
        }
        if operation.parts.contains(&Part::Head) {
            return operation.flop * self.head;
        }
        let pass = usize::from(operation.phase == Phase::Backward);
        operation.flop * self.product[pass] + operation.attention_flop * self.attention[pass]
    }
}
