//! Predicts what a job will do before it runs: the time of a step by cause, what failures leave of
//! it, and whole steps of up to a million ranks. Knows nothing of search or money.

mod error;
mod graph;
mod network;

pub use error::SimulateError;
pub use graph::{
    EvenPipeline, EvenStep, GraphError, PredictedTimeline, RankTimes, Reduction, StepPrediction,
    predict_step, predicted_work,
};
pub use network::{
    Algorithm, Fabric, FabricOptions, Generation, Group, Link, NcclEstimate, NetworkKind,
    NetworkReduction, Processor, Protocol, collective_seconds, nccl_estimate,
};
