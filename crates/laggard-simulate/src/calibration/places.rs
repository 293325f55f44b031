//! What a schedule tells of its operations beyond themselves.

use laggard_schedule::{Axis, Operation, Schedule};

/// How many ranks meet in an operation of a schedule, and which belong to the output head.
#[derive(Debug, Clone)]
pub struct Places {
    members: Vec<u32>,
    head: Option<u32>,
}

impl Places {
    /// Those of a schedule whose last layer is the head.
    #[must_use]
    pub fn of(schedule: &Schedule) -> Self {
        let size = |axis: &Axis| axis.groups.iter().map(Vec::len).max().unwrap_or(1) as u32;
        Self {
            members: schedule.axes.iter().map(size).collect(),
            head: schedule.operations.iter().filter_map(|it| it.layer).max(),
        }
    }

    /// Ranks that meet in an operation, and whether it is work of the head.
    #[must_use]
    pub fn place(&self, operation: &Operation) -> (u32, bool) {
        let members = operation.axis.map_or(1, |axis| self.members[axis as usize]);
        let head = operation.layer.is_some() && operation.layer == self.head;
        (members, head)
    }
}
