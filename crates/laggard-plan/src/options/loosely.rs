//! Pools that train on their own and average their parameters every so many steps. What that does
//! to convergence is not modelled.

use laggard_simulate::{Group, collective_seconds};
use laggard_types::Collective;

use super::job::{Costs, JobPlan, Outcome};

/// Steps of each pool between meetings. Source: DiLoCo, <https://arxiv.org/abs/2311.08105>, which
/// trains with 500.
pub(super) const STEPS_APART: u32 = 500;
/// Bytes that a parameter's difference is sent as: single precision, ibid.
const PARAMETER_BYTES: f64 = 4.0;

/// Adds to each pool's step its share of a meeting: an all-reduce of the parameters between ranks
/// that hold the same ones, one of each pool, at the pace of the slowest network; between sites,
/// the sum of each site's pools crosses links.
pub(super) fn couple(costs: &Costs<'_>, jobs: &[JobPlan], outcomes: &mut [Outcome]) {
    let group = Group::new(u32::try_from(jobs.len()).unwrap_or(u32::MAX), 1);
    let parameters = costs.problem.shape().parameters();
    let mut meeting = 0.0_f64;
    for job in jobs {
        let ranks = job.degrees.tensor * job.degrees.pipeline;
        let bytes = PARAMETER_BYTES * parameters / f64::from(ranks);
        for (class, machine) in costs.machines.iter().enumerate() {
            if job.devices(class) > 0 {
                let fabric = &machine.fabric;
                let seconds = collective_seconds(Collective::AllReduce, bytes, &group, fabric);
                meeting = meeting.max(seconds);
            }
        }
    }
    let all = 0..costs.machines.len();
    let there = all.filter(|&class| jobs.iter().any(|job| job.devices(class) > 0));
    let links = costs.sum_across(there, PARAMETER_BYTES);
    let share = |seconds: f64| seconds / f64::from(STEPS_APART);
    for outcome in outcomes {
        outcome.step_s += share(meeting + links);
        for class in outcome.classes.iter_mut().filter(|class| class.devices > 0) {
            class.communication_s += share(meeting);
            class.links_s += share(links);
        }
    }
}
