//! What steps of measured classes take: replays of schedules by calibrated costs.

use laggard_schedule::{Layout, ModelWork, Operation, OperationKind, Phase, Schedule, generate};
use laggard_simulate::{Degrees, Places, SimulateError, StepPrediction};
use laggard_specs::model_work;
use laggard_types::Rank;
use std::collections::BTreeMap;
use std::ops::Range;

use super::{Measured, write};
use crate::file::{Expected, ExpectedStep, PlannedJob, PlannedOption};
use crate::options::{ClassTime, Group, JobPlan, Kind, MixedPipeline, Parts};
use crate::shares::Worker;

/// Micro-batches of the steps that a replica's pace is read from.
const FEW: u32 = 1;
const MANY: u32 = 3;

/// Costs of steps.
pub(super) struct Costs<'m> {
    pub(super) measured: &'m Measured<'m>,
    work: ModelWork,
}

/// How long classes take for parts of the model, seconds of a micro-batch.
pub(super) struct Pace {
    /// Forward and backward of each transformer layer, by class.
    layers: Vec<Vec<f64>>,
    /// The output head, by class.
    head: Vec<f64>,
    /// The transfers of a stage, by class.
    transfers: Vec<f64>,
}

impl Pace {
    /// What a stage of a class takes for some layers.
    pub(super) fn seconds(&self, class: usize, range: Range<usize>) -> f64 {
        let layers = &self.layers[class];
        let head = match range.end == layers.len() {
            true => self.head[class],
            false => 0.0,
        };
        layers[range].iter().sum::<f64>() + head + self.transfers[class]
    }
}

impl<'m> Costs<'m> {
    pub(super) fn new(measured: &'m Measured<'m>) -> Self {
        let size = (measured.micro_batch, measured.sequence_length);
        Self {
            work: model_work(measured.model, size, measured.element_bytes),
            measured,
        }
    }

    /// An option of some jobs, predicted.
    pub(super) fn option(
        &self,
        kind: Kind,
        plans: &[JobPlan],
    ) -> Result<PlannedOption, SimulateError> {
        let jobs = plans.iter().enumerate().map(|(at, plan)| {
            let mut job = write::job(self.measured, plan, at + 1);
            job.expected = self.expected(&job)?;
            Ok(job)
        });
        let jobs = jobs.collect::<Result<Vec<_>, SimulateError>>()?;
        Ok(write::option(self.measured, kind, jobs))
    }

    /// What a step of a job is predicted to be.
    pub(super) fn expected(&self, job: &PlannedJob) -> Result<ExpectedStep, SimulateError> {
        let schedule = self.schedule(job)?;
        let class_of_rank = job.class_of_rank();
        let class = |rank: Rank| class_of_rank[rank as usize];
        let calibration = self.measured.calibration;
        let step = calibration.predict(&schedule, class, self.measured.draws)?;
        let tokens = job.step_tokens();
        Ok(ExpectedStep {
            step_s: Expected {
                value: step.median_s,
                low: step.low_s,
                high: step.high_s,
            },
            tokens_per_s: Expected {
                value: tokens / step.median_s,
                low: tokens / step.high_s,
                high: tokens / step.low_s,
            },
            mfu: None,
            classes: self.class_times(job, &schedule)?,
        })
    }

    /// Length of a step of a job in which nothing varies, seconds.
    pub(super) fn calm_s(&self, plan: &JobPlan) -> Result<f64, SimulateError> {
        let job = write::job(self.measured, plan, 1);
        let schedule = self.schedule(&job)?;
        Ok(self.replay(&job, &schedule, |_| true)?.step_s)
    }

    /// Where the time of each class goes. Bubbles count as waiting.
    fn class_times(
        &self,
        job: &PlannedJob,
        schedule: &Schedule,
    ) -> Result<BTreeMap<String, ClassTime>, SimulateError> {
        let whole = self.replay(job, schedule, |_| true)?;
        let is_work = |operation: &Operation| operation.axis.is_none();
        let waiting = self.replay(job, schedule, is_work)?;
        let mut times: BTreeMap<String, ClassTime> = BTreeMap::new();
        let ranks = whole.ranks.iter().zip(&waiting.ranks);
        for (class, (rank, free)) in job.class_of_rank().into_iter().zip(ranks) {
            let waiting_s = free.idle_s.min(rank.idle_s);
            let time = ClassTime {
                devices: 1,
                kernels_s: rank.compute_s,
                communication_s: rank.idle_s - waiting_s,
                bubble_s: 0.0,
                waiting_s,
                jitter_s: 0.0,
                links_s: 0.0,
            };
            times.entry(class.to_owned()).or_default().include(&time);
        }
        Ok(times)
    }

