//! The step of a job on one rank, for those who want to execute it in another way and compare: as
//! `laggard run` executes it, and operation by operation as it is issued. Nothing is recorded.

use super::RankRunner;
use crate::input::Embedding;
use crate::job::Job;
use crate::program::{Action, Work};
use crate::run::identity;
use crate::{MeasureError, Settings};
use laggard_backend::{QueueId, Task, World};
use laggard_types::FlopPerSecond;
use std::sync::Arc;

/// A rank that is ready to run steps of a job of its own.
pub struct StepProbe<'a> {
    runner: RankRunner<'a>,
}

/// One operation of the step that the device does.
#[derive(Debug, Clone)]
pub struct StepOperation {
    /// The queue that it is issued on.
    pub queue: QueueId,
    /// Operations before it, by position among these, that it comes after beside those on its
    /// queue.
    pub after: Vec<usize>,
    /// What it does.
    pub task: Task,
}

/// Sets up the one rank of a job and lets the caller run its steps.
///
/// # Errors
/// As [`crate::run_on`]; a job of several ranks is refused; whatever `work` fails with.
pub fn probe_steps<T, E: From<MeasureError>>(
    settings: &Settings,
    world: World,
    work: impl FnOnce(&mut StepProbe<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let ranks = settings.ranks();
    if ranks != 1 {
        let refused = MeasureError::Setting {
            what: "the number of ranks",
            value: ranks.to_string(),
            why: "the step of one rank alone is probed".to_owned(),
            hint: "give a layout of one rank".to_owned(),
        };
        return Err(refused.into());
    }
    let device = world.device.description();
    let identity = identity(&*world.device);
    let job = Job::on(settings, &[device], &[identity])?;
    let shape = (job.shape.vocabulary, job.shape.hidden);
    let embedding = Embedding::new(settings.seed, shape.0, shape.1);
    // No fault asks for pauses, which alone are counted by the peak.
    let peak = FlopPerSecond(1.0);
    let runner = RankRunner::start(&job, 0, world, embedding, peak)?;
    work(&mut StepProbe { runner })
}

impl StepProbe<'_> {
    /// Runs one step as a run does, and waits for it.
    ///
    /// # Errors
    /// [`MeasureError::Operation`], naming the operation that failed or did not end in time.
    pub fn run(&mut self, step: u32) -> Result<(), MeasureError> {
        self.runner.execute(step)
    }

    /// Does what the host does before the device begins.
    ///
    /// # Errors
    /// As [`StepProbe::run`].
    pub fn prepare(&mut self, step: u32) -> Result<(), MeasureError> {
        self.runner.after.clear();
        let slowness = self.runner.job.injector.slowness(0, step);
        let prepared = self.runner.prepare(step, slowness);
        prepared
            .map(|_| ())
            .map_err(|source| self.runner.failed(0, step, source))
    }

    /// What the device does in a step, in the order in which it is issued. The optimizer's step
    /// size is that of `step`.
    ///
    /// # Errors
    /// [`MeasureError::Unsupported`] for an operation by which ranks meet.
    pub fn operations(&self, step: u32) -> Result<Vec<StepOperation>, MeasureError> {
        let runner = &self.runner;
        let mut operations: Vec<StepOperation> = Vec::new();
        // Position among these of each item; `None` for the host's.
        let mut position_of: Vec<Option<usize>> = Vec::new();
        for (at, item) in runner.program.items.iter().enumerate() {
            let (queue, kernels) = match &item.action {
                Action::Input => {
                    position_of.push(None);
                    continue;
                }
                Action::Compute {
                    work: Work::Optimizer,
                    queue,
                    ..
                } => {
                    let rate = super::learning_rate(step);
                    let kernels = runner.network.optimizer(rate);
                    let kernels = kernels.map_err(|source| runner.failed(at, step, source))?;
                    (*queue, Arc::from(kernels))
                }
                Action::Compute { queue, kernels, .. } => (*queue, Arc::clone(kernels)),
                Action::Meet { .. } => {
                    let operation = &runner.job.schedule.operations[item.operation as usize];
                    return Err(MeasureError::unsupported(operation, "ranks meet in it"));
                }
            };
            let before = item.after.iter();
            let after = before.filter_map(|before| position_of[*before]).collect();
            position_of.push(Some(operations.len()));
            operations.push(StepOperation {
                queue,
                after,
                task: Task {
                    kernels,
                    work_scale: 1.0,
                    extra_flop: 0,
                },
            });
        }
        Ok(operations)
    }

    /// From the first begin on the device to the last end in the step that was run last, seconds;
    /// `None` before any.
    pub fn device_seconds(&self) -> Option<f64> {
        let stamps = self.runner.stamps.iter().map(|it| it.stamp);
        let begin = stamps.clone().map(|stamp| stamp.start_ns).min()?;
        let end = stamps.map(|stamp| stamp.end_ns).max()?;
        Some((end - begin) as f64 * 1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Region;
    use crate::testing;
    use laggard_backend::threads::{ThreadOptions, worlds};
    use laggard_backend::{Device, Launch, Slice};
    use std::time::Duration;

    fn world() -> World {
        let mut all = worlds(1, &ThreadOptions::default()).unwrap();
        all.remove(0)
    }

    #[test]
    fn operations_one_by_one_compute_what_a_step_does() {
        let parameters = |by_hand: bool| {
            let world = world();
            let device: Arc<dyn Device> = Arc::clone(&world.device);
            let settings = testing::settings(1, 2);
            probe_steps(&settings, world, |probe| {
                for step in 0..2 {
                    if !by_hand {
                        probe.run(step)?;
                        assert!(probe.device_seconds() > Some(0.0));
                        continue;
                    }
                    probe.prepare(step)?;
                    let mut tokens = Vec::new();
                    for operation in probe.operations(step)? {
                        let after: Vec<_> = operation.after.iter().map(|at| tokens[*at]).collect();
                        let launch = Launch {
                            queue: operation.queue,
                            after: &after,
                            tag: 0,
                        };
                        tokens.push(device.enqueue(&operation.task, launch).unwrap());
                    }
                    for token in tokens {
                        device.wait(token, Duration::from_secs(60)).unwrap();
                    }
                }
                let memory = probe.runner.network().memory();
                let buffer = memory.buffer(Region::Parameters, (0, 0)).unwrap();
                Ok::<_, MeasureError>(Slice::whole(buffer).read_f32().unwrap())
            })
            .unwrap()
        };
        let (one, other) = (parameters(false), parameters(true));
        assert!(one.len() > 100);
        assert_eq!(one, other);
    }

    #[test]
    fn several_ranks_are_refused() {
        let settings = testing::settings(2, 1);
        let outcome = probe_steps(&settings, world(), |_| Ok::<_, MeasureError>(()));
        let words = outcome.unwrap_err().to_string();
        assert!(words.contains("one rank alone"), "{words}");
    }
}
