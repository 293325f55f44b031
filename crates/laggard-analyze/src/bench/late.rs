//! Ranks that the others wait for: told apart from the network by arrivals on one clock. The rank
//! that comes late has the shortest time of its own.

use super::{BenchOptions, call, calls_of, seconds};
use laggard_record::{BenchSamples, CollectiveSamples};
use laggard_stats::{median, wilson_interval};
use laggard_types::{Collective, Rank};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A rank is late if it comes last to more than this share of calls, with 95 % confidence.
const MOSTLY: f64 = 0.8;
/// 95 % of a normal distribution lie within so many standard deviations.
const Z: f64 = 1.96;
/// Differences below so many times the clocks' bound are not seen.
const SEEN_ABOVE_BOUND: i64 = 3;

/// A rank that the others wait for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LateRank {
    /// The rank.
    pub rank: Rank,
    /// Its host.
    pub host: String,
    /// Share of all calls to which it came last, by more than clocks may be wrong.
    pub last_share: f64,
    /// Median time between the arrival of the one before it and its own, where it came last.
    pub late_s: f64,
    /// What that is of the time of all calls together.
    pub cost_share: f64,
}

impl LateRank {
    pub(super) fn in_words(&self) -> String {
        format!(
            "rank {} of {} comes last to {:.0} % of calls, {:.1} us after all others: {:.1} % of \
             the time of calls",
            self.rank,
            self.host,
            100.0 * self.last_share,
            1e6 * self.late_s,
            100.0 * self.cost_share
        )
    }
}

/// The ranks that come last to most calls and cost more than is ignored.
pub(super) fn late(samples: &BenchSamples, options: &BenchOptions) -> Vec<LateRank> {
    let bounds = samples.ranks.iter().map(|rank| rank.clock_bound_ns);
    let seen = SEEN_ABOVE_BOUND * bounds.max().unwrap_or(0);
    let mut gaps: Vec<Vec<f64>> = vec![Vec::new(); samples.ranks.len()];
    let (mut calls, mut total) = (0, 0.0);
    for point in samples.collectives.iter().filter(|it| meets(it)) {
        for at in 0..calls_of(point) {
            let ends = call(point, at).map(|[_, end]| end);
            let mut arrivals: Vec<(i64, usize)> =
                call(point, at).map(|[begin, _]| begin).zip(0..).collect();
            arrivals.sort_unstable();
            let [.., (before, _), (last, rank)] = arrivals[..] else {
                continue;
            };
            calls += 1;
            total += seconds(ends.max().unwrap_or(last) - arrivals[0].0);
            if last - before > seen {
                gaps[rank].push(seconds(last - before));
            }
        }
    }
    let of_rank = |(gaps, at): (&Vec<f64>, usize)| {
        let share = wilson_interval(gaps.len() as u64, calls, Z).ok()?;
        let cost_share = gaps.iter().sum::<f64>() / total;
        let is_late = share.low > MOSTLY && cost_share >= options.name_over;
        is_late.then_some(LateRank {
            rank: at as Rank,
            host: samples.ranks[at].host.clone(),
            last_share: gaps.len() as f64 / calls as f64,
            late_s: median(gaps).ok()?,
            cost_share,
        })
    };
    let mut late: Vec<LateRank> = gaps.iter().zip(0..).filter_map(of_rank).collect();
    late.sort_by(|a, b| b.cost_share.total_cmp(&a.cost_share));
    late
}

/// Calls that nobody leaves before all have come, of more than one rank.
fn meets(samples: &CollectiveSamples) -> bool {
    let is_passed_on = samples.collective == Collective::SendRecv;
    samples.collective.synchronises() && !is_passed_on && samples.calls.len() > 1
}
