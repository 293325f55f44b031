//! How a job is laid out over ranks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A parallel layout. Data parallel so far: `data_parallel` replicas, each with its own number of
/// micro-batches a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Number of replicas.
    pub data_parallel: u32,
    /// Micro-batches per step of each replica; uneven shares are allowed, zero is not.
    pub micro_batches: Vec<u32>,
    /// Gradients are reduced in buckets of at least this many bytes, except the last.
    pub bucket_bytes: u64,
    /// Whether a bucket is reduced while backward goes on (`true`), or all of them after it.
    pub overlap: bool,
}

/// A layout that cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The text form is not understood.
    #[error("cannot read layout `{text}`: {why}")]
    Unreadable {
        /// What was given.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// The product of the degrees is not the world size.
    #[error(
        "layout `{layout}` needs {needed} ranks, but there are {ranks}\nhint: give `--ranks \
         {needed}` or `--layout dp{ranks}`"
    )]
    WrongWorldSize {
        /// The layout, in text form.
        layout: String,
        /// Ranks that it needs.
        needed: u32,
        /// Ranks that there are.
        ranks: u32,
    },
    /// Shares of micro-batches do not fit the replicas.
    #[error(
        "{given} micro-batch shares for {replicas} data-parallel replicas\nhint: give \
         `--micro-batches` one number, or one for each replica"
    )]
    WrongShares {
        /// How many shares were given.
        given: usize,
        /// How many replicas there are.
        replicas: u32,
    },
    /// A replica without work would not take part in the step.
    #[error(
        "data-parallel replica {replica} has no micro-batch\nhint: give every replica at least one \
         with `--micro-batches`"
    )]
    EmptyShare {
        /// The replica.
        replica: u32,
    },
}

impl Layout {
    /// An even data-parallel layout.
    pub fn data_parallel(replicas: u32, micro_batches: u32) -> Self {
        Self {
            data_parallel: replicas,
            micro_batches: vec![micro_batches; replicas as usize],
            bucket_bytes: Self::DEFAULT_BUCKET_BYTES,
            overlap: true,
        }
    }

    /// PyTorch DDP's default bucket, 25 MiB, is larger than the gradients of a demonstration model;
    /// 1 MiB is the size of its first bucket.
    /// Source: pytorch torch/nn/parallel/distributed.py, `bucket_cap_mb` and
    /// `_DEFAULT_FIRST_BUCKET_BYTES`.
    pub const DEFAULT_BUCKET_BYTES: u64 = 1 << 20;

    /// Reads `dp4` or `dp=4`.
    ///
    /// # Errors
    /// For any other degree, which this version cannot execute, and for zero replicas.
    pub fn parse_degrees(text: &str) -> Result<u32, LayoutError> {
        let fail = |why: &str| LayoutError::Unreadable {
            text: text.to_owned(),
            why: why.to_owned(),
        };
        let mut replicas = None;
        for part in text
            .split([',', '-', 'x'])
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let digits = part
                .find(|c: char| c.is_ascii_digit())
                .ok_or_else(|| fail("expected a degree such as `dp4`"))?;
            let (name, value) = part.split_at(digits);
            let value: u32 = value
                .parse()
                .map_err(|_| fail("the degree is not a whole number"))?;
            match name.trim_end_matches('=') {
                "dp" if value > 0 && replicas.is_none() => replicas = Some(value),
                "dp" => return Err(fail("expected one positive data-parallel degree")),
                "tp" | "pp" | "cp" | "ep" if value == 1 => {}
                "tp" | "pp" | "cp" | "ep" => {
                    return Err(fail("only data parallel (`dpN`) can be executed"));
                }
                _ => return Err(fail("unknown degree; known: dp, tp, pp, cp, ep")),
            }
        }
        replicas.ok_or_else(|| fail("no data-parallel degree"))
    }

    /// Checks that the layout can be executed by `ranks` ranks.
    ///
    /// # Errors
    /// If degrees and ranks do not match, or shares do not fit.
    pub fn check(&self, ranks: u32) -> Result<(), LayoutError> {
        if self.data_parallel != ranks {
            return Err(LayoutError::WrongWorldSize {
                layout: format!("dp{}", self.data_parallel),
                needed: self.data_parallel,
                ranks,
            });
        }
        if self.micro_batches.len() != self.data_parallel as usize {
            return Err(LayoutError::WrongShares {
                given: self.micro_batches.len(),
                replicas: self.data_parallel,
            });
        }
        match self.micro_batches.iter().position(|&share| share == 0) {
            Some(replica) => Err(LayoutError::EmptyShare {
                replica: replica as u32,
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_read_or_say_why_not() {
        assert_eq!(Layout::parse_degrees("dp4"), Ok(4));
        assert_eq!(Layout::parse_degrees("dp=2,tp1"), Ok(2));
        for bad in ["", "dp0", "tp2", "dp2xtp2", "dpx", "zz3", "4", "dp2,dp2"] {
            assert!(Layout::parse_degrees(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn impossible_layouts_are_refused() {
        assert!(Layout::data_parallel(2, 1).check(2).is_ok());
        assert!(Layout::data_parallel(2, 1).check(3).is_err());
        assert!(Layout::data_parallel(2, 0).check(2).is_err());
        let shares = Layout {
            micro_batches: vec![1],
            ..Layout::data_parallel(2, 1)
        };
        assert!(shares.check(2).is_err());
    }
}
