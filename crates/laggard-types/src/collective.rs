//! Collectives, their reductions, and the factor between algorithm and bus bandwidth.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a group of ranks does together.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Collective {
    /// Every rank ends with the reduction of all ranks' buffers.
    AllReduce,
    /// Rank `i` ends with block `i` of the reduction.
    ReduceScatter,
    /// Every rank ends with the concatenation of all ranks' blocks.
    AllGather,
    /// Every rank ends with the root's buffer.
    Broadcast,
    /// The root ends with the reduction.
    Reduce,
    /// Rank `i` sends its block `j` to rank `j`; blocks may be uneven.
    AllToAll,
    /// The root ends with the concatenation of all ranks' blocks.
    Gather,
    /// Rank `i` ends with block `i` of the root's buffer.
    Scatter,
    /// Point to point: one rank sends, one receives.
    SendRecv,
    /// Nobody goes on before everybody has come.
    Barrier,
}

impl Collective {
    /// Factor from algorithm bandwidth (bytes over time) to bus bandwidth for `ranks` ranks, where
    /// bytes are counted as nccl-tests counts them (total input of a reduce-scatter, total output
    /// of an all-gather).
    /// Source: NVIDIA/nccl-tests, doc/PERFORMANCE.md.
    pub fn bus_factor(self, ranks: u32) -> f64 {
        let n = f64::from(ranks.max(1));
        match self {
            Self::AllReduce => 2.0 * (n - 1.0) / n,
            Self::ReduceScatter | Self::AllGather | Self::AllToAll => (n - 1.0) / n,
            Self::Gather | Self::Scatter => (n - 1.0) / n,
            Self::Broadcast | Self::Reduce | Self::SendRecv => 1.0,
            Self::Barrier => 0.0,
        }
    }

    /// Whether every member must have arrived before any member can leave. Only for these does
    /// `wait = duration - min duration` hold.
    pub const fn synchronises(self) -> bool {
        matches!(
            self,
            Self::AllReduce
                | Self::ReduceScatter
                | Self::AllGather
                | Self::AllToAll
                | Self::Barrier
                | Self::SendRecv
        )
    }

    /// The name in records and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllReduce => "all_reduce",
            Self::ReduceScatter => "reduce_scatter",
            Self::AllGather => "all_gather",
            Self::Broadcast => "broadcast",
            Self::Reduce => "reduce",
            Self::AllToAll => "all_to_all",
            Self::Gather => "gather",
            Self::Scatter => "scatter",
            Self::SendRecv => "send_recv",
            Self::Barrier => "barrier",
        }
    }
}

/// How a reducing collective combines elements.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ReduceOp {
    /// Sum of all ranks' elements.
    Sum,
    /// Smallest element.
    Min,
    /// Largest element.
    Max,
    /// Sum divided by the number of ranks; for integers truncated toward zero, as NCCL does.
    Avg,
}

impl ReduceOp {
    /// Every reduction.
    pub const ALL: [Self; 4] = [Self::Sum, Self::Min, Self::Max, Self::Avg];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_factors_are_those_of_nccl_tests() {
        let check = |c: Collective, n: u32, want: f64| {
            assert!((c.bus_factor(n) - want).abs() < 1e-12, "{c:?} over {n}");
        };
        check(Collective::AllReduce, 8, 1.75);
        check(Collective::AllReduce, 1, 0.0);
        check(Collective::AllGather, 8, 0.875);
        check(Collective::ReduceScatter, 4, 0.75);
        check(Collective::AllToAll, 2, 0.5);
        check(Collective::Broadcast, 5, 1.0);
    }
}
