//! What a division of devices into stages costs: how fast its stages are, what a step takes beside
//! them, and what no cut of its layers can beat.

use laggard_simulate::{Degrees, Job, StepTime, predict};

use super::super::job::{ClassTime, Costs, JobPlan, Outcome, Parts};
use super::MixedPipeline;
use crate::stages::Joint;
use std::collections::BTreeSet;

/// How long a class takes for parts of the model, seconds of a micro-batch.
#[derive(Clone, Copy, Default)]
pub(super) struct Pace {
    pub(super) layer: f64,
    /// Output head, embedding and what the host adds.
    pub(super) ends: f64,
    /// Share of a layer's time that is communication.
    communication: f64,
}

/// Those of each class that takes part; nobody asks for the others.
pub(super) fn paces(
    costs: &Costs<'_>,
    degrees: &Degrees,
    takes_part: impl Fn(usize) -> bool,
) -> Vec<Pace> {
    let of = |class: usize| match takes_part(class) {
        true => pace(costs, degrees, class),
        false => Pace::default(),
    };
    (0..costs.machines.len()).map(of).collect()
}

/// From steps of one and of two layers of one replica in a single stage.
fn pace(costs: &Costs<'_>, degrees: &Degrees, class: usize) -> Pace {
    let step = |layers: u32, micro_batches: u32| -> StepTime {
        let degrees = Degrees {
            pipeline: 1,
            data: 1,
            micro_batches,
            ..*degrees
        };
        let mut job: Job = costs.job(degrees);
        job.shape.layers = layers;
        predict(&job, &costs.machines[class], &costs.constants)
    };
    let each = |layers: u32| {
        let time = |step: StepTime| step.total_s - step.jitter_s - step.gradients_s;
        time(step(layers, 3)) - time(step(layers, 2))
    };
    let layer = each(2) - each(1);
    let two = step(2, 2);
    let links = two.tensor_s + two.context_s + two.expert_s;
    Pace {
        layer,
        ends: (each(1) - layer).max(0.0),
        communication: links / (4.0 * layer),
    }
}

/// Least seconds of a micro-batch on all stages: one layer on each, all others on the fastest.
pub(super) fn least_of_layers(stages: &[usize], paces: &[Pace], layers: u64) -> f64 {
    let there = || stages.iter().zip(paces).filter(|(count, _)| **count > 0);
    let once: f64 = there()
        .map(|(&count, pace)| count as f64 * pace.layer)
        .sum();
    let fastest = there()
        .map(|(_, pace)| pace.layer)
        .fold(f64::INFINITY, f64::min);
    let others = layers.saturating_sub(stages.iter().sum::<usize>() as u64);
    once + others as f64 * fastest
}

/// What a step takes beside its pipelines.
struct Around {
    /// Gradients, seconds.
    gradients: f64,
    /// The optimizer and the host, seconds.
    rest: f64,
    /// What ranks that are late add, as a share.
    jitter: f64,
}

/// So many stages of each class.
pub(super) struct Setting<'s, 'p> {
    pub(super) costs: &'s Costs<'p>,
    pub(super) degrees: Degrees,
    pub(super) stages: &'s [usize],
    pub(super) paces: &'s [Pace],
    /// That of the slowest class in each.
    around: Around,
    /// Exposed seconds of a micro-batch's transfers at a stage, of the class where they take
    /// longest.
    pub(super) transfer: f64,
}

impl<'s, 'p> Setting<'s, 'p> {
    pub(super) fn of(
        costs: &'s Costs<'p>,
        degrees: &Degrees,
        (stages, paces): (&'s [usize], &'s [Pace]),
    ) -> Self {
        let mut setting = Self {
            costs,
            degrees: *degrees,
            stages,
            paces,
            around: Around {
                gradients: 0.0,
                rest: 0.0,
                jitter: 0.0,
            },
            transfer: 0.0,
        };
        let there = (0..stages.len()).filter(|&class| stages[class] > 0);
        there.for_each(|class| setting.include(class));
        setting
    }

