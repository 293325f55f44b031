//! What decides how long an evaluated step is: its critical path, and how much later every other
//! node could end.

use super::{Durations, NONE, Replay, Times};
use laggard_types::Rank;
use std::collections::BTreeSet;

impl Replay {
    /// The chain of nodes that makes the step as long as it is, from first to last. Each begins
    /// when the one before it has ended; at a meeting point that may be a node of another member.
    /// The nodes' durations, with the delays of the last to arrive, sum to the step's length. Where
    /// two chains are equally long, the one that stays on a rank is taken, then that of the lower
    /// node.
    ///
    /// # Panics
    /// If `times` was not evaluated with `durations`, or has no such lane.
    pub fn critical_path(&self, durations: Durations<'_>, times: &Times, lane: usize) -> Vec<u32> {
        let view = View::new(durations, times, lane);
        let mut path = Vec::new();
        let mut ends: Option<u32> = None;
        for node in 0..self.nodes.len() as u32 {
            if ends.is_none_or(|last| view.end(node) > view.end(last)) {
                ends = Some(node);
            }
        }
        while let Some(node) = ends {
            path.push(node);
            ends = self.decides(node, &view);
        }
        path.reverse();
        path
    }

    /// By how much each node could end later without making the step longer, in seconds, if all
    /// others take as long as they do; 0 on the critical path.
    ///
    /// # Panics
    /// If `times` was not evaluated with `durations`, or has no such lane.
    pub fn slack(&self, durations: Durations<'_>, times: &Times, lane: usize) -> Vec<f64> {
        let view = View::new(durations, times, lane);
        let mut latest_end = vec![times.finish[lane]; self.nodes.len()];
        for &item in self.order.iter().rev() {
            let mut single = [NONE];
            let members = self.members_of(item, &mut single);
            // Members start together, so that the tightest of them binds all.
            let start = |node: &u32| latest_end[*node as usize] - view.own(*node);
            let latest_start = members.iter().map(start).fold(f64::INFINITY, f64::min);
            for &member in members {
                for &before in self.predecessors(member) {
                    let latest = &mut latest_end[before as usize];
                    *latest = latest.min(latest_start - view.delay(member));
                }
            }
        }
        let slack = |(node, latest): (usize, f64)| (latest - view.end(node as u32)).max(0.0);
        latest_end.into_iter().enumerate().map(slack).collect()
    }

    /// Whether [`Replay::evaluate_alone`] is exact: nothing that a rank does by itself comes after
    /// a meeting point, and who meets after having met before meets all of them again.
    pub fn is_exact_alone(&self) -> bool {
        let mut met: Vec<Option<u32>> = vec![None; self.nodes.len()];
        let mut met_again: BTreeSet<(u32, u32)> = BTreeSet::new();
        for &item in &self.order {
            let mut single = [NONE];
            for &node in self.members_of(item, &mut single) {
                let meeting = self.meeting_of(node);
                let before = self.predecessors(node).iter();
                for last in before.filter_map(|before| met[*before as usize]) {
                    let Some(meeting) = meeting else {
                        return false;
                    };
                    if met_again.insert((last, meeting)) && !self.all_meet_again(last, meeting) {
                        return false;
                    }
                }
                met[node as usize] = meeting;
            }
        }
        true
    }

    fn all_meet_again(&self, last: u32, next: u32) -> bool {
        let ranks = |meeting: u32| -> BTreeSet<Rank> {
            let members = self.meetings[meeting as usize].iter();
            members
                .map(|node| self.nodes[*node as usize].rank)
                .collect()
        };
        ranks(last).is_subset(&ranks(next))
    }

    /// The node whose end lets another begin; none at the begin of the step.
    fn decides(&self, node: u32, view: &View<'_>) -> Option<u32> {
        let single = [node];
        let members = match self.meeting_of(node) {
            Some(meeting) => &self.meetings[meeting as usize],
            None => &single[..],
        };
        // The node itself first, so that ties keep the path on its rank.
        let others = members.iter().filter(|&&member| member != node);
        let mut latest: (f64, Option<u32>) = (f64::NEG_INFINITY, None);
        for &member in [node].iter().chain(others) {
            let before = self.predecessors(member);
            if before.is_empty() && view.delay(member) > latest.0 {
                latest = (view.delay(member), None);
            }
            for &before in before {
                let ready = view.end(before) + view.delay(member);
                if ready > latest.0 {
                    latest = (ready, Some(before));
                }
            }
        }
        latest.1
    }
}

/// One lane of an evaluation.
struct View<'a> {
    durations: Durations<'a>,
    times: &'a Times,
    lane: usize,
}

impl<'a> View<'a> {
    fn new(durations: Durations<'a>, times: &'a Times, lane: usize) -> Self {
        assert_eq!(
            times.end.len(),
            durations.own.len(),
            "times of the same evaluation"
        );
        assert!(lane < durations.lanes, "a lane of the evaluation");
        Self {
            durations,
            times,
            lane,
        }
    }

    fn at(&self, table: &[f64], node: u32) -> f64 {
        table[node as usize * self.durations.lanes + self.lane]
    }

    fn end(&self, node: u32) -> f64 {
        self.at(&self.times.end, node)
    }

    fn own(&self, node: u32) -> f64 {
        self.at(self.durations.own, node)
    }

    fn delay(&self, node: u32) -> f64 {
        self.durations
            .delay
            .map_or(0.0, |delay| self.at(delay, node))
    }
}

#[cfg(test)]
#[expect(
    clippy::float_cmp,
    reason = "times are sums of few whole numbers, which are exact"
)]
mod tests;
