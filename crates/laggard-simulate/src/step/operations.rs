//! Durations of a schedule's operations, from the same figures as the closed form.

use laggard_schedule::{Operation, OperationKind, Part, Phase};
use laggard_types::Collective;

use super::{Communication, LayerTimes, head};
use crate::compute::{Constant, Constants, Kernelry};
use crate::job::{Job, Machine};
use crate::network::{Group, collective_seconds};

/// Passes over a gradient and its sum that adding them up takes: two reads, one write.
const ADDING_PASSES: f64 = 3.0;

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
    /// Bytes by which the schedule counts a parameter or gradient.
    element_bytes: f64,
    /// Bytes of a gradient as the software reduces it.
    gradient_bytes: f64,
    /// Seconds per parameter of the optimizer.
    update: f64,
    /// Seconds per byte of memory-bound kernels.
    byte: f64,
    host: f64,
}

impl OperationCosts {
    /// The costs of a job's operations, in a schedule whose elements have `element_bytes`.
    #[must_use]
    pub fn of(job: &Job, machine: &Machine, constants: &Constants, element_bytes: u64) -> Self {
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
            byte: kernels.memory(1.0),
            element_bytes: element_bytes as f64,
            gradient_bytes: job.software.gradient_bytes,
            host: constants.get(Constant::HostMicroBatch),
        }
    }

    /// Seconds of an operation; of a meeting point without the waiting. `group` says how its
    /// members lie on the machine, `head` whether it belongs to the output head.
    #[must_use]
    pub fn seconds(&self, operation: &Operation, (group, head): (&Group, bool)) -> f64 {
        let bytes = match operation.phase {
            Phase::GradientReduce => self.elements(operation) * self.gradient_bytes,
            _ => operation.bytes as f64,
        };
        match operation.kind {
            OperationKind::Host => self.host,
            OperationKind::Collective(collective) => {
                collective_seconds(collective, bytes, group, &self.machine.fabric)
            }
            OperationKind::Send | OperationKind::Receive => {
                collective_seconds(Collective::SendRecv, bytes, group, &self.machine.fabric)
            }
            OperationKind::Compute => self.compute(operation, head),
        }
    }

    fn compute(&self, operation: &Operation, head: bool) -> f64 {
        let gradients = self.elements(operation) * self.gradient_bytes * self.byte;
        let pass = match operation.phase {
            Phase::Optimizer => return self.elements(operation) * self.update,
            Phase::GradientNorm => return gradients,
            Phase::GradientReduce => return ADDING_PASSES * gradients,
            phase => usize::from(phase == Phase::Backward),
        };
        // Modules that predict further tokens have heads of their own.
        if head || operation.parts == [Part::Head] {
            return operation.flop * self.head;
        }
        operation.flop * self.product[pass] + operation.attention_flop * self.attention[pass]
    }
    /// Parameters or gradients that an operation is about.
    fn elements(&self, operation: &Operation) -> f64 {
        operation.bytes as f64 / self.element_bytes
    }
}