    /// Adds what does not depend on how layers are cut: that of an even pipeline of a class.
    fn include(&mut self, class: usize) {
        let degrees = self.degrees;
        let step = self.costs.step(&degrees, class, degrees.micro_batches);
        let around = &mut self.around;
        let jitter = step.jitter_s / (step.total_s - step.jitter_s);
        around.gradients = around.gradients.max(step.gradients_s);
        around.rest = around.rest.max(step.optimizer_s + step.fixed_s);
        around.jitter = around.jitter.max(jitter);
        let transfer = step.transfer_s / f64::from(degrees.micro_batches);
        self.transfer = self.transfer.max(transfer);
    }

    /// Tokens of a step.
    fn tokens(&self) -> f64 {
        let sequences = self.degrees.global_batch() as f64;
        sequences * f64::from(self.costs.problem.training.sequence_length)
    }

    /// Sequences of a micro-batch of all replicas.
    pub(super) fn sequences(&self) -> f64 {
        f64::from(self.degrees.data) * f64::from(self.degrees.micro_batch)
    }

    /// Devices of each class.
    fn devices(&self) -> Vec<u64> {
        let ranks = u64::from(self.degrees.tensor) * u64::from(self.degrees.data);
        let of = |&stages: &usize| ranks * stages as u64;
        self.stages.iter().map(of).collect()
    }

    /// Seconds of pipelines that train more than so many tokens a second take less than this.
    pub(super) fn longest(&self, tokens_per_s: f64) -> f64 {
        let useful = self.costs.useful(&self.devices()).unwrap_or(0.0);
        // A hair more, since sums are rounded.
        let step = self.tokens() * useful / tokens_per_s * (1.0 + 1e-9);
        step / (1.0 + self.around.jitter) - self.around.gradients - self.around.rest
    }

    /// Tokens per second that no cut passes, whatever the order of stages.
    pub(super) fn most_tokens_per_s(&self) -> f64 {
        let around = &self.around;
        let base = self.least_of_pipeline() + around.gradients + around.rest;
        let useful = self.costs.useful(&self.devices()).unwrap_or(0.0);
        self.tokens() * useful / (base * (1.0 + around.jitter)) * (1.0 + 1e-9)
    }

    /// Seconds that no pipeline of these stages takes less than.
    pub(super) fn least_of_pipeline(&self) -> f64 {
        let layers = self.costs.problem.training.model.layers;
        let count = self.stages.iter().sum::<usize>() as f64;
        let there = || (0..self.stages.len()).filter(|&class| self.stages[class] > 0);
        let ends = there().map(|class| self.paces[class].ends);
        let mut sum = least_of_layers(self.stages, self.paces, layers)
            + ends.fold(f64::INFINITY, f64::min)
            + count * self.transfer;
        let mut slowest = self.least_of_slowest(layers);
        let sites: BTreeSet<usize> = there()
            .map(|class| self.costs.problem.classes[class].site)
            .collect();
        if sites.len() > 1 {
            // Each site is reached from another, over no better way than the best there is.
            let (mut both_ways, mut each) = (f64::INFINITY, f64::INFINITY);
            for (at, &a) in sites.iter().enumerate() {
                for &b in sites.iter().take(at) {
                    if let Some(joint) = self.costs.joint([a, b], self.sequences()) {
                        both_ways = both_ways.min(joint.both_ways);
                        each = each.min(joint.each);
                    }
                }
            }
            if both_ways.is_infinite() {
                return f64::INFINITY;
            }
            sum += (sites.len() - 1) as f64 * both_ways;
            // Neighbours have a layer each, and no more stages than all come after them.
            let layer = there().map(|class| self.paces[class].layer + self.transfer);
            let least = [layer.fold(f64::INFINITY, f64::min); 2];
            let joint = Joint { both_ways, each };
            let micro_batches = self.degrees.micro_batches.into();
            let held = joint.holds_up(least, count as usize, micro_batches);
            slowest = slowest.max(each).max(held);
        }
        sum + f64::from(self.degrees.micro_batches - 1) * slowest
    }

