//! What becomes of a row.

use serde::Serialize;

use crate::job::{Degrees, Job, Precision};
use crate::step::StepTime;

/// Which rows a row is counted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowClass {
    /// A dense model in half precision with a stated layout: the headline.
    DenseHalf,
    /// A mixture of experts.
    Experts,
    /// Products in fp8 or fp4.
    LowPrecision,
    /// Sequences of more than 8192 tokens.
    LongContext,
    /// The row does not say how the model was laid out.
    LayoutAssumed,
}

impl RowClass {
    pub(super) fn of(job: &Job, assumed: bool, long: bool) -> Self {
        if job.shape.experts.is_some() {
            Self::Experts
        } else if job.precision != Precision::Half {
            Self::LowPrecision
        } else if long {
            Self::LongContext
        } else if assumed {
            Self::LayoutAssumed
        } else {
            Self::DenseHalf
        }
    }

    /// Every class, the headline first.
    pub const ALL: [Self; 5] = [
        Self::DenseHalf,
        Self::Experts,
        Self::LowPrecision,
        Self::LongContext,
        Self::LayoutAssumed,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DenseHalf => "dense bf16/fp16, stated layout",
            Self::Experts => "mixture of experts",
            Self::LowPrecision => "fp8 and fp4",
            Self::LongContext => "long context",
            Self::LayoutAssumed => "layout not stated",
        }
    }
}

/// A row's prediction beside its measurement.
#[derive(Debug, Clone, Serialize)]
pub struct PublishedComparison {
    /// The row's id.
    pub row_id: String,
    /// Its source.
    pub source: String,
    /// Its model.
    pub model: String,
    /// Its accelerator.
    pub accelerator: String,
    /// How many of them.
    pub accelerators: u64,
    /// Which rows it is counted with.
    pub class: RowClass,
    /// Id of the framework that was taken.
    pub framework: String,
    /// Model TFLOP/s per accelerator, causal, as measured.
    pub measured_tflop_per_s: f64,
    /// The same, as predicted.
    pub predicted_tflop_per_s: f64,
    /// Predicted over measured, less 1.
    pub relative_error: f64,
    /// The layout that was taken.
    pub layout: String,
    /// The predicted step by cause.
    pub step: StepTime,
}

/// A row that is not predicted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The row's id.
    pub row_id: String,
    /// Its source.
    pub source: Option<String>,
    /// Why.
    pub reason: String,
}

/// What a row is predicted to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowPrediction {
    /// Tokens per second and accelerator.
    pub tokens_per_s: f64,
    /// The step by cause.
    pub step: StepTime,
    /// The layout that was taken.
    pub degrees: Degrees,
}

impl Default for RowPrediction {
    fn default() -> Self {
        Self {
            tokens_per_s: 0.0,
            step: StepTime::default(),
            degrees: Degrees::ONE,
        }
    }
}
