//! Longest-path evaluation of a schedule for given durations, for many steps at once.
//!
//! The graph of one step has a node for every operation of every rank. A node starts when its
//! predecessors on its own rank have ended; members of a meeting point (collective, send and
//! receive) start together when the last of them is ready. Each node then ends its own duration
//! later.
//!
//! Where a collective of the whole world separates a step cleanly, the step is *cut* there: what
//! follows it (the optimizer) is evaluated at the begin of the next step, whose meeting point is the
//! next that anybody waits at. Steps are then independent of each other exactly.

use crate::graph::{OperationKind, Schedule};
use laggard_types::Rank;
use std::collections::BTreeMap;
use thiserror::Error;

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
    /// Makes a schedule ready for evaluation.
    ///
    /// # Errors
    /// If it refers to what is not there, or waits for itself.
    pub fn new(schedule: &Schedule) -> Result<Self, ReplayError> {
        let mut graph = Self {
            nodes: Vec::new(),
            first: vec![0],
            predecessors: Vec::new(),
            meeting_of: Vec::new(),
            meetings: Vec::new(),
            order: Vec::new(),
            nodes_of_rank: Vec::new(),
            cut: false,
        };
        let mut edges: Vec<Vec<u32>> = Vec::new();
        let mut meeting_ids: BTreeMap<(u32, u32, u32), u32> = BTreeMap::new();
        let groups = GroupOfRank::new(schedule)?;
        for rank in 0..schedule.world_size() as u32 {
            graph.add_rank(schedule, rank, &mut edges)?;
            graph.add_meetings(schedule, rank, &groups, &mut meeting_ids);
        }
        graph.set_edges(&edges);
        graph.order = graph.topological_order(schedule)?;
        graph.cut_at_barrier(schedule, edges)?;
        Ok(graph)
    }

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
        let mut ready = vec![0.0; lanes];
        for &item in &self.order {
            match item {
                Item::Node(node) => {
                    ready.fill(0.0);
                    self.raise_to_ready(node, durations, &times.end, &mut ready);
                    self.finish_node(node, durations, &ready, times);
                }
                Item::Meeting(meeting) => {
                    ready.fill(0.0);
                    for &node in &self.meetings[meeting as usize] {
                        self.raise_to_ready(node, durations, &times.end, &mut ready);
                    }
                    for &node in &self.meetings[meeting as usize] {
                        self.finish_node(node, durations, &ready, times);
                    }
                }
            }
        }
    }

    /// Length of the step if only `rank` had `durations` and everybody else those that `base` was
    /// evaluated with: the rank's own nodes are walked, and its meeting points start no earlier than
    /// in `base`. `own` and `delay` are indexed by position in [`Replay::nodes_of_rank`]. Exact
    /// where others do not wait within the step for what this rank delays (data parallelism); a
    /// lower bound elsewhere. Writes one length per lane to `finish`.
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

    /// Nodes of one rank in an order in which each comes after its predecessors.
    fn order_of_rank(&self, rank: Rank) -> Vec<u32> {
        let (carried, rest): (Vec<u32>, Vec<u32>) = self.nodes_of_rank[rank as usize]
            .iter()
            .partition(|&&node| self.nodes[node as usize].carried);
        carried.into_iter().chain(rest).collect()
    }

    fn raise_to_ready(&self, node: u32, durations: Durations<'_>, end: &[f64], ready: &mut [f64]) {
        let lanes = durations.lanes;
        match durations.delay {
            None => {
                for &before in self.predecessors(node) {
                    raise(ready, &end[before as usize * lanes..][..lanes]);
                }
            }
            Some(delay) => {
                let delay = &delay[node as usize * lanes..][..lanes];
                let mut own = vec![0.0; lanes];
                for &before in self.predecessors(node) {
                    raise(&mut own, &end[before as usize * lanes..][..lanes]);
                }
                add(&mut own, delay);
                raise(ready, &own);
            }
        }
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

    fn add_rank(
        &mut self,
        schedule: &Schedule,
        rank: Rank,
        edges: &mut Vec<Vec<u32>>,
    ) -> Result<(), ReplayError> {
        let program = schedule.program_of_rank[rank as usize];
        if program as usize >= schedule.programs.len() {
            let count = schedule.programs.len();
            return Err(ReplayError::Dangling {
                what: "program",
                index: program,
                count,
            });
        }
        let first = self.nodes.len() as u32;
        let mut node_of: BTreeMap<u32, u32> = BTreeMap::new();
        let mut last_on_stream = BTreeMap::new();
        for &id in schedule.program(rank) {
            let count = schedule.operations.len();
            let operation = schedule.operations.get(id as usize);
            let operation = operation.ok_or(ReplayError::Dangling {
                what: "operation",
                index: id,
                count,
            })?;
            let node = self.nodes.len() as u32;
            let mut before: Vec<u32> = last_on_stream
                .insert(operation.stream, node)
                .into_iter()
                .collect();
            before.extend(operation.after.iter().map(|needs| *needs | FORWARD));
            node_of.insert(id, node);
            edges.push(before);
            self.nodes.push(Node {
                rank,
                operation: id,
                carried: false,
            });
            self.meeting_of.push(NONE);
        }
        for node in first..self.nodes.len() as u32 {
            for before in &mut edges[node as usize] {
                if *before & FORWARD != 0 {
                    let needs = *before & !FORWARD;
                    let operation = self.nodes[node as usize].operation as usize;
                    *before =
                        *node_of
                            .get(&needs)
                            .ok_or_else(|| ReplayError::ForeignDependency {
                                operation: schedule.operations[operation].name.clone(),
                                rank,
                                needs,
                            })?;
                }
            }
        }
        self.nodes_of_rank
            .push((first..self.nodes.len() as u32).collect());
        Ok(())
    }

    fn add_meetings(
        &mut self,
        schedule: &Schedule,
        rank: Rank,
        groups: &GroupOfRank,
        ids: &mut BTreeMap<(u32, u32, u32), u32>,
    ) {
        for &node in &self.nodes_of_rank[rank as usize] {
            let operation = &schedule.operations[self.nodes[node as usize].operation as usize];
            let Some(axis) = operation.axis.filter(|_| operation.kind.meets()) else {
                continue;
            };
            let Some(group) = groups.group(axis, rank) else {
                continue;
            };
            let key = (axis, group, operation.sequence.unwrap_or(0));
            let meeting = *ids.entry(key).or_insert(self.meetings.len() as u32);
            if meeting as usize == self.meetings.len() {
                self.meetings.push(Vec::new());
            }
            self.meetings[meeting as usize].push(node);
            self.meeting_of[node as usize] = meeting;
        }
    }

    fn set_edges(&mut self, edges: &[Vec<u32>]) {
        self.first = vec![0];
        self.predecessors.clear();
        for before in edges {
            self.predecessors.extend_from_slice(before);
            self.first.push(self.predecessors.len() as u32);
        }
    }

    /// Kahn's algorithm over nodes and meetings.
    fn topological_order(&self, schedule: &Schedule) -> Result<Vec<Item>, ReplayError> {
        let mut followers: Vec<Vec<u32>> = vec![Vec::new(); self.nodes.len()];
        let mut missing: Vec<u32> = vec![0; self.nodes.len()];
        for node in 0..self.nodes.len() as u32 {
            for &before in self.predecessors(node) {
                followers[before as usize].push(node);
                missing[node as usize] += 1;
            }
        }
        let mut absent: Vec<usize> = self.meetings.iter().map(Vec::len).collect();
        let mut ready: Vec<u32> = (0..self.nodes.len() as u32)
            .rev()
            .filter(|&n| missing[n as usize] == 0)
            .collect();
        let mut order = Vec::new();
        let mut done = vec![false; self.nodes.len()];
        while let Some(node) = ready.pop() {
            let meeting = self.meeting_of[node as usize];
            let finished: &[u32] = if meeting == NONE {
                order.push(Item::Node(node));
                &[node]
            } else {
                absent[meeting as usize] -= 1;
                if absent[meeting as usize] > 0 {
                    continue;
                }
                order.push(Item::Meeting(meeting));
                &self.meetings[meeting as usize]
            };
            for &end in finished {
                done[end as usize] = true;
                for &next in &followers[end as usize] {
                    missing[next as usize] -= 1;
                    if missing[next as usize] == 0 {
                        ready.push(next);
                    }
                }
            }
        }
        match done.iter().position(|done| !done) {
            None => Ok(order),
            Some(stuck) => Err(ReplayError::Circular {
                operation: schedule.operations[self.nodes[stuck].operation as usize]
                    .name
                    .clone(),
                rank: self.nodes[stuck].rank,
            }),
        }
    }

    /// Cuts the step behind its last collective of the whole world, if every node is either needed
    /// by it or needs it.
    fn cut_at_barrier(
        &mut self,
        schedule: &Schedule,
        mut edges: Vec<Vec<u32>>,
    ) -> Result<(), ReplayError> {
        let Some(barrier) = self.order.iter().rev().find_map(|item| match *item {
            Item::Meeting(meeting) if self.is_world_barrier(schedule, meeting) => Some(meeting),
            _ => None,
        }) else {
            return Ok(());
        };
        let before = self.ancestors(barrier);
        let after = self.descendants(barrier);
        if before
            .iter()
            .zip(&after)
            .any(|(before, after)| before == after)
        {
            return Ok(());
        }
        for (node, carried) in self.nodes.iter_mut().zip(&after) {
            node.carried = *carried;
        }
        for nodes in &self.nodes_of_rank {
            let is_carried = |node: &u32| after[*node as usize];
            let tails: Vec<u32> = nodes.iter().copied().filter(is_carried).collect();
            for &node in nodes {
                edges[node as usize].retain(|&b| after[b as usize] == after[node as usize]);
                if !after[node as usize] && edges[node as usize].is_empty() {
                    edges[node as usize].extend(&tails);
                }
            }
        }
        self.set_edges(&edges);
        self.order = self.topological_order(schedule)?;
        self.cut = true;
        Ok(())
    }

    fn is_world_barrier(&self, schedule: &Schedule, meeting: u32) -> bool {
        let members = &self.meetings[meeting as usize];
        let kind = schedule.operations[self.nodes[members[0] as usize].operation as usize].kind;
        let synchronises = matches!(kind, OperationKind::Collective(c) if c.synchronises());
        synchronises && members.len() == schedule.world_size()
    }

    /// Members of a meeting and all that they need.
    fn ancestors(&self, meeting: u32) -> Vec<bool> {
        let mut found = vec![false; self.nodes.len()];
        let mut open: Vec<u32> = self.meetings[meeting as usize].clone();
        while let Some(node) = open.pop() {
            if std::mem::replace(&mut found[node as usize], true) {
                continue;
            }
            open.extend(self.predecessors(node));
            if let Some(meeting) = self.meeting_of(node) {
                open.extend(&self.meetings[meeting as usize]);
            }
        }
        found
    }

    /// All that needs a member of a meeting, without its members.
    fn descendants(&self, meeting: u32) -> Vec<bool> {
        let mut reached = vec![false; self.nodes.len()];
        for &node in &self.meetings[meeting as usize] {
            reached[node as usize] = true;
        }
        for &item in &self.order {
            let (single, many);
            let nodes: &[u32] = match item {
                Item::Node(node) => {
                    single = [node];
                    &single
                }
                Item::Meeting(meeting) => {
                    many = &self.meetings[meeting as usize];
                    many
                }
            };
            let needs = |node: &u32| {
                self.predecessors(*node)
                    .iter()
                    .any(|b| reached[*b as usize])
            };
            if nodes.iter().any(needs) {
                nodes.iter().for_each(|&node| reached[node as usize] = true);
            }
        }
        for &node in &self.meetings[meeting as usize] {
            reached[node as usize] = false;
        }
        reached
    }
}

