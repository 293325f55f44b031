//! The groups that one rank communicates in: one for each axis of the schedule.

use crate::MeasureError;
use laggard_backend::{BackendError, Communicator, World};
use laggard_schedule::Schedule;
use laggard_types::Rank;

/// A rank's communicators, by axis.
pub(crate) struct Groups(Vec<Membership>);

enum Membership {
    /// The axis has no group with this rank.
    None,
    /// The group is the world, in order.
    World,
    /// A group of its own.
    Own(Box<dyn Communicator>),
}

impl Groups {
    /// Splits the world along the axes. Collective: every rank does it.
    ///
    /// # Errors
    /// [`MeasureError::Start`] if a rank does not come.
    pub(crate) fn new(
        schedule: &Schedule,
        rank: Rank,
        world: &World,
    ) -> Result<Self, MeasureError> {
        let whole: Vec<Rank> = (0..schedule.world_size() as Rank).collect();
        let member = |axis: &laggard_schedule::Axis| {
            if axis.groups == [whole.as_slice()] {
                return Ok(Membership::World);
            }
            let place = axis.groups.iter().enumerate().find_map(|(group, ranks)| {
                let position = ranks.iter().position(|member| *member == rank)?;
                Some((group as u32, position as i64))
            });
            let (color, key) = place.unzip();
            let group = world.data.split(color, key.unwrap_or(0))?;
            Ok(group.map_or(Membership::None, Membership::Own))
        };
        let groups = schedule.axes.iter().map(member).collect();
        let groups: Result<_, BackendError> = groups;
        groups
            .map(Self)
            .map_err(|source| MeasureError::Start { rank, source })
    }

    /// This rank's group on an axis.
    pub(crate) fn on<'a>(&'a self, axis: u32, world: &'a World) -> Option<&'a dyn Communicator> {
        match self.0.get(axis as usize)? {
            Membership::None => None,
            Membership::World => Some(world.data.as_ref()),
            Membership::Own(group) => Some(group.as_ref()),
        }
    }
}
