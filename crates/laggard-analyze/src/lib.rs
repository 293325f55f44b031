//! From a run record to findings: utilisation, the straggler penalty, who and what causes it, with
//! intervals. Takes values and returns values; knows nothing of MPI, CUDA, printing or the command
//! line.

mod analysis;
mod answer;
mod bench;
mod bins;
mod causes;
mod cells;
mod chunk;
mod compare;
mod comparison;
mod contention;
mod devices;
mod doubts;
mod draw;
mod error;
mod figures;
mod finding;
mod fleet;
mod intake;
mod interval;
mod levels;
mod links;
mod operation_times;
mod own_time;
mod per_step;
mod scenarios;
mod shrinkage;
mod sign;
mod sketch;
mod stage_split;
mod subject;
mod traits;
mod transfers;
mod utilisation;
mod what_if;
mod work;

pub use analysis::analyze;
pub use answer::{ANALYSIS_VERSION, Options};
pub use bench::{
    BENCH_VERSION, Bench, BenchOptions, CollectiveFigures, ComputeFigures, Distribution,
    KernelKind, LateRank, LinkScope, PairFigures, RankCalls, RankKernel, SlowDevice, SlowRankLinks,
    bench,
};
pub use causes::Thresholds;
pub use compare::{COMPARISON_VERSION, compare};
pub use error::AnalyzeError;
pub use links::{SlowLinkHost, slow_hosts};
pub use operation_times::{
    OperationSeries, OperationTime, RATIOS, kernel_seconds, operation_series, operation_times,
};

pub use comparison::{Comparison, ComparisonRow};
pub use finding::{
    Analysis, BlameEntry, Cause, Charged, ClassFigures, Confidence, Culprit, Estimate, ExposedAxis,
    Finding, HeatMap, Level, NullTest, Onset, RankFigures, StepTimes, Subject, Unit, Utilisation,
    WaterfallTerm, WhatIf, WhatIfUnit,
};
pub use fleet::{
    DeviceRun, FLEET_VERSION, Fleet, FleetClass, FleetDevice, FleetHost, FleetOptions, FleetRun,
    FleetRunLine, FleetStock, Named, SpeedChange, fleet,
};
pub use sign::{Sign, SignKind};