    /// The step with every operation as it usually is, those that `counts` leaves out taking no
    /// time.
    fn replay(
        &self,
        job: &PlannedJob,
        schedule: &Schedule,
        counts: impl Fn(&Operation) -> bool,
    ) -> Result<StepPrediction, SimulateError> {
        let of_rank = job.class_of_rank();
        let class = |rank: Rank| of_rank[rank as usize];
        let calibration = self.measured.calibration;
        calibration.usual_step(schedule, class, counts)
    }

    /// What an operation usually takes on a class.
    fn usual(
        &self,
        class: usize,
        operation: &Operation,
        places: &Places,
    ) -> Result<f64, SimulateError> {
        let class = &self.measured.classes[class].name;
        let place = places.place(operation);
        let seconds = self
            .measured
            .calibration
            .seconds(class, operation, place, 0.5);
        seconds.ok_or_else(|| SimulateError::NotCalibrated {
            operation: operation.name.clone(),
            class: class.clone(),
        })
    }

    fn schedule(&self, job: &PlannedJob) -> Result<Schedule, SimulateError> {
        Ok(generate(&job.layout(), &self.work)?)
    }

    /// A class's ranks as workers, by steps in which all ranks are of that class.
    pub(super) fn worker(&self, class: usize) -> Result<Worker, SimulateError> {
        let step = |micro_batches: u32| {
            let group = Group {
                class,
                replicas: self.measured.ranks().into(),
                micro_batches,
            };
            self.calm_s(&self.replicas(vec![group]))
        };
        let (few, many) = (step(FEW)?, step(MANY)?);
        let micro_batch_seconds = (many - few) / f64::from(MANY - FEW);
        Ok(Worker {
            replicas: self.measured.classes[class].ranks.into(),
            fixed_seconds: (few - f64::from(FEW) * micro_batch_seconds).max(0.0),
            micro_batch_seconds,
            most: None,
        })
    }

    /// What parts of the model take on each class.
    pub(super) fn pace(&self) -> Result<Pace, SimulateError> {
        let layers = self.measured.model.layers as usize;
        let classes = self.measured.classes.len();
        let halves = vec![(0, layers.div_ceil(2)), (0, layers / 2)];
        let job = write::job(self.measured, &self.pipeline(1, halves), 1);
        let batches = f64::from(job.degrees.micro_batches);
        let schedule = self.schedule(&job)?;
        let places = Places::of(&schedule);
        let mut pace = Pace {
            layers: vec![vec![0.0; layers]; classes],
            head: vec![0.0; classes],
            transfers: vec![0.0; classes],
        };
        for class in 0..classes {
            for operation in &schedule.operations {
                let (share, taken) = match (operation.kind, operation.layer) {
                    // Both stages have their ends of the same transfers.
                    (OperationKind::Send | OperationKind::Receive, _) => {
                        (0.5, &mut pace.transfers[class])
                    }
                    (OperationKind::Compute, Some(at)) if is_of_micro_batch(operation) => {
                        let layer = pace.layers[class].get_mut(at as usize);
                        (1.0, layer.unwrap_or(&mut pace.head[class]))
                    }
                    _ => continue,
                };
                *taken += share * self.usual(class, operation, &places)? / batches;
            }
        }
        Ok(pace)
    }

    /// A job of replicas of one rank each.
    pub(super) fn replicas(&self, groups: Vec<Group>) -> JobPlan {
        let data = groups.iter().map(|group| group.replicas).sum::<u64>() as u32;
        let most = groups.iter().map(|group| group.micro_batches).max();
        JobPlan {
            degrees: self.degrees((data, 1), most.unwrap_or(1)),
            parts: Parts::Replicas(groups),
            idle: Vec::new(),
        }
    }

    /// A job of replicas with a rank for each stage, of a class and with so many layers.
    pub(super) fn pipeline(&self, replicas: u32, stages: Vec<(usize, usize)>) -> JobPlan {
        let micro_batches = self.measured.micro_batches / replicas;
        JobPlan {
            degrees: self.degrees((replicas, stages.len() as u32), micro_batches),
            parts: Parts::Stages(MixedPipeline { stages }),
            idle: Vec::new(),
        }
    }

    fn degrees(&self, (data, pipeline): (u32, u32), micro_batches: u32) -> Degrees {
        let layout = Layout {
            pipeline_parallel: pipeline,
            zero: self.measured.layout.zero,
            recompute: self.measured.layout.recompute,
            recompute_layers: self.measured.layout.recompute_layers,
            ..Layout::data_parallel(data, micro_batches)
        };
        Degrees::of_layout(&layout, self.measured.micro_batch)
    }
}

fn is_of_micro_batch(operation: &Operation) -> bool {
    let phases = [Phase::Forward, Phase::Backward, Phase::Recompute];
    phases.contains(&operation.phase)
}
