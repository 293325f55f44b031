//! Lays out one step after the other. A rank begins a step when it has ended the one before; within
//! a step an operation begins when those that it needs have ended, and who meets waits for all.

use crate::known_manifest::sample;
use laggard_record::Sample;
use laggard_schedule::{OperationKind, Schedule};
use laggard_types::Collective;
use std::collections::BTreeMap;

/// One step of every rank, and where the job has come to.
pub(super) struct Timeline {
    /// Rank and operation of each node.
    places: Vec<(usize, u32)>,
    /// Nodes of the same rank that must have ended.
    needs: Vec<Vec<usize>>,
    /// Who meets each node, itself included.
    meets: Vec<Vec<usize>>,
    /// An order in which everything needed comes first.
    order: Vec<usize>,
    /// The last collective of the whole world that everybody waits for.
    barrier: Option<usize>,
    /// When each rank had ended its step.
    free: Vec<f64>,
    start: Vec<f64>,
    end: Vec<f64>,
}

impl Timeline {
    pub(super) fn new(schedule: &Schedule) -> Self {
        let ranks = schedule.world_size();
        let mut places = Vec::new();
        let mut needs: Vec<Vec<usize>> = Vec::new();
        let mut meetings: BTreeMap<(u32, u32, u32), Vec<usize>> = BTreeMap::new();
        let mut key_of = Vec::new();
        for rank in 0..ranks {
            let (mut node_of, mut last) = (BTreeMap::new(), BTreeMap::new());
            for &id in schedule.program(rank as u32) {
                let node = places.len();
                let operation = &schedule.operations[id as usize];
                let mut before: Vec<usize> = operation.after.iter().map(|id| node_of[id]).collect();
                before.extend(last.insert(operation.stream, node));
                node_of.insert(id, node);
                places.push((rank, id));
                needs.push(before);
                let key = operation.axis.map(|axis| {
                    let group = schedule
                        .group(axis, rank as u32)
                        .expect("a group of the rank");
                    (axis, group[0], operation.sequence.unwrap_or(0))
                });
                if let Some(key) = key {
                    meetings.entry(key).or_default().push(node);
                }
                key_of.push(key);
            }
        }
        let meets: Vec<Vec<usize>> = key_of
            .iter()
            .enumerate()
            .map(|(node, key)| key.map_or_else(|| vec![node], |key| meetings[&key].clone()))
            .collect();
        let is_barrier = |node: &usize| {
            let kind = schedule.operations[places[*node].1 as usize].kind;
            let all = matches!(kind, OperationKind::Collective(Collective::AllReduce));
            all && meets[*node].len() == ranks
        };
        let of_first = 0..schedule.program(0).len();
        let barrier = of_first.rev().find(is_barrier);
        let mut timeline = Self {
            order: Vec::with_capacity(places.len()),
            start: vec![0.0; places.len()],
            end: vec![0.0; places.len()],
            free: vec![0.0; ranks],
            places,
            needs,
            meets,
            barrier,
        };
        timeline.find_order();
        timeline
    }

    /// Sweeps over all nodes and takes those that nothing keeps, until none is left.
    fn find_order(&mut self) {
        let mut done = vec![false; self.places.len()];
        while self.order.len() < self.places.len() {
            let before = self.order.len();
            for node in 0..self.places.len() {
                let mut needs = self.meets[node]
                    .iter()
                    .flat_map(|member| &self.needs[*member]);
                if !done[node] && needs.all(|need| done[*need]) {
                    done[node] = true;
                    self.order.push(node);
                }
            }
            assert!(self.order.len() > before, "the schedule waits for itself");
        }
    }

    pub(super) fn nodes(&self) -> usize {
        self.places.len()
    }

    /// Rank and operation of a node.
    pub(super) fn place(&self, node: usize) -> (usize, u32) {
        self.places[node]
    }

    /// Ranks that a node meets, itself included.
    pub(super) fn ranks_met(&self, node: usize) -> Vec<u32> {
        self.meets[node]
            .iter()
            .map(|member| self.places[*member].0 as u32)
            .collect()
    }

    /// Goes on by one step.
    pub(super) fn step(&mut self, seconds: &[f64]) {
        for at in 0..self.order.len() {
            let node = self.order[at];
            let rank = self.places[node].0;
            let ready = |needs: &Vec<usize>, rank: usize| {
                needs
                    .iter()
                    .map(|before| self.end[*before])
                    .fold(self.free[rank], f64::max)
            };
            self.start[node] = ready(&self.needs[node], rank);
            let all = self.meets[node].iter();
            let last = all.map(|member| ready(&self.needs[*member], self.places[*member].0));
            self.end[node] = last.fold(0.0, f64::max) + seconds[node];
        }
        for (node, (rank, _)) in self.places.iter().enumerate() {
            self.free[*rank] = self.free[*rank].max(self.end[node]);
        }
    }

    /// When the step just laid out came to its barrier, or to its end where it has none.
    pub(super) fn cut(&self) -> f64 {
        match self.barrier {
            Some(node) => {
                let ends = self.meets[node].iter().map(|member| self.end[*member]);
                ends.fold(0.0, f64::max)
            }
            None => self.free.iter().copied().fold(0.0, f64::max),
        }
    }

    /// The samples of the step just laid out.
    pub(super) fn samples(&self, step: u32) -> impl Iterator<Item = Sample> + '_ {
        let of = move |(node, (rank, id)): (usize, &(usize, u32))| {
            sample(*rank, step, *id, self.start[node], self.end[node])
        };
        self.places.iter().enumerate().map(of)
    }
}
