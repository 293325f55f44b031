//! One training job on devices of one or several classes, and what it does: its step with the time
//! of each class's devices by cause.

use laggard_simulate::{
    Constant, Constants, Degrees, Goodput, Job, Machine, StepTime, predict, time_between_failures,
};
use laggard_types::Seconds;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::search::round;
use super::spans::{self, MixedPipeline};
use crate::problem::{Factors, PlanError, Problem};

/// Micro-batches of the slowest from which on rounding to whole ones costs less than 2 %: one of
/// them at most is lost.
const FINE_MICRO_BATCHES: f64 = 50.0;

/// Replicas of one class with equally many micro-batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The class, by position.
    pub class: usize,
    /// Replicas.
    pub replicas: u64,
    /// Micro-batches of each in a step.
    pub micro_batches: u32,
}

/// What each class has of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Parts {
    /// Whole replicas.
    Replicas(Vec<Group>),
    /// Stages of every replica.
    Stages(MixedPipeline),
}

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobPlan {
    /// The layout; of unequal shares the largest counts.
    pub degrees: Degrees,
    /// Who does what.
    pub parts: Parts,
    /// Devices of each class that it was given and has nothing for.
    pub idle: Vec<u64>,
}

impl JobPlan {
    /// Devices of a class that work in it.
    #[must_use]
    pub fn devices(&self, class: usize) -> u64 {
        let degrees = &self.degrees;
        let stage = u64::from(degrees.tensor) * u64::from(degrees.context);
        match &self.parts {
            Parts::Replicas(groups) => {
                let own = groups.iter().filter(|group| group.class == class);
                let replicas: u64 = own.map(|group| group.replicas).sum();
                replicas * stage * u64::from(degrees.pipeline)
            }
            Parts::Stages(span) => {
                let own = span.stages.iter().filter(|stage| stage.0 == class);
                own.count() as u64 * stage * u64::from(degrees.data)
            }
        }
    }

    /// Whether all replicas have as many micro-batches.
    #[must_use]
    pub fn has_equal_shares(&self) -> bool {
        let Parts::Replicas(groups) = &self.parts else {
            return true;
        };
        let same = |pair: &[Group]| pair[0].micro_batches == pair[1].micro_batches;
        groups.windows(2).all(same)
    }

    /// What the mean gradient of one replica of a group counts for in that of the step: its share
    /// of the micro-batches. Equal weights would favour the sequences of slow replicas.
    #[must_use]
    pub fn gradient_weight(&self, group: &Group) -> f64 {
        f64::from(group.micro_batches) / self.micro_batches()
    }

    /// Tokens of a step from which on whole micro-batches cost less than 2 %, of sequences of a
    /// length; `None` where all replicas have equally many.
    #[must_use]
    pub fn fine_step_tokens(&self, sequence_length: u32) -> Option<f64> {
        let Parts::Replicas(groups) = &self.parts else {
            return None;
        };
        let least = groups.iter().map(|group| group.micro_batches).min()?;
        let most = groups.iter().map(|group| group.micro_batches).max()?;
        if least == most {
            return None;
        }
        let sequences = self.micro_batches() * f64::from(self.degrees.micro_batch);
        let tokens = sequences * f64::from(sequence_length);
        let larger = FINE_MICRO_BATCHES * f64::from(round(&self.degrees)) / f64::from(least);
        Some(tokens * larger.max(1.0))
    }

    /// Micro-batches of all replicas in a step.
    fn micro_batches(&self) -> f64 {
        match &self.parts {
            Parts::Replicas(groups) => {
                let of = |group: &Group| group.replicas as f64 * f64::from(group.micro_batches);
                groups.iter().map(of).sum()
            }
            Parts::Stages(_) => {
                f64::from(self.degrees.data) * f64::from(self.degrees.micro_batches)
            }
        }
    }
}

