//! What order statistics say of a job's jitter, at the sizes of groups that wait for each other.

use laggard_schedule::Zero;

use super::noise::JitterDistribution;
use super::workload::ScaleWorkload;
use crate::error::SimulateError;
use crate::jitter::{NestedPenalties, StepNoise, SyncLevel, nested_penalties};

impl ScaleWorkload {
    /// What waiting for the slowest adds to the kernels of a step, as a share of their time, from
    /// the ranks that share a stage to all of the world; `None` without lognormal jitter. Stages
    /// count as members that wait once a step, as replicas do: of a pipeline it is what the slowest
    /// of all its ranks would cost, at most. Of measured quantiles nothing follows for more ranks
    /// than there are.
    ///
    /// # Errors
    /// A jitter that is none.
    pub fn expected_penalty(&self) -> Result<Option<NestedPenalties>, SimulateError> {
        let sigma = match &self.jitter.distribution {
            JitterDistribution::None => return Ok(None),
            JitterDistribution::Lognormal { sigma } => *sigma,
            JitterDistribution::Quantiles(list) => return self.of_quantiles(list),
        };
        let Some(times) = self.stages.first() else {
            return Ok(None);
        };
        // Forward and backward of a step are drawn apart, and are not equally long.
        let both = times.forward_s + times.backward_s;
        let of_sum = sigma * times.forward_s.hypot(times.backward_s) / both.max(f64::MIN_POSITIVE);
        let layout = &self.layout;
        let sharing = layout.tensor_parallel * layout.context_parallel;
        let others = layout.data_parallel * layout.pipeline_parallel;
        let level = |members, syncs_per_step| SyncLevel {
            members,
            syncs_per_step,
        };
        // As if of two equal halves, where ranks wait for each other after each pass.
        let of_half = of_sum * std::f64::consts::SQRT_2;
        let (sigma, levels) = match (layout.zero, sharing) {
            (Zero::Parameters, _) => (of_half, vec![level(sharing * others, 2)]),
            (_, 1) => (of_sum, vec![level(others, 1)]),
            _ => (of_half, vec![level(sharing, 2), level(others, 1)]),
        };
        nested_penalties(&StepNoise::Lognormal { sigma }, 0.0, &levels).map(Some)
    }

    fn of_quantiles(&self, list: &[f64]) -> Result<Option<NestedPenalties>, SimulateError> {
        let all = SyncLevel {
            members: self.ranks(),
            syncs_per_step: 1,
        };
        match nested_penalties(&StepNoise::Sample(list.to_vec()), 0.0, &[all]) {
            Err(SimulateError::TooFewSamples { .. }) => Ok(None),
            other => other.map(Some),
        }
    }
}
