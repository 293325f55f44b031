//! Partitions of a mixed cluster: what trains together, with which shares of the work, and what
//! serves. Knows nothing of how costs are computed.

mod alike;
mod by_class;
mod compare;
mod explain;
mod figures;
mod file;
mod hosts;
mod jobs;
pub mod launch;
mod layouts;
mod measured;
pub mod money;
mod number;
mod options;
mod pipelines;
pub mod pools;
mod power;
mod problem;
mod rehearsal;
mod replan;
mod service;
pub mod serving;
mod shares;
mod sharing;
mod stages;
mod tails;
mod what_if;

pub use alike::{Alike, MOST_APART, Spread};
pub use by_class::{ByClass, ClassWorth, LetFirst, by_class};
pub use compare::{Objective, Ranking, rank};
pub use explain::{Difference, Flip, Knob, binding, differences, flips};
pub use figures::{Figures, PeakUse};
pub use file::{
    Answer, Expected, ExpectedStep, PLAN_VERSION, PlanFile, PlanFileError, PlannedClass,
    PlannedJob, PlannedOption, PlannedParts, PlannedReplicas, PlannedStage,
};
pub use jobs::{JobsError, WantedJob, read_jobs};
pub use layouts::{
    BATCH_TOLERANCE, Candidate, Demand, Found, NoLayout, Space, fastest_layouts, memory_of_layout,
    weakest,
};
pub use measured::{Measured, MeasuredClass, MeasuredError, MeasuredPlan, plan_measured};
pub use number::NumberError;
pub use options::{
    ClassTime, Group, JobPlan, Kind, MixedPipeline, Options, Outcome, Parts, PlanOption, Trimmed,
    Use, error_factor, options, trimmed,
};
pub use pipelines::{
    FoundPipeline, NoPipeline, Pipeline, PipelineCosts, PipelineStage, Slot, StagePlace,
    fastest_pipeline,
};
pub use power::{SiteLoad, loads};
pub use problem::{
    Class, Factors, Known, Link, Place, PlanError, Problem, Reserve, Terms, Training,
};
pub use rehearsal::{Gain, Rehearsal, RehearsalRow, RehearsedJob};
pub use replan::{Again, Places, Staying, plan_again};
pub use service::{Offer, Offers, Served, Service, offers, serve};
pub use shares::{Shares, SharesError, Worker, share_out};
pub use sharing::{Course, Shared, Sharing, Wanted, in_turn, share};
pub use stages::{
    Chain, ChainError, Cut, Joint, Joints, Stage, StageSeconds, cut_chain, order_stages,
    pipeline_seconds,
};
pub use tails::{Crowd, Kept, Speeds, Whole, best_cut};
pub use what_if::{Loss, LossError, lose};
