//! A plan as a file: what `laggard plan -o DIR` writes as `plan.json`, and what is rehearsed,
//! turned into launch files and planned again from. Classes are named in it, not numbered, so that
//! it can be read beside another description of the cluster.

mod check;
mod names;
mod shared;
mod write;

use laggard_schedule::Layout;
use laggard_simulate::{Degrees, Precision, layout_of};
use laggard_specs::Recompute;
use laggard_types::Rank;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Add;
use thiserror::Error;

use crate::compare::Objective;
use crate::options::{ClassTime, Kind, Use};
pub(crate) use names::{JOB_NAMES, is_job_name, label};
pub use write::Answer;
pub(crate) use write::{job_name, parts};

/// Version of the file's format.
pub const PLAN_VERSION: u32 = 1;

/// A plan: every option that there was, and which of them was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// Version of this format.
    pub schema_version: u32,
    /// The cluster's name, or the records that the classes were found in.
    pub cluster: String,
    /// What the chosen option is best by.
    pub objective: Objective,
    /// The classes of devices.
    pub classes: Vec<PlannedClass>,
    /// Position of the chosen option in `options`.
    pub chosen: usize,
    /// All options.
    pub options: Vec<PlannedOption>,
    /// What to keep in mind, in sentences.
    pub caveats: Vec<String>,
}

/// Devices that can stand in for each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedClass {
    /// Its name, by which the rest of the file speaks of it.
    pub name: String,
    /// The accelerator, as in laggard's tables; of measured classes the name again.
    pub accelerator: String,
    /// The site; absent where there is but one and it has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Devices that there are.
    pub count: u64,
    /// Devices of a host.
    pub node_devices: u64,
    /// Devices that the fabric inside a box or rack joins, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_devices: Option<u32>,
    /// How fast the class is beside the fastest, above 0 and at most 1, where it was emulated in
    /// the run that it was measured in and has to be in its rehearsal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulated_rate: Option<f64>,
}

/// A way to use the devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedOption {
    /// Its number on the page; absent where the page leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<usize>,
    /// Which kind.
    pub kind: Kind,
    /// What is done, in words.
    pub name: String,
    /// Whether it can be the answer: not where the algorithm is another and convergence is not
    /// modelled.
    pub can_win: bool,
    /// What the devices of each class do.
    pub uses: BTreeMap<String, Use>,
    /// Tokens per second of all jobs.
    pub tokens_per_s: Expected,
    /// Tokens per second of one model.
    pub model_tokens_per_s: Expected,
    /// MFU over the peaks of the devices that jobs were given; absent where no peak is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Power drawn, with cooling, megawatts; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_mw: Option<f64>,
    /// Dollars earned per hour less power; absent where prices are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_dollars_per_hour: Option<f64>,
    /// What trains, each job in a world of its own.
    pub jobs: Vec<PlannedJob>,
}

/// A prediction, and the interval that nine of ten outcomes are in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// What is predicted.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Expected {
    /// A prediction that may be wrong by a factor either way.
    #[must_use]
    pub fn within_factor(value: f64, factor: f64) -> Self {
        Self {
            value,
            low: value / factor,
            high: value * factor,
        }
    }
}

impl Add for Expected {
    type Output = Self;

    /// The sum, whose ends are both low or both high.
    fn add(self, other: Self) -> Self {
        Self {
            value: self.value + other.value,
            low: self.low + other.low,
            high: self.high + other.high,
        }
    }
}

/// A job that trains one model in a world of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedJob {
    /// Its name, another for each job of an option.
    pub name: String,
    /// The model, as in laggard's tables.
    pub model: String,
    /// Tokens of a sequence.
    pub sequence_length: u32,
    /// Arithmetic of the products; absent for laggard's own job, which computes in f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// The layout; of unequal shares of micro-batches the largest counts.
    pub degrees: Degrees,
    /// Transformer layers of each piece of a replica's pipeline, in the order of the model, where
    /// every replica has the same and they do not divide evenly; else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub piece_layers: Vec<u32>,
    /// Who does what.
    pub parts: PlannedParts,
    /// Sequences of a step.
    pub global_batch_sequences: u64,
    /// Gradients are reduced in buckets of at least this many bytes.
    pub bucket_bytes: u64,
    /// Whether that happens while backward goes on.
    pub overlap: bool,
    /// What a step is predicted to be.
    pub expected: ExpectedStep,
}

/// What each class has of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlannedParts {
    /// Whole replicas, in order of their data-parallel position.
    Replicas(Vec<PlannedReplicas>),
    /// Stages of every replica, in order of the pipeline.
    Stages(Vec<PlannedStage>),
}

/// Consecutive replicas that are alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedReplicas {
    /// Class of their devices.
    pub class: String,
    /// How many there are.
    pub replicas: u64,
    /// Micro-batches of each in a step.
    pub micro_batches: u32,
    /// What the mean gradient of one of them counts in the step's, so that every sequence counts
    /// alike: its micro-batches over those of all.
    pub gradient_weight: f64,
}

/// A stage of every replica's pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedStage {
    /// Class of its devices.
    pub class: String,
    /// Transformer layers that it has.
    pub layers: u32,
}

/// What a job's step is predicted to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedStep {
    /// Its length in seconds.
    pub step_s: Expected,
    /// Tokens per second while it steps.
    pub tokens_per_s: Expected,
    /// MFU over the peaks of its devices; absent where no peak is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Where the time of each class's devices goes, seconds of the step.
    pub classes: BTreeMap<String, ClassTime>,
}

