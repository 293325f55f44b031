//! From figures to findings. The order of the questions matters: what explains a rank's lateness
//! without its hardware (pauses, unequal work, other processes, stages) is asked first, and only
//! what is left is charged to the rank.

pub(crate) mod device;
mod outside;
pub(crate) mod persistent;
mod placement;
pub(crate) mod shared;
pub(crate) mod words;

use crate::contention::Contention;
use crate::devices::Devices;
use crate::interval::estimate;
use crate::levels::Waterfall;
use crate::per_step::{Inputs, Lengths, RankBlame};
use crate::traits::{Chance, Traits};
use crate::{Cause, Culprit, Estimate, Finding, Level, Onset};
use laggard_record::{Manifest, TimeBasis};
use laggard_stats::{BlockBootstrap, Change, Resampling};

/// From where on something is named.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Smallest persistent excess of a rank or host over its peers (0.06 = 6 % longer) that is
    /// named. The default is what equal ranks of short clean runs on shared processors reach in one
    /// of twenty runs (benches/runs, recall); GPUs of one model that run for long differ less.
    pub excess: f64,
    /// Smallest share of wall time that a cause must cost to be reported.
    pub loss: f64,
    /// Largest p-value against chance.
    pub p_value: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            excess: 0.06,
            loss: 0.01,
            p_value: 0.02,
        }
    }
}

impl Cause {
    /// Whether it says that what ranks compute on is slow.
    pub(crate) const fn is_slow_device(self) -> bool {
        matches!(
            self,
            Self::SlowRank
                | Self::SlowStage
                | Self::SlowNode
                | Self::SlowBackward
                | Self::SlowForward
        )
    }
}

/// Everything that the questions are asked of.
pub(crate) struct Evidence<'a> {
    pub(crate) manifest: &'a Manifest,
    pub(crate) inputs: &'a Inputs<'a>,
    pub(crate) lengths: &'a Lengths,
    pub(crate) waterfall: &'a Waterfall,
    pub(crate) blame: &'a RankBlame,
    pub(crate) traits: &'a Traits,
    pub(crate) chance: Option<&'a Chance>,
    pub(crate) contention: Option<&'a Contention>,
    pub(crate) devices: &'a Devices,
    pub(crate) thresholds: Thresholds,
    pub(crate) seed: u64,
}

/// Asks all questions; the most costly finding comes first.
pub(crate) fn findings(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let limited = outside::limits(evidence, &mut found);
    let contended = outside::contention(evidence, &limited, &mut found);
    outside::slow_links(evidence, &mut found);
    shared::pauses(evidence, &[&limited[..], &contended].concat(), &mut found);
    shared::uneven_work(evidence, &mut found);
    shared::generations(evidence, &mut found);
    shared::stages(evidence, &mut found);
    let jittery = shared::jitter(evidence, &contended, &mut found);
    // What an accelerator tells explains a slow rank better than how it is set up.
    let slowed = device::slowed(evidence, &limited);
    let limited: Vec<usize> = limited
        .into_iter()
        .filter(|it| !slowed.contains(it))
        .collect();
    let mut slow = Vec::new();
    persistent::slow_units(evidence, &[limited, contended, jittery].concat(), &mut slow);
    let named = slow
        .iter()
        .flat_map(|finding| evidence.ranks_of(&finding.culprit));
    let named: Vec<usize> = named.collect();
    let is_named = |rank: &usize| named.contains(rank);
    found.retain(|finding| {
        let is_of_set_up = matches!(finding.cause, Cause::Binding | Cause::CpuQuota);
        !(is_of_set_up && evidence.ranks_of(&finding.culprit).iter().any(is_named))
    });
    found.extend(slow);
    found.sort_by(|a, b| b.loss.value.total_cmp(&a.loss.value));
    found
}