/// Seconds of a step of a class's devices, on average over them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassTime {
    /// Devices that work.
    pub devices: u64,
    /// Kernels and the host.
    pub kernels_s: f64,
    /// Communication that nothing hides.
    pub communication_s: f64,
    /// Stages without work while the pipeline fills and drains.
    pub bubble_s: f64,
    /// Waiting for slower classes, and for those with a micro-batch more.
    pub waiting_s: f64,
    /// Waiting for whoever is late at random.
    pub jitter_s: f64,
    /// What crosses links between sites, and waits for it.
    #[serde(default)]
    pub links_s: f64,
}

/// What a job does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Length of a step, seconds.
    pub step_s: f64,
    /// Tokens of a step.
    pub step_tokens: f64,
    /// The devices' time, class by class.
    pub classes: Vec<ClassTime>,
    /// Mean time between failures, seconds; `None` where a class has no rate.
    pub mtbf_s: Option<f64>,
    /// What failures leave, at the best interval between checkpoints.
    pub goodput: Option<Goodput>,
}

impl ClassTime {
    /// Adds devices to the average.
    pub(crate) fn include(&mut self, more: &Self) {
        let devices = self.devices + more.devices;
        let weight = more.devices as f64 / (devices as f64).max(1.0);
        let mix = |old: f64, new: f64| old + weight * (new - old);
        *self = Self {
            devices,
            kernels_s: mix(self.kernels_s, more.kernels_s),
            communication_s: mix(self.communication_s, more.communication_s),
            bubble_s: mix(self.bubble_s, more.bubble_s),
            waiting_s: mix(self.waiting_s, more.waiting_s),
            jitter_s: mix(self.jitter_s, more.jitter_s),
            links_s: mix(self.links_s, more.links_s),
        };
    }
}

impl Outcome {
    /// Tokens per second while it steps.
    #[must_use]
    pub fn stepping_tokens_per_s(&self) -> f64 {
        self.step_tokens / self.step_s
    }

    /// Share of time that is useful; 1 where no failure rate is known.
    #[must_use]
    pub fn useful(&self) -> f64 {
        self.goodput.map_or(1.0, |it| it.useful)
    }

    /// Tokens per second that are kept.
    #[must_use]
    pub fn tokens_per_s(&self) -> f64 {
        self.stepping_tokens_per_s() * self.useful()
    }
}

/// A class's machine and the constants under some factors.
pub(crate) struct Costs<'p> {
    pub(crate) problem: &'p Problem<'p>,
    pub(super) machines: Vec<Machine>,
    /// The first class with the same machine as each: steps on it are predicted once.
    pub(super) first_alike: Vec<usize>,
    pub(super) constants: Constants,
    failures: f64,
}

impl<'p> Costs<'p> {
    pub(crate) fn new(problem: &'p Problem<'p>, factors: &Factors) -> Self {
        let classes = problem.classes.iter().zip(&factors.speed);
        let machine = |(class, speed): (&crate::problem::Class, &f64)| {
            let machine = class.of.machine.clone();
            let speed = speed * class.pace;
            Machine {
                half_peak: machine.half_peak * speed,
                fp8_peak: machine.fp8_peak * speed,
                fp4_peak: machine.fp4_peak * speed,
                memory_bandwidth: machine.memory_bandwidth * speed,
                ..machine
            }
        };
        let mut constants = problem.constants.clone();
        for constant in [Constant::Jitter, Constant::LayerJitter] {
            constants.set(constant, constants.get(constant) * factors.jitter);
        }
        let machines: Vec<Machine> = classes.map(machine).collect();
        let first = |machine: &Machine| machines.iter().position(|it| it == machine).unwrap_or(0);
        Self {
            problem,
            first_alike: machines.iter().map(first).collect(),
            machines,
            constants,
            failures: factors.failures,
        }
    }

    pub(super) fn job(&self, degrees: Degrees) -> Job {
        let training = &self.problem.training;
        Job {
            shape: self.problem.shape(),
            degrees,
            sequence_length: training.sequence_length,
            precision: training.precision,
            software: training.software,
        }
    }

    /// The step of a class's replicas with so many micro-batches, were all ranks of that class.
    pub(super) fn step(&self, degrees: &Degrees, class: usize, micro_batches: u32) -> StepTime {
        let degrees = Degrees {
            micro_batches,
            ..*degrees
        };
        predict(&self.job(degrees), &self.machines[class], &self.constants)
    }

