//! Predicts what a job will do before it runs: the time of a step by cause, what failures leave of
//! it, and whole steps of up to a million ranks. Knows nothing of search or money.

mod calibration;
mod compute;
mod correction;
mod error;
mod forecast;
mod goodput;
mod graph;
mod jitter;
mod job;
mod lockstep;
mod network;
mod published;
mod scale;
mod step;
mod world;

pub use calibration::{
    CalibratedStep, Calibration, ClassCosts, Does, Kind, KindCost, Line, Observation, Places,
    observations,
};
pub use compute::{Constant, ConstantEntry, Constants};
pub use correction::{
    CallWork, ClassCorrection, Correction, Expectation, MeasuredCall, MeasuredRun, OwnStep, Ratio,
    RunComparison, compare_calls, compare_run,
};
pub use error::SimulateError;
pub use forecast::{ClassForecast, Forecast, ForecastClass, RARELY, Spares, forecast, mix_alone};
pub use goodput::{FailureRate, Goodput, Interruptions, Surroundings, time_between_failures};
pub use graph::{PredictedTimeline, RankTimes, StepPrediction, predict_step, predicted_work};
pub use jitter::{Maximum, NestedPenalties};
pub use job::{
    Accumulation, AttentionKernel, Corrections, Degrees, ExpertShape, Family, Framework,
    Frameworks, Job, Kernels, Machine, Precision, Product, Selective, Shape, ShardUpdate, Software,
    Split, TensorOverlap, layout_of,
};
pub use lockstep::{
    Cause, ClassMfu, Combination, Example, FleetAssumptions, FleetClass, FleetWaterfall,
    Identification, Lockstep, Peak, Range, WaterfallTerm, identify_mfu, lockstep,
};
pub use network::{
    Fabric, FabricOptions, Group, Link, NetworkKind, NetworkReduction, Processor,
    collective_seconds,
};
pub use published::{
    ErrorSummary, GroupKey, LeftOut, NoiseFloor, PublishedComparison, PublishedJob, PublishedJobs,
    RowClass, RowPrediction, noise_floor, published_jobs, summaries, summary,
};
pub use scale::{
    Baseline, Delay, DrawPhase, Jitter, JitterDistribution, Noise, NoiseState, Pauses, RankOutcome,
    ScaleRun, ScaleWorkload, SlowRanks, StageTimes, StepOutcome, simulate_ranks,
};
pub use step::{
    Communication, LayerTimes, OperationCosts, StepTime, jitter_share, predict, predict_with,
};
pub use world::{Variation, World};
