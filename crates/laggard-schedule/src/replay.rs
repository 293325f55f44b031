//! Longest-path evaluation of a schedule for given durations, for many steps at once.
//!
//! The graph of one step has a node for every operation of every rank. A node starts when its
//! predecessors on its own rank have ended; members of a meeting point (collective, send and
//! receive) start together when the last of them is ready. Each node then ends its own duration
//! later.
//!
//! Where a collective of the whole world separates a step cleanly, the step is *cut* there: what
//! follows it (the optimizer) is evaluated at the begin of the next step, whose meeting point is
//! the next that anybody waits at. Steps are then independent of each other exactly.

use laggard_types::Rank;
use thiserror::Error;

mod build;
mod critical_path;

/// A schedule that cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Operations wait for each other in a circle.
    #[error("operations wait for each other in a circle, among them `{operation}` of rank {rank}")]
    Circular {
        /// One operation of the circle.
        operation: String,
        /// Its rank.
        rank: Rank,
    },
    /// A reference to an operation, axis or rank that is not there.
    #[error("{what} {index} is referred to, but there are only {count}")]
    Dangling {
        /// What is referred to.
        what: &'static str,
        /// The reference.
        index: u32,
        /// How many there are.
        count: usize,
    },
    /// An operation needs one that does not belong to the same rank's program.
    #[error("operation `{operation}` of rank {rank} needs operation {needs} of another program")]
    ForeignDependency {
        /// The operation.
        operation: String,
        /// Its rank.
        rank: Rank,
        /// Id of the operation needed.
        needs: u32,
    },
}

/// One operation on one rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// The rank.
    pub rank: Rank,
    /// The operation's id.
    pub operation: u32,
    /// Whether the node follows the step's cut, so that its durations are those of the step before.
    pub carried: bool,
}

/// A schedule made ready for evaluation.
#[derive(Debug, Clone)]
pub struct Replay {
    nodes: Vec<Node>,
    /// Predecessors of node `i`: `predecessors[first[i]..first[i + 1]]`.
    first: Vec<u32>,
    predecessors: Vec<u32>,
    /// Meeting of node `i`, or `NONE`.
    meeting_of: Vec<u32>,
    /// Members of each meeting.
    meetings: Vec<Vec<u32>>,
    order: Vec<Item>,
    nodes_of_rank: Vec<Vec<u32>>,
    cut: bool,
}

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Node(u32),
    Meeting(u32),
}

/// Scratch of one evaluation: when a node or meeting is ready, per lane.
struct Lanes {
    ready: Vec<f64>,
    own: Vec<f64>,
}

/// Durations for an evaluation: `[node][lane]`, lane being a step (or a scenario), in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Durations<'a> {
    /// How many lanes there are.
    pub lanes: usize,
    /// Own duration of every node; of a meeting point without the waiting.
    pub own: &'a [f64],
    /// Time between a node's being ready and its start, where there is any.
    pub delay: Option<&'a [f64]>,
}

/// Starts and ends of every node, `[node][lane]`, in seconds from the begin of the step.
#[derive(Debug, Clone, Default)]
pub struct Times {
    /// Start; of a meeting point the start of its last member.
    pub start: Vec<f64>,
    /// End.
    pub end: Vec<f64>,
    /// Length of the step, per lane.
    pub finish: Vec<f64>,
}

impl Replay {
    /// All nodes; durations and times are indexed by position here.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Nodes of one rank, in issue order.
    pub fn nodes_of_rank(&self, rank: Rank) -> &[u32] {
        &self.nodes_of_rank[rank as usize]
    }

    /// Members of each meeting point.
    pub fn meetings(&self) -> &[Vec<u32>] {
        &self.meetings
    }

    /// The meeting point that a node is a member of.
    pub fn meeting_of(&self, node: u32) -> Option<u32> {
        let meeting = self.meeting_of[node as usize];
        (meeting != NONE).then_some(meeting)
    }

    /// Nodes that a node waits for on its own rank.
    pub fn predecessors(&self, node: u32) -> &[u32] {
        let at = node as usize;
        &self.predecessors[self.first[at] as usize..self.first[at + 1] as usize]
    }