    /// No cut's slowest stage takes less: in less time the stages cannot do all layers as wholes.
    fn least_of_slowest(&self, layers: u64) -> f64 {
        let there = || {
            self.stages
                .iter()
                .zip(self.paces)
                .filter(|(count, _)| **count > 0)
        };
        let done = |seconds: f64| -> u64 {
            let of = |(count, pace): (&usize, &Pace)| *count as u64 * (seconds / pace.layer) as u64;
            there().map(of).sum()
        };
        let slowest = there().map(|(_, pace)| pace.layer).fold(0.0, f64::max);
        let (mut low, mut high) = (slowest, slowest * layers as f64);
        // To less than a hair.
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            if done(middle) < layers {
                low = middle;
            } else {
                high = middle;
            }
        }
        low + self.transfer
    }

    /// Seconds of a micro-batch on a stage.
    pub(super) fn seconds(&self, class: usize, layers: usize, is_last: bool) -> f64 {
        let pace = &self.paces[class];
        let ends = if is_last { pace.ends } else { 0.0 };
        layers as f64 * pace.layer + ends + self.transfer
    }

    pub(super) fn job(&self, pipeline: MixedPipeline, given: &[u64]) -> JobPlan {
        let left = given.iter().zip(self.devices());
        JobPlan {
            degrees: self.degrees,
            parts: Parts::Stages(pipeline),
            idle: left.map(|(count, devices)| count - devices).collect(),
        }
    }

    /// What a pipeline does: `sum(t) + (m - 1) max(t)` over its stages, what links add to that, and
    /// once a step what the slowest class takes for gradients and the optimizer of an even
    /// pipeline.
    pub(super) fn outcome(&self, span: &MixedPipeline) -> Outcome {
        let (costs, degrees) = (self.costs, &self.degrees);
        let Around {
            gradients,
            rest,
            jitter,
        } = self.around;
        let last = span.stages.len() - 1;
        let of = |(at, &(class, layers)): (usize, &(usize, usize))| {
            self.seconds(class, layers, at == last)
        };
        let times: Vec<f64> = span.stages.iter().enumerate().map(of).collect();
        let micro_batches = f64::from(degrees.micro_batches);
        let (sum, longest) = (
            times.iter().sum::<f64>(),
            times.iter().copied().fold(0.0, f64::max),
        );
        let in_order = span.stages.iter().zip(&times);
        let in_order: Vec<(usize, f64)> = in_order.map(|(stage, time)| (stage.0, *time)).collect();
        let hops = costs.hops(&in_order, (degrees.micro_batches, self.sequences()));
        let held_s = match micro_batches > 1.0 {
            true => (micro_batches - 1.0) * (hops.each_s - longest).max(0.0),
            false => 0.0,
        };
        let links_s = hops.once_s + held_s;
        let pipeline = sum + (micro_batches - 1.0) * longest + links_s;
        let base = pipeline + gradients + rest;
        let step_s = base * (1.0 + jitter);
        let mut of_class = vec![ClassTime::default(); costs.machines.len()];
        let devices = u64::from(degrees.tensor) * u64::from(degrees.data);
        for (&(class, layers), time) in span.stages.iter().zip(&times) {
            let pace = &self.paces[class];
            let links = layers as f64 * pace.layer * pace.communication + self.transfer;
            let time = ClassTime {
                devices,
                kernels_s: micro_batches * (time - links) + rest,
                communication_s: micro_batches * links + gradients,
                bubble_s: sum - longest,
                waiting_s: micro_batches * (longest - time),
                jitter_s: step_s - base,
                links_s,
            };
            of_class[class].include(&time);
        }
        Outcome {
            step_s,
            step_tokens: self.tokens(),
            classes: of_class,
            mtbf_s: None,
            goodput: None,
        }
    }
}
