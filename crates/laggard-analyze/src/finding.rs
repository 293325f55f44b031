//! What an analysis says: figures with intervals, a waterfall, blame, and findings in plain words.
//! These types are the published JSON.

use crate::Sign;
use laggard_types::Caveat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A figure with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// Lower end of the 95 % block-bootstrap interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The result of an analysis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Analysis {
    /// Version of this format.
    pub schema_version: u32,
    /// What was analysed.
    pub subject: Subject,
    /// Step times over the steps that count.
    pub step_time: StepTimes,
    /// Model FLOP utilisation; absent without a datasheet peak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfu: Option<Utilisation>,
    /// The same against the peak measured on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_of_measured_peak: Option<Utilisation>,
    /// Share of wall time that stragglers cost: 1 - 1 / slowdown.
    pub penalty: Estimate,
    /// Step time over the step time that the same work would take if it were spread evenly: the
    /// mean over ranks of compute, the mean of transfers.
    pub slowdown: Estimate,
    /// What `penalty` and `slowdown` compare with, in words.
    pub penalty_reference: String,
    /// From 100 % of the peak to the measured figure; the shares sum to 1.
    pub waterfall: Vec<WaterfallTerm>,
    /// What exposed communication is made of: its axes, in the order in which their transfers are
    /// taken away; the shares sum to the waterfall's term.
    pub exposed_communication: Vec<ExposedAxis>,
    /// What would be saved if one unit were as its peers are on average, the largest of each kind.
    pub what_if: WhatIf,
    /// Who or what the loss is charged to; shares sum to the loss.
    pub blame: Vec<BlameEntry>,
    /// What the loss is in all, as share of wall time; the sum of `blame`.
    pub loss: f64,
    /// Tests against chance for the persistent terms.
    pub null_tests: Vec<NullTest>,
    /// What was found, most costly first; empty if nobody and nothing is to blame.
    pub findings: Vec<Finding>,
    /// The answer in one or two sentences.
    pub verdict: String,
    /// Figures per class.
    pub classes: Vec<ClassFigures>,
    /// Figures per rank.
    pub ranks: Vec<RankFigures>,
    /// Own time of every rank in bins of steps, for a heat map.
    pub heat_map: HeatMap,
    /// Doubts about the data and the result.
    pub caveats: Vec<Caveat>,
}

/// What was analysed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Model name.
    pub model: String,
    /// Whether it was laggard's own synthetic job.
    pub synthetic: bool,
    /// The layout in words, such as `dp4`.
    pub layout: String,
    /// Number of ranks.
    pub ranks: u32,
    /// Number of hosts.
    pub hosts: u32,
    /// Steps in the record.
    pub steps_recorded: u32,
    /// Steps left out as warm-up.
    pub steps_warm_up: u32,
    /// Steps that the figures are from.
    pub steps_used: u32,
    /// `wall` or `virtual`.
    pub time_basis: String,
    /// `measured`, `predicted` or `imported from ...`.
    pub origin: String,
    /// Tokens per step over all ranks, mean over the steps used.
    pub tokens_per_step: f64,
    /// Tokens per second.
    pub tokens_per_s: f64,
}

/// The distribution of step times, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepTimes {
    /// Number of steps.
    pub n: u32,
    /// Mean, with its interval.
    pub mean: Estimate,
    /// 5th percentile.
    pub p5: f64,
    /// Median.
    pub median: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest step.
    pub max: f64,
}

/// Utilisation in one convention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Utilisation {
    /// Share of the sum of the ranks' own peaks, causal attention.
    pub value: Estimate,
    /// The convention of `value`, in words.
    pub convention: String,
    /// The same throughput with the full square of attention counted.
    pub full_attention: f64,
    /// Hardware FLOP utilisation: with recomputation; equal to `value` where nothing is recomputed.
    pub hfu: f64,
    /// Sum of the ranks' own peaks, FLOP/s.
    pub peak_flop_per_s: f64,
    /// Where the peak came from.
    pub peak_source: String,
}

