//! Statistics for short, autocorrelated, heavy-tailed series: slices of `f64` in, numbers out.
//!
//! Knows nothing of ranks, steps of a job or hardware: "step" here is only the index of a series.
//! Every entry refuses values that are not finite, and everything random takes a seed.

mod autocorrelation;
mod bootstrap;
mod change_point;
mod compare;
mod crossed_effects;
mod error;
mod line_fit;
mod median_interval;
mod normal;
mod permutation;
mod quantile;
mod rng;
mod robust;
mod student;
mod warm_up;
mod wilson;

pub use autocorrelation::{
    IntegratedTime, autocorrelations, block_length, effective_sample_size, integrated_time,
};
pub use bootstrap::{
    BlockBootstrap, Estimate, Interval, Resampling, bca_interval, percentile_interval,
};
pub use change_point::{Change, ChangeOptions, find_changes};
pub use compare::{RatioEstimate, ratio_of_medians};
pub use crossed_effects::{CrossedEffects, CrossedFit, Effect, Measurement, Variances};
pub use error::StatsError;
pub use line_fit::{LineFit, least_squares, theil_sen};
pub use median_interval::sorted_median_interval;
pub use normal::{normal_cdf, normal_quantile};
pub use permutation::{Assignment, ShuffleTest, p_value};
pub use quantile::{Ranked, median, median_in_place, quantile, quantile_in_place, sorted_quantile};
pub use rng::{Rng, splitmix64_at};
pub use robust::{MAD_TO_SIGMA, mad, mad_about, trimmed_mean};
pub use student::student_upper_tail;
pub use warm_up::{WarmUp, warm_up_end};
pub use wilson::wilson_interval;
