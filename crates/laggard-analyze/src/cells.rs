//! Who is compared with whom. Ranks of one class and stage do the same and are *mates*. Ranks of
//! one *cell* are expected to be equally fast: mates, or all ranks of a class where it is known
//! what a stage's work makes of its time (`stage_split.rs`).

use crate::AnalyzeError;
use laggard_record::Manifest;
use laggard_schedule::{OperationKind, Phase, Replay, Stream};

/// The parts of a rank's own time that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Host = 0,
    Forward = 1,
    Backward = 2,
    Optimizer = 3,
}

impl Slot {
    pub(crate) const COUNT: usize = 4;
    pub(crate) const ALL: [Self; Self::COUNT] =
        [Self::Host, Self::Forward, Self::Backward, Self::Optimizer];

    /// Whether the slot's time grows with the tokens.
    pub(crate) const fn scales_with_work(self) -> bool {
        matches!(self, Self::Forward | Self::Backward)
    }
}

/// Own times by slot, in seconds.
pub(crate) type Slots = [f64; Slot::COUNT];

/// Cells, hosts, peaks and the slot of every node.
pub(crate) struct Cells {
    pub(crate) ranks: usize,
    /// Cell of each rank.
    pub(crate) of_rank: Vec<usize>,
    /// Ranks of each cell, ascending.
    pub(crate) members: Vec<Vec<usize>>,
    /// The ranks of one class and stage that each rank belongs to.
    pub(crate) mates_of_rank: Vec<usize>,
    /// Ranks of each class in each stage, ascending.
    pub(crate) mates: Vec<Vec<usize>>,
    /// What the split of the model into stages makes of each rank's times, as a factor of what is
    /// usual: 1 where cells are of one stage.
    pub(crate) expected: Vec<Slots>,
    /// Whether cells span stages.
    pub(crate) across_stages: bool,
    /// Class of each rank.
    pub(crate) class_of_rank: Vec<usize>,
    /// Host of each rank.
    pub(crate) host_of_rank: Vec<usize>,
    pub(crate) stage_of_rank: Vec<u32>,
    /// Weight of each rank in means over unlike ranks: its peak, or 1 where no peak is known.
    pub(crate) weight: Vec<f64>,
    /// Slot of each node; `None` for communication.
    pub(crate) slot_of_node: Vec<Option<Slot>>,
    /// Rank of each node.
    pub(crate) rank_of_node: Vec<usize>,
    /// Number of nodes by `[rank][slot]`.
    pub(crate) nodes_in_slot: Vec<[u32; Slot::COUNT]>,
}

impl Cells {
    pub(crate) fn new(manifest: &Manifest, replay: &Replay) -> Result<Self, AnalyzeError> {
        let expected = manifest.schedule.world_size();
        let places = &manifest.ranks;
        if places.len() != expected {
            return Err(AnalyzeError::Inconsistent {
                what: "ranks",
                given: places.len(),
                expected,
            });
        }
        let stage_of_rank = manifest.schedule.stage_of_rank.clone();
        if stage_of_rank.len() != expected {
            let given = stage_of_rank.len();
            return Err(AnalyzeError::Inconsistent {
                what: "stages of ranks",
                given,
                expected,
            });
        }
        let class_of_rank: Vec<usize> = places.iter().map(|place| place.class as usize).collect();
        let stages = stage_of_rank.iter().copied();
        let (of_rank, members) = groups(stages.zip(class_of_rank.iter().copied()).collect());
        let peak = |class: &usize| manifest.classes[*class].peak.as_ref().map(|p| p.flop_per_s);
        let peaks: Option<Vec<f64>> = class_of_rank.iter().map(peak).collect();
        let slot_of_node = slots(manifest, replay);
        let rank_of_node: Vec<usize> = replay.nodes().iter().map(|n| n.rank as usize).collect();
        let mut nodes_in_slot = vec![[0; Slot::COUNT]; expected];
        for (&rank, slot) in rank_of_node.iter().zip(&slot_of_node) {
            if let Some(slot) = slot {
                nodes_in_slot[rank][*slot as usize] += 1;
            }
        }
        Ok(Self {
            ranks: expected,
            mates_of_rank: of_rank.clone(),
            mates: members.clone(),
            of_rank,
            members,
            expected: vec![[1.0; Slot::COUNT]; expected],
            across_stages: false,
            host_of_rank: places.iter().map(|place| place.host as usize).collect(),
            class_of_rank,
            stage_of_rank,
            weight: peaks.unwrap_or_else(|| vec![1.0; expected]),
            slot_of_node,
            rank_of_node,
            nodes_in_slot,
        })
    }

