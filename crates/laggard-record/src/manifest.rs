//! `manifest.json`: what ran, where, on what, under which schedule.

use crate::sketch::SketchBaseline;
use crate::version::SchemaVersion;
use laggard_schedule::Schedule;
use laggard_types::{Caveat, ClockDomain, DeviceIdentity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Everything about a run except its samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the record's format.
    pub schema_version: SchemaVersion,
    /// Version of the laggard that wrote it.
    pub laggard_version: String,
    /// When the run began, nanoseconds of Unix time.
    pub created_unix_ns: i64,
    /// The command line.
    pub command_line: Vec<String>,
    /// Whether the times were measured, predicted or imported.
    pub origin: Origin,
    /// Hosts; ranks refer to them by position.
    pub hosts: Vec<Host>,
    /// Classes of accelerators; ranks refer to them by position.
    pub classes: Vec<Class>,
    /// One entry per rank, in order of rank.
    pub ranks: Vec<RankPlace>,
    /// Clock of the samples' times.
    pub clock: Clock,
    /// What was trained.
    pub workload: Workload,
    /// What a step does.
    pub schedule: Schedule,
    /// Seed of everything random in the run.
    pub seed: u64,
    /// What carries the collectives; `None` where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communication: Option<Communication>,
    /// What probes between hosts measured before the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Doubts that the writer had.
    pub caveats: Vec<Caveat>,
    /// Faults that were put in on purpose, for those who check an analysis. Analyses must not read
    /// it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truth: Vec<InjectedFault>,
}

/// Whether times were measured, predicted or imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// `laggard run`.
    Measured,
    /// `laggard simulate`.
    Predicted,
    /// `laggard simulate` of a world too large to keep every sample: tables `sketch_steps` and
    /// `sketch_ranks` stand for the others. Since version 3.
    Sketch(SketchBaseline),
    /// `laggard import`.
    Imported {
        /// The tool that made the trace.
        tool: String,
        /// The files that were read.
        files: Vec<String>,
    },
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Processor architecture, as `uname -m` names it.
    pub architecture: String,
    /// Processor model.
    pub processor: String,
    /// Logical processors that the job may use.
    pub cpus: u32,
    /// Whether this host exists only as a grouping of ranks.
    pub emulated: bool,
    /// The machine that it is, or is a part of. Hosts of one machine share a kernel and a clock.
    /// Before version 2 of the format each host counts as a machine of its own.
    #[serde(default)]
    pub machine: u32,
}

/// One class of accelerators: ranks of a class are expected to be equally fast.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// The class's name, such as `h100`.
    pub name: String,
    /// Whether ranks of this class are slowed down to be as slow as the class.
    pub emulated: bool,
    /// How they are; `None` where nobody said, which was by extra arithmetic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulated_by: Option<Emulation>,
    /// Training rate relative to the fastest class of the run, 0 to 1.
    pub relative_rate: f64,
    /// Where the relative rate came from.
    pub rate_source: String,
    /// Arithmetic peak of one rank of the class.
    pub peak: Option<Peak>,
}

/// How ranks of an emulated class come to be as slow as it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Emulation {
    /// They do extra arithmetic beside their own.
    ExtraArithmetic,
    /// They do their own alone, confined to some of the multiprocessors of a device that they have
    /// in common.
    GreenContext {
        /// Multiprocessors of one rank.
        multiprocessors: u32,
        /// Multiprocessors of the device.
        of: u32,
    },
}

impl Emulation {
    /// The part of its device that a rank has, 0 to 1.
    pub fn part(self) -> f64 {
        match self {
            Self::ExtraArithmetic => 1.0,
            Self::GreenContext {
                multiprocessors,
                of,
            } => f64::from(multiprocessors) / f64::from(of.max(1)),
        }
    }
}

impl fmt::Display for Emulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExtraArithmetic => f.write_str("extra arithmetic"),
            Self::GreenContext {
                multiprocessors,
                of,
            } => write!(f, "green context of {multiprocessors} of {of} SMs"),
        }
    }
}

/// The denominator of MFU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Peak {
    /// Dense peak of one rank in FLOP/s.
    pub flop_per_s: f64,
    /// Where it came from.
    pub kind: PeakKind,
    /// Source: a document, or how it was measured.
    pub source: String,
}

/// Where a peak came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeakKind {
    /// A vendor's dense figure: shares of it are MFU.
    Datasheet,
    /// Measured on this machine: shares of it are `share_of_measured_peak`.
    Measured,
}

/// Where one rank runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RankPlace {
    /// Host, by position in the manifest.
    pub host: u32,
    /// Class, by position in the manifest.
    pub class: u32,
    /// The device's name.
    pub device: String,
    /// The processors that the rank is bound to; empty where it is not bound.
    pub cpus: Vec<u32>,
    /// The processors that the launcher allowed it; empty where that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_cpus: Vec<u32>,
    /// How many processors' worth of time a cgroup grants it; `None` without a quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<f64>,
    /// NUMA node of its processors; `None` where they lie on several, or that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Share of its processors' time that others used just before the run, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_load: Option<f64>,
    /// The accelerator that it computes on; `None` on processors, and where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<DeviceIdentity>,
    /// Processes of others on that accelerator when the run began; `None` where that was not
    /// visible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_processes: Option<u32>,
}

/// What carries the collectives of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Communication {
    /// The backend with its version, such as `threads` or `Open MPI v4.1.4`.
    pub backend: String,
    /// How non-blocking calls progress, in words.
    pub progress: String,
}

/// What a probe between two hosts measured before the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Sending host, by position in the manifest.
    pub from_host: u32,
    /// Receiving host, by position in the manifest.
    pub to_host: u32,
    /// Time of a small message one way, nanoseconds.
    pub latency_ns: i64,
    /// Size of the messages that the bandwidth was measured with.
    pub bytes: u64,
    /// Bandwidth one way, bytes per second.
    pub bandwidth_bytes_per_s: f64,
}

/// The clock that the samples' times were read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Domain.
    pub domain: ClockDomain,
    /// Smallest non-zero difference that was seen, nanoseconds.
    pub resolution_ns: i64,
    /// Whether times of different ranks may be compared as they stand.
    pub common_to_all_ranks: bool,
    /// Whether samples carry CPU time of the executing thread.
    pub thread_cpu_time: bool,
    /// Which times the run vouches for.
    pub basis: TimeBasis,
}

/// Which times a run vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeBasis {
    /// Wall-clock times: every rank had a processor of its own.
    Wall,
    /// More ranks than processors: only CPU times, replayed on a virtual clock.
    Virtual,
}

/// What was trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Model name.
    pub model: String,
    /// Whether this is laggard's synthetic job.
    pub synthetic: bool,
    /// Element type of the arithmetic.
    pub data_type: String,
    /// Parameters of the model.
    pub parameters: f64,
    /// Nominal tokens of one sequence.
    pub sequence_length: u32,
    /// Sequences of one micro-batch.
    pub micro_batch_sequences: u32,
    /// Model FLOP per token, forward and backward, causal attention.
    pub flop_per_token_causal: Option<f64>,
    /// The same with the full square of attention.
    pub flop_per_token_full: Option<f64>,
    /// FLOP per token that recomputation adds.
    pub recompute_flop_per_token: f64,
}

/// A fault that `laggard run --inject` put in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InjectedFault {
    /// The fault as given on the command line.
    pub spec: String,
    /// Its kind, such as `slow_rank`.
    pub kind: String,
    /// The ranks that it was put into.
    pub ranks: Vec<u32>,
    /// Its size, in the kind's own unit.
    pub size: f64,
    /// The first step that has it.
    pub from_step: u32,
}