/// A file that is no plan.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum PlanFileError {
    /// Not the format, or not of this version.
    #[error("cannot be read as a plan: {why}\nhint: write it again with `laggard plan -o DIR`")]
    Unreadable {
        /// What is wrong, with line and column.
        why: String,
    },
    /// A version that this laggard does not know.
    #[error(
        "the plan has format version {found}, this laggard reads {PLAN_VERSION}\nhint: write it \
         again with `laggard plan -o DIR`, or use the laggard that wrote it"
    )]
    Version {
        /// The file's version.
        found: u64,
    },
    /// Parts that do not fit each other.
    #[error("{place}: {why}\nhint: write the plan again with `laggard plan -o DIR`")]
    Contradiction {
        /// Where in the file.
        place: String,
        /// What does not fit.
        why: String,
    },
    /// Runs that are not those of an option's jobs.
    #[error(
        "jobs of the option `{option}`: {jobs}, records: {runs}\nhint: give one record for each \
         job, in order"
    )]
    OtherRuns {
        /// The option.
        option: String,
        /// Its jobs.
        jobs: usize,
        /// Records that were given.
        runs: usize,
    },
    /// No option has that number.
    #[error("the plan has no option {number}\nhint: its options are {known}")]
    NoOption {
        /// What was asked for.
        number: usize,
        /// The numbers that there are.
        known: String,
    },
}

impl PlanFile {
    /// The chosen option, or that of another number on the page.
    ///
    /// # Errors
    /// If no option has the number.
    pub fn option(&self, number: Option<usize>) -> Result<&PlannedOption, PlanFileError> {
        let Some(number) = number else {
            return Ok(&self.options[self.chosen]);
        };
        let found = self.options.iter().find(|it| it.number == Some(number));
        found.ok_or_else(|| {
            let numbers = self.options.iter().filter_map(|it| it.number);
            let known: Vec<String> = numbers.map(|number| number.to_string()).collect();
            PlanFileError::NoOption {
                number,
                known: known.join(", "),
            }
        })
    }

    /// A class by its name.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<&PlannedClass> {
        self.classes.iter().find(|class| class.name == name)
    }
}

impl PlannedJob {
    /// The layout that its ranks execute.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let stage_layers = match &self.parts {
            PlannedParts::Replicas(_) => self.piece_layers.clone(),
            PlannedParts::Stages(stages) => stages.iter().map(|stage| stage.layers).collect(),
        };
        Layout {
            micro_batches: self.micro_batches(),
            stage_layers,
            bucket_bytes: self.bucket_bytes,
            overlap: self.overlap,
            ..layout_of(&self.degrees)
        }
    }

    /// Why `laggard run` cannot rehearse it, if it cannot.
    #[must_use]
    pub fn unrehearsed(&self) -> Option<&'static str> {
        let layers = &self.piece_layers;
        match self.degrees.recompute {
            Recompute::Attention => Some(
                "its backward computes attention alone again, and `laggard run` whole layers or \
                 none",
            ),
            // The last piece has the head at least.
            _ if layers.iter().rev().skip(1).any(|layers| *layers == 0) => {
                Some("a piece of its pipeline has no layer, and `laggard run` needs one in each")
            }
            _ => None,
        }
    }

    /// Ranks of its world.
    #[must_use]
    pub fn ranks(&self) -> u64 {
        self.degrees.ranks()
    }

    /// Micro-batches of each replica, in order of the data-parallel position.
    #[must_use]
    pub fn micro_batches(&self) -> Vec<u32> {
        match &self.parts {
            PlannedParts::Replicas(groups) => {
                let of = |it: &PlannedReplicas| {
                    std::iter::repeat_n(it.micro_batches, it.replicas as usize)
                };
                groups.iter().flat_map(of).collect()
            }
            PlannedParts::Stages(_) => {
                vec![self.degrees.micro_batches; self.degrees.data as usize]
            }
        }
    }

    /// The class of each rank of its world, in the layout's order of ranks.
    #[must_use]
    pub fn class_of_rank(&self) -> Vec<&str> {
        let layout = layout_of(&self.degrees);
        let coordinates = (0..self.ranks() as Rank).map(|rank| layout.coordinates(rank));
        match &self.parts {
            PlannedParts::Replicas(groups) => {
                let of = |it: &'_ PlannedReplicas| it.replicas as usize;
                let of_replica: Vec<&str> = groups
                    .iter()
                    .flat_map(|it| std::iter::repeat_n(it.class.as_str(), of(it)))
                    .collect();
                coordinates.map(|at| of_replica[at.data as usize]).collect()
            }
            PlannedParts::Stages(stages) => coordinates
                .map(|at| stages[at.pipeline as usize].class.as_str())
                .collect(),
        }
    }

    /// Devices of each class that work in the job.
    #[must_use]
    pub fn devices(&self) -> BTreeMap<&str, u64> {
        let degrees = &self.degrees;
        let stage = u64::from(degrees.tensor) * u64::from(degrees.context);
        let parts: Vec<(&str, u64)> = match &self.parts {
            PlannedParts::Replicas(groups) => {
                let of_replica = stage * u64::from(degrees.pipeline);
                let group = |it: &'_ PlannedReplicas| it.replicas * of_replica;
                groups
                    .iter()
                    .map(|it| (it.class.as_str(), group(it)))
                    .collect()
            }
            PlannedParts::Stages(stages) => {
                let each = stage * u64::from(degrees.data);
                stages.iter().map(|it| (it.class.as_str(), each)).collect()
            }
        };
        let mut devices = BTreeMap::new();
        for (class, count) in parts {
            *devices.entry(class).or_default() += count;
        }
        devices
    }

    /// Tokens of a step.
    #[must_use]
    pub fn step_tokens(&self) -> f64 {
        self.global_batch_sequences as f64 * f64::from(self.sequence_length)
    }
}

#[cfg(test)]
pub(crate) mod tests;