/// Marks an edge that still names an operation instead of a node.
const FORWARD: u32 = 1 << 31;

/// The group of every rank on every axis.
struct GroupOfRank(Vec<Vec<u32>>);

impl GroupOfRank {
    fn new(schedule: &Schedule) -> Result<Self, ReplayError> {
        let count = schedule.world_size();
        let mut table = Vec::new();
        for axis in &schedule.axes {
            let mut group_of = vec![NONE; count];
            for (group, ranks) in axis.groups.iter().enumerate() {
                for &rank in ranks {
                    let slot = group_of.get_mut(rank as usize);
                    let slot = slot.ok_or(ReplayError::Dangling {
                        what: "rank",
                        index: rank,
                        count,
                    })?;
                    *slot = group as u32;
                }
            }
            table.push(group_of);
        }
        let count = table.len();
        let axes = schedule
            .operations
            .iter()
            .filter_map(|operation| operation.axis);
        match axes.filter(|axis| *axis as usize >= count).max() {
            Some(index) => Err(ReplayError::Dangling {
                what: "axis",
                index,
                count,
            }),
            None => Ok(Self(table)),
        }
    }

    fn group(&self, axis: u32, rank: Rank) -> Option<u32> {
        let group = self.0[axis as usize][rank as usize];
        (group != NONE).then_some(group)
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
mod tests;