impl Evidence<'_> {
    /// Since when a rank is as slow as it is, if that is not from the beginning.
    fn onset(&self, rank: usize) -> Option<Onset> {
        let change = self.traits.largest_change(rank)?;
        Some(self.onset_of(&change))
    }

    fn onset_of(&self, change: &Change) -> Onset {
        let numbers = &self.inputs.measured.step_numbers;
        let step = |index: usize| numbers[index.min(numbers.len() - 1)];
        Onset {
            step: step(change.at),
            earliest: step(*change.range.start()),
            latest: step(*change.range.end()),
            ratio: change.after / change.before,
        }
    }

    pub(crate) fn ranks(&self) -> usize {
        self.inputs.cells.ranks
    }

    /// The ranks that a culprit is made of.
    pub(crate) fn ranks_of(&self, culprit: &Culprit) -> Vec<usize> {
        let cells = self.inputs.cells;
        let all = 0..cells.ranks;
        match culprit {
            Culprit::Nobody => Vec::new(),
            Culprit::Rank(rank) => vec![*rank as usize],
            Culprit::Ranks(ranks) => ranks.iter().map(|rank| *rank as usize).collect(),
            Culprit::Host(host) => all
                .filter(|rank| cells.host_of_rank[*rank] == *host as usize)
                .collect(),
            Culprit::Stage(stage) => all
                .filter(|rank| cells.stage_of_rank[*rank] == *stage)
                .collect(),
        }
    }

    /// Whether any of these ranks says that it has an accelerator, or told anything of one.
    pub(crate) fn is_on_accelerators(&self, ranks: &[usize]) -> bool {
        let tells = |rank: &usize| {
            self.manifest.ranks[*rank].accelerator.is_some() || self.devices.is_visible(*rank)
        };
        ranks.iter().any(tells)
    }

    pub(crate) fn is_wall(&self) -> bool {
        self.manifest.clock.basis == TimeBasis::Wall
    }

    pub(crate) fn loss(&self, level: Level) -> Estimate {
        self.waterfall.loss(level)
    }

    /// Whether anybody waits for a rank: one that is slow among the fast may cost nothing.
    pub(crate) fn costs(&self, rank: usize) -> bool {
        let seconds = self.blame.total(rank) / self.lengths.measured.len() as f64;
        seconds / self.waterfall.point.wall >= self.thresholds.loss
    }

    /// Whether a rank is charged half of what all ranks are charged, and that matters.
    pub(crate) fn is_charged_most(&self, rank: usize) -> bool {
        let all: f64 = (0..self.ranks()).map(|rank| self.blame.total(rank)).sum();
        self.costs(rank) && self.blame.total(rank) >= all / 2.0
    }

    /// The rank with most of the time that goes into pauses, where that matters.
    pub(crate) fn pausing_rank(&self) -> Option<usize> {
        let seconds = |rank: usize| self.traits.pauses[rank].seconds;
        let most = (0..self.ranks()).max_by(|&a, &b| seconds(a).total_cmp(&seconds(b)))?;
        let matters = self.loss(Level::HostPauses).value >= self.thresholds.loss;
        (matters && seconds(most) > 0.0).then_some(most)
    }

    /// Share of wall time that some ranks are charged, with its interval.
    pub(crate) fn charged(&self, ranks: &[usize]) -> Estimate {
        let all = self.ranks();
        let wall = self.waterfall.point.wall;
        let series: Vec<f64> = (0..self.lengths.measured.len())
            .map(|step| {
                ranks
                    .iter()
                    .map(|&r| self.blame.charged[step * all + r])
                    .sum::<f64>()
                    / wall
            })
            .collect();
        self.mean(&series)
    }

    /// Mean of a series over steps, with its block-bootstrap interval.
    pub(crate) fn mean(&self, series: &[f64]) -> Estimate {
        let n = series.len().max(1) as f64;
        let value = series.iter().sum::<f64>() / n;
        let block_length = self.waterfall.block_length.clamp(1, series.len().max(1));
        let resampling = Resampling {
            block_length,
            replicates: 400,
            seed: self.seed,
        };
        let draws = BlockBootstrap::new(series.len(), resampling).map(|bootstrap| {
            let mean = |counts: &[u32]| {
                series
                    .iter()
                    .zip(counts)
                    .map(|(v, c)| v * f64::from(*c))
                    .sum::<f64>()
                    / n
            };
            bootstrap.statistics(mean)
        });
        estimate(value, &draws.unwrap_or_default())
    }
}

/// Median of all values but one.
pub(crate) fn median_of_others(values: &[f64], rank: usize) -> f64 {
    let mut others = values.to_vec();
    others.remove(rank);
    laggard_stats::median_in_place(&mut others).unwrap_or(0.0)
}