/// The levels of the waterfall, from the top.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// What the replay does not explain: gaps between steps, replay error.
    Rest,
    /// Ranks of one class with unequal work: sequence lengths, micro-batches.
    UnevenWork,
    /// Pauses of hosts.
    HostPauses,
    /// Differences that come and go.
    Transient,
    /// Ranks that are always slower than their class.
    Rank,
    /// Hosts whose ranks are all slower than their class.
    Node,
    /// Equal shares for unequal generations.
    Generation,
    /// Pipeline stages with unequal work.
    Stage,
    /// Communication that nothing hides.
    ExposedCommunication,
    /// Empty pipeline slots of equal stages.
    Bubble,
    /// Input and launching.
    Host,
    /// Optimizer, bound by memory.
    Optimizer,
    /// Kernels below the peak.
    KernelEfficiency,
    /// What is left: the measured utilisation.
    Utilisation,
    /// What is left where no peak is known: time in which ranks compute.
    Computing,
    /// What is left of a sketch: the step with work in proportion to the speed of classes and
    /// nothing random. Computing, communication and bubbles are not told apart.
    EvenStep,
}

impl Level {
    /// The name that people read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rest => "unexplained rest",
            Self::UnevenWork => "uneven work",
            Self::HostPauses => "host pauses",
            Self::Transient => "transient differences",
            Self::Rank => "slow ranks",
            Self::Node => "slow nodes",
            Self::Generation => "mixed generations at equal shares",
            Self::Stage => "uneven pipeline stages",
            Self::ExposedCommunication => "exposed communication",
            Self::Bubble => "pipeline bubble",
            Self::Host => "input and launch",
            Self::Optimizer => "optimizer",
            Self::KernelEfficiency => "kernels below peak",
            Self::Utilisation => "utilisation",
            Self::Computing => "computing (peak unknown)",
            Self::EvenStep => "step of equal ranks",
        }
    }

    /// Whether the level is part of the straggler penalty.
    pub const fn is_straggler(self) -> bool {
        matches!(
            self,
            Self::UnevenWork
                | Self::HostPauses
                | Self::Transient
                | Self::Rank
                | Self::Node
                | Self::Generation
                | Self::Stage
        )
    }
}

/// One bar of the waterfall.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaterfallTerm {
    /// Which.
    pub level: Level,
    /// Share of the peak capacity (step time x sum of peaks).
    pub share: Estimate,
}

/// Exposed communication along one axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExposedAxis {
    /// The axis: `tp`, `cp`, `ep`, `pp`, `dp`, `dp x cp`, `expert dp`, `world`, or a trace's own
    /// name.
    pub axis: String,
    /// Share of wall time that its transfers cost beside computing and the axes after it.
    pub share: Estimate,
}

/// Replays with one unit at its ideal and all else as measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhatIf {
    /// Steps that were replayed, spread evenly over those used.
    pub steps: u32,
    /// The units that save most: ranks, hosts, stages, classes, each kind's largest first.
    pub units: Vec<WhatIfUnit>,
}

/// What one unit at its ideal would save.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhatIfUnit {
    /// Which.
    pub unit: Unit,
    /// Its name, such as `rank 3 (h100 on node7)`.
    pub name: String,
    /// Mean step time then, in seconds.
    pub step_time: f64,
    /// Share of wall time that is saved.
    pub saved: Estimate,
    /// Share of the loss that goes with it: (T - T with the unit at its ideal) / (T - T with all of
    /// them). Absent where the loss is below 3 % of the step, as in ByteDance's analysis (OSDI'25).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_loss: Option<f64>,
}

/// Something that could be at its ideal.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// One rank, as its cell is on average in that step, without pauses.
    Rank(u32),
    /// All ranks of one host, each likewise.
    Host(u32),
    /// One pipeline stage, as stages are on average.
    Stage(u32),
    /// One class, by its position in the manifest, as classes are on average.
    Class(u32),
}

/// Who is charged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Charged {
    /// One rank.
    Rank(u32),
    /// Equal shares for unequal generations: nobody's fault.
    ClassMix,
    /// The split of the model into stages.
    StageSplit,
    /// Steps in which all ranks together were slower or faster.
    EveryRank,
    /// So many ranks together that have no line of their own.
    OtherRanks(u32),
}

/// One line of the blame table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlameEntry {
    /// Who is charged.
    pub charged: Charged,
    /// Share of wall time.
    pub share: f64,
    /// Share of steps in which this rank was the last; absent for what is not a rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_in_steps: Option<f64>,
    /// Share of wall time that would be won if this rank alone were as its class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leave_one_out: Option<f64>,
}

/// A persistent term against what chance alone would show.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NullTest {
    /// The level tested.
    pub level: Level,
    /// Largest persistent excess of a unit over its class, relative to the class's own time.
    pub observed: f64,
    /// What shuffling the units within blocks of steps gives on average.
    pub null_mean: f64,
    /// Share of shuffles that reach the observed value.
    pub p_value: f64,
}

