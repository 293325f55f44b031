//! All ranks of a predicted job: its schedule, what every operation of it costs on each class, and
//! from that whole records, of every operation for small worlds and as a sketch for large ones.

use laggard_record::Sample;
use laggard_schedule::{Layout, Operation, OperationKind, Phase, Schedule, Stream, Zero, generate};
use laggard_specs::{Model, model_work};
use laggard_types::Rank;

use crate::calibration::Places;
use crate::compute::Constants;
use crate::error::SimulateError;
use crate::forecast::ForecastClass;
use crate::graph::{PredictedTimeline, StepPrediction, predict_step};
use crate::job::Job;
use crate::network::{Fabric, Group};
use crate::scale::{DrawPhase, Jitter, Noise, NoiseState, ScaleWorkload, StageTimes};
use crate::step::OperationCosts;

/// Bytes of an element in half precision.
const HALF_BYTES: u64 = 2;

/// A job's ranks on their devices.
#[derive(Debug, Clone)]
pub struct World {
    /// What a step does.
    pub schedule: Schedule,
    /// The class of each rank, by position in what the world was made of.
    pub class_of_rank: Vec<u16>,
    layout: Layout,
    costs: Vec<OperationCosts>,
    places: Places,
    /// How the members of each axis lie on each class.
    groups: Vec<Vec<Group>>,
}

/// What varies from step to step.
#[derive(Debug, Clone, PartialEq)]
pub struct Variation {
    /// How kernels' times vary.
    pub jitter: Jitter,
    /// Steps.
    pub steps: u32,
    /// Seed of all that is random.
    pub seed: u64,
}

impl World {
    /// The world of a job on classes. Replica after replica takes what is left of the first class,
    /// then of the next, so that few replicas have ranks of two.
    ///
    /// # Errors
    /// If the layout does not fit the model, or there are fewer devices than ranks.
    pub fn new(
        (job, model): (&Job, &Model),
        classes: &[(&ForecastClass, u64)],
        constants: &Constants,
    ) -> Result<Self, SimulateError> {
        let layout = job.layout();
        let size = (job.degrees.micro_batch, job.sequence_length);
        let work = model_work(model, size, HALF_BYTES);
        let schedule = generate(&layout, &work)?;
        let ranks = schedule.world_size();
        let devices: u64 = classes.iter().map(|(_, count)| count).sum();
        if devices < ranks as u64 {
            let ranks = ranks as u64;
            return Err(SimulateError::TooFewDevices { devices, ranks });
        }
        let machines = || classes.iter().map(|(class, _)| &class.machine);
        Ok(Self {
            groups: machines()
                .map(|machine| groups(&schedule, &machine.fabric))
                .collect(),
            costs: machines()
                .map(|machine| OperationCosts::of(job, machine, constants, HALF_BYTES))
                .collect(),
            class_of_rank: placed(&layout, classes),
            places: Places::of(&schedule),
            schedule,
            layout,
        })
    }

    /// Seconds of an operation on a rank when nothing delays it; of a meeting point without the
    /// waiting.
    #[must_use]
    pub fn seconds(&self, operation: &Operation, rank: Rank) -> f64 {
        self.seconds_on(operation, usize::from(self.class_of_rank[rank as usize]))
    }

    fn seconds_on(&self, operation: &Operation, class: usize) -> f64 {
        let alone = Group::new(1, 1);
        let groups = &self.groups[class];
        let group = operation.axis.map_or(&alone, |axis| &groups[axis as usize]);
        let (_, head) = self.places.place(operation);
        self.costs[class].seconds(operation, (group, head))
    }

    /// The step without anything random.
    ///
    /// # Errors
    /// If too many ranks differ from each other.
    pub fn step(&self) -> Result<StepPrediction, SimulateError> {
        let class = |rank: Rank| u64::from(self.class_of_rank[rank as usize]);
        predict_step(&self.schedule, class, |operation, rank| {
            self.seconds(operation, rank)
        })
    }

