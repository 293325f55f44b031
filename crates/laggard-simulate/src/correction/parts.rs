//! What the cost model says of an operation, taken apart into what each correction multiplies.

use laggard_schedule::{Operation, OperationKind, Schedule};

use crate::calibration::Places;
use crate::compute::Constants;
use crate::job::{Corrections, Job, Machine};
use crate::network::Group;
use crate::step::OperationCosts;
use crate::world::groups;

/// What a run's work is not as the cost model has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// It is in single precision.
    pub(super) single: bool,
    /// Bytes of an element of the record's schedule.
    pub(super) element_bytes: u64,
    /// It is of `laggard run`: layers are products alone, attention computes what the causal mask
    /// hides as well, and the host has no framework to run.
    pub(super) synthetic: bool,
}

/// Seconds of an operation by default.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Parts {
    pub(super) products: f64,
    pub(super) memory_bound: f64,
    pub(super) links: f64,
    /// What nothing corrects.
    pub(super) host: f64,
}

impl Parts {
    pub(super) fn seconds(&self, with: &Corrections) -> f64 {
        self.products * with.products
            + self.memory_bound * with.memory_bound
            + self.links * with.links
            + self.host
    }
}

/// The parts of a schedule's operations on one class.
pub(super) struct ClassParts {
    /// How the members of each axis lie on the class.
    groups: Vec<Group>,
    places: Places,
    /// By default, in the arithmetic of the run.
    layers: OperationCosts,
    /// With products that take twice as long: what that adds is the products' part.
    slow_products: OperationCosts,
    /// Of work on parameters, whose bytes do not depend on the arithmetic.
    others: OperationCosts,
    synthetic: bool,
}

impl ClassParts {
    pub(super) fn new(
        job: &Job,
        schedule: &Schedule,
        (machine, constants): (&Machine, &Constants),
        work: Work,
    ) -> Self {
        let single = work.single.then(|| machine.in_single()).flatten();
        let of_layers = single.as_ref().unwrap_or(machine);
        let slow_products = Machine {
            products_factor: 2.0 * of_layers.products_factor,
            ..of_layers.clone()
        };
        let costs = |machine| OperationCosts::of(job, machine, constants, work.element_bytes);
        Self {
            groups: groups(schedule, &machine.fabric),
            places: Places::of(schedule),
            layers: costs(of_layers),
            slow_products: costs(&slow_products),
            others: costs(machine),
            synthetic: work.synthetic,
        }
    }

    pub(super) fn of(&self, operation: &Operation) -> Parts {
        let alone = Group::new(1, 1);
        let group = operation
            .axis
            .map_or(&alone, |axis| &self.groups[axis as usize]);
        let (_, head) = self.places.place(operation);
        let seconds = self.others.seconds(operation, (group, head));
        let none = Parts::default();
        match operation.kind {
            OperationKind::Host if self.synthetic => none,
            OperationKind::Host => Parts {
                host: seconds,
                ..none
            },
            kind if kind.meets() => Parts {
                links: seconds,
                ..none
            },
            _ if operation.flop <= 0.0 && operation.attention_flop <= 0.0 => Parts {
                memory_bound: seconds,
                ..none
            },
            _ => self.layer(operation, (&alone, head)),
        }
    }

    fn layer(&self, operation: &Operation, place: (&Group, bool)) -> Parts {
        let both = |operation: &Operation| {
            let default = self.layers.seconds(operation, place);
            let products = self.slow_products.seconds(operation, place) - default;
            (products, default - products)
        };
        let (products, memory_bound) = both(operation);
        if !self.synthetic {
            return Parts {
                products,
                memory_bound,
                ..Parts::default()
            };
        }
        // FLOP of attention are counted as half of the square.
        let without = Operation {
            attention_flop: 0.0,
            ..operation.clone()
        };
        Parts {
            products: 2.0 * products - both(&without).0,
            ..Parts::default()
        }
    }
}
