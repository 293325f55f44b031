//! What can go wrong with a record, each with the file that it happened to.

use crate::version::SchemaVersion;
use laggard_types::Rank;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A record that cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The path is no record directory.
    #[error(
        "{} is not a run record: {why}\nhint: give the directory that `laggard run`, \
         `laggard import` or `laggard simulate` wrote",
        path.display()
    )]
    NotARecord {
        /// What was given.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// A record is there already, and records are never overwritten.
    #[error(
        "{} already holds a run record\nhint: choose another directory, or move that one away",
        path.display()
    )]
    AlreadyARecord {
        /// The directory.
        path: PathBuf,
    },
    /// The directory to write to holds something else.
    #[error(
        "{} is not empty and is not a run record (it holds `{holds}`)\nhint: choose a new or an \
         empty directory",
        path.display()
    )]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// One of its entries.
        holds: String,
    },
    /// The directory holds the record of another run than the one that a part is of.
    #[error(
        "{} holds the record of another run\nhint: move that record away, or give a scratch \
         directory on this host",
        path.display()
    )]
    OtherRun {
        /// The directory.
        path: PathBuf,
    },
    /// A part that no host writes.
    #[error("there is no part {part} to join in a record of {hosts} hosts; part 0 is the root's")]
    NoSuchPart {
        /// The part.
        part: u32,
        /// How many hosts there are.
        hosts: usize,
    },
    /// A file that is not one of a part's.
    #[error("`{name}` is no file of part {part} of a record")]
    NotOfPart {
        /// The part.
        part: u32,
        /// The name.
        name: String,
    },
    /// Rows from another process cannot be understood.
    #[error("rows{} cannot be understood at byte {byte}: {why}", of_rank(*rank))]
    BrokenRows {
        /// Their rank, where that is known.
        rank: Option<Rank>,
        /// Where it shows.
        byte: usize,
        /// What is wrong.
        why: String,
    },
    /// Rows could not be passed on to the host's writer.
    #[error("cannot pass rows to the host's record writer: {why}")]
    NotForwarded {
        /// Why.
        why: String,
    },
    /// A JSON file of the record cannot be understood.
    #[error(
        "cannot read {} at line {line}, column {column}: {why}\nhint: the file is cut off or was \
         edited; restore it from a copy",
        path.display()
    )]
    BrokenJson {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1; 0 where the file ends too early.
        column: usize,
        /// What was expected there.
        why: String,
    },
    /// The record is newer than this laggard.
    #[error(
        "{} has record version {}, but this laggard reads versions up to {}\nhint: upgrade laggard",
        path.display(), found.0, supported.0
    )]
    FutureVersion {
        /// The manifest.
        path: PathBuf,
        /// The record's version.
        found: SchemaVersion,
        /// The latest version that this laggard reads.
        supported: SchemaVersion,
    },
    /// A field of the manifest has a value that cannot be.
    #[error("{}: field `{field}` {why}", path.display())]
    InvalidField {
        /// The manifest.
        path: PathBuf,
        /// The field, such as `classes[0].peak.flop_per_s`.
        field: String,
        /// What is wrong.
        why: String,
    },
    /// A table segment cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    BrokenSegment {
        /// The segment.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A table segment lacks a column, or has it with another type.
    #[error("{}: column `{column}` {why}", path.display())]
    WrongColumn {
        /// The segment.
        path: PathBuf,
        /// The column.
        column: String,
        /// `is missing`, or which type it has.
        why: String,
    },
    /// There are segments, but none of them can be read.
    #[error(
        "none of the {segments} segments under {} can be read; the first: {first}",
        path.display()
    )]
    NothingReadable {
        /// The table's directory.
        path: PathBuf,
        /// How many segments there are.
        segments: usize,
        /// Why the first cannot be read.
        first: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {why}{}", path.display(), hint_of(*kind))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Kind of the failure.
        kind: io::ErrorKind,
        /// The operating system's words.
        why: String,
    },
    /// The writer thread did not answer in time.
    #[error(
        "the record writer did not finish to {action} {} within {seconds} s\nhint: the file \
         system hangs or is overloaded; write the record to a local disk",
        path.display()
    )]
    Deadline {
        /// What was asked of it.
        action: &'static str,
        /// The record.
        path: PathBuf,
        /// The time limit.
        seconds: u64,
    },
    /// The writer's thread has ended.
    #[error("the writer of record {} has stopped", path.display())]
    WriterGone {
        /// The record.
        path: PathBuf,
    },
    /// A recorder was asked for a rank that the manifest does not have.
    #[error("there is no rank {rank} in a record of {ranks} ranks")]
    NoSuchRank {
        /// The rank.
        rank: Rank,
        /// How many ranks there are.
        ranks: usize,
    },
}

impl RecordError {
    pub(crate) fn io(action: &'static str, path: &Path, error: &io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            kind: error.kind(),
            why: error.to_string(),
        }
    }

    pub(crate) fn json(path: &Path, error: &serde_json::Error) -> Self {
        Self::BrokenJson {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
            why: error.to_string(),
        }
    }

    pub(crate) fn segment(path: &Path, why: impl ToString) -> Self {
        Self::BrokenSegment {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }
}

fn of_rank(rank: Option<Rank>) -> String {
    rank.map_or_else(String::new, |rank| format!(" of rank {rank}"))
}

/// The line that helps with a failure of the operating system.
fn hint_of(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "\nhint: free some space or write to another disk; what was written before is readable"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "\nhint: choose a directory that you may write to"
        }
        io::ErrorKind::NotFound => "\nhint: was the directory removed?",
        io::ErrorKind::NotADirectory => "\nhint: a part of the path is a file",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_system_carry_a_hint() {
        let check = |code: i32, expect: &str| {
            let system = io::Error::from_raw_os_error(code);
            let message = RecordError::io("write", Path::new("/r/x"), &system).to_string();
            assert!(message.starts_with("cannot write /r/x: "), "{message}");
            assert!(message.contains(expect), "{message}");
        };
        check(28, "hint: free some space");
        check(122, "hint: free some space");
        check(13, "hint: choose a directory that you may write to");
        check(2, "hint: was the directory removed?");
        check(20, "hint: a part of the path is a file");
    }
}