    /// Every operation of every rank in every step: the rows of an ordinary record.
    ///
    /// # Errors
    /// If the world has too many operations, or the jitter is none.
    pub fn samples(&self, variation: &Variation) -> Result<Vec<Sample>, SimulateError> {
        let steps = variation.steps as usize;
        let noise = Noise::new(&variation.jitter, variation.seed)?;
        let phases = [
            DrawPhase::Forward,
            DrawPhase::Backward,
            DrawPhase::Optimizer,
        ];
        let mut factors = vec![0.0; self.class_of_rank.len() * phases.len() * steps];
        for (index, row) in factors.chunks_mut(steps.max(1)).enumerate() {
            let (rank, phase) = (index / phases.len(), phases[index % phases.len()]);
            noise.fill(
                (rank as Rank, phase),
                0,
                &mut NoiseState::START.clone(),
                row,
            );
        }
        let mut timeline = PredictedTimeline::new(&self.schedule)?;
        let mut samples = Vec::new();
        for step in 0..steps {
            samples.extend(timeline.step(|operation, rank| {
                let phase = match (operation.kind, operation.phase) {
                    (OperationKind::Compute, Phase::Forward) => 0,
                    (OperationKind::Compute, Phase::Backward | Phase::Recompute) => 1,
                    (OperationKind::Compute, Phase::Optimizer) => 2,
                    _ => return self.seconds(operation, rank),
                };
                let row = rank as usize * phases.len() + phase;
                self.seconds(operation, rank) * factors[row * steps + step]
            })?);
        }
        samples.extend(timeline.finish());
        Ok(samples)
    }

    /// The same job for [`crate::simulate_ranks`], which needs no graph of all ranks. Kernels of a
    /// class take as much longer than those of the fastest as they are longer in all; what is
    /// communicated takes all as long as the class whose step is longest.
    ///
    /// # Errors
    /// If a step of one class cannot be evaluated.
    pub fn workload(&self, variation: &Variation) -> Result<ScaleWorkload, SimulateError> {
        let of_class: Vec<ClassTimes> = (0..self.costs.len())
            .map(|class| self.times(class))
            .collect::<Result<_, _>>()?;
        let kernels = |class: &usize| -> f64 {
            let stages = of_class[*class].stages.iter();
            stages.map(|it| it.forward_s + it.backward_s).sum()
        };
        let step = |class: &usize| of_class[*class].step_s;
        let classes = || 0..of_class.len();
        let fastest = classes()
            .min_by(|a, b| kernels(a).total_cmp(&kernels(b)))
            .ok_or(SimulateError::NoClasses)?;
        let slowest = classes()
            .max_by(|a, b| step(a).total_cmp(&step(b)))
            .ok_or(SimulateError::NoClasses)?;
        let class_factors = classes()
            .map(|class| kernels(&class) / kernels(&fastest))
            .collect();
        let stage = |(fast, slow): (&StageTimes, &StageTimes)| StageTimes {
            forward_s: fast.forward_s,
            backward_s: fast.backward_s,
            optimizer_s: fast.optimizer_s,
            ..*slow
        };
        let stages = of_class[fastest].stages.iter();
        let stages = stages.zip(&of_class[slowest].stages).map(stage).collect();
        let one = |wanted: fn(&Operation) -> bool| {
            let found = self.schedule.operations.iter().find(|it| wanted(it));
            found.map_or(0.0, |operation| self.seconds_on(operation, slowest))
        };
        let norm = one(|it| it.phase == Phase::GradientNorm && it.axis.is_none())
            + one(|it| it.phase == Phase::GradientNorm && it.axis.is_some());
        Ok(ScaleWorkload {
            stages,
            transfer_s: one(|it| it.phase == Phase::PipelineTransfer),
            input_s: one(|it| it.phase == Phase::Input),
            norm_s: norm,
            class_factors,
            class_of_rank: self.class_of_rank.clone(),
            slow: Vec::new(),
            jitter: variation.jitter.clone(),
            pauses: None,
            delays: Vec::new(),
            steps: variation.steps,
            seed: variation.seed,
            layout: self.layout.clone(),
        })
    }

    /// Times of a class, all ranks being of it.
    fn times(&self, class: usize) -> Result<ClassTimes, SimulateError> {
        let without = |left_out: fn(&Operation) -> bool| {
            let seconds = |operation: &Operation, _| match left_out(operation) {
                true => 0.0,
                false => self.seconds_on(operation, class),
            };
            predict_step(&self.schedule, |_| 0, seconds).map(|it| it.step_s)
        };
        let step_s = without(|_| false)?;
        let unreduced_s = without(|it| it.phase == Phase::GradientReduce)?;
        let gather_s = match self.layout.zero {
            Zero::Parameters => unreduced_s - without(is_exchange_of_shards)?,
            _ => 0.0,
        };
        let exposed = Exposed {
            reduce_s: (step_s - unreduced_s).max(0.0),
            pass_gather_s: gather_s.max(0.0) / (2.0 * self.passes_in_a_row()),
        };
        let stages = 0..self.schedule.stages();
        Ok(ClassTimes {
            stages: stages
                .map(|stage| self.stage(stage, class, exposed))
                .collect(),
            step_s,
        })
    }

