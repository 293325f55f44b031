//! Who is compared with whom: ranks of one stage and class form a cell and are expected to be
//! equally fast.

use crate::AnalyzeError;
use laggard_record::Manifest;
use laggard_schedule::{OperationKind, Phase, Replay};

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
    /// Class of each rank.
    pub(crate) class_of_rank: Vec<usize>,
    /// Host of each rank.
    pub(crate) host_of_rank: Vec<usize>,
    pub(crate) stage_of_rank: Vec<u32>,
    /// Weight of each rank in means over unlike ranks: its peak, or 1 where no peak is known.
    pub(crate) weight: Vec<f64>,
    /// Slot of each node; `None` for meeting points.
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
        let mut keys: Vec<(u32, usize)> = stage_of_rank
            .iter()
            .copied()
            .zip(class_of_rank.iter().copied())
            .collect();
        let key_of_rank = keys.clone();
        keys.sort_unstable();
        keys.dedup();
        let of_rank: Vec<usize> = key_of_rank
            .iter()
            .map(|key| keys.partition_point(|other| other < key))
            .collect();
        let mut members = vec![Vec::new(); keys.len()];
        for (rank, &cell) in of_rank.iter().enumerate() {
            members[cell].push(rank);
        }
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
            of_rank,
            members,
            host_of_rank: places.iter().map(|place| place.host as usize).collect(),
            class_of_rank,
            stage_of_rank,
            weight: peaks.unwrap_or_else(|| vec![1.0; expected]),
            slot_of_node,
            rank_of_node,
            nodes_in_slot,
        })
    }

    /// Members of a rank's cell, itself included.
    pub(crate) fn peers(&self, rank: usize) -> &[usize] {
        &self.members[self.of_rank[rank]]
    }

    /// Ranks of one cell on one host.
    pub(crate) fn on_host(&self, cell: usize, host: usize) -> impl Iterator<Item = usize> + '_ {
        self.members[cell]
            .iter()
            .copied()
            .filter(move |&rank| self.host_of_rank[rank] == host)
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

fn slots(manifest: &Manifest, replay: &Replay) -> Vec<Option<Slot>> {
    let slot = |node: &laggard_schedule::Node| {
        let operation = &manifest.schedule.operations[node.operation as usize];
        match (operation.kind, operation.phase) {
            (kind, _) if kind.meets() && replay_meets(operation) => None,
            (OperationKind::Host, _) => Some(Slot::Host),
            (_, Phase::Forward) => Some(Slot::Forward),
            (_, Phase::Backward) => Some(Slot::Backward),
            _ => Some(Slot::Optimizer),
        }
    };
    replay.nodes().iter().map(slot).collect()
}

/// A meeting point without an axis meets nobody and counts as work of the rank.
fn replay_meets(operation: &laggard_schedule::Operation) -> bool {
    operation.axis.is_some()
}
