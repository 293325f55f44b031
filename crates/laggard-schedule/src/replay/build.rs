//! Building the graph of one step: nodes, edges, meeting points, order and cut.

use super::{Item, NONE, Node, Replay, ReplayError};
use crate::graph::{OperationKind, Schedule};
use laggard_types::Rank;
use std::collections::BTreeMap;

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
            let mut single = [NONE];
            let nodes = self.members_of(item, &mut single);
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