/// Why something is lost.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A rank does the same work more slowly, always.
    SlowRank,
    /// All ranks of a pipeline stage are slower than the stage's work explains.
    SlowStage,
    /// All ranks of a host are slower.
    SlowNode,
    /// A rank is slower in backward only.
    SlowBackward,
    /// A rank is slower in forward only.
    SlowForward,
    /// Compute times vary from step to step.
    StepJitter,
    /// The host stops now and then.
    HostPauses,
    /// Ranks have sequences of different lengths.
    SequenceLengths,
    /// Ranks of one class have different numbers of micro-batches.
    UnevenMicroBatches,
    /// Generations of different speed have equal shares.
    MixedGenerations,
    /// The last pipeline stage has more work.
    LastStage,
    /// Another pipeline stage has more work.
    StageSplit,
    /// Other processes use the processor.
    OutsideContention,
    /// A rank is bound differently from the others of its class.
    Binding,
    /// A control group grants a rank less processor time than its peers have.
    CpuQuota,
    /// All links of a host are slower than those among the others.
    SlowLink,
}

/// The smallest unit that the data resolve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Culprit {
    /// Nobody in particular.
    Nobody,
    /// One rank.
    Rank(u32),
    /// Several ranks, in order.
    Ranks(Vec<u32>),
    /// One host, by its position in the manifest.
    Host(u32),
    /// One pipeline stage.
    Stage(u32),
}

/// How sure a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// The data show it.
    Shown,
    /// The data suggest it, and something stands against it; the explanation says what.
    Inconclusive,
}

/// A step at which something changed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Onset {
    /// The first step after the change.
    pub step: u32,
    /// Earliest step that the data allow.
    pub earliest: u32,
    /// Latest step that the data allow.
    pub latest: u32,
    /// Level after over level before.
    pub ratio: f64,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Why.
    pub cause: Cause,
    /// Who.
    pub culprit: Culprit,
    /// How sure.
    pub confidence: Confidence,
    /// What it costs, as share of wall time.
    pub loss: Estimate,
    /// By how much the unit is slower than its peers (0.2 = 20 % longer), where that means
    /// something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excess: Option<Estimate>,
    /// Since when, if not from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onset: Option<Onset>,
    /// What the accelerators of slow ranks told of themselves, and those of their peers did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signs: Vec<Sign>,
    /// One sentence: what, who, how much.
    pub summary: String,
    /// What speaks for it.
    pub evidence: Vec<String>,
    /// What to do.
    pub advice: String,
}

/// Figures of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassFigures {
    /// The class's name.
    pub name: String,
    /// Whether it is emulated.
    pub emulated: bool,
    /// How many ranks it has.
    pub ranks: u32,
    /// Own time per step (work without waiting), seconds: 5th percentile over ranks and steps.
    pub own_time_p5: f64,
    /// Median.
    pub own_time_median: f64,
    /// 95th percentile.
    pub own_time_p95: f64,
    /// Share of the step in which a rank of this class waits for slower ones, mean.
    pub wait_share: f64,
    /// Counts of own times in the bins of [`ClassFigures::histogram_edges`].
    pub histogram: Vec<u32>,
    /// Edges of the bins, seconds; one more than bins; the same for all classes.
    pub histogram_edges: Vec<f64>,
}

/// Figures of one rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RankFigures {
    /// The rank.
    pub rank: u32,
    /// Its host's name.
    pub host: String,
    /// Its class's name.
    pub class: String,
    /// Its pipeline stage.
    pub stage: u32,
    /// Own time per step, seconds, mean.
    pub own_time: f64,
    /// Persistent excess over its class (0.2 = 20 % longer).
    pub excess: f64,
    /// Share of the step that it waits for others.
    pub wait_share: f64,
    /// Share of its compute time that its thread was not running though it could have; absent where
    /// threads have no CPU clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descheduled_share: Option<f64>,
}

/// Own time of ranks over steps, binned to a size that can be drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeatMap {
    /// The first rank of each row, ascending.
    pub first_rank: Vec<u32>,
    /// The first step of each column, ascending.
    pub first_step: Vec<u32>,
    /// Row by row: largest relative excess over the class's median in the bin (0.2 = 20 % longer).
    pub excess: Vec<f64>,
}
