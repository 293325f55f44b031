//! Where a rank stands in a layout.

use super::Layout;
use laggard_types::Rank;

/// A rank's position along each dimension, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coordinates {
    /// Among the ranks that share each matrix.
    pub tensor: u32,
    /// Among the ranks that share each sequence.
    pub context: u32,
    /// Replica.
    pub data: u32,
    /// Pipeline stage.
    pub pipeline: u32,
}

impl Layout {
    /// Where a rank stands.
    pub fn coordinates(&self, rank: Rank) -> Coordinates {
        let (tensor, rest) = (rank % self.tensor_parallel, rank / self.tensor_parallel);
        let (context, rest) = (rest % self.context_parallel, rest / self.context_parallel);
        Coordinates {
            tensor,
            context,
            data: rest % self.data_parallel,
            pipeline: rest / self.data_parallel,
        }
    }

    /// Who stands there.
    pub fn rank(&self, at: Coordinates) -> Rank {
        let outer = at.data + self.data_parallel * at.pipeline;
        at.tensor + self.tensor_parallel * (at.context + self.context_parallel * outer)
    }

    /// Position among the ranks that dense gradients are reduced over; a rank's experts are those
    /// of `gradient_position % expert_parallel`.
    pub fn gradient_position(&self, at: Coordinates) -> u32 {
        at.context + self.context_parallel * at.data
    }
}