    /// Compares all ranks of a class, their times divided by what is expected of their stage.
    pub(crate) fn join_stages(&mut self, expected: Vec<Slots>) {
        (self.of_rank, self.members) = groups(self.class_of_rank.clone());
        self.expected = expected;
        self.across_stages = true;
    }

    /// A rank's times as they would be if it had the work that is usual.
    pub(crate) fn usual(&self, rank: usize, slots: &Slots) -> Slots {
        let mut usual = *slots;
        for (time, expected) in usual.iter_mut().zip(&self.expected[rank]) {
            *time /= expected;
        }
        usual
    }

    /// The ranks of one class and stage, with a rank among them.
    pub(crate) fn mates(&self, rank: usize) -> &[usize] {
        &self.mates[self.mates_of_rank[rank]]
    }

    /// Number of stages.
    pub(crate) fn stages(&self) -> usize {
        self.stage_of_rank
            .iter()
            .max()
            .map_or(1, |last| *last as usize + 1)
    }

    /// Members of a rank's cell, itself included.
    pub(crate) fn peers(&self, rank: usize) -> &[usize] {
        &self.members[self.of_rank[rank]]
    }

    /// Mean over some ranks, by weight.
    pub(crate) fn weighted_mean(
        &self,
        ranks: impl Iterator<Item = usize>,
        value: impl Fn(usize) -> f64,
    ) -> f64 {
        let (mut sum, mut weight) = (0.0, 0.0);
        for rank in ranks {
            sum += self.weight[rank] * value(rank);
            weight += self.weight[rank];
        }
        if weight > 0.0 { sum / weight } else { 0.0 }
    }
}

/// Ranks of equal keys, in the order of the keys, and the position of each rank's group.
fn groups<K: Ord + Clone>(key_of_rank: Vec<K>) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut keys = key_of_rank.clone();
    keys.sort_unstable();
    keys.dedup();
    let position = |key: &K| keys.partition_point(|other| other < key);
    let of_rank: Vec<usize> = key_of_rank.iter().map(position).collect();
    let mut members = vec![Vec::new(); keys.len()];
    for (rank, &group) in of_rank.iter().enumerate() {
        members[group].push(rank);
    }
    (of_rank, members)
}

fn slots(manifest: &Manifest, replay: &Replay) -> Vec<Option<Slot>> {
    let slot = |node: &laggard_schedule::Node| {
        let operation = &manifest.schedule.operations[node.operation as usize];
        match (operation.kind, operation.phase) {
            (kind, _) if kind.meets() && replay_meets(operation) => None,
            (OperationKind::Host, _) => Some(Slot::Host),
            (_, Phase::Forward) => Some(Slot::Forward),
            (_, Phase::Backward | Phase::Recompute) => Some(Slot::Backward),
            // Adding up what was reduced runs beside the kernels, as part of the reduction.
            (_, Phase::GradientReduce) if operation.stream != Stream::Compute => None,
            _ => Some(Slot::Optimizer),
        }
    };
    replay.nodes().iter().map(slot).collect()
}

/// A meeting point without an axis meets nobody and counts as work of the rank.
fn replay_meets(operation: &laggard_schedule::Operation) -> bool {
    operation.axis.is_some()
}
