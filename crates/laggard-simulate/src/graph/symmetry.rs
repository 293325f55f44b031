//! Which ranks stand for which: blocks of replicas that meet nobody else before gradients are
//! reduced, one of each kind.

use laggard_schedule::{Axis, Layout, Schedule, ScheduleOrigin};
use laggard_types::Rank;
use std::collections::BTreeMap;

/// A schedule of fewer ranks, and who they stand for.
pub(super) struct Folded {
    /// `None` where no rank stands for another.
    pub(super) schedule: Option<Schedule>,
    /// Ranks of the world that are in the small schedule, in order.
    kept: Vec<Rank>,
    /// For each rank of the world, the small schedule's rank that stands for it.
    stands_for: Vec<Rank>,
}

impl Folded {
    /// The rank of the world that a rank of the small schedule is.
    pub(super) fn original(&self, rank: Rank) -> Rank {
        self.kept[rank as usize]
    }

    /// The rank of the small schedule that stands for a rank of the world.
    pub(super) fn representative(&self, rank: Rank) -> Rank {
        self.stands_for[rank as usize]
    }
}

/// Replicas that share experts, and so meet within layers.
pub(crate) fn replicas_per_block(layout: &Layout) -> u32 {
    let (mut a, mut b) = (layout.expert_parallel, layout.context_parallel);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    layout.expert_parallel / a
}

/// Keeps one of all blocks whose ranks run the same programs and are alike.
pub(super) fn fold(schedule: &Schedule, alike: impl Fn(Rank) -> u64) -> Folded {
    let world = schedule.world_size() as Rank;
    let everyone = || Folded {
        schedule: None,
        kept: (0..world).collect(),
        stands_for: (0..world).collect(),
    };
    let ScheduleOrigin::Generated(layout) = &schedule.origin else {
        return everyone();
    };
    if layout.world_size() != u64::from(world) {
        return everyone();
    }
    let per_block = replicas_per_block(layout);
    let block_of = |rank: Rank| layout.coordinates(rank).data / per_block;
    let blocks = layout.data_parallel / per_block;
    let mut ranks_of = vec![Vec::new(); blocks as usize];
    for rank in 0..world {
        ranks_of[block_of(rank) as usize].push(rank);
    }
    let kind = |rank: &Rank| (schedule.program_of_rank[*rank as usize], alike(*rank));
    let mut first_of: BTreeMap<Vec<(u32, u64)>, usize> = BTreeMap::new();
    let model_of: Vec<usize> = (0..ranks_of.len())
        .map(|block| {
            let kinds = ranks_of[block].iter().map(kind).collect();
            *first_of.entry(kinds).or_insert(block)
        })
        .collect();
    if first_of.len() == ranks_of.len() {
        return everyone();
    }
    let mut kept: Vec<Rank> = first_of
        .values()
        .flat_map(|&b| ranks_of[b].clone())
        .collect();
    kept.sort_unstable();
    let mut stands_for = vec![0; world as usize];
    for (block, model) in model_of.iter().enumerate() {
        for (rank, original) in ranks_of[block].iter().zip(&ranks_of[*model]) {
            stands_for[*rank as usize] = place_of(&kept, *original).unwrap_or(0);
        }
    }
    Folded {
        schedule: Some(restrict(schedule, &kept)),
        kept,
        stands_for,
    }
}

fn place_of(kept: &[Rank], rank: Rank) -> Option<Rank> {
    kept.binary_search(&rank).ok().map(|at| at as Rank)
}

/// The schedule of some of its ranks, numbered anew; groups keep the members that are among them.
fn restrict(schedule: &Schedule, kept: &[Rank]) -> Schedule {
    let of = |list: &[u32]| kept.iter().map(|rank| list[*rank as usize]).collect();
    let groups = |axis: &Axis| {
        let members = |group: &Vec<Rank>| -> Vec<Rank> {
            let places = group.iter().filter_map(|rank| place_of(kept, *rank));
            places.collect()
        };
        let groups = axis.groups.iter().map(members);
        groups.filter(|group| !group.is_empty()).collect()
    };
    Schedule {
        origin: schedule.origin.clone(),
        operations: schedule.operations.clone(),
        programs: schedule.programs.clone(),
        program_of_rank: of(&schedule.program_of_rank),
        stage_of_rank: of(&schedule.stage_of_rank),
        axes: schedule
            .axes
            .iter()
            .map(|axis| Axis {
                name: axis.name.clone(),
                groups: groups(axis),
            })
            .collect(),
    }
}
