//! From a run record to findings: utilisation, the straggler penalty, who and what causes it, with
//! intervals. Takes values and returns values; knows nothing of MPI, CUDA, printing or the command
//! line.

mod comparison;
mod finding;

pub use comparison::{Comparison, ComparisonRow};
pub use finding::{
    Analysis, BlameEntry, Cause, Charged, ClassFigures, Confidence, Culprit, Estimate, Finding,
    HeatMap, Level, NullTest, Onset, RankFigures, StepTimes, Subject, Utilisation, WaterfallTerm,
};
