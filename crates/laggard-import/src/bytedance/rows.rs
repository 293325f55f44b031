//! The rows of a ByteDance trace, each checked by itself.

use crate::error::ImportError;
use crate::parquet_table::ParquetTable;
use std::path::Path;

/// What an operation of the trace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OpType {
    BackwardCompute,
    BackwardReceive,
    BackwardSend,
    EmbeddingAllReduce,
    ForwardCompute,
    ForwardReceive,
    ForwardSend,
    GarbageCollection,
    GradsReduceScatter,
    LayernormAllReduce,
    Optimizer,
    ClipMainGrad,
    ParamsAllGather,
    SeparateAllReduce,
}

impl OpType {
    /// The names of the trace, in alphabetical order, which is that of the enum: rows of equal time
    /// are sorted by it.
    const NAMES: [(&'static str, Self); 14] = [
        ("backward-compute", Self::BackwardCompute),
        ("backward-recv", Self::BackwardReceive),
        ("backward-send", Self::BackwardSend),
        ("embedding-grads-all-reduce", Self::EmbeddingAllReduce),
        ("forward-compute", Self::ForwardCompute),
        ("forward-recv", Self::ForwardReceive),
        ("forward-send", Self::ForwardSend),
        ("gc", Self::GarbageCollection),
        ("grads-reduce-scatter", Self::GradsReduceScatter),
        ("layernorm-grads-all-reduce", Self::LayernormAllReduce),
        ("optimizer", Self::Optimizer),
        ("optimizer-clip-main-grad", Self::ClipMainGrad),
        ("params-all-gather", Self::ParamsAllGather),
        ("separate-grads-all-reduce", Self::SeparateAllReduce),
    ];

    fn parse(name: &[u8]) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(text, _)| text.as_bytes() == name)
            .map(|(_, kind)| *kind)
    }

    /// The trace's name.
    pub(super) fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }
}

/// One execution of one operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    /// Position in the file.
    pub(super) row: usize,
    pub(super) dp_rank: u32,
    pub(super) stage: u32,
    pub(super) trace_rank: i64,
    pub(super) step: i64,
    pub(super) kind: OpType,
    /// Number among the operations of its type, worker and step.
    pub(super) sequence: u32,
    /// Seconds from the begin of the step.
    pub(super) start_s: f64,
    pub(super) duration_s: f64,
    /// Model chunk of the stage.
    pub(super) chunk: Option<u32>,
    /// Micro-batch.
    pub(super) micro_batch: Option<u32>,
    /// Model chunk of the whole model.
    pub(super) global_chunk: Option<u32>,
}

impl Row {
    /// End, seconds from the begin of the step.
    pub(super) fn end_s(&self) -> f64 {
        self.start_s + self.duration_s
    }
}

/// Reads all rows of a trace.
pub(super) fn read_rows(path: &Path, table: &ParquetTable) -> Result<Vec<Row>, ImportError> {
    let [dp_rank, stage, trace_rank, step] = ["dp_rank", "stage", "rank", "step"];
    let (dp_rank, stage) = (table.integers(dp_rank)?, table.integers(stage)?);
    let (trace_rank, step) = (table.integers(trace_rank)?, table.integers(step)?);
    let kind = table.texts("optype")?;
    let (start_s, duration_s) = (table.reals("start_ts")?, table.reals("duration")?);
    let sequence = table.integers("seq_id")?;
    let [chunk, micro_batch, global_chunk] =
        ["mc", "mb_id", "gmc"].map(|name| table.integers(name));
    let (chunk, micro_batch, global_chunk) = (chunk?, micro_batch?, global_chunk?);
    let integers = [
        &dp_rank,
        &stage,
        &trace_rank,
        &step,
        &sequence,
        &chunk,
        &micro_batch,
    ];
    let lengths = integers.iter().map(|column| column.len());
    let lengths = lengths.chain([global_chunk.len(), start_s.len(), duration_s.len()]);
    if lengths.into_iter().any(|length| length != kind.len()) {
        let why = "the columns differ in length: the file is damaged".to_owned();
        return Err(ImportError::BrokenParquet {
            path: path.to_owned(),
            why,
        });
    }
    if kind.is_empty() {
        return Err(ImportError::Empty {
            path: path.to_owned(),
        });
    }
    let read = |row: usize| {
        let bad = |why: String| ImportError::BadRow {
            path: path.to_owned(),
            row,
            why,
        };
        let index = |name: &str, value: i64| {
            let fits = u32::try_from(value)
                .ok()
                .filter(|index| *index <= MOST_WORKERS);
            fits.ok_or_else(|| bad(format!("`{name}` is {value}")))
        };
        // The trace writes -1 where an operation has no such number.
        let optional = |name: &str, value: i64| {
            if value == -1 {
                Ok(None)
            } else {
                index(name, value).map(Some)
            }
        };
        let name = kind[row].data();
        let unknown = || format!("unknown operation `{}`", String::from_utf8_lossy(name));
        Ok(Row {
            row,
            dp_rank: index("dp_rank", dp_rank[row])?,
            stage: index("stage", stage[row])?,
            trace_rank: trace_rank[row],
            step: step[row],
            kind: OpType::parse(name).ok_or_else(|| bad(unknown()))?,
            sequence: index("seq_id", sequence[row])?,
            start_s: time("start_ts", start_s[row]).map_err(bad)?,
            duration_s: time("duration", duration_s[row]).map_err(bad)?,
            chunk: optional("mc", chunk[row])?,
            micro_batch: optional("mb_id", micro_batch[row])?,
            global_chunk: optional("gmc", global_chunk[row])?,
        })
    };
    (0..kind.len()).map(read).collect()
}

/// Beyond this, an index is taken for damage.
const MOST_WORKERS: u32 = 1 << 24;
/// Beyond this, a time within a step is taken for damage: a day, in seconds.
const LONGEST_STEP_S: f64 = 86_400.0;

fn time(name: &str, seconds: f64) -> Result<f64, String> {
    if (0.0..LONGEST_STEP_S).contains(&seconds) {
        return Ok(seconds);
    }
    Err(format!("`{name}` is {seconds} s, not between 0 and a day"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_where_the_enum_says() {
        for (index, (name, kind)) in OpType::NAMES.iter().enumerate() {
            assert_eq!(*kind as usize, index);
            assert_eq!(kind.name(), *name);
        }
        assert!(OpType::NAMES.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn times_that_cannot_be_are_refused() {
        assert_eq!(time("duration", 0.0), Ok(0.0));
        for bad in [f64::NAN, f64::INFINITY, -1e-9, 1e9] {
            assert!(time("duration", bad).is_err_and(|why| why.starts_with("`duration` is")));
        }
    }
}
