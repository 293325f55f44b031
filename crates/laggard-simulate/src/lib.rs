//! Predicts what a job will do before it runs: the time of a step by cause, what failures leave of
//! it, and whole steps of up to a million ranks. Knows nothing of search or money.

mod graph;

pub use graph::{
    EvenPipeline, EvenStep, GraphError, PredictedTimeline, RankTimes, Reduction, StepPrediction,
    predict_step, predicted_work,
};