    /// Passes of whole stages, one after the other, that a step takes at least: those of its
    /// micro-batches, and those that fill the pipeline.
    fn passes_in_a_row(&self) -> f64 {
        let most = self.layout.micro_batches.iter().max().copied().unwrap_or(1);
        let filling = f64::from(self.layout.pipeline_parallel - 1);
        f64::from(most) + filling / f64::from(self.layout.virtual_stages)
    }

    fn stage(&self, stage: u32, class: usize, exposed: Exposed) -> StageTimes {
        let ranks = self.schedule.stage_of_rank.iter();
        let rank = ranks.take_while(|of| **of != stage).count();
        let mut times = StageTimes {
            forward_s: 0.0,
            backward_s: 0.0,
            // Forward and backward gather as much.
            forward_exposed_s: exposed.pass_gather_s,
            backward_exposed_s: exposed.pass_gather_s,
            reduce_exposed_s: exposed.reduce_s,
            optimizer_s: 0.0,
            gather_exposed_s: 0.0,
        };
        for &id in self.schedule.program(rank as Rank) {
            let operation = &self.schedule.operations[id as usize];
            let seconds = self.seconds_on(operation, class);
            let first = operation.micro_batch == Some(0);
            let within = operation.stream == Stream::ModelCommunication;
            match operation.phase {
                Phase::Forward if first && within => times.forward_exposed_s += seconds,
                Phase::Forward if first => times.forward_s += seconds,
                Phase::Backward | Phase::Recompute if first && within => {
                    times.backward_exposed_s += seconds;
                }
                Phase::Backward | Phase::Recompute if first => times.backward_s += seconds,
                Phase::Optimizer => times.optimizer_s += seconds,
                Phase::ParameterGather if operation.micro_batch.is_none() => {
                    times.gather_exposed_s += seconds;
                }
                _ => {}
            }
        }
        times
    }
}

/// What the ranks of one class take.
struct ClassTimes {
    stages: Vec<StageTimes>,
    /// The whole step.
    step_s: f64,
}

/// By what communication over replicas lengthens a step, seconds.
#[derive(Clone, Copy)]
struct Exposed {
    /// Reducing gradients.
    reduce_s: f64,
    /// Gathering sharded parameters, each pass of a micro-batch through a stage.
    pass_gather_s: f64,
}

/// Whether an operation reduces gradients or gathers parameters for a pass.
fn is_exchange_of_shards(operation: &Operation) -> bool {
    match operation.phase {
        Phase::GradientReduce => true,
        Phase::ParameterGather => operation.micro_batch.is_some(),
        _ => false,
    }
}

/// The class of each rank.
fn placed(layout: &Layout, classes: &[(&ForecastClass, u64)]) -> Vec<u16> {
    let ranks = layout.world_size() as Rank;
    let mut order: Vec<Rank> = (0..ranks).collect();
    order.sort_by_key(|rank| (layout.coordinates(*rank).data, *rank));
    let mut class_of_rank = vec![0; order.len()];
    let mut left = order.into_iter();
    for (index, (_, count)) in classes.iter().enumerate() {
        let count = usize::try_from(*count).unwrap_or(usize::MAX);
        for rank in left.by_ref().take(count) {
            class_of_rank[rank as usize] = index as u16;
        }
    }
    class_of_rank
}

/// How the members of each axis lie on the machines of a fabric that ranks fill in order.
pub(crate) fn groups(schedule: &Schedule, fabric: &Fabric) -> Vec<Group> {
    let of = |axis: &laggard_schedule::Axis| {
        let longest = axis.groups.iter().max_by_key(|group| group.len());
        match longest.map_or(&[][..], |group| &group[..]) {
            [first, second, ..] => {
                let ranks = longest.map_or(1, Vec::len) as u32;
                Group::strided(ranks, first.abs_diff(*second), fabric)
            }
            _ => Group::new(1, 1),
        }
    };
    schedule.axes.iter().map(of).collect()
}

#[cfg(test)]
mod tests;
