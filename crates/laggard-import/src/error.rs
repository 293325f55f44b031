//! Why a trace cannot be imported, down to the row.

use crate::SUPPORTED_FORMATS;
use laggard_record::RecordError;
use laggard_schedule::ReplayError;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A trace that cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file is of no known format.
    #[error(
        "cannot tell which tool made {}: {found}\nhint: supported are: {}",
        path.display(),
        SUPPORTED_FORMATS.join("; ")
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// The operating system refused.
    #[error("cannot read {}: {why}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        why: String,
    },
    /// A Parquet file that is damaged.
    #[error("cannot read {} as Parquet: {why}", path.display())]
    BrokenParquet {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A column is missing or has a type that it cannot have.
    #[error("{}: column `{column}` {why}", path.display())]
    WrongColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What is wrong.
        why: String,
    },
    /// The trace has no rows.
    #[error("{} holds no operations", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A row that cannot be.
    #[error("{}, row {row}: {why}", path.display())]
    BadRow {
        /// The file.
        path: PathBuf,
        /// The row, from 0.
        row: usize,
        /// What is wrong.
        why: String,
    },
    /// A line of the meta file that cannot be.
    #[error("{}, line {line}: {why}", path.display())]
    BadMeta {
        /// The meta file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// Workers or steps do not fit together.
    #[error("{}: {why}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// The operations of the trace wait for each other in a way that cannot be.
    #[error("{}: the order of operations cannot be replayed: {why}", path.display())]
    Unplayable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: ReplayError,
    },
    /// The record cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl ImportError {
    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            why: error.to_string(),
        }
    }
}