    /// Whether steps are cut at a collective of the whole world, so that they are independent.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Longest path through all nodes, for every lane. `times` is reused to avoid allocation.
    ///
    /// # Panics
    /// If `durations` does not hold `nodes x lanes` values.
    pub fn evaluate(&self, durations: Durations<'_>, times: &mut Times) {
        let lanes = durations.lanes;
        assert_eq!(
            durations.own.len(),
            self.nodes.len() * lanes,
            "one duration per node and lane"
        );
        times.start.clear();
        times.start.resize(self.nodes.len() * lanes, 0.0);
        times.end.clear();
        times.end.resize(self.nodes.len() * lanes, 0.0);
        times.finish.clear();
        times.finish.resize(lanes, 0.0);
        let mut lane = Lanes {
            ready: vec![0.0; lanes],
            own: vec![0.0; lanes],
        };
        for &item in &self.order {
            lane.ready.fill(0.0);
            let mut single = [NONE];
            let members = self.members_of(item, &mut single);
            for &node in members {
                self.raise_to_ready(node, durations, &times.end, &mut lane);
            }
            for &node in members {
                self.finish_node(node, durations, &lane.ready, times);
            }
        }
    }

    /// Length of the step if only `rank` had `durations` and everybody else those that `base` was
    /// evaluated with: the rank's own nodes are walked, and its meeting points start no earlier
    /// than in `base`. `own` and `delay` are indexed by position in [`Replay::nodes_of_rank`].
    /// Exact where others do not wait within the step for what this rank delays (data parallelism,
    /// [`Replay::is_exact_alone`]); a lower bound elsewhere. Writes one length per lane to
    /// `finish`.
    pub fn evaluate_alone(
        &self,
        rank: Rank,
        durations: Durations<'_>,
        base: &Times,
        finish: &mut Vec<f64>,
    ) {
        let lanes = durations.lanes;
        let nodes = self.nodes_of_rank(rank);
        let first = nodes.first().copied().unwrap_or(0);
        let mut end = vec![0.0; nodes.len() * lanes];
        let mut ready = vec![0.0; lanes];
        finish.clear();
        finish.extend_from_slice(&base.finish);
        for &node in &self.order_of_rank(rank) {
            let local = (node - first) as usize;
            ready.fill(0.0);
            for &before in self.predecessors(node) {
                raise(
                    &mut ready,
                    &end[(before - first) as usize * lanes..][..lanes],
                );
            }
            if let Some(delay) = durations.delay {
                add(&mut ready, &delay[local * lanes..][..lanes]);
            }
            if self.meeting_of[node as usize] != NONE {
                raise(&mut ready, &base.start[node as usize * lanes..][..lanes]);
            }
            add(&mut ready, &durations.own[local * lanes..][..lanes]);
            end[local * lanes..][..lanes].copy_from_slice(&ready);
            raise(finish, &ready);
        }
    }

    /// The nodes that start together; `single` holds one that meets nobody.
    fn members_of<'a>(&'a self, item: Item, single: &'a mut [u32; 1]) -> &'a [u32] {
        match item {
            Item::Meeting(meeting) => &self.meetings[meeting as usize],
            Item::Node(node) => {
                *single = [node];
                single
            }
        }
    }

    /// Nodes of one rank in an order in which each comes after its predecessors.
    fn order_of_rank(&self, rank: Rank) -> Vec<u32> {
        let (carried, rest): (Vec<u32>, Vec<u32>) = self.nodes_of_rank[rank as usize]
            .iter()
            .partition(|&&node| self.nodes[node as usize].carried);
        carried.into_iter().chain(rest).collect()
    }

    /// Raises `ready` to where a node's own rank is ready for it. `own` is scratch.
    fn raise_to_ready(&self, node: u32, durations: Durations<'_>, end: &[f64], lane: &mut Lanes) {
        let lanes = durations.lanes;
        let own = &mut lane.own;
        own.fill(0.0);
        for &before in self.predecessors(node) {
            raise(own, &end[before as usize * lanes..][..lanes]);
        }
        if let Some(delay) = durations.delay {
            add(own, &delay[node as usize * lanes..][..lanes]);
        }
        raise(&mut lane.ready, own);
    }

    fn finish_node(&self, node: u32, durations: Durations<'_>, ready: &[f64], times: &mut Times) {
        let lanes = durations.lanes;
        let at = node as usize * lanes;
        times.start[at..at + lanes].copy_from_slice(ready);
        let end = &mut times.end[at..at + lanes];
        end.copy_from_slice(ready);
        add(end, &durations.own[at..at + lanes]);
        raise(&mut times.finish, end);
    }
}

fn raise(to: &mut [f64], by: &[f64]) {
    for (to, by) in to.iter_mut().zip(by) {
        *to = to.max(*by);
    }
}

fn add(to: &mut [f64], what: &[f64]) {
    for (to, what) in to.iter_mut().zip(what) {
        *to += what;
    }
}

#[cfg(test)]
pub(crate) mod tests;
