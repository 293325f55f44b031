//! Traces that other tools made, as run records. Knows their formats; analyses nothing.

mod bytedance;
mod error;
mod parquet_table;

pub use error::ImportError;

use laggard_record::{
    Closing, ClosingStatus, Manifest, Sample, StepWork, TableRows, Telemetry, write_record,
};
use parquet_table::ParquetTable;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What [`import`] understands, for messages.
pub const SUPPORTED_FORMATS: &[&str] =
    &["ByteDance what-if trace (Parquet with columns dp_rank, stage, step, optype, start_ts, ...)"];

/// A trace, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// What ran, as far as the trace tells.
    pub manifest: Manifest,
    /// Every operation of every rank and step, step by step.
    pub samples: Vec<Sample>,
    /// Number of steps.
    pub steps: u32,
}

/// Reads a trace of ByteDance's what-if analysis, with the `meta-*.yaml` beside it if there is one.
/// A worker of the trace, one cell of data-parallel replica and pipeline stage, becomes a rank:
/// `rank = dp_rank * stages + stage`. Steps are numbered anew, from 0 and without gaps.
/// Source of the format: ByteDance-Seed/StragglerAnalysis, commit 8efcd7f.
///
/// # Errors
/// If the file is no such trace, a row is impossible, or workers and steps do not fit together.
pub fn bytedance(path: &Path) -> Result<Imported, ImportError> {
    bytedance::import(path, &ParquetTable::open(path)?)
}

/// Finds out which tool made the trace at `path`, and reads it.
///
/// # Errors
/// If the format is not known, or as the format's own function.
pub fn read_trace(path: &Path) -> Result<Imported, ImportError> {
    let mut magic = [0; 4];
    let mut file = File::open(path).map_err(|error| ImportError::io(path, &error))?;
    if file.read_exact(&mut magic).is_err() || &magic != b"PAR1" {
        let found = "it is no Parquet file".to_owned();
        return Err(ImportError::UnknownFormat {
            path: path.to_owned(),
            found,
        });
    }
    let table = ParquetTable::open(path)?;
    if table.has("optype") && table.has("start_ts") {
        return bytedance::import(path, &table);
    }
    let found = format!(
        "a Parquet file with columns {}",
        table.column_names().join(", ")
    );
    Err(ImportError::UnknownFormat {
        path: path.to_owned(),
        found,
    })
}

/// Reads the trace at `path`, whichever of the supported formats it has, and writes it as a record
/// to the directory `out`, with `command_line` in its manifest.
///
/// # Errors
/// As [`read_trace`], and if the record cannot be written.
pub fn import(path: &Path, out: &Path, command_line: &[String]) -> Result<Closing, ImportError> {
    let Imported {
        mut manifest,
        samples,
        steps,
    } = read_trace(path)?;
    manifest.command_line = command_line.to_vec();
    let rows = TableRows {
        samples,
        steps: Vec::<StepWork>::new(),
        telemetry: Vec::<Telemetry>::new(),
    };
    let closing = Closing {
        status: ClosingStatus::Finished,
        steps_completed: steps,
        samples: 0,
        steps: 0,
        telemetry: 0,
        writer_lags: 0,
        parts: Vec::new(),
    };
    Ok(write_record(out, &manifest, rows, closing)?)
}
