//! From the sums of a sketch to findings. A class is never a culprit; a rank is one where it stands
//! out from those who do the same, and others wait for it.

use super::{SECONDS, Sketch, peers};
use crate::causes::persistent::{advice, host_advice, slow_hosts};
use crate::causes::shared::{
    GENERATIONS_ADVICE, JITTER, JITTER_LOSS, PAUSES_ADVICE, generations_summary, jitter_finding,
    wait_line,
};
use crate::causes::words::{host_name, percent, percent_interval, rank_list, rank_name};
use crate::{Cause, ClassFigures, Confidence, Culprit, Estimate, Finding, Level};

impl Sketch<'_> {
    /// The most costly first.
    pub(super) fn findings(&self, classes: &[ClassFigures]) -> Vec<Finding> {
        let mut found = Vec::new();
        found.extend(self.generations(classes));
        found.extend(self.pauses());
        found.extend(self.jitter());
        self.slow_units(&mut found);
        found.sort_by(|a, b| b.loss.value.total_cmp(&a.loss.value));
        found
    }

    fn generations(&self, classes: &[ClassFigures]) -> Option<Finding> {
        let loss = self.worth(Level::Generation)?;
        let lines = classes.iter().map(|it| {
            format!(
                "{} (own time {:.3} s)",
                wait_line(&it.name, it.wait_share),
                it.own_time_median
            )
        });
        Some(Finding {
            evidence: lines.collect(),
            ..finding(
                (Cause::MixedGenerations, Culprit::Nobody, loss),
                generations_summary(&loss),
                GENERATIONS_ADVICE,
            )
        })
    }

    fn pauses(&self) -> Option<Finding> {
        let loss = self.worth(Level::HostPauses)?;
        let longest = (self.ranks.iter()).max_by_key(|row| (row.longest_ns, u32::MAX - row.rank));
        let line = longest.map(|row| {
            format!(
                "the longest own time of a step is {:.3} s of {}, whose median is {:.3} s",
                row.longest_ns as f64 * SECONDS,
                rank_name(self.manifest, row.rank as usize),
                row.p50_ns as f64 * SECONDS
            )
        });
        Some(Finding {
            evidence: line.into_iter().collect(),
            ..finding(
                (Cause::HostPauses, Culprit::Nobody, loss),
                format!(
                    "stops of single ranks cost {} of wall time",
                    percent_interval(&loss)
                ),
                PAUSES_ADVICE,
            )
        })
    }

    fn jitter(&self) -> Option<Finding> {
        let loss = self.worth(Level::Transient)?;
        let spreads: Vec<f64> = self.ranks.iter().map(peers::spread).collect();
        let spread = laggard_stats::median(&spreads).unwrap_or(0.0);
        let line = format!(
            "median spread over ranks {} of the own time",
            percent(spread)
        );
        let what = "compute times of all ranks jitter and the slowest changes";
        let matters = loss.value >= JITTER_LOSS && spread >= JITTER;
        matters.then(|| jitter_finding(Culprit::Nobody, what, loss, line))
    }

    /// What a level costs, where that is enough to be reported.
    fn worth(&self, level: Level) -> Option<Estimate> {
        let loss = self.steps.share(level);
        (loss.value >= self.thresholds.loss).then_some(loss)
    }

    /// Slow hosts, then slow ranks, then those that only together cost enough.
    fn slow_units(&self, found: &mut Vec<Finding>) {
        let slow: Vec<usize> = (0..self.ranks.len())
            .filter(|&rank| self.peers.excess[rank] >= self.thresholds.excess)
            .filter(|&rank| {
                let lasting = self.lasting(rank);
                self.peers
                    .stands_out(&self.ranks[rank], lasting, &self.thresholds)
            })
            .collect();
        let host_of_rank: Vec<usize> = (self.manifest.ranks.iter())
            .map(|place| place.host as usize)
            .collect();
        let least = self.thresholds.loss;
        let mut named = vec![false; self.ranks.len()];
        let mut charged = 0.0;
        let mut name = |ranks: &[usize], finding: Finding| {
            ranks.iter().for_each(|&rank| named[rank] = true);
            charged += finding.loss.value;
            found.push(finding);
        };
        let mut left = slow.clone();
        for (host, ranks) in slow_hosts(&host_of_rank, &self.peers.excess, &slow) {
            let loss = self.cost(&ranks);
            if loss.value >= least {
                left.retain(|&rank| host_of_rank[rank] != host);
                name(&ranks, self.host_finding(host, &ranks, loss));
            }
        }
        for &rank in &left {
            let is_charged = self.charges.of_rank[rank] >= least * self.steps.wall_s();
            if is_charged {
                let loss = self.cost(&[rank]);
                name(&[rank], self.rank_finding(rank, loss));
            }
        }
        left.retain(|&rank| !named[rank]);
        found.extend(self.together(&left, charged));
    }

    fn lasting(&self, rank: usize) -> Estimate {
        (self.peers).lasting(&self.ranks[rank], self.steps.independent)
    }

    fn host_finding(&self, host: usize, ranks: &[usize], loss: Estimate) -> Finding {
        let mut excess: Vec<Estimate> = ranks.iter().map(|&rank| self.lasting(rank)).collect();
        excess.sort_by(|a, b| a.value.total_cmp(&b.value));
        let middle = excess[excess.len() / 2];
        let name = host_name(self.manifest, host);
        let summary = format!(
            "host {name} is slow: its {} ranks compute {} longer than ranks of their class \
             elsewhere, which costs {} of wall time",
            ranks.len(),
            percent_interval(&middle),
            percent_interval(&loss)
        );
        Finding {
            excess: Some(middle),
            evidence: vec![
                format!("{} are all slower, by about the same", rank_list(ranks)),
                self.last_line(ranks),
                self.chance_line(ranks[0]),
            ],
            ..finding(
                (Cause::SlowNode, Culprit::Host(host as u32), loss),
                summary,
                &host_advice(name),
            )
        }
    }

    fn rank_finding(&self, rank: usize, loss: Estimate) -> Finding {
        let excess = self.lasting(rank);
        let summary = format!(
            "{} is slow: it computes {} longer than its peers and costs {} of wall time",
            rank_name(self.manifest, rank),
            percent_interval(&excess),
            percent_interval(&loss)
        );
        let row = &self.ranks[rank];
        Finding {
            excess: Some(excess),
            evidence: vec![
                format!(
                    "own time of a step: mean {:.3} s, median {:.3} s; mean typical of its peers \
                     {:.3} s",
                    row.mean_ns as f64 * SECONDS,
                    row.p50_ns as f64 * SECONDS,
                    self.peers.typical_ns[rank] * SECONDS
                ),
                self.last_line(&[rank]),
                self.chance_line(rank),
            ],
            ..finding(
                (Cause::SlowRank, Culprit::Rank(rank as u32), loss),
                summary,
                advice(Cause::SlowRank),
            )
        }
    }

    fn last_line(&self, ranks: &[usize]) -> String {
        let last: u32 = ranks.iter().map(|&rank| self.ranks[rank].last_steps).sum();
        let share = f64::from(last) / self.steps.count() as f64;
        format!("last of all in {} of steps", percent(share))
    }

    fn chance_line(&self, rank: usize) -> String {
        format!(
            "its {} peers differ by {} (one standard deviation)",
            self.peers.others(rank),
            percent(self.peers.deviation(rank))
        )
    }

    /// Slow ranks of which none costs enough, or whose unit is the only one, so that arrivals do
    /// not tell what each costs. What lasting differences cost is theirs together, less what others
    /// are `charged`.
    fn together(&self, ranks: &[usize], charged: f64) -> Option<Finding> {
        let all = self.worth(Level::Rank)?;
        let less = |share: f64| (share - charged).max(0.0);
        let loss = Estimate {
            value: less(all.value),
            low: less(all.low),
            high: less(all.high),
        };
        if loss.value < self.thresholds.loss {
            return None;
        }
        let cost = percent_interval(&loss);
        let mut worst = ranks.to_vec();
        let excess = |rank: usize| self.peers.excess[rank];
        worst.sort_by(|&a, &b| excess(b).total_cmp(&excess(a)).then(a.cmp(&b)));
        let lines = worst.iter().take(3).map(|&rank| {
            let longer = percent_interval(&self.lasting(rank));
            format!("{} {longer} longer", rank_name(self.manifest, rank))
        });
        let (who, culprit) = match ranks {
            [] if charged > 0.0 => return None,
            [] => {
                let summary = format!(
                    "some ranks are slow for good, which costs {cost} of wall time, but none \
                     stands out from its peers"
                );
                return Some(Finding {
                    confidence: Confidence::Inconclusive,
                    ..finding(
                        (Cause::SlowRank, Culprit::Nobody, loss),
                        summary,
                        "simulate more steps, or look for what makes many ranks a little slower",
                    )
                });
            }
            [rank] => (
                format!("{} is slow and costs", rank_name(self.manifest, *rank)),
                Culprit::Rank(*rank as u32),
            ),
            _ => (
                format!("{} ranks are slow and together cost", ranks.len()),
                Culprit::Ranks(ranks.iter().map(|&rank| rank as u32).collect()),
            ),
        };
        Some(Finding {
            excess: worst.first().map(|&rank| self.lasting(rank)),
            evidence: lines.collect(),
            ..finding(
                (Cause::SlowRank, culprit, loss),
                format!("{who} {cost} of wall time"),
                advice(Cause::SlowRank),
            )
        })
    }
}

/// A finding that is shown, without evidence as yet.
fn finding(
    (cause, culprit, loss): (Cause, Culprit, Estimate),
    summary: String,
    advice: &str,
) -> Finding {
    Finding {
        cause,
        culprit,
        confidence: Confidence::Shown,
        loss,
        excess: None,
        onset: None,
        signs: Vec::new(),
        summary,
        evidence: Vec::new(),
        advice: advice.to_owned(),
    }
}