    /// What a job does.
    pub(crate) fn outcome(&self, job: &JobPlan) -> Result<Outcome, PlanError> {
        let mut outcome = match &job.parts {
            Parts::Replicas(groups) => self.of_replicas(&job.degrees, groups),
            Parts::Stages(span) => spans::outcome(self, &job.degrees, span),
        };
        outcome.mtbf_s = self.mtbf(outcome.classes.iter().map(|time| time.devices));
        let goodput = outcome.mtbf_s.map(|mtbf| self.goodput(mtbf)).transpose()?;
        outcome.goodput = goodput;
        Ok(outcome)
    }

    fn of_replicas(&self, degrees: &Degrees, groups: &[Group]) -> Outcome {
        let mut known: BTreeMap<(usize, u32), StepTime> = BTreeMap::new();
        let steps = groups.iter().map(|group| {
            let (class, count) = (self.first_alike[group.class], group.micro_batches);
            let new = || self.step(degrees, class, count);
            *known.entry((class, count)).or_insert_with(new)
        });
        let steps: Vec<StepTime> = steps.collect();
        let slowest = steps.iter().map(|step| step.total_s).fold(0.0, f64::max);
        let links_s = self.gradients_across(groups.iter().map(|group| group.class));
        let ranks = degrees.ranks_per_replica();
        let mut classes = vec![ClassTime::default(); self.machines.len()];
        let mut micro_batches = 0.0;
        for (group, step) in groups.iter().zip(&steps) {
            let devices = group.replicas * ranks;
            micro_batches += (group.replicas * u64::from(group.micro_batches)) as f64;
            classes[group.class].include(&ClassTime {
                devices,
                links_s,
                ..times(step, slowest)
            });
        }
        let sequences = micro_batches * f64::from(degrees.micro_batch);
        Outcome {
            step_s: slowest + links_s,
            step_tokens: sequences * f64::from(self.problem.training.sequence_length),
            classes,
            mtbf_s: None,
            goodput: None,
        }
    }

    /// Share of time that is useful of a job on so many devices of each class; `None` where it has
    /// none.
    pub(super) fn useful(&self, devices: &[u64]) -> Option<f64> {
        match self.mtbf(devices.iter().copied()) {
            None => Some(1.0),
            Some(mtbf) => self.goodput(mtbf).ok().map(|it| it.useful),
        }
    }

    /// The same of a job that fails so often.
    pub(crate) fn useful_at(&self, failures_per_s: f64) -> Option<f64> {
        match failures_per_s > 0.0 {
            true => self.goodput(1.0 / failures_per_s).ok().map(|it| it.useful),
            false => Some(1.0),
        }
    }

    /// Failures per second of so many devices of a class; `None` where they are not known.
    pub(crate) fn failures_per_s(&self, class: usize, devices: u64) -> Option<f64> {
        let rate = self.problem.classes[class].of.failures_per_device_year;
        let mtbf = time_between_failures([(Some(rate?), devices)].into_iter());
        Some(mtbf.map_or(0.0, |mtbf| self.failures / mtbf.0))
    }

    fn mtbf(&self, devices: impl Iterator<Item = u64>) -> Option<f64> {
        let rates = self.problem.classes.iter();
        let rates = rates.map(|class| class.of.failures_per_device_year);
        let mtbf = time_between_failures(rates.zip(devices))?.0 / self.failures;
        mtbf.is_finite().then_some(mtbf)
    }

    fn goodput(&self, mtbf_s: f64) -> Result<Goodput, PlanError> {
        Ok(self.problem.training.around.goodput(Seconds(mtbf_s))?)
    }
}

/// A device's time in a step that lasts `step_s` in all.
fn times(step: &StepTime, step_s: f64) -> ClassTime {
    let communication_s = step.communication_s();
    ClassTime {
        devices: 0,
        kernels_s: step.total_s - step.jitter_s - step.bubble_s - communication_s,
        communication_s,
        bubble_s: step.bubble_s,
        waiting_s: step_s - step.total_s,
        jitter_s: step.jitter_s,
        links_s: 0.0,
    }
}
