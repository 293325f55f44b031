//! Partitions of a mixed cluster: what trains together, with which shares of the work, and what
//! serves. Knows nothing of how costs are computed.

mod by_class;
mod compare;
mod explain;
mod file;
mod figures;
mod hosts;
mod jobs;
pub mod launch;
mod layouts;
pub mod money;
mod number;
mod options;
mod pipelines;
pub mod pools;
mod power;
mod problem;
mod rehearsal;
mod service;
pub mod serving;
mod shares;
mod sharing;
mod stages;

pub use by_class::{ByClass, ClassWorth, by_class};
pub use compare::{Objective, Ranking, rank};
pub use explain::{Difference, Flip, Knob, binding, differences, flips};
pub use figures::{Figures, PeakUse};
pub use file::{
    Answer, Expected, ExpectedStep, PLAN_VERSION, PlanFile, PlanFileError, PlannedClass, PlannedJob,
    PlannedOption, PlannedParts, PlannedReplicas, PlannedStage,
};
pub use jobs::{JobsError, WantedJob, read_jobs};
pub use layouts::{
    BATCH_TOLERANCE, Candidate, Demand, Found, NoLayout, Space, fastest_layouts, memory_of_layout,
    weakest,
};
pub use number::NumberError;
pub use options::{
    ClassTime, Group, JobPlan, Kind, MixedPipeline, Options, Outcome, Parts, PlanOption, Use,
    error_factor, options,
};
pub use pipelines::{
    FoundPipeline, NoPipeline, Pipeline, PipelineCosts, PipelineStage, Slot, StagePlace,
    fastest_pipeline,
};
pub use power::{SiteLoad, loads};
pub use problem::{Class, Factors, Known, Place, PlanError, Problem, Reserve, Terms, Training};
pub use service::{Offer, Offers, Served, Service, offers, serve};
pub use rehearsal::{Gain, Rehearsal, RehearsalRow, RehearsedJob};
pub use shares::{Shares, SharesError, Worker, share_out};
pub use sharing::{InTime, InTurn, Shared, Sharing, Wanted, in_time, in_turn, share};
pub use stages::{
    Chain, ChainError, Cut, Stage, StageSeconds, cut_chain, order_stages, pipeline_seconds,
};
