//! Every sample of a benchmark: what collectives, kernels and pairs of ranks took, call by call and
//! rank by rank. Times of collectives are on the common clock. Knows nothing of what follows from
//! them.

use crate::manifest::{Communication, Peak};
use laggard_types::{Caveat, Collective, DataType, Rank, ReduceOp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};

/// What was measured on the ranks of one world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BenchSamples {
    /// Version of this form.
    pub schema_version: u32,
    /// What carries the collectives.
    pub communication: Communication,
    /// The ranks, in order.
    pub ranks: Vec<BenchRank>,
    /// Collectives, in the order in which they were measured.
    pub collectives: Vec<CollectiveSamples>,
    /// Kernels, likewise.
    pub compute: Vec<ComputeSamples>,
    /// Pairs of ranks, likewise.
    pub pairs: Vec<PairSamples>,
    /// Doubts that the measurement itself has.
    pub caveats: Vec<Caveat>,
}

/// One rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BenchRank {
    /// Name of its host.
    pub host: String,
    /// Product name of what it computes on.
    pub device: String,
    /// Arithmetic peak of the device in the type of the products; `None` where nobody knows.
    pub peak: Option<Peak>,
    /// Its clock is known on the common one to this many nanoseconds, either way; on accelerators
    /// with the error of the device's own clock on its host's.
    pub clock_bound_ns: i64,
}

/// Whether results replace what they are made of, as nccl-tests has it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// They go to memory of their own.
    OutOfPlace,
    /// They go to where the contribution is.
    InPlace,
}

impl Placement {
    /// The word in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutOfPlace => "out",
            Self::InPlace => "in",
        }
    }
}

/// Calls of one collective at one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectiveSamples {
    /// Which.
    pub collective: Collective,
    /// Its reduction, if it has one.
    pub op: Option<ReduceOp>,
    /// Where results go.
    pub placement: Placement,
    /// Type of the elements.
    pub data_type: DataType,
    /// Bytes as nccl-tests counts them: the vector of an all-reduce, the whole input of a
    /// reduce-scatter, the whole output of an all-gather, what one rank sends in an all-to-all, the
    /// message otherwise.
    pub bytes: u64,
    /// Arrival and completion of each call that came after a barrier, `[rank][call]`, nanoseconds
    /// on the common clock.
    pub calls: Vec<Vec<[i64; 2]>>,
    /// Nanoseconds per call of calls that followed each other without a barrier, by rank: what
    /// nccl-tests prints.
    pub back_to_back_ns: Vec<f64>,
    /// Elements of the result that were wrong, by rank.
    pub wrong: Vec<u64>,
}

/// What a kernel works on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ComputeWork {
    /// A product of an `m` x `k` matrix and a `k` x `n` one.
    Product {
        /// Rows of the result.
        m: u64,
        /// Columns of the result.
        n: u64,
        /// What is summed over.
        k: u64,
    },
    /// `to = a + scale * b`.
    Triad {
        /// Bytes read and written, all three vectors together.
        bytes: u64,
    },
}

/// Times of one kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComputeSamples {
    /// What it is for.
    pub name: String,
    /// Its work.
    pub work: ComputeWork,
    /// Type of the elements.
    pub data_type: DataType,
    /// Seconds of one execution, `[rank][round]`; all ranks work at the same time.
    pub seconds: Vec<Vec<f64>>,
}

/// Messages from one rank to another, nobody else using the network of their machines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PairSamples {
    /// Sender.
    pub from: Rank,
    /// Receiver.
    pub to: Rank,
    /// Bytes of a message.
    pub bytes: u64,
    /// Seconds from when both were ready to when both were done.
    pub seconds: Vec<f64>,
}

impl BenchSamples {
    /// Version of this form.
    pub const VERSION: u32 = 1;

    /// Reads samples back.
    ///
    /// # Errors
    /// Text that is no such samples, or is of another version.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let samples: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match samples.schema_version == Self::VERSION {
            true => Ok(samples),
            false => Err(format!(
                "it is of version {}, and this laggard reads {}",
                samples.schema_version,
                Self::VERSION
            )),
        }
    }

    /// As JSON, without spaces: there may be many samples.
    ///
    /// # Errors
    /// What writing fails with.
    pub fn write_json(&self, to: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *to, self)?;
        writeln!(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_read_back_and_other_versions_do_not() {
        let samples = BenchSamples {
            schema_version: BenchSamples::VERSION,
            communication: Communication {
                backend: "threads".to_owned(),
                progress: String::new(),
            },
            ranks: Vec::new(),
            collectives: vec![CollectiveSamples {
                collective: Collective::AllReduce,
                op: Some(ReduceOp::Sum),
                placement: Placement::InPlace,
                data_type: DataType::F32,
                bytes: 8,
                calls: vec![vec![[1, 5]], vec![[2, 6]]],
                back_to_back_ns: vec![4.0, 4.5],
                wrong: vec![0, 0],
            }],
            compute: vec![ComputeSamples {
                name: "triad".to_owned(),
                work: ComputeWork::Triad { bytes: 24 },
                data_type: DataType::F32,
                seconds: vec![vec![1e-6]],
            }],
            pairs: Vec::new(),
            caveats: Vec::new(),
        };
        let written = |samples: &BenchSamples| {
            let mut text = Vec::new();
            samples.write_json(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert_eq!(
            BenchSamples::from_json(&written(&samples)),
            Ok(samples.clone())
        );
        let newer = BenchSamples {
            schema_version: 9,
            ..samples
        };
        let words = BenchSamples::from_json(&written(&newer)).unwrap_err();
        assert!(words.contains("version 9"), "{words}");
        assert!(BenchSamples::from_json("{}").is_err());
    }
}
